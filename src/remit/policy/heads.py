"""Heads of rules whose value could be absent for one of several ways in which the body holds.

Where a body holds in several ways (`some`, a variable in brackets), OPA leaves out those for which
the head has no value. The embedded engine leaves out all of them, without a word: a set of denials
would be empty because of one element of a caller's list. So a head holds only what has a value
once the body holds; anything else is bound in the body, where both engines agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.policy.finding import Finding
from remit.policy.syntax import Module, Node, dotted

TOTAL = frozenset({"concat", "format_int", "json.marshal", "object.get", "sprintf"})
"""Builtins that have a value, or fail loudly, whatever they are given."""

_COMPREHENSIONS = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})
_OPERATIONS = frozenset({"ArithExpr", "BinExpr", "BoolExpr", "UnaryExpr", "Membership"})


def about_heads(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """Each head that may have no value although its body holds."""
    if module.is_test:
        return
    known = _known(module, modules)
    for name, rule in module.rules():
        (kind,) = rule["head"].keys()
        parts = [*_parts(rule["head"][kind]), *_otherwise(rule["bodies"])]
        if kind == "Func" or not (_iterates(rule["bodies"], known) or _iterates(parts, known)):
            continue
        for part in parts:
            found = _unsettled(part, known)
            if found is not None:
                yield Finding(
                    module.at(found),
                    f"the head of `{name.partition('.')[0]}` may have no value for one of the ways "
                    "its body holds, and then the embedded engine loses the others too",
                    "give it a name in the body (`value := …`) and put the name into the head",
                )
                break


def _known(module: Module, modules: Sequence[Module]) -> frozenset[str]:
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
    if not isinstance(node, Mapping) or node.keys() & _COMPREHENSIONS or "Every" in node:
        return False
    if "SomeIn" in node or "SomeVars" in node:
        return True
    if "RefBrack" in node and _local(node["RefBrack"]["index"], known):
        return True
    if "Call" in node and dotted(node["Call"]["fcn"]) == "walk":
        return True
    return any(_iterates(value, known) for value in node.values())


def _unsettled(node: Any, known: frozenset[str]) -> Node | None:
    """The first expression below that depends on the body's own names and may have no value."""
    if isinstance(node, list):
        return next((found for item in node if (found := _unsettled(item, known))), None)
    if not isinstance(node, Mapping) or "Var" in node:
        return None
    if node.keys() & _COMPREHENSIONS:
        return None
    if node.keys() & {"RefDot", "RefBrack"} or node.keys() & _OPERATIONS:
        return node if _local(node, known) else None
    call = node.get("Call")
    if call is not None and dotted(call["fcn"]) not in TOTAL:
        return node if _local(call["params"], known) else None
    inner = call["params"] if call is not None else list(node.values())
    return _unsettled(inner, known)


def _local(node: Any, known: frozenset[str]) -> bool:
    """Whether a name stands in it that the body binds, or `_`."""
    if isinstance(node, list):
        return any(_local(item, known) for item in node)
    if not isinstance(node, Mapping):
        return False
    if "Var" in node:
        return node["Var"]["value"] not in known
    return any(_local(value, known) for value in node.values())
