"""The two rules that are asked of each entry package, and rules that would never end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from remit.policy.finding import Finding
from remit.policy.graph import definitions, reachable
from remit.policy.syntax import Module, Node, default_of

DECISION, VISIBLE = "decision", "visible"


def about_entries(modules: Sequence[Module], entries: Sequence[str]) -> Iterator[Finding]:
    """Each entry has a `decision` that denies where no rule says otherwise, and a `visible`."""
    for entry in entries:
        own = [module for module in modules if module.package == entry and not module.is_test]
        yield from _about_decision(entry, own)
        yield from _about_visible(entry, own)


def _about_decision(entry: str, modules: Sequence[Module]) -> Iterator[Finding]:
    fallbacks = [(module, node) for module in modules for node in default_of(module, DECISION)]
    mend = 'start from `default decision := {"schema": "remit.decision/1", "decision": "deny", …}`'
    if not fallbacks:
        yield Finding(f"package {entry}", "there is no default for the rule `decision`", mend)
    for module, node in fallbacks:
        if _field(node["value"], DECISION) != "deny":
            yield Finding(module.at(node), "the default of `decision` is not a denial", mend)


def _about_visible(entry: str, modules: Sequence[Module]) -> Iterator[Finding]:
    mend = "write `visible[name] := true if { some tool in input.tools; name := tool.name; … }`"
    found = [
        (module, node)
        for module in modules
        for name, node in module.rules()
        if name.split(".")[0] == VISIBLE
    ]
    if not found and not any(list(default_of(module, VISIBLE)) for module in modules):
        yield Finding(
            f"package {entry}", "there is no rule `visible`, so nobody would see a tool", mend
        )
    for module, node in found:
        if "Set" in node["head"]:
            yield Finding(
                module.at(node), "`visible` is a set; it has to be an object of names", mend
            )


def _field(node: Node, name: str) -> object:
    """A string field of an object literal, None if it is anything else."""
    for _, key, value in node.get("Object", {}).get("fields", ()):
        if key.get("String", {}).get("value") == name:
            return value.get("String", {}).get("value")
    return None


def about_recursion(modules: Sequence[Module]) -> Iterator[Finding]:
    """A rule or function that uses itself: OPA refuses it, the embedded engine finds out too late."""
    known = definitions([module for module in modules if not module.is_test])
    for number, definition in enumerate(known):
        if number in reachable([definition], known):
            kind = "function calls" if definition.is_function else "rule uses"
            yield Finding(
                definition.place,
                f"a {kind} itself",
                "write the loop with `some`, `every` or `walk`"
                if definition.is_function
                else "split what it needs into a rule that does not need it back",
            )
