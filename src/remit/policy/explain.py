"""What happened in one evaluation: which entry decided, which lines were reached, whose reasons.

It evaluates the policy once more with coverage, in a process that is thrown away. The decision is
read exactly as the gateway reads it; nothing here takes part in deciding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit import canonical
from remit.errors import Code, PolicyFault
from remit.model import Allow, Decision, Deny, Evaluation, Frozen, Reason, RequireApproval
from remit.policy.bundle import PolicyBundle
from remit.policy.combine import combine
from remit.policy.coverage import FileCoverage, Outcome, covered, without_tests
from remit.policy.graph import definitions, head_of, written
from remit.policy.lint import modules_of
from remit.policy.reads import RESULT, known_of
from remit.policy.syntax import Module, Node, nodes_in
from remit.policy.verdict import denial, judge, judge_result
from remit.policy.why import why

VERDICTS = {Allow: "allow", Deny: "deny", RequireApproval: "require_approval"}

_RANK = {Deny: 0, RequireApproval: 1, Allow: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A rule of which something was reached: its full name, its place, and the lines."""

    rule: str
    place: str
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One entry of one layer: what it decided, what it reached, and where its reasons stand.

    `decides` is true for each entry whose verdict is that of all together. `origins` holds, in the
    order of the decision's reasons, the places of the rules that gave them.
    """

    layer: str
    decision: Decision
    decides: bool
    hits: tuple[Hit, ...]
    files: tuple[FileCoverage, ...]
    origins: tuple[tuple[str, ...], ...]
    prints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision of all layers, and of each entry."""

    decision: Decision
    parts: tuple[Explained, ...]


def explain(layers: Mapping[str, PolicyBundle], document: Mapping[str, Any]) -> Explanation:
    """Why these layers decide as they do on one `remit.input/1` document.

    Raises:
        PolicyFault: a policy does not load.
    """
    text = canonical.encode(dict(document))
    told = Evaluation(
        decision_id="dec_explain",
        revision=",".join(bundle.revision for bundle in layers.values()),
        engine="embedded, with coverage",
        input=Frozen(text),
        input_digest=canonical.digest("remit.input/1", text),
        decided_ms=0,
    )
    asked = _asked(layers, document)
    found = [
        part
        for name, bundle in layers.items()
        for part in _entries(name, bundle, asked.get(name, ()), dict(document), told)
    ]
    pairs = [(label, decision) for label, decision, *_ in found]
    whole = pairs[0][1] if len(pairs) == 1 else combine(pairs, told)
    strongest = min(_RANK[type(decision)] for _, decision in pairs)
    parts = tuple(
        Explained(
            layer=label,
            decision=decision,
            decides=_RANK[type(decision)] == strongest,
            hits=tuple(_hits(modules, files)),
            files=tuple(files),
            origins=tuple(_origins(bundle, modules, decision.reasons, document, files)),
            prints=outcome.prints,
        )
        for label, decision, bundle, modules, outcome, files in found
    )
    return Explanation(whole, parts)


_Found = tuple[str, Decision, PolicyBundle, list[Module], Outcome, list[FileCoverage]]


def _asked(
    layers: Mapping[str, PolicyBundle], document: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """The entries of each layer that are asked: about a result, those that have a rule for it."""
    every = {name: bundle.entries for name, bundle in layers.items()}
    if document.get("phase") != RESULT:
        return every
    held = {name: known_of(bundle).results for name, bundle in layers.items()}
    return held if any(held.values()) else every


def _entries(
    name: str,
    bundle: PolicyBundle,
    entries: Sequence[str],
    document: Any,
    told: Evaluation,
) -> Iterator[_Found]:
    modules = [module for module in modules_of(bundle)[0] if not module.is_test]
    about = document.get("phase") == RESULT
    for entry in entries:
        rule = f"data.{entry}.{RESULT if about else 'decision'}"
        outcomes, files = covered(bundle.modules, bundle.data, [rule], document)
        label = f"{name}/{entry}" if len(bundle.entries) > 1 else name
        decision = _read(outcomes[0], told, judge_result if about else judge)
        yield label, decision, bundle, modules, outcomes[0], without_tests(files)


def _read(
    outcome: Outcome, told: Evaluation, judging: Callable[[Any, Evaluation], Decision]
) -> Decision:
    try:
        if outcome.kind == "U":
            raise PolicyFault(Code.POLICY_UNDEFINED, "the rule has no value for this input")
        if outcome.kind == "F":
            said = json.loads(outcome.text)
            raise PolicyFault(Code.POLICY_ERROR, said["message"], place=said["place"])
        return judging(canonical.parse(outcome.text.encode()), told)
    except PolicyFault as fault:
        return denial(fault, told)


def _hits(modules: Sequence[Module], files: Sequence[FileCoverage]) -> Iterator[Hit]:
    """The rules with lines that were reached, by file and line."""
    reached = {each.name: set(each.covered) for each in files}
    for each in definitions(modules):
        first, last = _lines(each.module, each.node)
        lines = [n for n in range(first, last + 1) if n in reached.get(each.module.name, ())]
        if lines:
            yield Hit(rule=".".join(each.name), place=each.place, lines=tuple(lines))


def _lines(module: Module, node: Node) -> tuple[int, int]:
    """The first and last line of a rule."""
    span = node["span"] if "span" in node else next(iter(head_of(node).values()))["span"]
    first = int(span["line"])
    return first, first + module.source[span["start"] : span["end"]].count(b"\n")


def _origins(
    bundle: PolicyBundle,
    modules: Sequence[Module],
    reasons: Sequence[Reason],
    document: Mapping[str, Any],
    files: Sequence[FileCoverage],
) -> Iterator[tuple[str, ...]]:
    """For each reason the places of the rules that write its code and hold for this input."""
    reached = {each.name: set(each.covered) for each in files}
    for reason in reasons:
        holding: list[str] = []
        for module in modules:
            for _, node in module.rules():
                if not _writes(node, reason.code):
                    continue
                rule = ".".join((module.package, *written(head_of(node))))
                first, last = _lines(module, node)
                untouched = not reached.get(module.name, set()) & set(range(first, last + 1))
                if node["bodies"] and untouched:
                    continue
                bodies = why(bundle, rule, document, within=[_only(module, node)])
                if any(body.holds or body.unknown for body in bodies):
                    holding.append(module.at(node))
        yield tuple(dict.fromkeys(holding))


def _only(module: Module, node: Node) -> Module:
    """A module of which only this rule is looked at; its source stays whole."""
    return Module(
        module.name, module.package, module.imports, module.aliases,
        {**module.tree, "rules": [{"Spec": node}]}, module.source,
    )  # fmt: skip


def _writes(node: Any, code: str) -> bool:
    """Whether this code stands in a rule as a text."""
    return any(
        isinstance(text := found.get("String"), Mapping) and text.get("value") == code
        for found in nodes_in(node)
    )
