"""`remit policy check`: everything that can be told of a policy without asking it anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remit.cli.output import SCHEMA_VERSION, Exit
from remit.cli.policy.opa import check_with, opa_at
from remit.cli.policy.options import give_up, opa_option, output_option, path_argument, policy_at
from remit.errors import ConfigError, PolicyFault, RemitError
from remit.visible import visible

if TYPE_CHECKING:
    from remit.policy.bundle import PolicyBundle
    from remit.policy.finding import Finding


@click.command()
@path_argument
@click.option("--strict", is_flag=True, help="Let warnings fail too.")
@opa_option
@output_option
def check(path: Path, strict: bool, opa: Path | None, output: str) -> None:
    """Check the policy in PATH (by default ./policy) as the gateway does before it loads it.

    PATH is a directory or a bundle (.tar.gz). Reported are what the portable profile refuses,
    what does not compile, and warnings about what is seldom meant; and whether the engine here
    answers its probes as it must. With --opa, `opa check --strict` has its say too, under the
    capabilities of the profile. Ends 0 if nothing is refused, 1 if something is, 2 if there is no
    such policy, 3 if the engine or opa could not tell.
    """
    try:
        bundle = policy_at(path)
        findings = _findings(bundle)
    except RemitError as error:
        give_up(error)
    try:
        findings += [] if opa is None else check_with(opa_at(opa, None), bundle)
        _probe()
    except (ConfigError, PolicyFault) as error:
        give_up(error, Exit.UNKNOWN)
    failing = [each for each in findings if strict or each.severity == "error"]
    facts = {
        "ok": not failing,
        "revision": bundle.revision,
        "modules": len(bundle.modules),
        "findings": [_row(each) for each in findings],
    }
    if output == "json":
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=2))
    else:
        click.echo(_text(findings, facts))
    sys.exit(Exit.NO if failing else Exit.YES)


def _findings(bundle: PolicyBundle) -> list[Finding]:
    from remit.policy.doubts import doubts
    from remit.policy.finding import in_order
    from remit.policy.lint import lint

    return in_order([*lint(bundle), *doubts(bundle)])


def _probe() -> None:
    """Hold the engine of this machine to its probes.

    Raises:
        PolicyFault: it fails one, or cannot be run.
    """
    from remit.policy import probes
    from remit.policy.process import run_once, try_frame

    frame = try_frame({"probes.rego": probes.MODULE}, {}, list(probes.QUERIES), {})
    probes.check(run_once(frame))


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "place": finding.place,
        "severity": finding.severity.value,
        "problem": finding.message,
        "mend": finding.mend,
    }


def _text(findings: Sequence[Finding], facts: Mapping[str, Any]) -> str:
    lines = [
        f"{visible(each.place)}: {each.severity}: {visible(each.message)}\n  {visible(each.mend)}"
        for each in findings
    ]
    errors = sum(each.severity == "error" for each in findings)
    counted = f"{errors} errors, {len(findings) - errors} warnings"
    lines.append(f"{facts['modules']} modules, revision {facts['revision']}: {counted}")
    return "\n".join(lines)
