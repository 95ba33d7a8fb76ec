"""`remit policy diff`: what two policies decide differently."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remit import canonical
from remit.cli.invocation import Invocation
from remit.cli.output import SCHEMA_VERSION, Exit, note
from remit.cli.policy.decisions import facts_of
from remit.cli.policy.options import give_up, output_option, policy_at, refuse_findings
from remit.errors import Code, ConfigError, InputError, RemitError
from remit.visible import visible

if TYPE_CHECKING:
    from remit.policy.bundle import PolicyBundle
    from remit.policy.compare import Change, Comparison

MAX_INPUTS_BYTES = 256 * 1024 * 1024
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
    samples: int,
    seed: int,
    examples: int,
    output: str,
) -> None:
    """Put the same questions to the policies OLD and NEW and show what comes out otherwise.

    OLD and NEW are directories or bundles (.tar.gz). Whole decisions are compared, reasons and
    constraints too. Questions come from --inputs, or are made of what the tests of both policies
    ask and of the catalog's tools, if the configuration can be read. That nothing differs is said
    of these questions only. Ends 0 if nothing differs, 1 if something does, 2 if a policy cannot
    be read, 3 if one gives no answer.
    """
    try:
        before, after = policy_at(old), policy_at(new)
        refuse_findings({"old": before, "new": after})
        questions = (
            _made(before, after, samples, seed, invocation) if inputs is None else _read(inputs)
        )
    except RemitError as error:
        give_up(error, Exit.USAGE)
    try:
        found = asyncio.run(_compare(before, after, questions))
    except RemitError as error:
        give_up(error, Exit.UNKNOWN)
    if output == "json":
        click.echo(json.dumps(_facts(found, examples), indent=2))
    else:
        click.echo(_text(found, examples))
    sys.exit(Exit.NO if found.changes else Exit.YES)


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


def _text(found: Comparison, examples: int) -> str:
    lines = [f"{len(found.changes)} of {found.asked} decisions differ"]
    for (before, after), times in found.transitions.items():
        lines.append(f"  {times:>6}  {before} -> {after}{_same(before, after)}")
    for before, after in found.transitions:
        shown = [each for each in found.changes if each.transition == (before, after)][:examples]
        for each in shown:
            lines.append(f"question {each.number}: {before} -> {after}  {_about(each.question)}")
            lines += [f"  - {line}" for line in _reasons(each.old, each.new)]
            lines += [f"  + {line}" for line in _reasons(each.new, each.old)]
    return "\n".join(lines)


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


def _facts(found: Comparison, examples: int) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "asked": found.asked,
        "differ": len(found.changes),
        "transitions": [
            {"old": before, "new": after, "count": times}
            for (before, after), times in found.transitions.items()
        ],
        "examples": [
            _example(each)
            for transition in found.transitions
            for each in [one for one in found.changes if one.transition == transition][:examples]
        ],
    }


def _example(change: Change) -> dict[str, Any]:
    return {
        "number": change.number,
        "input": dict(change.question),
        "old": _content(change.old),
        "new": _content(change.new),
    }
