"""Objects that are only ever made field by field (`limits.calls := 5 if …`), used as a whole.

Where no field has a value, OPA has an empty object, the embedded engine nothing: `count(limits)`
is 0 in the one and undefined in the other, and so is a denial that asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from remit.policy.finding import Finding
from remit.policy.graph import Path, declared, references, uses_of, written
from remit.policy.syntax import Module, Node


def about_wholes(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """Each use of such an object by its name alone."""
    wholes = _wholes(modules)
    if not wholes:
        return
    for rule in module.tree["rules"]:
        own = declared(module, rule)
        for reference in references(rule):
            path = written(reference)
            if not path or path[0] in own or len(path) != _length(reference):
                continue
            if wholes.intersection(uses_of(module, {}, reference)):
                name = ".".join(path)
                yield Finding(
                    module.at(reference),
                    f"{name} is made field by field, and used as a whole: where no field has a "
                    "value, OPA has an empty object, the embedded engine nothing",
                    f"name the fields where they are used, or write `{path[-1]}[name] := …`",
                )


def about_mixed(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """Each field that is written out (`limits.calls := …`) of what is also made by `limits[name] := …`.

    Where both give the field, and not the same value, OPA sees that they conflict; the embedded
    engine takes the one that is written out.
    """
    named = {base for other in modules for base, steps in _heads(other) if steps > len(base)}
    for node in [rule["Spec"] for rule in module.tree["rules"] if "Spec" in rule]:
        for base, steps in _heads(module, node):
            above = {base[:length] for length in range(len(base))}
            if steps == len(base) and named & above:
                yield Finding(
                    module.at(node),
                    "a field is written out here of what another rule makes under names that it "
                    "finds, and a conflict of the two would not be seen",
                    "make all of its fields in one of the two ways",
                )


def _heads(module: Module, only: Node | None = None) -> Iterator[tuple[Path, int]]:
    """What each rule makes: its full name as far as it is written out, and how many steps it has."""
    package = tuple(module.package.split("."))
    for rule in module.tree["rules"]:
        node = rule.get("Spec")
        if node is None or (only is not None and node is not only):
            continue
        kind, head = next(iter(node["head"].items()))
        if kind != "Func":
            yield (*package, *written(head["refr"])), len(package) + _length(head["refr"])


def _wholes(modules: Sequence[Module]) -> set[Path]:
    """What lies above a field that is written out, and has no other rule that makes it."""
    parts: set[Path] = set()
    certain: set[Path] = set()
    for module in modules:
        package = tuple(module.package.split("."))
        for rule in module.tree["rules"]:
            node: Node = rule.get("Spec") or rule["Default"]
            kind, head = next(iter(node["head"].items())) if "head" in node else ("", node)
            path = (*package, *written(head["refr"]))
            above = {path[:length] for length in range(len(package) + 1, len(path))}
            conditional = kind == "Compr" and bool(node["bodies"])
            if _length(head["refr"]) == len(path) - len(package) and conditional:
                parts |= above
            else:
                certain |= above | {path}
    return {path[:length] for path in parts - certain for length in range(len(path), 1, -1)} & (
        parts | certain
    )


def _length(reference: Any) -> int:
    """How many steps a reference has, its name included."""
    for key in ("RefDot", "RefBrack"):
        if key in reference:
            return 1 + _length(reference[key]["refr"])
    return 1
