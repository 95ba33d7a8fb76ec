"""`remit policy`: write a policy, test it, and ask it what the gateway would ask."""

from __future__ import annotations

import click

from remit.cli.policy.bundles import build, sign, verify
from remit.cli.policy.evaluate import evaluate
from remit.cli.policy.run_tests import test


@click.group()
def policy() -> None:
    """Test a policy and ask it questions."""


for command in (test, evaluate, build, sign, verify):
    policy.add_command(command)
