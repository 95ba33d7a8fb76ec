"""Heads of rules whose value could be absent for one of several ways in which the body holds.

Where a body holds in several ways (`some`, a variable in brackets), OPA leaves out those for which
the head has no value. The embedded engine leaves out all of them, without a word: a set of denials
would be empty because of one element of a caller's list. So a head holds only what has a value
once the body holds; anything else is bound in the body, where both engines agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from remit.policy.finding import Finding
from remit.policy.graph import declared
from remit.policy.schemas import shipped
from remit.policy.syntax import Module, Node, default_of, dotted

TOTAL = frozenset({"concat", "format_int", "json.marshal", "object.get", "sprintf"})
"""Builtins that have a value, or fail loudly, whatever they are given."""

COMPREHENSIONS = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})
_OPERATIONS = frozenset({"ArithExpr", "BinExpr", "BoolExpr", "UnaryExpr", "Membership"})


def about_heads(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """Each head that may have no value although its body holds."""
    if module.is_test:
        return
    everywhere = known_names(module, modules)
    total = total_functions(module, modules, everywhere)
    for name, rule in module.rules():
        known = everywhere - declared(module, rule)
        (kind,) = rule["head"].keys()
        parts = [*_parts(rule["head"][kind]), *_otherwise(rule["bodies"])]
        if kind == "Func" or not (_iterates(rule["bodies"], known) or _iterates(parts, known)):
            continue
        tools = _tools(rule["bodies"])
        for part in parts:
            found = unsettled(part, known, total, tools)
            if found is not None:
                yield Finding(
                    module.at(found),
                    f"the head of `{name.partition('.')[0]}` may have no value for one of the ways "
                    "its body holds, and then the embedded engine loses the others too",
                    "give it a name in the body (`value := …`) and put the name into the head",
                )
                break


def known_names(module: Module, modules: Sequence[Module]) -> frozenset[str]:
    """Names that are the same for every way in which a body holds."""
    rules = {
        name.split(".")[0]
        for other in modules
        if other.package == module.package
        for name, _ in other.rules()
    }
    functions = {name.rpartition(".")[2] for other in modules for name in other.functions}
    return frozenset({"input", "data"} | rules | functions | set(module.aliases))


def _parts(head: Node) -> Iterator[Node]:
    """The expressions of a head: what stands in brackets, its key, its value."""
    reference = head["refr"]
    while "Var" not in reference:
        (inner,) = (value for key, value in reference.items() if key in ("RefDot", "RefBrack"))
        if "RefBrack" in reference:
            yield inner["index"]
        reference = inner["refr"]
    if head.get("key") is not None:
        yield head["key"]
    if head.get("assign"):
        yield head["assign"]["value"]


def _otherwise(bodies: Sequence[Node]) -> Iterator[Node]:
    """The values of `else`."""
    for body in bodies:
        if body.get("assign"):
            yield body["assign"]["value"]


def _iterates(node: Any, known: frozenset[str]) -> bool:
    """Whether a body, or a part of a head, can hold in more than one way."""
    if isinstance(node, list):
        return any(_iterates(item, known) for item in node)
    if not isinstance(node, Mapping) or node.keys() & COMPREHENSIONS or "Every" in node:
        return False
    if "SomeIn" in node or "SomeVars" in node:
        return True
    if "RefBrack" in node and _local(node["RefBrack"]["index"], known):
        return True
    if "Call" in node and dotted(node["Call"]["fcn"]) == "walk":
        return True
    return any(_iterates(value, known) for value in node.values())


def unsettled(
    node: Any, known: frozenset[str], total: frozenset[str], tools: frozenset[str] = frozenset()
) -> Node | None:
    """The first expression below that depends on the body's own names and may have no value."""
    if isinstance(node, list):
        found = (unsettled(item, known, total, tools) for item in node)
        return next((each for each in found if each), None)
    if not isinstance(node, Mapping) or "Var" in node or node.keys() & COMPREHENSIONS:
        return None
    if "RefDot" in node and _is_field_of_tool(node["RefDot"], tools):
        return None
    if node.keys() & {"RefDot", "RefBrack"} or node.keys() & _OPERATIONS:
        return node if _local(node, known) else None
    call = node.get("Call")
    if call is not None and dotted(call["fcn"]) not in TOTAL | total:
        return node if _local(call["params"], known) else None
    inner = call["params"] if call is not None else list(node.values())
    return unsettled(inner, known, total, tools)


def _tools(bodies: Sequence[Node]) -> frozenset[str]:
    """The names that a body gives to the elements of `input.tools`, all of which the gateway makes."""
    names: set[str] = set()
    for body in bodies:
        for statement in body["query"]["stmts"]:
            found = statement["literal"].get("SomeIn")
            if found and "Var" in found["value"] and dotted(found["collection"]) == "input.tools":
                names.add(str(found["value"]["Var"]["value"]))
    return frozenset(names)


def _is_field_of_tool(node: Node, tools: frozenset[str]) -> bool:
    tool = node["refr"].get("Var", {}).get("value")
    return tool in tools and node["field"][1] in _tool_fields()


@cache
def _tool_fields() -> frozenset[str]:
    """What every tool in a `remit.input/1` has."""
    return frozenset(shipped("remit.input-1")["$defs"]["tool"]["required"])


def total_functions(
    module: Module, modules: Sequence[Module], known: frozenset[str]
) -> frozenset[str]:
    """The functions of a module's package, by short name, that have a value for any arguments.

    One that a rule without conditions, a last `else` without conditions, or a `default` gives a
    value, where no other value of it may be absent.
    """
    own = [other for other in modules if other.package == module.package]
    rules: dict[str, list[Node]] = {}
    for other in own:
        for name, rule in other.rules():
            if "Func" in rule["head"]:
                rules.setdefault(name, []).append(rule)
    total = {name for other in own for name in rules if list(default_of(other, name))}
    total |= {name for name, found in rules.items() if any(map(_always_ends, found))}
    while True:
        settled = {
            name
            for name in total
            if not any(
                _unsettled_in(rule, known - declared(module, rule), total) for rule in rules[name]
            )
        }
        if settled == total:
            return frozenset(total)
        total = settled


def _always_ends(rule: Node) -> bool:
    """Whether any arguments get to a value: plain names, and an end without conditions."""
    if not all("Var" in argument for argument in rule["head"]["Func"]["args"]):
        return False
    bodies = rule["bodies"]
    return not bodies or (bodies[-1]["is_else"] and not bodies[-1]["query"]["stmts"])


def _unsettled_in(rule: Node, known: frozenset[str], total: set[str]) -> bool:
    parts = (*_parts(rule["head"]["Func"]), *_otherwise(rule["bodies"]))
    return any(unsettled(part, known, frozenset(total)) for part in parts)


def _local(node: Any, known: frozenset[str]) -> bool:
    """Whether a name stands in it that the body binds, or `_`."""
    if isinstance(node, list):
        return any(_local(item, known) for item in node)
    if not isinstance(node, Mapping):
        return False
    if "Var" in node:
        return node["Var"]["value"] not in known
    return any(_local(value, known) for value in node.values())
