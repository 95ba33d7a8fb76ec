"""Patterns that take values apart, where the embedded engine takes more than OPA does.

To OPA a pattern such as `{"role": role}` fits an object with exactly that field. To the embedded
engine it fits every object that has it, so that a rule would hold for more than it was written for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.policy.finding import Finding
from remit.policy.syntax import Module, Node, dotted


def about_patterns(module: Module) -> Iterator[Finding]:
    """Each pattern with an object in it, and each that names one thing twice."""
    for node in module.nodes():
        patterns = list(_patterns(node))
        for pattern in patterns:
            found = _object(pattern)
            if found is not None:
                yield Finding(
                    module.at(found),
                    "an object stands as a pattern: OPA takes only an object of these very fields, "
                    "the embedded engine one that has others too",
                    "give the whole a name and ask for each field (`x.role`), or compare with ==",
                )
        if "Func" in node or "SomeIn" in node:
            yield from _about_repeats(module, patterns)


def _patterns(node: Node) -> Iterator[Node]:
    """What a node takes values apart with."""
    match node:
        case {"AssignExpr": {"op": op, "lhs": left, "rhs": right}}:
            yield left
            if op == "Eq":
                yield right
        case {"SomeIn": {"key": key, "value": value}}:
            yield from (part for part in (key, value) if part)
        case {"Func": {"args": arguments}}:
            yield from arguments
        case {"Call": {"fcn": function, "params": [_, pattern]}} if dotted(function) == "walk":
            yield pattern


def _object(pattern: Node) -> Node | None:
    """The first object in a pattern, in arrays too."""
    if "Object" in pattern:
        return pattern
    items = pattern.get("Array", {}).get("items", ())
    return next(filter(None, map(_object, items)), None)


def _about_repeats(module: Module, patterns: Sequence[Node]) -> Iterator[Finding]:
    seen: set[str] = set()
    for node in _names(patterns):
        name = node["Var"]["value"]
        if name in seen:
            yield Finding(
                module.at(node),
                f"the name {name} stands twice: to OPA both must be equal, to the embedded engine "
                "the last one counts",
                "give each a name of its own, and compare them with ==",
            )
        seen |= {name} - {"_"}


def _names(patterns: Any) -> Iterator[Node]:
    for pattern in patterns:
        if isinstance(pattern, Mapping) and "Var" in pattern:
            yield pattern
        elif isinstance(pattern, Mapping):
            yield from _names(pattern.get("Array", {}).get("items", ()))
