"""`remit policy`: write a policy, test it, and ask it what the gateway would ask."""

from __future__ import annotations

import click

from remit.cli.policy.bundles import build, sign, verify
from remit.cli.policy.check import check
from remit.cli.policy.diff import diff
from remit.cli.policy.evaluate import evaluate
from remit.cli.policy.explain import explain
from remit.cli.policy.fmt import fmt
from remit.cli.policy.publish import capabilities, schemas
from remit.cli.policy.run_tests import test


@click.group()
def policy() -> None:
    """Check and test a policy, and ask it what the gateway would ask."""


for command in (
    check, test, evaluate, explain, diff, fmt, capabilities, schemas, build, sign, verify,
):  # fmt: skip
    policy.add_command(command)
