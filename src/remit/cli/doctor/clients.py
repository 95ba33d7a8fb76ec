"""Agents' clients on this machine: which MCP servers they still reach past the gateway."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from remit.cli.imports.sources import places, reached, read_file
from remit.config import Settings
from remit.errors import RemitError
from remit.runners.check import Check
from remit.upstreams.secretlike import shown

NAME = "direct servers"


def direct_servers(settings: Settings | None) -> Check:
    """Whether clients' files name servers that no policy, approval or record stands before.

    Names are told, never values. A server that is switched off counts as not reached.
    """
    here, found, unread = Path.cwd(), [], []
    for client, path in dict.fromkeys(places()):
        try:
            if not path.exists():
                continue
            file = read_file(client, path)
        except (RemitError, OSError):
            unread.append(path.name)
            continue
        names = [shown(server.name) for server in reached(file, here) if server.enabled]
        if names:
            found.append(f"{path.name}: {', '.join(_first(names))}")
    if found:
        told = "clients reach these without Remit: " + "; ".join(found)
        return Check(name=NAME, status="warn", found=told, fix=_fix(settings))
    if unread:
        told = f"could not be read, so their servers are not known: {', '.join(unread)}"
        return Check(name=NAME, status="warn", found=told, fix="correct the file, or its mode")
    return Check(name=NAME, status="ok", found="no client's file names a server past Remit")


def _first(names: list[str]) -> Iterator[str]:
    yield from names[:8]
    if len(names) > 8:
        yield f"{len(names) - 8} more"


def _fix(settings: Settings | None) -> str:
    place = "" if settings is None else f" {shlex.quote(str(settings.file.parent))}"
    return f"remit init{place} --import --install --rewrite"
