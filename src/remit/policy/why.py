"""Why a rule does not hold for an input: the first condition of each body that fails.

Told by evaluating, not by reading: copies of a body that end after its first, second, third …
condition are added to the module and asked in a scratch process. The first that gives nothing ends
in the condition that failed. Where the engine cannot tell, because a condition needs names that a
later one binds, or the rule is a function that has no arguments here, that is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from remit.errors import PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.lint import modules_of
from remit.policy.process import run_once, try_frame
from remit.policy.syntax import Module, Node, dotted

MAX_VALUES = 3
"""How many values of a side are shown where a condition is tried with several."""

_RULE = "remit_why"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One body of a rule: whether it holds, and if not, what failed first.

    `sides` are the values on the left and right of a comparison, or the one value of anything
    else, as JSON; an empty list of values is undefined. `unknown` says why nothing can be told.
    """

    place: str
    holds: bool = False
    failed_at: str | None = None
    condition: str | None = None
    sides: tuple[tuple[str, ...], ...] = ()
    unknown: str | None = None


def why(
    bundle: PolicyBundle, rule: str, document: Any, *, within: Sequence[Module] | None = None
) -> list[Body]:
    """Each body of a rule of this full name (`remit.granted`); empty if there is no such rule.

    Args:
        bundle: its tests are looked at too.
        document: the input.
        within: the modules of the bundle, where they have been parsed before.
    """
    modules = modules_of(bundle)[0] if within is None else within
    scratch = _Scratch(bundle, document)
    return [
        scratch.body(module, node, body)
        for module in modules
        for name, node in module.rules()
        if f"{module.package}.{name}" == rule or f"{module.package}.{name}".startswith(f"{rule}.?")
        for body in node["bodies"] or [None]
    ]


@dataclass(frozen=True, slots=True)
class Statement:
    """One condition: its source up to `end`, where the next one begins, that of its `with`, and
    its place."""

    text: str
    end: int
    changes: str
    place: str
    node: Node


class _Scratch:
    """A policy to which rules are added for one question, evaluated and thrown away."""

    def __init__(self, bundle: PolicyBundle, document: Any) -> None:
        self._texts = {**bundle.modules, **bundle.tests}
        self._data = bundle.data
        self._document = document

    def body(self, module: Module, rule: Node, body: Node | None) -> Body:
        place = module.at(rule if body is None else body)
        if body is None:
            return Body(place=place, holds=True)
        if "Func" in rule["head"]:
            return Body(place=place, unknown="it is a function, which has no arguments here")
        conditions = list(statements(module, body["query"]))
        texts = [each.text for each in conditions]
        prefixes = ["\n".join(texts[: number + 1]) for number in range(len(texts))]
        found = self._ask(module, [f" if {{\n{prefix}\n}}" for prefix in prefixes])
        for number, (statement, outcome) in enumerate(zip(conditions, found, strict=True)):
            if outcome is None:
                continue  # it needs what comes later; the next one that can be asked tells
            kind, text = outcome
            if kind == "F":
                told = json.loads(text)["message"]
                return Body(place=place, failed_at=statement.place, unknown=f"it fails: {told}")
            if kind == "U":
                failed = Body(place=place, failed_at=statement.place, condition=_short(statement))
                before = found[number - 1] if number else ("R", "")
                if before is None:
                    return replace(failed, unknown="this condition or one just before it")
                return replace(failed, sides=self._sides(module, texts[:number], statement))
        if found and found[-1] is None:
            return Body(place=place, unknown="the engine cannot evaluate its conditions one by one")
        return Body(place=place, holds=True)

    def _sides(
        self, module: Module, before: Sequence[str], statement: Statement
    ) -> tuple[tuple[str, ...], ...]:
        """The values of the parts of a condition, as far as they have any."""
        parts = [module.text_of(span) for span in _parts(statement.node)]
        conditions = "\n".join(before)
        asked = [
            f" := [remit_why_value |\n{conditions}\nremit_why_value := {part} {statement.changes}\n]"
            for part in parts
        ]
        sides: list[tuple[str, ...]] = []
        for outcome in self._ask(module, asked):
            if outcome is None or outcome[0] != "R":
                return ()
            values = [json.dumps(value, ensure_ascii=False) for value in json.loads(outcome[1])]
            sides.append(tuple(dict.fromkeys(values))[:MAX_VALUES])
        return tuple(sides)

    def _ask(self, module: Module, rules: Sequence[str]) -> list[tuple[str, str] | None]:
        """The outcome of each added rule; None for one that the engine does not compile."""
        try:
            return list(self._try(module, rules))
        except PolicyFault:
            if len(rules) <= 1:
                return [None] * len(rules)
        return [self._ask(module, [rule])[0] for rule in rules]

    def _try(self, module: Module, rules: Sequence[str]) -> Sequence[tuple[str, str]]:
        named = [(f"{_RULE}_{number}", rule) for number, rule in enumerate(rules)]
        added = "".join(f"\n{name}{rule}\n" for name, rule in named)
        texts: Mapping[str, str] = {**self._texts, module.name: self._texts[module.name] + added}
        queries = [f"data.{module.package}.{name}" for name, _ in named]
        answers = json.loads(run_once(try_frame(texts, self._data, queries, self._document)))
        return [(kind, text) for kind, text in answers]


def statements(module: Module, query: Node) -> Iterator[Statement]:
    """The conditions of a body with their source, in the order they are written."""
    nodes, source = query["stmts"], module.source
    span = query["span"]
    end = span["end"] - (source[span["start"] : span["start"] + 1] == b"{")
    ends = [node["span"]["start"] for node in nodes[1:]] + [end]
    for node, until in zip(nodes, ends, strict=True):
        text = source[node["span"]["start"] : until].decode("utf-8", "replace").rstrip(" \t\n;")
        changes = ""
        if node.get("with_mods"):
            (first,) = node["with_mods"][0]["refr"].values()
            named = source[first["span"]["start"] : until].decode("utf-8", "replace")
            changes = "with " + named.strip("; \n\t")
        yield Statement(text, until, changes, module.at(node), node["literal"])


def _parts(literal: Node) -> Iterator[Node]:
    """The spans of what a condition compares or looks at."""
    if "SomeIn" in literal:
        yield _span(literal["SomeIn"]["collection"])
    elif "Every" in literal:
        yield _span(literal["Every"]["domain"])
    elif "NotExpr" in literal or "Expr" in literal:
        (inner,) = literal.values()
        yield from _compared(inner["expr"])


def _compared(node: Node) -> Iterator[Node]:
    (kind,) = node.keys()
    inner = node[kind]
    if kind == "BoolExpr":
        yield _span(inner["lhs"])
        yield _span(inner["rhs"])
    elif kind == "AssignExpr":
        yield _span(inner["rhs"])
    elif kind == "Membership":
        yield _span(inner["value"])
        yield _span(inner["collection"])
    else:
        yield _span(node)


def _span(node: Node) -> Node:
    """All of the source of an expression: a text's own span is what is between its quotes."""
    ((kind, inner),) = node.items()
    quote = 1 if kind in ("String", "RawString") else 0
    span = inner["span"]
    return {"start": span["start"] - quote, "end": span["end"] + quote}


def _short(statement: Statement) -> str:
    """A condition on one line, without what follows it."""
    lines = (line.partition(" #")[0].strip() for line in statement.text.split("\n"))
    return " ".join(line for line in lines if line and not line.startswith("#"))[:200]


def named(bundle: PolicyBundle, rule: str) -> str:
    """The full name (`remit.granted`) that a person means by `granted` or `data.remit.granted`."""
    plain = rule.removeprefix("data.")
    packages = sorted({module.package for module in modules_of(bundle)[0]}, key=len, reverse=True)
    if any(plain.startswith(f"{package}.") for package in packages):
        return plain
    return f"{bundle.entries[0]}.{plain}"


def rules_like(modules: Sequence[Module]) -> list[str]:
    """The full name of every rule, for a person who misspelt one."""
    return sorted(
        {f"{module.package}.{name}" for module in modules for name, _ in module.rules()}
        | {
            f"{module.package}.{dotted(rule['Default']['refr'])}"
            for module in modules
            for rule in module.tree["rules"]
            if "Default" in rule
        }
    )
