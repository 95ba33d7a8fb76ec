"""`remit policy test`: run a policy's own tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from remit.cli.output import SCHEMA_VERSION, Exit, print_error
from remit.cli.policy.options import output_option, path_argument
from remit.errors import RemitError


@click.command()
@path_argument
@output_option
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
        print_error(error)
        sys.exit(Exit.NO)
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
    sys.exit(Exit.NO if failed or findings else Exit.YES)
