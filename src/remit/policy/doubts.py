"""Warnings about a policy: what is allowed, means the same in both engines, and is seldom meant.

They never keep a policy from being loaded. Each is found on the syntax tree, and rather too seldom
than too often: a warning that is mostly wrong teaches people to look away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from remit.policy.bundle import PolicyBundle
from remit.policy.entries import DECISION, VISIBLE
from remit.policy.finding import Finding, Severity, in_order
from remit.policy.graph import Definition, Path, definitions, meets, reachable, references, written
from remit.policy.lint import modules_of
from remit.policy.schemas import for_opa
from remit.policy.syntax import Module, Node, dotted, nodes_in


def doubts(bundle: PolicyBundle) -> list[Finding]:
    """The warnings about a bundle that the lint does not refuse, tests left out."""
    modules = [module for module in modules_of(bundle)[0] if not module.is_test]
    known = definitions(modules)
    found: list[Finding] = []
    for module in modules:
        found += _about_floats(module)
        found += _about_input(module)
        found += _about_absent_differences(module)
    found += _about_denials(known)
    found += _about_grants(known, bundle.entries)
    found += _about_previews(known, bundle.entries)
    return in_order(found)


def _warn(place: str, message: str, mend: str) -> Finding:
    return Finding(place, message, mend, Severity.WARNING)


def _about_floats(module: Module) -> Iterator[Finding]:
    for node in module.nodes():
        number = node.get("Number")
        if isinstance(number, Mapping) and isinstance(number["value"], float):
            yield _warn(
                module.at(node),
                "a number with a fraction: the engines add and print those differently",
                "count in whole units, for example cents or milliseconds",
            )


def _about_input(module: Module) -> Iterator[Finding]:
    """A field that the input never has; what depends on it is always undefined."""
    seen: set[tuple[str, str]] = set()
    for reference in references(module.tree["rules"]):
        path = written(reference)
        if path[:1] != ("input",):
            continue
        wrong = _unknown_field(path[1:])
        if wrong is None or (module.at(reference), wrong[0]) in seen:
            continue
        seen.add((module.at(reference), wrong[0]))
        near = get_close_matches(wrong[0].rpartition(".")[2], wrong[1], n=1)
        yield _warn(
            module.at(reference),
            f"the input has no field {wrong[0]}",
            f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(wrong[1]))}",
        )


@cache
def _schema() -> Mapping[str, Any]:
    return for_opa("remit.input-1")


def _unknown_field(path: Path) -> tuple[str, list[str]] | None:
    """The first step of a path that the input's schema does not have, and those it has there."""
    schemas: list[Mapping[str, Any]] = [_schema()]
    for number, step in enumerate(path):
        if not all(isinstance(schema, Mapping) for schema in schemas):
            return None  # anything may stand there
        inner = [each for schema in schemas for each in (schema, *schema.get("anyOf", ()))]
        objects = [each for each in inner if "properties" in each]
        if not objects or any(each.get("additionalProperties") is not False for each in objects):
            return None
        fields = {name for each in objects for name in each["properties"]}
        if step not in fields:
            return ".".join(("input", *path[: number + 1])), sorted(fields)
        schemas = [each["properties"][step] for each in objects if step in each["properties"]]
    return None


def _may_be_absent(node: Node) -> bool:
    """Whether a reference is into what a caller, or a tool's output, may leave out."""
    path = written(node)
    free = path[:2] == ("input", "arguments") and len(path) > 2
    return free or (path[:3] == ("input", "preview", "data") and len(path) > 3)


def _about_absent_differences(module: Module) -> Iterator[Finding]:
    for node in module.nodes():
        compared = node.get("BoolExpr")
        if not isinstance(compared, Mapping) or compared["op"] != "Ne":
            continue
        for side in (compared["lhs"], compared["rhs"]):
            if _may_be_absent(side):
                yield _warn(
                    module.at(node),
                    f"`!=` is undefined where {'.'.join(written(side))} is left out",
                    "write `not … == …`, which holds there too",
                )


def _denials(known: Sequence[Definition]) -> Iterator[Definition]:
    """Rules that make members of a set of denials: `deny contains …`, `denials contains …`."""
    for each in known:
        if "Set" in each.node.get("head", {}) and each.name[-1].startswith(("deny", "denial")):
            yield each


def _about_denials(known: Sequence[Definition]) -> Iterator[Finding]:
    """What makes a denial must not be able to lose it."""
    for denial in _denials(known):
        key = denial.node["head"]["Set"]["key"]
        for call in denial.module.calls_in(key):
            if dotted(call["fcn"]) == "sprintf":
                yield _warn(
                    denial.module.at(call),
                    "sprintf in a denial: an argument that is absent loses the denial",
                    "build the message of constants, or give sprintf values of object.get",
                )
        for reference in references(key):
            if _may_be_absent(reference):
                yield _warn(
                    denial.module.at(reference),
                    f"a denial is built with {'.'.join(written(reference))}; where that is left "
                    "out the denial is lost",
                    "use object.get with a default, or leave the value out",
                )


def _about_grants(known: Sequence[Definition], entries: Iterable[str]) -> Iterator[Finding]:
    """`not` in a rule that an allow or a visible tool needs to hold: absent data then grants."""
    told: set[tuple[str, int]] = set()
    for entry in entries:
        granting = [each for each in known if _grants(each, entry)]
        for number in sorted(_needed(granting, known)):
            each = known[number]
            for node in _negations(each.node.get("bodies", [])):
                if _of_denials(each, node, known) or (each.place, id(node)) in told:
                    continue
                told.add((each.place, id(node)))
                yield _warn(
                    each.module.at(node),
                    "`not` in a rule that grants: it holds for whatever is absent",
                    "grant by what is there, and put the `not` into a denial",
                )


def _grants(each: Definition, entry: str) -> bool:
    """An allow of the entry, or something that its `visible` shows."""
    package = tuple(entry.split("."))
    if each.is_default:
        return False
    if each.name[: len(package) + 1] == (*package, VISIBLE):
        return True
    return each.name == (*package, DECISION) and _says(each.node, "allow")


def _says(node: Any, verdict: str) -> bool:
    """Whether an object literal in the head, or a body's value, has `decision` of this verdict."""
    parts = [node.get("head"), *[body.get("assign") for body in node.get("bodies", [])]]
    for found in nodes_in(parts):
        for _, key, value in found.get("Object", {}).get("fields", ()):
            if key.get("String", {}).get("value") == DECISION:
                return bool(value.get("String", {}).get("value") == verdict)
    return False


def _needed(granting: Sequence[Definition], known: Sequence[Definition]) -> set[int]:
    """What grants and what that uses, as far as it is neither a denial nor an approval."""
    inside = [each for each in known if not each.is_default and not _objects(each.name)]
    places = {id(each): number for number, each in enumerate(known)}
    needed = [inside[number] for number in reachable(granting, inside)]
    return {places[id(each)] for each in (*granting, *needed)}


def _objects(name: Path) -> bool:
    return name[-1].startswith(("deny", "denial", "denied", "approval"))


def _negations(bodies: Any) -> Iterator[Node]:
    return (found for found in nodes_in(bodies) if "NotExpr" in found)


def _of_denials(each: Definition, node: Node, known: Sequence[Definition]) -> bool:
    """`not denied`: that no rule denies is what an allow has to ask."""
    package = tuple(each.module.package.split("."))
    for reference in references(node["NotExpr"]):
        path = written(reference)
        full = path[1:] if path[:1] == ("data",) else (*package, *path)
        if full and _objects(full):
            return any(meets(full, other.name) for other in known)
    return False


def _about_previews(known: Sequence[Definition], entries: Iterable[str]) -> Iterator[Finding]:
    """An approval asked for a preview too: people agree to what nobody can look at yet."""
    for entry in entries:
        package = tuple(entry.split("."))
        asking = [
            each
            for each in known
            if each.name == (*package, DECISION) and _says(each.node, "require_approval")
        ]
        for each in asking:
            used = [each, *(known[number] for number in reachable([each], known))]
            if not any(_reads_phase(one) for one in used if not one.is_default):
                yield _warn(
                    each.place,
                    "an approval is asked in every phase, so a preview waits for one too",
                    'ask only where `input.phase == "call"`: the preview is what people look at',
                )


def _reads_phase(each: Definition) -> bool:
    return any(written(reference)[:2] == ("input", "phase") for reference in references(each.node))
