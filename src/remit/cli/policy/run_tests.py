"""`remit policy test`: run a policy's own tests."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from remit.cli.output import Exit, note
from remit.cli.policy.options import give_up, path_argument, policy_at, use_option, used
from remit.cli.policy.reports import Why, as_json, as_junit, as_text
from remit.errors import RemitError

if TYPE_CHECKING:
    from remit.policy.bundle import PolicyBundle
    from remit.policy.finding import Finding
    from remit.policy.suite import Run

EXPLAINED = 10
"""How many failing tests are looked into; each takes about 0.2 s."""


def _pattern(_: click.Context, __: click.Parameter, value: str | None) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"is not a regular expression: {error}") from None


@click.command()
@path_argument
@click.option(
    "--run", "only", metavar="REGEX", callback=_pattern,
    help="Run only tests whose full name (remit.test_x) has this in it.",
)  # fmt: skip
@click.option("--coverage", is_flag=True, help="Say which lines the tests reach.")
@click.option(
    "--min-coverage", type=click.FloatRange(0, 100), metavar="PERCENT",
    help="End 1 if the tests reach less than this.",
)  # fmt: skip
@use_option
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "junit"]), default="text",
    help="How to print.",
)  # fmt: skip
def test(
    *,
    path: Path,
    only: re.Pattern[str] | None,
    coverage: bool,
    min_coverage: float | None,
    use: Sequence[str],
    output: str,
) -> None:
    """Run the tests of the policy in PATH (by default ./policy).

    A test is a rule whose name begins with test_ in a file named *_test.rego; it passes if it is
    true. todo_test_ is skipped. What the portable profile refuses is reported too. Of a failing
    test the first condition that does not hold is shown, and what print() said. With --use the
    tests of policies of the library are run too. Ends 0 if all is well, 1 if not, 2 if there is no
    such policy, 3 if the tests could not be run.
    """
    from remit.policy.coverage import percent_of
    from remit.policy.library import with_library
    from remit.policy.lint import lint
    from remit.policy.suite import Run, run_suite

    try:
        bundle = with_library(policy_at(path), used(use), tests=True)
        findings = lint(bundle)
        run = Run(()) if findings else run_suite(bundle, only=only)
        why = _why(bundle, run)
    except RemitError as error:
        give_up(error)
    with_coverage = coverage or min_coverage is not None
    click.echo(
        _report(
            output=output,
            run=run,
            findings=findings,
            why=why,
            with_coverage=with_coverage,
            revision=bundle.revision,
        )
    )
    if not run.results and not findings:
        note(f"there is no test{'' if only is None else ' of that name'} in {path}")
    failed = bool(run.failed or findings)
    if min_coverage is not None and not findings and percent_of(run.coverage) < min_coverage:
        note(f"the tests reach less than {min_coverage:g} % of the lines")
        failed = True
    sys.exit(Exit.NO if failed else Exit.YES)


def _why(bundle: PolicyBundle, run: Run) -> Why:
    from remit.policy.lint import modules_of
    from remit.policy.why import why

    failed = [each for each in run.failed if each.problem == "is not true"][:EXPLAINED]
    modules = modules_of(bundle)[0] if failed else []
    return {each.rule: why(bundle, each.rule, {}, within=modules) for each in failed}


def _report(
    *,
    output: str,
    run: Run,
    findings: Sequence[Finding],
    why: Why,
    with_coverage: bool,
    revision: str,
) -> str:
    shown = run.coverage if with_coverage else ()
    if output == "json":
        return as_json(run, findings, why, shown, revision)
    if output == "junit":
        return as_junit(run, findings, why)
    return as_text(run, findings, why, shown)
