"""`remit policy explain`: why a policy answers as it does, down to the line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from remit.cli.invocation import Invocation
from remit.cli.output import SCHEMA_VERSION, Exit, print_error
from remit.cli.policy.evaluate import question_of
from remit.cli.policy.options import (
    configured_option,
    give_up,
    layer_option,
    layers_at,
    layers_configured,
    output_option,
    refuse_both,
    refuse_findings,
    use_option,
    wrong_use,
)
from remit.cli.policy.recorded import decision_at, ledger_at, ledger_option
from remit.cli.policy.replay import Outcome, Replay, in_order, replay
from remit.cli.policy.replay import facts as replay_facts
from remit.cli.policy.replay import lines as replay_lines
from remit.cli.policy.reports import body_facts, body_lines
from remit.errors import Code, ConfigError, RemitError, Unverified
from remit.model import Deny
from remit.visible import visible

if TYPE_CHECKING:
    from remit.policy.bundle import PolicyBundle
    from remit.policy.explain import Explained, Explanation
    from remit.policy.why import Body

Bodies = Mapping[str, "Sequence[Body]"]
"""The bodies of the rule that was asked about, by layer."""


DECISION = "dec_"
"""How the id of each decision begins."""


@click.command()
@click.argument("words", nargs=-1, metavar="[DECISION] [PATH]")
@click.option(
    "--input", "question", type=click.File("rb"),
    help="A remit.input/1 document instead of a recorded decision; - reads standard input.",
)  # fmt: skip
@click.option("--rule", metavar="NAME", help="Say too why this rule holds or does not.")
@ledger_option
@configured_option
@layer_option
@use_option
@output_option
@click.pass_obj
def explain(
    invocation: Invocation,
    *,
    words: Sequence[str],
    question: BinaryIO | None,
    rule: str | None,
    ledger: Path | None,
    configured: bool,
    layers: Sequence[str],
    use: Sequence[str],
    output: str,
) -> None:
    """Explain what the policy in PATH (by default ./policy) answers, and hold it to the record.

    DECISION is the id of a recorded decision (dec_...): its input is read from the ledger and put
    to the policy here. Said is what was recorded and whether this is the same revision, with all
    its layers; then the answer must be the recorded one: --configured asks what the gateway's
    configuration has. With --input, the input is given instead.

    Shown are the decision, which layer and entry it comes from, where the rules of its reasons
    stand, and the lines that were reached. With --rule, for each body of that rule the first
    condition that does not hold, with its values; a function cannot be asked that, for it has no
    arguments here. Ends 0 if a decision could be explained, whatever it is; 1 if the same revision
    does not give the recorded answer, or the input that is kept is not the recorded one; 3 if
    there is nothing to explain: no such decision, an erased input, no answer.
    """
    decision_id, path = _asked_about(words, question, ledger)
    refuse_both(configured, layers, use, len(words) > (decision_id is not None))
    document = {} if question is None else question_of(question)
    replayed = None
    try:
        if configured:
            asked = layers_configured(invocation.settings())
        else:
            asked = layers_at(path, layers, use)
            refuse_findings(asked)
        if decision_id is not None:
            asked, document, replayed = _replayed(asked, decision_id, ledger_at(ledger, invocation))
        found = _explain(asked, document)
        bodies = {} if rule is None else _bodies(asked, rule, document)
    except RemitError as error:
        give_up(error, _ending(error))
    if output == "json":
        told = {} if replayed is None else {"recorded": replay_facts(replayed)}
        click.echo(json.dumps({**_facts(found, bodies), **told}, indent=2))
    else:
        told_lines = () if replayed is None else replay_lines(replayed)
        click.echo("\n".join([*told_lines, *_text(found, bodies)]))
    sys.exit(Exit.YES if replayed is None else _met(replayed))


def _asked_about(
    words: Sequence[str], question: BinaryIO | None, ledger: Path | None
) -> tuple[str | None, Path]:
    """The id of a recorded decision, if one was named, and where the policy is."""
    recorded = question is None
    if recorded and not (words and words[0].startswith(DECISION)):
        raise click.UsageError(f"name a recorded decision ({DECISION}...), or give --input FILE")
    if not recorded and ledger is not None:
        raise click.UsageError("--ledger is for a recorded decision, not for --input")
    if len(words) > 1 + recorded:
        raise click.UsageError(
            "one decision and one policy at most" if recorded
            else "give --input or the id of a decision, not both; and one policy"
        )  # fmt: skip
    path = Path(words[recorded] if len(words) > recorded else "policy")
    return (words[0] if recorded else None), path


def _replayed(
    asked: Mapping[str, PolicyBundle], decision_id: str, ledger: Path
) -> tuple[dict[str, PolicyBundle], dict[str, Any], Replay]:
    recorded, document = decision_at(ledger, decision_id)
    ordered = in_order(asked, recorded)
    return ordered, document, asyncio.run(replay(ordered, recorded, document))


def _met(replayed: Replay) -> Exit:
    """How it ends that a recorded answer was met or not; said loudly if it must have been."""
    if replayed.outcome is Outcome.NO_ANSWER:
        return Exit.UNKNOWN
    if replayed.outcome is not Outcome.DIFFERENT:
        return Exit.YES
    print_error(
        Unverified(
            Code.LOG_INCONSISTENT,
            "the same revision does not give the recorded answer",
            place=replayed.recorded.id,
            hint="run `remit audit verify`; if the log holds, engines or versions of Remit differ",
        )
    )
    return Exit.NO


def _ending(error: RemitError) -> Exit:
    if isinstance(error, Unverified) and error.code is Code.LOG_TAMPERED:
        return Exit.NO
    return Exit.USAGE if wrong_use(error) else Exit.UNKNOWN


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
