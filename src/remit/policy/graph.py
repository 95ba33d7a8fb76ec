"""What the rules of a policy name: which rule uses which, found on the syntax trees.

Names that a rule declares itself (`some`, `:=`, `every`, arguments) hide rules, as in OPA. Where a
reference ends in something not written out, it may stand for all below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remit.policy.syntax import Module, Node, nodes_in

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """One rule, default or function: its full name as far as it is written, and what it names."""

    module: Module
    name: Path
    node: Node
    is_function: bool
    uses: frozenset[Path] = field(compare=False)

    @property
    def place(self) -> str:
        return self.module.at(self.node)

    @property
    def is_default(self) -> bool:
        return "head" not in self.node


def definitions(modules: Sequence[Module]) -> list[Definition]:
    """Every rule, default and function of these modules."""
    return [
        Definition(
            module,
            name,
            node,
            "Func" in node.get("head", {}) or bool(node.get("args")),
            frozenset(uses_of(module, node, without_head(node))),
        )
        for module, name, node in defined(modules)
    ]


def defined(modules: Iterable[Module]) -> Iterator[tuple[Module, Path, Node]]:
    """Each rule, default and function with its full name, as far as that is written out."""
    for module in modules:
        package = tuple(module.package.split("."))
        for rule in module.tree["rules"]:
            for node in (rule.get("Spec"), rule.get("Default")):
                if node is not None:
                    yield module, package + written(head_of(node)), node


def meets(one: Path, other: Path) -> bool:
    """Whether one is the other, or lies within it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def reachable(starts: Iterable[Definition], among: Sequence[Definition]) -> set[int]:
    """The places in `among` of all that is used from these on, themselves only if used again."""
    seen: set[int] = set()
    todo: list[Definition] = list(starts)
    while todo:
        for path in todo.pop().uses:
            for number, other in enumerate(among):
                if number not in seen and meets(path, other.name):
                    seen.add(number)
                    todo.append(other)
    return seen


def uses_of(module: Module, rule: Node, part: Any) -> Iterator[Path]:
    """The full names below `data` that a part of a rule refers to."""
    own = declared(module, rule)
    for reference in references(part):
        path = written(reference)
        if not path or path[0] in own or path[0] == "input":
            continue
        if path[0] == "data":
            yield path[1:]
            continue
        yield (*module.package.split("."), *path)
        alias = module.aliases.get(path[0], "").split(".")
        if alias[0] == "data":
            yield (*alias[1:], *path[1:])


def references(node: Any) -> Iterator[Node]:
    """Every whole reference in a tree, those within the indexes of others too."""
    todo: list[Any] = [node]
    while todo:
        found = todo.pop()
        if isinstance(found, list):
            todo.extend(found)
        elif isinstance(found, Mapping):
            if "Var" in found or "RefDot" in found or "RefBrack" in found:
                yield found
            todo.extend(below(found))


def below(node: Node) -> list[Any]:
    """What is left to look at: of a reference only its indexes, for it was read as a whole."""
    left: list[Any] = []
    while True:
        if "Var" in node:
            return left
        if "RefDot" in node:
            node = node["RefDot"]["refr"]
        elif "RefBrack" in node:
            left.append(node["RefBrack"]["index"])
            node = node["RefBrack"]["refr"]
        else:
            return [*left, *node.values()]


def written(node: Node) -> Path:
    """A reference as names, up to the first index that is not written out."""
    names: list[str | None] = []
    while "Var" not in node:
        if "RefDot" in node:
            names.append(str(node["RefDot"]["field"][1]))
            node = node["RefDot"]["refr"]
        elif "RefBrack" in node:
            names.append(node["RefBrack"]["index"].get("String", {}).get("value"))
            node = node["RefBrack"]["refr"]
        else:
            return ()
    path = [str(node["Var"]["value"])]
    for name in reversed(names):
        if name is None:
            break
        path.append(name)
    return tuple(path)


def head_of(node: Node) -> Node:
    """The reference in the head of a rule or default."""
    if "refr" in node:
        return dict(node["refr"])
    (head,) = node["head"].values()
    return dict(head["refr"])


def without_head(node: Node) -> list[Any]:
    """All of a rule or default but its own name."""
    (head,) = node["head"].values() if "head" in node else (node,)
    rest = [value for key, value in head.items() if key != "refr"]
    return [*below(dict(head["refr"])), *rest, node.get("bodies", [])]


def declared(module: Module, node: Any) -> set[str]:
    """The names that a rule declares for itself, anywhere in it."""
    return {name for found in nodes_in(node) for name in _declares(module, found)}


def _declares(module: Module, node: Node) -> set[str]:
    match node:
        case {"SomeVars": {"vars": spans}}:
            return {module.text_of(span) for span in spans}
        case {"SomeIn": {"key": key, "value": value}}:
            return variables(key) | variables(value)
        case {"Every": {"key": key, "value": value}}:
            return {module.text_of(span) for span in (key, value) if span}
        case {"AssignExpr": {"op": "ColEq", "lhs": left}}:
            return variables(left)
        case {"Func": {"args": arguments}}:
            return variables(arguments)
        case _:
            return set()


def variables(node: Any) -> set[str]:
    """The plain names in a pattern such as `[x, {"a": y}]`."""
    names: set[str] = set()
    todo: list[Any] = [node]
    while todo:
        found = todo.pop()
        if isinstance(found, list):
            todo.extend(found)
        elif isinstance(found, Mapping):
            if "Var" in found:
                names.add(str(found["Var"]["value"]))
            else:
                todo.extend(value for key, value in found.items() if not key.startswith("Ref"))
    return names
