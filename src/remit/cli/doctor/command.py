"""The `remit doctor` command: asks for every line, prints them, and ends with what they mean."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from remit.cli.doctor import clients, installation, machine
from remit.cli.invocation import Invocation
from remit.cli.output import Exit, output_option, print_one
from remit.config import Settings
from remit.profile import DEFAULT, Profile
from remit.runners.basedigest import BaseFault, digest
from remit.runners.check import Check
from remit.runners.doctor import machine_checks
from remit.runners.sandbox import UID_BASE
from remit.visible import visible

SANDBOX = ("bubblewrap", "user namespaces", "cgroups", "sandbox")
"""The lines without which no tool runs, in the order in which one depends on the other."""


@click.command()
@output_option
@click.option(
    "--digest",
    "base",
    metavar="PATH",
    type=click.Path(exists=True),
    help="Print the digest of a base system (an image file or a directory) and do no more.",
)
@click.pass_obj
def doctor(invocation: Invocation, form: str, base: str | None) -> None:
    """Check this machine, and try to get out of each profile; each finding with its fix.

    Changes nothing. Ends 0 if all is well or worth a warning at most, 1 if something fails, 3 if
    something could not be found out, or if no sandbox can be had here: then the last line is the
    one command that enables it.
    """
    if base is not None:
        print_one(form, {"digest": (found := _digest(base))}, lambda: found)
        return
    checks = asyncio.run(look(invocation.config))
    ended = ending(checks)
    facts = {
        "ok": ended is Exit.YES,
        "enable": enable(checks),
        "checks": [asdict(check) for check in checks],
    }
    print_one(form, facts, lambda: "\n".join(as_text(checks)))
    sys.exit(ended)


def _digest(path: str) -> str:
    try:
        return digest(path)
    except (BaseFault, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise click.BadParameter(f"{path} {reason}", param_hint="--digest") from None


async def look(config: Path) -> list[Check]:
    """Every line, in the order of a request's way."""
    settings, told = installation.configuration(config)
    # In the order of the gateway's own start: the spawner comes before any other process.
    sandbox = await _sandbox(settings)
    data_dir = Path(".remit") if settings is None else settings.data_dir
    return [
        machine.python(),
        told,
        *([] if settings is None else installation.files(settings)),
        installation.account(settings),
        clients.direct_servers(settings),
        await installation.policy_engine(settings),
        *sandbox,
        machine.durable_write(data_dir),
        machine.clock(),
    ]


async def _sandbox(settings: Settings | None) -> list[Check]:
    chosen = None if settings is None else settings.sections.runners.sandbox
    gvisor = None if settings is None else settings.sections.runners.gvisor
    base = Path() if settings is None else settings.file.parent
    data_dir = machine.existing(Path.cwd() if settings is None else settings.data_dir)
    try:
        with tempfile.TemporaryDirectory(prefix="remit-doctor-") as state:
            checks = await machine_checks(
                Path(state),
                profiles={DEFAULT: Profile()} if settings is None else settings.profiles,
                bwrap=base / chosen.bwrap if chosen and chosen.bwrap else None,
                runsc=base / gvisor.runsc if gvisor and gvisor.runsc else None,
                gvisor_platform=gvisor.platform.value if gvisor and gvisor.platform else None,
                unsafe_degraded=bool(chosen and chosen.unsafe_degraded),
                data_dir=data_dir,
                uid_base=chosen.uid_base if chosen else UID_BASE,
            )
    except OSError as error:
        found = f"could not be looked at: {error.strerror}"
        return [Check(name="sandbox", status="unknown", found=found)]
    return checks


def ending(checks: Sequence[Check]) -> Exit:
    """What all lines together say."""
    if any(check.name in SANDBOX and check.status in ("fail", "unknown") for check in checks):
        return Exit.UNKNOWN
    if any(check.status == "fail" for check in checks):
        return Exit.NO
    return Exit.UNKNOWN if any(check.status == "unknown" for check in checks) else Exit.YES


def enable(checks: Sequence[Check]) -> str | None:
    """The one command that lets tools run here; None if they do, or if none is known."""
    broken = {c.name: c.fix for c in checks if c.name in SANDBOX and c.status == "fail" and c.fix}
    return next((broken[name] for name in SANDBOX if name in broken), None)


def as_text(checks: Sequence[Check]) -> list[str]:
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<8}{check.name:<{width}}  {visible(check.found)}")
        if check.fix and check.status != "ok":
            lines.append(f"{'':<8}{'':<{width}}  fix: {visible(check.fix)}")
    if ending(checks) is Exit.UNKNOWN and any(
        c.name in SANDBOX and c.status != "ok" for c in checks
    ):
        command = enable(checks)
        lines += ["", "No tool runs on this machine until a sandbox can be made."]
        lines += [f"This enables it: {visible(command)}"] if command else []
    return lines
