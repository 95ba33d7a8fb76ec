"""`remit policy eval`: ask a policy a question as the gateway would."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, assert_never

import click

from remit import canonical
from remit.cli.invocation import Invocation
from remit.cli.output import SCHEMA_VERSION, Exit, note
from remit.cli.policy.decisions import facts_of, text_of
from remit.cli.policy.options import (
    configured_option,
    give_up,
    input_option,
    layer_option,
    layers_at,
    layers_configured,
    output_option,
    path_argument,
    refuse_both,
    refuse_findings,
    use_option,
    wrong_use,
)
from remit.errors import Code, RemitError
from remit.model import Allow, Deny, RequireApproval
from remit.visible import visible

if TYPE_CHECKING:
    from remit.policy.bundle import PolicyBundle
    from remit.policy.point import PolicyPoint
_FAULTS_SHOWN = 5


@click.command("eval")
@path_argument
@input_option
@click.option(
    "--entry",
    type=click.Choice(["decision", "visible"]),
    default="decision",
    help="Which rule to ask.",
)
@configured_option
@layer_option
@use_option
@click.option(
    "--deadline-ms", type=click.IntRange(1, 60_000), default=250, help="How long it may take."
)
@output_option
@click.pass_obj
def evaluate(
    invocation: Invocation,
    *,
    path: Path,
    question: BinaryIO,
    entry: str,
    configured: bool,
    layers: Sequence[str],
    use: Sequence[str],
    deadline_ms: int,
    output: str,
) -> None:
    """Print the answer of the policy in PATH (by default ./policy) as Remit would read it.

    PATH is a directory or a bundle (.tar.gz). With --layer and --use other policies are asked too
    and the strictest answer holds, as in the gateway; --configured asks all that the gateway's
    configuration has. Ends 0 for allow, 1 for deny, 4 for
    require_approval, and 3 where policy gives no usable answer, which the gateway would treat as a
    denial with the code shown.
    """
    refuse_both(configured, layers, use)
    document = question_of(question)
    try:
        if configured:
            asked = layers_configured(invocation.settings())
        else:
            asked = layers_at(path, layers, use)
            refuse_findings(asked)
        ending = asyncio.run(_ask(asked, document, entry, deadline_ms, output))
    except RemitError as error:
        give_up(error, Exit.USAGE if wrong_use(error) else Exit.UNKNOWN)
    sys.exit(ending)


def question_of(question: BinaryIO) -> dict[str, Any]:
    """The input that a person gave; what is wrong with it as an input is said on stderr."""
    try:
        document = canonical.parse(question.read())
    except RemitError as error:
        give_up(error, Exit.USAGE)
    if not isinstance(document, dict):
        raise click.UsageError("the input is not a JSON object")
    _warn_of_faults(document)
    return document


async def point_of(bundles: Mapping[str, PolicyBundle], deadline_ms: int) -> PolicyPoint:
    """A point with these layers, each in the embedded engine.

    Raises:
        PolicyFault: a policy does not load.
    """
    from remit.policy.embedded import EmbeddedEngine
    from remit.policy.layers import layer
    from remit.policy.point import PolicyPoint

    standing = [
        layer(await EmbeddedEngine.start(bundle, deadline_ms=deadline_ms), bundle, name=name)
        for name, bundle in bundles.items()
    ]
    return PolicyPoint(standing)


async def _ask(
    bundles: Mapping[str, PolicyBundle],
    document: Mapping[str, Any],
    entry: str,
    deadline_ms: int,
    output: str,
) -> int:
    point = await point_of(bundles, deadline_ms)
    try:
        if entry == "visible":
            offered = [str(tool["name"]) for tool in document.get("tools", [])]
            shown = await point.visible(document, offered)
            if shown is None:
                note("policy gives no usable answer; the gateway would show nothing")
                return Exit.UNKNOWN
            seen = sorted(shown)
            click.echo(json.dumps(seen) if output == "json" else "\n".join(seen))
            return Exit.YES
        decision = await point.decide(document, decision_id="dec_eval")
    finally:
        await point.aclose()
    facts = facts_of(decision)
    if output == "json":
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=2))
    else:
        click.echo(text_of(facts))
    match decision:
        case Allow():
            return Exit.YES
        case RequireApproval():
            return Exit.WAITING
        case Deny():
            return Exit.NO if decision.code is Code.POLICY_DENIED else Exit.UNKNOWN
        case _:
            assert_never(decision)


def _warn_of_faults(document: Mapping[str, Any]) -> None:
    """Say on stderr where the input is not what the gateway would ask; it is asked all the same."""
    import jsonschema

    text = resources.files("remit").joinpath("schemas/remit.input-1.json").read_text("utf-8")
    validator = jsonschema.Draft202012Validator(json.loads(text))
    wrong: list[str] = []
    lacking: dict[str, list[str]] = {}
    for error in sorted(validator.iter_errors(document), key=lambda each: list(each.path)):
        place = "/" + "/".join(str(part) for part in error.path)
        if error.validator == "required":
            # One error for each field that is missing; the first words of each are its name.
            lacking.setdefault(place, []).append(error.message.partition("'")[2].partition("'")[0])
        else:
            wrong.append(f"the input at {place}: {error.message[:200]}")
    # What is misspelt comes first: an input that is written by hand lacks most of the fields.
    faults = wrong + [f"the input at {at} lacks {', '.join(them)}" for at, them in lacking.items()]
    for fault in faults[:_FAULTS_SHOWN]:
        note(f"warning: {visible(fault)}")
    if len(faults) > _FAULTS_SHOWN:
        note(f"warning: {len(faults) - _FAULTS_SHOWN} more; docs/policy-input.md has every field")
