"""`remit policy explain`: why a policy answers as it does, down to the line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from remit.cli.output import SCHEMA_VERSION, Exit
from remit.cli.policy.evaluate import question_of
from remit.cli.policy.options import (
    give_up,
    input_option,
    layer_option,
    layers_at,
    output_option,
    path_argument,
    refuse_findings,
    use_option,
)
from remit.cli.policy.reports import body_facts, body_lines
from remit.errors import Code, ConfigError, RemitError
from remit.model import Deny
from remit.visible import visible

if TYPE_CHECKING:
    from remit.policy.bundle import PolicyBundle
    from remit.policy.explain import Explained, Explanation
    from remit.policy.why import Body

Bodies = Mapping[str, "Sequence[Body]"]
"""The bodies of the rule that was asked about, by layer."""


@click.command()
@path_argument
@input_option
@click.option("--rule", metavar="NAME", help="Say too why this rule holds or does not.")
@layer_option
@use_option
@output_option
def explain(
    *,
    path: Path,
    question: BinaryIO,
    rule: str | None,
    layers: Sequence[str],
    use: Sequence[str],
    output: str,
) -> None:
    """Explain the decision of the policy in PATH (by default ./policy) on an input.

    Shown are the decision, which layer and entry it comes from, where the rules of its reasons
    stand, and the lines that were reached. With --rule, for each body of that rule the first
    condition that does not hold, with its values; a function cannot be asked that, for it has no
    arguments here. Ends 0 if a decision could be explained, whatever it is, and 3 if not.
    """
    document = question_of(question)
    try:
        asked = layers_at(path, layers, use)
        refuse_findings(asked)
        found = _explain(asked, document)
        bodies = {} if rule is None else _bodies(asked, rule, document)
    except RemitError as error:
        wrong = error.code in (Code.CONFIG_NOT_FOUND, Code.CONFIG_INVALID)
        give_up(error, Exit.USAGE if wrong else Exit.UNKNOWN)
    if output == "json":
        click.echo(json.dumps(_facts(found, bodies), indent=2))
    else:
        click.echo("\n".join(_text(found, bodies)))
    sys.exit(Exit.YES)


def _explain(asked: Mapping[str, PolicyBundle], document: Mapping[str, Any]) -> Explanation:
    from remit.policy.explain import explain

    return explain(asked, document)


def _bodies(
    asked: Mapping[str, PolicyBundle], rule: str, document: Mapping[str, Any]
) -> dict[str, list[Body]]:
    """The bodies of the named rule in each layer that has it.

    Raises:
        ConfigError: `config_invalid`: no layer has it.
    """
    from difflib import get_close_matches

    from remit.policy.lint import modules_of
    from remit.policy.why import named, rules_like, why

    found: dict[str, list[Body]] = {}
    known: set[str] = set()
    for name, bundle in asked.items():
        full = named(bundle, rule)
        modules = modules_of(bundle)[0]
        known |= set(rules_like([module for module in modules if not module.is_test]))
        bodies = why(bundle, full, document, within=modules)
        if bodies:
            found[f"{name}: {full}" if len(asked) > 1 else full] = bodies
    if not found:
        short = {each.rpartition(".")[2]: each for each in known}
        near = get_close_matches(rule.rpartition(".")[2], short, n=1)
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"the policy has no rule {visible(rule)} with conditions",
            hint=f"did you mean {short[near[0]]}?" if near else "name it as in its module",
        )
    return found


def _verdict(part: Explained | Explanation) -> str:
    from remit.policy.compare import verdict

    return verdict(part.decision)


def _text(found: Explanation, bodies: Bodies) -> Iterator[str]:
    yield _verdict(found)
    for part in found.parts:
        several = len(found.parts) > 1
        if several:
            yield f"{part.layer}: {_verdict(part)}{'  <- decides' if part.decides else ''}"
        yield from _reasons(part)
        yield "  reached"
        for hit in part.hits:
            from remit.policy.coverage import ranges

            yield f"    {visible(hit.place)}: {hit.rule}, lines {ranges(hit.lines)}"
        for line in part.prints:
            yield f"  print {visible(line)}"
    for name, each in bodies.items():
        yield f"rule {name}"
        for body in each:
            if body.holds:
                yield f"  {body.place}: holds"
            yield from (f"  {line}" for line in body_lines(body))


def _reasons(part: Explained) -> Iterator[str]:
    for reason, places in zip(part.decision.reasons, part.origins, strict=True):
        where = ", ".join(places) or "given as a value, not written in a rule that holds"
        if (
            not places
            and isinstance(part.decision, Deny)
            and part.decision.code.value == reason.code
        ):
            where = "the gateway: there is no usable answer"
        yield f"  {reason.code}: {visible(reason.message)}  ({visible(where)})"


def _facts(found: Explanation, bodies: Bodies) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "decision": _verdict(found),
        "parts": [
            {
                "layer": part.layer,
                "decision": _verdict(part),
                "decides": part.decides,
                "reasons": [
                    {"code": reason.code, "message": reason.message, "places": list(places)}
                    for reason, places in zip(part.decision.reasons, part.origins, strict=True)
                ],
                "rules": [
                    {"rule": hit.rule, "place": hit.place, "lines": list(hit.lines)}
                    for hit in part.hits
                ],
                "lines": {each.name: list(each.covered) for each in part.files},
                "prints": list(part.prints),
            }
            for part in found.parts
        ],
        "rule": {name: [body_facts(body) for body in each] for name, each in bodies.items()},
    }
