"""`remit policy eval`: ask a policy a question as the gateway would."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, assert_never

import click

from remit import canonical
from remit.cli.output import SCHEMA_VERSION, Exit, note, print_error
from remit.cli.policy.decisions import facts_of, text_of
from remit.cli.policy.options import output_option, path_argument
from remit.errors import Code, RemitError
from remit.model import Allow, Deny, RequireApproval
from remit.visible import visible

_FAULTS_SHOWN = 5


@click.command("eval")
@path_argument
@click.option(
    "--input",
    "question",
    type=click.File("rb"),
    required=True,
    help="A remit.input/1 document; - reads standard input.",
)
@click.option(
    "--entry",
    type=click.Choice(["decision", "visible"]),
    default="decision",
    help="Which rule to ask.",
)
@click.option(
    "--deadline-ms", type=click.IntRange(1, 60_000), default=250, help="How long it may take."
)
@output_option
def evaluate(path: Path, question: BinaryIO, entry: str, deadline_ms: int, output: str) -> None:
    """Print the answer of the policy in PATH (by default ./policy) as Remit would read it.

    Ends 0 for allow, 1 for deny, 4 for require_approval, and 3 where policy gives no usable
    answer, which the gateway would treat as a denial with the code shown.
    """
    try:
        document = canonical.parse(question.read())
    except RemitError as error:
        print_error(error)
        sys.exit(Exit.USAGE)
    if not isinstance(document, dict):
        raise click.UsageError("the input is not a JSON object")
    _warn_of_faults(document)
    try:
        ending = asyncio.run(_ask(path, document, entry, deadline_ms, output))
    except RemitError as error:
        print_error(error)
        sys.exit(Exit.UNKNOWN)
    sys.exit(ending)


async def _ask(
    path: Path, document: Mapping[str, Any], entry: str, deadline_ms: int, output: str
) -> int:
    from remit.policy.bundle import load_bundle
    from remit.policy.point import PolicyPoint

    point = await PolicyPoint.start(load_bundle(path), deadline_ms=deadline_ms)
    try:
        if entry == "visible":
            offered = [str(tool["name"]) for tool in document.get("tools", [])]
            found = await point.visible(document, offered)
            if found is None:
                note("error: `visible` gives no usable answer, so none of these tools is shown")
                return Exit.UNKNOWN
            seen = sorted(found)
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
    faults = sorted(validator.iter_errors(document), key=lambda each: list(each.path))
    for error in faults[:_FAULTS_SHOWN]:
        place = "/" + "/".join(str(part) for part in error.path)
        note(f"warning: the input at {place}: {visible(error.message[:200])}")
    if len(faults) > _FAULTS_SHOWN:
        note(f"warning: {len(faults) - _FAULTS_SHOWN} more; docs/policy-input.md has every field")
