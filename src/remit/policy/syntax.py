"""Reading the engine's syntax trees: names, imports, calls and functions of one module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Module:
    """One module's tree with what its names stand for. `imports` maps each path to its line."""

    name: str
    package: str
    imports: Mapping[str, int]
    aliases: Mapping[str, str]
    tree: Node
    source: bytes = b""

    @property
    def is_test(self) -> bool:
        return self.name.endswith("_test.rego")

    def at(self, node: Node) -> str:
        """The file and line of a node."""
        inner = node if "span" in node else next(iter(node.values()))
        return f"{self.name}:{inner['span']['line']}"

    def text_of(self, span: Node) -> str:
        """The source that a span covers."""
        return self.source[span["start"] : span["end"]].decode("utf-8", "replace")

    def rules(self) -> Iterator[tuple[str, Node]]:
        """The name, as written, and the node of each rule that is not a default."""
        for rule in self.tree["rules"]:
            spec = rule.get("Spec")
            if spec is not None:
                (head,) = spec["head"].values()
                yield dotted(head["refr"]), spec

    def nodes(self) -> Iterator[Node]:
        return nodes_in(self.tree["rules"])

    def calls(self) -> Iterator[Node]:
        return self.calls_in(self.tree)

    def calls_in(self, node: Node) -> Iterator[Node]:
        for found in nodes_in(node):
            call = found.get("Call")
            if isinstance(call, Mapping):
                yield call

    def resolve(self, name: str) -> set[str]:
        """The full names that a called name can stand for."""
        first, _, rest = name.partition(".")
        found = {f"data.{self.package}.{name}", name}
        if first in self.aliases:
            found.add(f"{self.aliases[first]}.{rest}" if rest else self.aliases[first])
        return found

    def definitions(self) -> Iterator[tuple[str, Node]]:
        """The full name and the node of each function."""
        for rule in self.tree["rules"]:
            function = rule.get("Spec", {}).get("head", {}).get("Func")
            if function is not None:
                yield f"data.{self.package}.{dotted(function['refr'])}", rule["Spec"]

    @property
    def functions(self) -> set[str]:
        return {name for name, _ in self.definitions()}


def module_of(name: str, text: str, tree: Node) -> Module:
    """A module from its tree; `text` is its source, from which aliases are read."""
    source = text.encode()
    imports: dict[str, int] = {}
    aliases: dict[str, str] = {}
    for item in tree["imports"]:
        path = dotted(item["refr"])
        imports[path] = item["span"]["line"]
        alias = item.get("as")
        known_as = path.rpartition(".")[2]
        if alias:
            known_as = source[alias["start"] : alias["end"]].decode("utf-8", "replace")
        aliases[known_as] = path
    return Module(name, dotted(tree["package"]["refr"]), imports, aliases, tree, source)


def dotted(node: Node) -> str:
    """A reference as dotted text; what is not a plain name stands as `?`."""
    if "Var" in node:
        return str(node["Var"]["value"])
    if "RefDot" in node:
        return f"{dotted(node['RefDot']['refr'])}.{node['RefDot']['field'][1]}"
    if "RefBrack" in node:
        index = node["RefBrack"]["index"].get("String", {}).get("value", "?")
        return f"{dotted(node['RefBrack']['refr'])}.{index}"
    return "?"


def default_of(module: Module, name: str) -> Iterator[Node]:
    """The `default` rules of that name."""
    for rule in module.tree["rules"]:
        found = rule.get("Default")
        if found is not None and dotted(found["refr"]) == name:
            yield found


def nodes_in(node: Any) -> Iterator[Node]:
    """Every object of a tree, from the outside in."""
    todo = [node]
    while todo:
        found = todo.pop()
        if isinstance(found, Mapping):
            yield found
            todo.extend(found.values())
        elif isinstance(found, list):
            todo.extend(found)
