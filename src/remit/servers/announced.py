"""What each server said last that it tells by itself, kept so that no server is started to be asked.

A file that cannot be read says nothing: then nobody is watched until the server is looked at again.
A gateway writes it, and so does an import beside one that runs: one at a time, and neither what the
other wrote.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
        self._own: dict[str, frozenset[str]] = {}

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
        self._said[server] = self._own[server] = said
        try:
            with self._alone():
                self._write({**self._said, **self._read(), **self._own})
        except OSError as error:
            log.error("announced_not_kept", server=server, error=error.strerror)  # noqa: TRY400 - a trace says nothing
        return True

    def forget(self, servers: Iterable[str]) -> None:
        """These were never asked; where nobody is left, nor is the file.

        Raises:
            OSError: it could not be written.
        """
        if not self._path.exists():
            return
        with self._alone():
            gone = set(servers)
            left = {name: said for name, said in self._read().items() if name not in gone}
            if left:
                self._write(left)
            else:
                self._path.unlink()

    def _write(self, servers: Mapping[str, frozenset[str]]) -> None:
        each = {name: sorted(said) for name, said in sorted(servers.items())}
        text = json.dumps({"schema": SCHEMA, "servers": each})
        put_down(self._path, text.encode() + b"\n")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody else writes it."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

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
