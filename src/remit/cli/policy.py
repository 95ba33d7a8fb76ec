"""`remit policy`: run a policy's tests, and ask it a question as the gateway would."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, assert_never

import click

from remit import canonical
from remit.cli.output import SCHEMA_VERSION, note, print_error
from remit.errors import Code, RemitError
from remit.model import Allow, Bound, Constraints, Decision, Deny, RequireApproval
from remit.visible import visible

_PATH = click.Path(exists=True, file_okay=False, path_type=Path)
_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print."
)

YES, NO, USAGE, UNKNOWN, WAITING = 0, 1, 2, 3, 4
_FAULTS_SHOWN = 5


@click.group()
def policy() -> None:
    """Test a policy and ask it questions."""


@policy.command()
@click.argument("path", type=_PATH, default="policy")
@_OUTPUT
def test(path: Path, output: str) -> None:
    """Run the tests of the policy in PATH (by default ./policy).

    A test is a rule whose name begins with test_ in a file named *_test.rego; it passes if it is
    true. What the portable profile refuses is reported too. Ends 0 if all is well, else 1.
    """
    from remit.policy.bundle import read_bundle
    from remit.policy.lint import lint
    from remit.policy.suite import run_tests

    try:
        bundle = read_bundle(path)
        findings = lint(bundle)
        results = [] if findings else run_tests(bundle)
    except RemitError as error:
        _give_up(error, NO)
    failed = [result for result in results if not result.passed]
    if output == "json":
        document = {
            "schema_version": SCHEMA_VERSION,
            "revision": bundle.revision,
            "passed": len(results) - len(failed),
            "failed": [
                {"rule": each.rule, "place": each.place, "problem": each.problem} for each in failed
            ],
            "findings": [
                {"place": each.place, "problem": each.message, "mend": each.mend}
                for each in findings
            ],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.place}: {finding.message}\n  {finding.mend}")
        for each in failed:
            click.echo(f"{each.place}: {each.rule} {each.problem}")
        click.echo(f"{len(results) - len(failed)} passed, {len(failed) + len(findings)} failed")
    sys.exit(NO if failed or findings else YES)


@policy.command("eval")
@click.argument("path", type=_PATH, default="policy")
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
@_OUTPUT
def evaluate(path: Path, question: BinaryIO, entry: str, deadline_ms: int, output: str) -> None:
    """Print the answer of the policy in PATH (by default ./policy) as Remit would read it.

    Ends 0 for allow, 1 for deny, 4 for require_approval, and 3 where policy gives no usable
    answer, which the gateway would treat as a denial with the code shown.
    """
    try:
        document = canonical.parse(question.read())
    except RemitError as error:
        _give_up(error, USAGE)
    if not isinstance(document, dict):
        raise click.UsageError("the input is not a JSON object")
    _warn_of_faults(document)
    try:
        ending = asyncio.run(_ask(path, document, entry, deadline_ms, output))
    except RemitError as error:
        _give_up(error, UNKNOWN)
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
            seen = sorted(await point.visible(document, offered))
            click.echo(json.dumps(seen) if output == "json" else "\n".join(seen))
            return YES
        decision = await point.decide(document, decision_id="dec_eval")
    finally:
        await point.aclose()
    facts = _facts(decision)
    if output == "json":
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=2))
    else:
        click.echo(_text(facts))
    match decision:
        case Allow():
            return YES
        case RequireApproval():
            return WAITING
        case Deny():
            return NO if decision.code is Code.POLICY_DENIED else UNKNOWN
        case _:
            assert_never(decision)


def _facts(decision: Decision) -> dict[str, Any]:
    """A decision as JSON, with what would happen to the call."""
    facts: dict[str, Any] = {"decision": _VERDICT[type(decision)]}
    if isinstance(decision, Deny):
        facts["code"] = decision.code.value
        facts["retriable"] = decision.retriable
    facts["reasons"] = [
        {
            name: value
            for name in ("code", "message", "audience", "path", "rule")
            if (value := getattr(reason, name)) is not None
        }
        for reason in decision.reasons
    ]
    if not isinstance(decision, Deny):
        facts["constraints"] = _constraints(decision.constraints)
    if isinstance(decision, RequireApproval):
        rule = decision.approvals
        facts["approvals"] = {
            "required": rule.required,
            "groups": list(rule.groups),
            "exclude": list(rule.exclude),
            "separation_of_duties": rule.separation_of_duties,
            "ttl_s": rule.ttl_s,
            "reason_required": rule.reason_required,
        }
    facts["obligations"] = [
        {"id": each.id, "type": each.type, "properties": each.properties.value()}
        for each in decision.obligations
    ]
    told = decision.evaluation
    facts["revision"] = told.revision
    facts["engine"] = told.engine
    facts["input_digest"] = told.input_digest
    facts["took_us"] = told.duration_us
    return facts


_VERDICT = {Allow: "allow", Deny: "deny", RequireApproval: "require_approval"}


def _constraints(constraints: Constraints) -> dict[str, Any]:
    """The constraints that say something, under the names that the plan's limits have."""
    found: dict[str, Any] = {
        name: value
        for name in ("profile", "min_tier", "wall_s", "memory_mb", "output_max_bytes")
        if (value := getattr(constraints, name)) is not None
    }
    if constraints.bounds:
        found["bounds"] = {name: _bound(bound) for name, bound in constraints.bounds.items()}
    if constraints.force:
        found["force"] = {name: value.value() for name, value in constraints.force.items()}
    return found


def _bound(bound: Bound) -> dict[str, Any]:
    found = {
        "minimum": bound.minimum,
        "maximum": bound.maximum,
        "one_of": None if bound.one_of is None else list(bound.one_of),
    }
    return {name: value for name, value in found.items() if value is not None}


def _text(facts: Mapping[str, Any]) -> str:
    code = f" ({facts['code']})" if "code" in facts else ""
    lines = [f"{facts['decision']}{code}"]
    for reason in facts["reasons"]:
        place = f" at {reason['path']}" if reason.get("path") else ""
        lines.append(f"  {reason['audience']:5}  {reason['code']}{place}: {reason['message']}")
    lines += [
        f"  {part}: {json.dumps(facts[part])}"
        for part in ("constraints", "approvals", "obligations")
        if facts.get(part)
    ]
    lines.append(f"  revision {facts['revision']}, {facts['engine']}, {facts['took_us']} us")
    return "\n".join(lines)


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


def _give_up(error: RemitError, ending: int) -> NoReturn:
    print_error(error)
    sys.exit(ending)
