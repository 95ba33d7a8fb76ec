"""Mutants of a policy: each is the policy with one condition, rule, branch or member left out.

They are made from the syntax tree of the engine's own parser, so that nothing is missed because
of how it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from remit.policy import worker
from remit.policy.syntax import dotted

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A policy's text with one thing left out. `name` says what, without line numbers."""

    name: str
    text: str


def mutants(text: str) -> Iterator[Mutant]:
    """Each mutant of a module."""
    ((tree,),) = (json.loads(worker.parse({"policy.rego": text})),)
    source = text.encode()
    for rule in tree["ast"]["rules"]:
        (node,) = rule.values()
        name = _name(rule)
        yield _without(source, node["span"], f"{name}: the rule", b"")
        if "Default" not in rule:
            yield from _inside(source, node, name)


def _name(rule: Node) -> str:
    if "Default" in rule:
        return f"default {dotted(rule['Default']['refr'])}"
    (head,) = rule["Spec"]["head"].values()
    return dotted(head["refr"])


def _inside(source: bytes, rule: Node, name: str) -> Iterator[Mutant]:
    for node in _walk(rule):
        for statement in node.get("stmts", ()):
            yield _without(source, statement["span"], f"{name}: condition", b"true")
        if node.get("is_else"):
            yield _without(source, _branch(node), f"{name}: branch", b"")
        for kind in ("Set", "Array"):
            items = node.get(kind, {}).get("items", ())
            # The engine gives no true span of an object, so its neighbours cannot be kept.
            assert len(items) < 2 or not any("Object" in item for item in items)
            for number in range(len(items)):
                yield _less(source, node[kind], [_span(part) for part in items], number, name)


def _branch(body: Node) -> Node:
    return body["span"]  # type: ignore[no-any-return]  # a tree of JSON


def _less(source: bytes, node: Node, spans: list[Node], number: int, name: str) -> Mutant:
    """A set or array without one of its members."""
    rest = [source[one["start"] : one["end"]] for one in spans]
    del rest[number]
    whole = node["span"]
    left, right = (
        source[whole["start"] : whole["start"] + 1],
        source[whole["end"] - 1 : whole["end"]],
    )
    body = left + b", ".join(rest) + right
    if body == b"{}":
        body = b"set()"
    return _replaced(
        source, whole, body, f"{name}: member {number} of {_short(_cut(source, whole))}"
    )


def _without(source: bytes, span: Node, what: str, instead: bytes) -> Mutant:
    return _replaced(source, span, instead, f"{what} {_short(_cut(source, span))}")


def _replaced(source: bytes, span: Node, instead: bytes, name: str) -> Mutant:
    text = source[: span["start"]] + instead + source[span["end"] :]
    return Mutant(name, text.decode())


def _cut(source: bytes, span: Node) -> bytes:
    return source[span["start"] : span["end"]]


def _short(text: bytes) -> str:
    return " ".join(text.decode().split())[:80]


def _span(node: Node) -> Node:
    found = node if "span" in node else next(iter(node.values()))
    span: Node = found["span"]
    return span


def _walk(node: Any) -> Iterator[Node]:
    if isinstance(node, Mapping):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)
