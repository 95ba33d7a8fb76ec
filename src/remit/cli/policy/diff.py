"""`remit policy diff`: what two policies decide differently."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remit import canonical
from remit.cli.invocation import Invocation
from remit.cli.output import SCHEMA_VERSION, Exit, note
from remit.cli.policy.decisions import facts_of
from remit.cli.policy.options import give_up, output_option, policy_at, refuse_findings
from remit.cli.policy.recorded import (
    MAX_INPUTS_BYTES,
    History,
    history,
    ledger_at,
    ledger_option,
    refuse_empty,
    say_altered,
)
from remit.errors import Code, ConfigError, InputError, LedgerFault, RemitError, Unverified
from remit.visible import visible

if TYPE_CHECKING:
    from remit.policy.bundle import PolicyBundle
    from remit.policy.compare import Change, Comparison

_PATH = click.Path(path_type=Path)
_CIRCUMSTANCES = ("revision", "engine", "input_digest", "took_us", "layers")


@click.command()
@click.argument("old", type=_PATH)
@click.argument("new", type=_PATH)
@click.option(
    "--inputs", type=click.Path(path_type=Path, dir_okay=False),
    help="A file of remit.input/1 documents, one a line; else questions are made.",
)  # fmt: skip
@click.option(
    "--recorded", is_flag=True,
    help="Take the questions from the decisions that a ledger holds, or an export with values.",
)  # fmt: skip
@ledger_option
@click.option(
    "--last", type=click.IntRange(1, 10_000), default=1_000, show_default=True,
    help="How many of the newest recorded decisions to ask again.",
)  # fmt: skip
@click.option(
    "--samples", type=click.IntRange(1, 100_000), default=500, show_default=True,
    help="How many questions to make, of those that tests ask and mixtures of them.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Another seed, other questions."
)
@click.option(
    "--examples", type=click.IntRange(0, 1_000), default=5, show_default=True,
    help="How many examples of each change of verdict to print.",
)  # fmt: skip
@output_option
@click.pass_obj
def diff(
    invocation: Invocation | None,
    *,
    old: Path,
    new: Path,
    inputs: Path | None,
    recorded: bool,
    ledger: Path | None,
    last: int,
    samples: int,
    seed: int,
    examples: int,
    output: str,
) -> None:
    """Put the same questions to the policies OLD and NEW and show what comes out otherwise.

    OLD and NEW are directories or bundles (.tar.gz). Whole decisions are compared, reasons and
    constraints too. Questions come from --inputs, or with --recorded from what the gateway asked
    for its decisions, or are made of what the tests of both policies ask and of the catalog's
    tools, if the configuration can be read. That nothing differs is said of these questions only.
    A recorded input that was erased is counted; one that is not what was recorded is refused by
    name. Ends 0 if nothing differs, 1 if something does or an input was refused, 2 if a policy
    cannot be read, 3 if one gives no answer or the ledger no inputs.
    """
    _refuse_mixed(inputs, ledger, recorded=recorded)
    past = None
    try:
        before, after = policy_at(old), policy_at(new)
        refuse_findings({"old": before, "new": after})
        if recorded:
            past = _recorded(ledger_at(ledger, invocation), last)
            questions: Sequence[Mapping[str, Any]] = past.questions
        elif inputs is not None:
            questions = _read(inputs)
        else:
            questions = _made(before, after, samples, seed, invocation)
    except RemitError as error:
        give_up(error, _ending(error))
    try:
        found = asyncio.run(_compare(before, after, questions))
    except RemitError as error:
        give_up(error, Exit.UNKNOWN)
    if output == "json":
        click.echo(json.dumps(_facts(found, examples, before.revision, past), indent=2))
    else:
        click.echo(_text(found, examples, before.revision, past))
    refused = past is not None and past.altered
    sys.exit(Exit.NO if found.changes or refused else Exit.YES)


def _refuse_mixed(inputs: Path | None, ledger: Path | None, *, recorded: bool) -> None:
    if recorded and inputs is not None:
        raise click.UsageError("give --recorded or --inputs, not both")
    if ledger is not None and not recorded:
        raise click.UsageError("--ledger is for --recorded")


def _recorded(path: Path, last: int) -> History:
    past = history(path, last)
    say_altered(past)
    refuse_empty(past, path)
    return past


def _ending(error: RemitError) -> Exit:
    """A ledger that gives no questions is nothing found out; all else here is a wrong use."""
    return Exit.UNKNOWN if isinstance(error, LedgerFault | Unverified) else Exit.USAGE


async def _compare(
    old: PolicyBundle, new: PolicyBundle, questions: Sequence[Mapping[str, Any]]
) -> Comparison:
    from remit.policy.compare import compare

    return await compare(old, new, questions)


def _made(
    old: PolicyBundle, new: PolicyBundle, count: int, seed: int, invocation: Invocation | None
) -> list[dict[str, Any]]:
    from remit.policy.samples import of_tests, samples

    tools = _catalog(invocation)
    if not tools and not of_tests(old) and not of_tests(new):
        note("warning: neither policy has tests to take questions from; better give --inputs")
    return samples([old, new], count=count, seed=seed, tools=tools)


def _catalog(invocation: Invocation | None) -> list[dict[str, Any]]:
    """Facts of the catalog's tools, as policy sees them; none where there is no configuration."""
    if invocation is None or not invocation.config.exists():
        return []
    try:
        tools = invocation.settings().tools
    except RemitError as error:
        note(f"warning: the catalog is left out: {visible(error.message)}")
        return []
    return [
        {
            "name": tool.name,
            "effect": tool.effect.value,
            "risk": tool.risk.value,
            "environments": list(tool.environment.names),
        }
        for tool in tools
    ]


def _read(path: Path) -> list[dict[str, Any]]:
    """The questions of a file, one JSON object a line.

    Raises:
        ConfigError: `config_not_found` or `config_invalid`, with the line.
    """
    try:
        if path.stat().st_size > MAX_INPUTS_BYTES:
            raise ConfigError(Code.CONFIG_INVALID, "the file is too large", place=str(path))
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_NOT_FOUND, f"cannot be read: {error.strerror}", place=str(path)
        ) from None
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            value = canonical.parse(line)
        except InputError as error:
            raise ConfigError(Code.CONFIG_INVALID, error.message, place=place) from None
        if not isinstance(value, dict):
            raise ConfigError(
                Code.CONFIG_INVALID, "is not a JSON object", place=place,
                hint="each line is one remit.input/1 document",
            )  # fmt: skip
        found.append(value)
    if not found:
        raise ConfigError(Code.CONFIG_INVALID, "there is no question in it", place=str(path))
    return found


def _text(found: Comparison, examples: int, revision: str, past: History | None) -> str:
    lines = [f"{len(found.changes)} of {found.asked} decisions differ"]
    lines += [] if past is None else _counted(past, revision)
    for (before, after), times in found.transitions.items():
        lines.append(f"  {times:>6}  {before} -> {after}{_same(before, after)}")
    for before, after in found.transitions:
        shown = [each for each in found.changes if each.transition == (before, after)][:examples]
        for each in shown:
            named = f"question {each.number}" if past is None else past.ids[each.number - 1]
            about = _about(each.question)
            lines.append(f"{visible(named)}: {before} -> {after}  {about}")
            lines += [f"  - {line}" for line in _reasons(each.old, each.new)]
            lines += [f"  + {line}" for line in _reasons(each.new, each.old)]
    return "\n".join(lines)


def _counted(past: History, revision: str) -> Iterator[str]:
    """Where recorded questions come from, and what of the record could not be asked."""
    yield f"  asked again: {len(past.questions)} of the {past.found} newest recorded decisions"
    counts = {
        "inputs erased or left out": past.erased,
        "inputs that are not what was recorded, refused": len(past.altered),
        "without an input that can be asked": len(past.unreadable),
        "decided under another revision than OLD's": past.not_under(revision),
    }
    yield from (f"  {count:>6}  {what}" for what, count in counts.items() if count)


def _same(before: str, after: str) -> str:
    return "  (other reasons or constraints)" if before == after else ""


def _about(question: Mapping[str, Any]) -> str:
    """A question in a few words."""
    tool, context = question.get("tool") or {}, question.get("context") or {}
    caller = question.get("caller") or {}
    words = (caller.get("subject"), tool.get("name"), context.get("environment"))
    return visible(" ".join(str(word) for word in (question.get("phase"), *words) if word))[:200]


def _reasons(one: Any, other: Any) -> list[str]:
    """What one decision has and the other has not, a line each."""
    ours, theirs = _content(one), _content(other)
    lines = [
        f"{each['code']}: {each['message']}"
        for each in ours["reasons"]
        if each not in theirs["reasons"]
    ]
    lines += [
        f"{name} {json.dumps(value)}"
        for name, value in ours.items()
        if name not in ("reasons", "decision", "code", "retriable")
        and value and value != theirs.get(name)
    ]  # fmt: skip
    return [visible(line)[:400] for line in lines]


def _content(decision: Any) -> dict[str, Any]:
    facts = facts_of(decision)
    return {name: value for name, value in facts.items() if name not in _CIRCUMSTANCES}


def _facts(found: Comparison, examples: int, revision: str, past: History | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "asked": found.asked,
        "differ": len(found.changes),
        "transitions": [
            {"old": before, "new": after, "count": times}
            for (before, after), times in found.transitions.items()
        ],
        "examples": [
            _example(each, past)
            for transition in found.transitions
            for each in [one for one in found.changes if one.transition == transition][:examples]
        ],
    }
    if past is not None:
        facts["recorded"] = {**past.facts(), "not_under_old": past.not_under(revision)}
    return facts


def _example(change: Change, past: History | None) -> dict[str, Any]:
    named = {} if past is None else {"decision_id": past.ids[change.number - 1]}
    return {
        "number": change.number,
        **named,
        "input": dict(change.question),
        "old": _content(change.old),
        "new": _content(change.new),
    }
