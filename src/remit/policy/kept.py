"""The last bundle of a layer that was in force, as it came, kept for a start without its server."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from remit.policy.archive import read_file, write_file
from remit.telemetry import logger

log = logger()


@dataclass(frozen=True, slots=True)
class Place:
    """The file of one layer and URL: another URL has another file."""

    path: Path

    @classmethod
    def of(cls, directory: Path | None, layer: str, url: str) -> Self | None:
        """The place below a directory; None where nothing is kept."""
        if directory is None:
            return None
        return cls(directory / f"{layer}-{sha256(url.encode()).hexdigest()[:16]}.tar.gz")

    def read(self) -> bytes | None:
        """What is kept; None if nothing is.

        Raises:
            ConfigError: it cannot be read, or is too large.
        """
        return read_file(self.path) if self.path.exists() else None

    def write(self, content: bytes) -> None:
        """Keep this instead, whole or not at all; what cannot be kept is said and let be."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(self.path, content, mode=0o600)
        except OSError as error:
            log.warning("policy_not_kept", why=error.strerror or type(error).__name__)
