"""Forms of Rego that the profile refuses although the embedded engine reads them.

Each means something else in OPA, or belongs in tests only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.policy.finding import Finding
from remit.policy.graph import declared
from remit.policy.syntax import Module, Node, dotted

KEYWORDS = frozenset({
    "as", "contains", "default", "else", "every", "false", "if", "import", "in", "not", "null",
    "package", "some", "true", "with",
})  # fmt: skip


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
        if isinstance(negated, Mapping) and negated["expr"].keys() & {"Set", "Object"}:
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
    yield from _about_functions(module, modules)


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
