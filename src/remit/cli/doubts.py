"""What is allowed, and can hardly be meant: warnings of `remit check`, and a line of `remit doctor`."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from remit.config import Settings
from remit.secret import SecretRef
from remit.settings.credentials import ConsentCredential
from remit.visible import visible


def doubts(settings: Settings) -> Iterator[str]:
    """What is allowed but can hardly be meant, on this machine and today."""
    if not settings.callers:
        yield "identity.keys is empty: no agent can call anything (`remit config new-key`)"
    now_ms = time.time_ns() // 1_000_000
    holders = [(key.id, key.caller.expires_ms) for key in settings.callers]
    holders += [(key.id, key.operator.expires_ms) for key in settings.operators]
    for name, expires_ms in holders:
        if expires_ms is not None and expires_ms <= now_ms:
            yield f"the key {name} has expired"
    for tool in settings.tools:
        commands = [tool.command, *([tool.preview.command] if tool.preview else [])]
        for command in commands:
            if not os.access(command.argv[0], os.X_OK):
                yield f"the tool {tool.name}: there is no program {visible(command.argv[0])} here"
            for mount in command.mounts:
                if not Path(mount.source).is_dir():
                    yield f"the tool {tool.name}: there is no directory {visible(mount.source)}"
    yield from _absent(settings)
    for source in _sources(settings):
        if _mode(Path(source)) & stat.S_IWOTH:
            yield f"everybody can change what runs see of {visible(source)}"
    for place, why, _ in secret_faults(settings):
        yield f"{place} {why}"
    yield from _unfound(settings)


def _unfound(settings: Settings) -> Iterator[str]:
    """Credentials that people consent to, where no browser could come back to Remit."""
    if settings.public_url is not None or settings.listen.loopback:
        return
    for ref, section in settings.sections.runners.credentials.items():
        if isinstance(section, ConsentCredential):
            yield (
                f"runners.credentials.{ref}: people consent in a browser, and none finds this "
                "gateway; write server.public_url"
            )


def _absent(settings: Settings) -> Iterator[str]:
    """What profiles name and this machine does not have."""
    for name, profile in settings.profiles.items():
        for mount in profile.mounts:
            if not Path(mount.source).is_dir():
                yield f"the profile {name}: there is no directory {visible(mount.source)}"
        base = profile.base.path
        if base is not None and not Path(base).exists():
            yield f"the profile {name}: there is no base system {visible(base)}"
    section = settings.sections.runners
    for key, named in (
        ("sandbox.bwrap", section.sandbox.bwrap),
        ("gvisor.runsc", section.gvisor.runsc),
    ):
        if named is not None and not os.access(settings.file.parent / named, os.X_OK):
            yield f"runners.{key}: there is no program {visible(named)} here"


def _sources(settings: Settings) -> list[str]:
    """Every directory that runs are shown, once."""
    found = [m.source for profile in settings.profiles.values() for m in profile.mounts]
    for tool in settings.tools:
        commands = [tool.command, *([tool.preview.command] if tool.preview else [])]
        found += [mount.source for command in commands for mount in command.mounts]
    return list(dict.fromkeys(found))


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def secret_faults(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """What is wrong with where the credentials of runs get their secrets, without reading one: the
    key, what is wrong with it, and what mends it."""
    for ref, section in settings.sections.runners.credentials.items():
        for name in ("secret", "private_key", "client_secret"):
            told = getattr(section, name, None)
            if told is None:
                continue
            fault = _fault(SecretRef.parse(told), settings.file.parent)
            if fault is not None:
                yield (f"runners.credentials.{ref}.{name}", *fault)


def _fault(ref: SecretRef, base: Path) -> tuple[str, str] | None:
    if ref.kind == "env" and ref.where not in os.environ:
        return f"names {ref.where}, which is not set here", f"set {ref.where} where serve starts"
    if ref.kind != "file":
        return None
    path, shown = base / ref.where, visible(ref.where)
    if not path.is_file():
        return f"names {shown}, which is no file", "write the secret there, for its owner alone"
    if _mode(path) & (stat.S_IRWXO | stat.S_IWGRP):
        return f"names {shown}, which others can read or change", f"chmod 0600 {shown}"
    return None
