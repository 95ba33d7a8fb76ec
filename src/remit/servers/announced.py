"""What each server said last that it tells by itself, kept so that no server is started to be asked.

A file that cannot be read says nothing: then nobody is watched until the server is looked at again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from remit import canonical
from remit.errors import RemitError
from remit.servers.pins import put_down
from remit.telemetry import logger
from remit.upstreams.notices import LISTS, SUBSCRIBE

SCHEMA = "remit.announced/1"
FILE = "_announced.json"
"""Beside the files of servers, of which none can have this name."""
MAX_BYTES = 4 * 1024 * 1024

_KNOWN = frozenset({*LISTS.values(), SUBSCRIBE})

log = logger()


class Announced:
    """By server: names of lists, and `subscribe`.

    Args:
        directory: where the files of servers are.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._said: dict[str, frozenset[str]] = dict(self._read())

    def of(self, server: str) -> frozenset[str]:
        """What this server tells; nothing of one that was never asked."""
        return self._said.get(server, frozenset())

    def unknown(self, server: str) -> bool:
        """Whether it was never asked."""
        return server not in self._said

    def put(self, server: str, said: frozenset[str]) -> bool:
        """It says this now; whether that is something else. Kept on disk if that can be."""
        if self._said.get(server) == said:
            return False
        self._said[server] = said
        facts = {
            "schema": SCHEMA,
            "servers": {name: sorted(each) for name, each in sorted(self._said.items())},
        }
        try:
            put_down(self._path, json.dumps(facts).encode() + b"\n")
        except OSError as error:
            log.error("announced_not_kept", server=server, error=error.strerror)  # noqa: TRY400 - a trace says nothing
        return True

    def _read(self) -> Mapping[str, frozenset[str]]:
        try:
            facts = canonical.parse(self._path.read_bytes(), max_depth=5, max_bytes=MAX_BYTES)
            if facts["schema"] != SCHEMA:
                raise ValueError
            return {str(name): frozenset(each) & _KNOWN for name, each in facts["servers"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, RemitError, ValueError, TypeError, KeyError, AttributeError):
            log.warning("announced_not_read", hint="servers are asked again: remit tools look")
            return {}
