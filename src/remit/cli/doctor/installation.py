"""This installation: its configuration, who can read its files, its account, its policy engine."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from importlib import resources
from pathlib import Path

from remit.account import readable_by_others, same_user, writable_by_others
from remit.app import private_files
from remit.cli.doubts import secret_faults
from remit.config import DEFAULT_FILE, Settings, examine
from remit.enforcement import open_policy
from remit.errors import Code, PolicyFault, RemitError
from remit.policy.bundle import load_bundle
from remit.policy.opa.client import OpaEngine
from remit.policy.point import PolicyPoint
from remit.runners.check import Check

OWN_USER = (
    "sudo useradd --system --user-group --create-home --home-dir /var/lib/remit"
    " --shell /usr/sbin/nologin remit"
)
"""Makes the account; docs/doctor.md has what follows."""


def configuration(path: Path) -> tuple[Settings | None, Check]:
    """The settings, if there is a file and it is well."""
    if not path.exists() and path == Path(DEFAULT_FILE):
        found = f"no {path} here; what follows is about a new installation"
        return None, Check(name="configuration", status="ok", found=found, fix="remit init")
    settings, problems = examine(path)
    if settings is None:
        first, more = problems[0], len(problems) - 1
        where = f"{first.place}: " if first.place else ""
        all_of_it = f"remit --config {shlex.quote(str(path))} check"
        found = where + first.message + (f"; {all_of_it} shows {more} more" if more else "")
        fix = first.hint or all_of_it
        return None, Check(name="configuration", status="fail", found=found, fix=fix)
    found = f"{path}, {len(settings.tools)} tools, {len(settings.callers)} callers' keys"
    return settings, Check(name="configuration", status="ok", found=found)


def files(settings: Settings) -> list[Check]:
    """Whether keys and data are for their owner alone, and nobody else can change the rules."""
    try:
        return [_closed(settings), _unchanged(settings), *_secrets(settings)]
    except OSError as error:
        found = f"could not be looked at: {error.strerror}"
        return [Check(name="file modes", status="unknown", found=found, fix=_as_owner(settings))]


def _closed(settings: Settings) -> Check:
    data_dir, name = settings.data_dir, "file modes"
    if not data_dir.exists():
        return Check(name=name, status="ok", found=f"{data_dir} is not made yet")
    owner = data_dir.stat().st_uid
    if owner != os.geteuid():
        found = f"{data_dir.name} belongs to {_called(owner)}, and this is {_called(os.geteuid())}"
        return Check(name=name, status="unknown", found=found, fix=_as_owner(settings))
    secret = private_files(settings)
    foreign = [path for path in secret if path.stat().st_uid != owner]
    if foreign:
        found = f"not the gateway's own: {_named(foreign)}"
        fix = f"sudo chown -R {_called(owner)} {shlex.quote(str(data_dir))}"
        return Check(name=name, status="fail", found=found, fix=fix)
    wrong = [path for path in (data_dir, *secret) if _mode(path) & 0o077]
    if wrong:
        reach = "others can read them" if readable_by_others(wrong) else "out of reach for now"
        found = f"open to more than their owner ({reach}): {_named(wrong)}"
        fix = "chmod go= " + " ".join(shlex.quote(str(path)) for path in wrong)
        return Check(name=name, status="fail", found=found, fix=fix)
    found = f"{len(secret)} keys and ledger files 0600, {data_dir.name} 0700"
    return Check(name=name, status="ok", found=found)


def _secrets(settings: Settings) -> list[Check]:
    """Whether each secret of runs is where the configuration says, and not for everybody."""
    if not settings.sections.runners.credentials:
        return []
    name, faults = "secrets of runs", list(secret_faults(settings))
    if faults:
        place, why, fix = faults[0]
        more = f" (and {len(faults) - 1} more: `remit check`)" if faults[1:] else ""
        return [Check(name=name, status="fail", found=f"{place} {why}{more}", fix=fix)]
    count = len(settings.sections.runners.credentials)
    return [Check(name=name, status="ok", found=f"{count} credentials, none open to others")]


def _as_owner(settings: Settings) -> str:
    owner = _called(settings.data_dir.stat().st_uid)
    return f"sudo -u {owner} remit --config {shlex.quote(str(settings.file))} doctor"


def _called(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _unchanged(settings: Settings) -> Check:
    rules = [settings.file]
    for path in settings.policy.paths:
        rules += [path, *path.rglob("*")]
    open_to_all = writable_by_others(rules)
    if open_to_all:
        found = f"others can change what is allowed: {_named(open_to_all)}"
        fix = "chmod go-w " + " ".join(shlex.quote(str(path)) for path in open_to_all)
        return Check(name="rules", status="fail", found=found, fix=fix)
    return Check(
        name="rules", status="ok", found="only their owner can change configuration and policy"
    )


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _named(paths: Iterable[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def account(settings: Settings | None) -> Check:
    """Whether agents may run as the account that Remit runs as (threat T-01)."""
    why = same_user()
    if why is None:
        return Check(name="same user", status="ok", found="this account seems to be Remit's own")
    known = settings is not None and settings.sections.identity.unsafe_same_user
    acknowledged = " (acknowledged in remit.yaml)" if known else ""
    found = (
        f"unsafe_same_user: {why}; an agent under the same account can read keys and ledger, "
        f"and approve for itself{acknowledged}"
    )
    return Check(name="same user", status="warn", found=found, fix=OWN_USER)


async def policy_engine(settings: Settings | None) -> Check:
    """Whether the engine starts, loads the policy and answers its probes."""
    began = time.monotonic()
    try:
        name, whose, probed = await _started(settings)
    except RemitError as error:
        where = f"{error.place}: " if error.place else ""
        found = where + error.message
        return Check(name="policy engine", status="fail", found=found, fix=error.hint)
    except OSError as error:
        found = f"its worker could not be started: {error.strerror}"
        return Check(name="policy engine", status="unknown", found=found)
    took_ms = 1000 * (time.monotonic() - began)
    if not probed:
        found = f"{name} is healthy and denies an empty input, but has not got the probes"
        fix = "give it the bundle remit_probe: docs/opa.md"
        return Check(name="policy engine", status="warn", found=found, fix=fix)
    found = f"{name} loaded {whose} and answered its probes in {took_ms:.0f} ms"
    return Check(name="policy engine", status="ok", found=found)


async def _started(settings: Settings | None) -> tuple[str, str, bool]:
    """The engine, and what it loaded, once it is ready; and whether it was asked the probes.

    Raises:
        RemitError, OSError: it does not start, or does not answer as it must.
    """
    async with AsyncExitStack() as stack:
        if settings is None:
            with resources.as_file(resources.files("remit") / "templates" / "policy") as starter:
                point = await PolicyPoint.start(load_bundle(starter))
            stack.push_async_callback(point.aclose)
            return point.engine, "the starter policy", True
        point = (await open_policy(settings, stack)).point
        why = await point.ready()
        if why is not None:
            asked = settings.sections.policy.engine == "opa"
            hint = "docs/opa.md has what a server must let Remit ask" if asked else None
            raise PolicyFault(Code.POLICY_NOT_READY, why, hint=hint)
        bundles = [layer.bundle for layer in point.standing.layers]
        count = sum(len(bundle.modules) for bundle in bundles if bundle is not None)
        engines = [layer.engine for layer in point.standing.layers]
        probed = not any(
            isinstance(each, OpaEngine) and each.probes_installed is False for each in engines
        )
        return point.engine, f"{count} modules", probed
