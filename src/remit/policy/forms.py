"""Forms of Rego that the profile refuses although the embedded engine reads them.

Each means something else in OPA, or belongs in tests only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.policy.finding import Finding
from remit.policy.graph import declared
from remit.policy.syntax import Module, Node, dotted

KEYWORDS = frozenset({
    "as", "contains", "default", "else", "every", "false", "if", "import", "in", "not", "null",
    "package", "some", "true", "with",
})  # fmt: skip

_BRACES = re.compile(r"not\s*\{")

MOST = 2**64
"""From here on the embedded engine keeps only the first digits of a whole number."""


def about_forms(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """What is written in a way that the two engines read differently."""
    for node in module.nodes():
        if node.get("with_mods") and not module.is_test:
            yield Finding(
                module.at(node["with_mods"][0]),
                "`with` stands outside a test",
                "keep `with` to files named *_test.rego",
            )
        negated = node.get("NotExpr")
        if isinstance(negated, Mapping) and _BRACES.match(module.text_of(negated["span"])):
            yield Finding(
                module.at(node),
                "`not` stands before braces: OPA negates what is in them, the embedded engine "
                "the set they would be",
                "write a rule of its own for what is in the braces, and `not` before its name",
            )
        if "RefDot" in node and node["RefDot"]["field"][1] in KEYWORDS:
            yield Finding(
                f"{module.name}:{node['RefDot']['field'][0]['line']}",
                f"the keyword {node['RefDot']['field'][1]} stands as a field",
                "write it in brackets, as a text: the capabilities of the profile leave this out",
            )
        if "UnaryExpr" in node:
            yield from _about_minus(module, node["UnaryExpr"])
        number = node.get("Number", {}).get("value", 0)
        if isinstance(number, int | float) and abs(number) >= MOST:
            yield Finding(
                module.at(node),
                "the engines write a number of 2^64 and more differently",
                "count in a larger unit, or write it as a text",
            )
    yield from _about_membership(module)
    yield from _about_walk(module)
    yield from _about_steps(module)
    yield from _about_functions(module, modules)


def _about_membership(module: Module) -> Iterator[Finding]:
    """`in` where the embedded engine has a value although what it compares is absent."""
    conditions = {
        id(inner)
        for node in module.nodes()
        for kind in ("Expr", "NotExpr")
        if (inner := node.get(kind, {}).get("expr", {}).get("Membership"))
    }
    for node in module.nodes():
        found = node.get("Membership")
        if isinstance(found, Mapping) and found["key"]:
            yield Finding(
                module.at(node),
                "`key, value in …` holds in the embedded engine where both are absent",
                "write `collection[key] == value`",
            )
        elif isinstance(found, Mapping) and id(found) not in conditions:
            yield Finding(
                module.at(node),
                "`in` stands within something else: where a side is absent, it is false to the "
                "embedded engine and undefined to OPA",
                "write it as a condition of its own, or as a rule with a name",
            )


def _about_walk(module: Module) -> Iterator[Finding]:
    """`walk` gives the embedded engine all its pairs only as a condition with its output beside."""
    conditions = {
        id(node["Expr"]["expr"]["Call"])
        for node in module.nodes()
        if "Call" in node.get("Expr", {}).get("expr", {})
    }
    for call in module.calls():
        if dotted(call["fcn"]) == "walk" and (
            id(call) not in conditions or len(call["params"]) != 2
        ):
            yield Finding(
                module.at(call),
                "the embedded engine finds nothing, or one thing only, with `walk` written so",
                "write `walk(value, [path, found])` as a condition of its own",
            )


def _about_steps(module: Module) -> Iterator[Finding]:
    """A head with more behind a name in brackets: empty, it is undefined to the embedded engine."""
    for _, rule in module.rules():
        ((kind, head),) = rule["head"].items()
        steps = list(_steps(head["refr"]))
        last = len(steps) if kind == "Set" else len(steps) - 1
        if any(not plain for plain in steps[:last]):
            yield Finding(
                module.at(rule),
                "a head goes on behind what stands in brackets: where nothing holds, OPA has an "
                "empty object there, the embedded engine nothing",
                "write one step (`name[key] := value`), with a set or an object as its value",
            )


def _steps(reference: Node) -> Iterator[bool]:
    """Of each step of a reference from its name on, whether it is written out."""
    for key in ("RefDot", "RefBrack"):
        if key in reference:
            yield from _steps(reference[key]["refr"])
            yield key == "RefDot" or "String" in reference[key]["index"]


def _about_minus(module: Module, node: Node) -> Iterator[Finding]:
    if "Number" not in node["expr"]:
        yield Finding(
            module.at(node),
            "a minus stands before something that is not a number",
            "write `0 - value`",
        )


def _about_functions(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """A function that is named but not called: an error to OPA, undefined to the embedded engine."""
    functions = {name for other in modules for name in other.functions}
    values = {
        f"data.{other.package}.{name}"
        for other in modules
        for name, node in other.rules()
        if "Func" not in node["head"]
    }
    for rule in module.tree["rules"]:
        own = declared(module, rule)
        for reference in _uncalled(rule):
            name = dotted(reference)
            if name.split(".")[0] not in own and module.resolve(name) & (functions - values):
                yield Finding(
                    module.at(reference),
                    f"the function {name} is named without being called",
                    "give it its arguments in parentheses",
                )


def _uncalled(rule: Any) -> Iterator[Node]:
    """Every reference in a rule that is neither its head nor what a call calls."""
    todo: list[Any] = [rule]
    while todo:
        found = todo.pop()
        if isinstance(found, list):
            todo.extend(found)
        elif isinstance(found, Mapping):
            if "Var" in found or "RefDot" in found or "RefBrack" in found:
                yield found
            todo.extend(
                value for key, value in found.items() if key not in ("fcn", "refr") or "as" in found
            )
