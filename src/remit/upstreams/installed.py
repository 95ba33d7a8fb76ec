"""A published server that was installed once, in a directory of its own that says what it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from remit.errors import Code, ConfigError

ENVIRONMENTS = ".remit-servers"
"""Where installed servers stand, beside remit.yaml: never in the data directory, which no run may
see."""

RECORD = "remit-installed.json"
_MOST = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was installed, as whoever installed it wrote it down.

    `asked` is the version that was asked for, None for the newest; `version` the one that came.
    `sha256` is the digest that the package's file was held against, None where none was known.
    `program` is the host's own program that starts it, `start` what of the directory is started.
    """

    kind: str
    package: str
    asked: str | None
    version: str
    sha256: str | None
    program: str | None
    start: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A package that stands in a directory of its own.

    `words` start it, as the server sees them below `at`, the directory's place in the sandbox.
    """

    directory: Path
    version: str
    program: Path | None
    start: str

    def words(self, at: str) -> list[str]:
        """The words that start it, with its directory seen at a path; an interpreter comes first
        where one of the host's own is used."""
        inside = f"{at}/{self.start}"
        return [str(self.program), inside] if self.program else [f"{at}/bin/python", inside]


def write_record(directory: Path, record: Record) -> None:
    """Keep beside an installed package what it is."""
    text = json.dumps(asdict(record), indent=1) + "\n"
    (directory / RECORD).write_text(text, encoding="utf-8")


def read_record(directory: Path) -> Record | None:
    """What stands in a directory; None if nothing was installed there by Remit.

    Raises:
        ConfigError: `config_invalid`: what is written there cannot be read.
    """
    path = directory / RECORD
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = json.loads(file.read(_MOST))
        record = Record(**content)
        texts = (record.kind, record.package, record.version, record.start)
        open_ = (record.asked, record.sha256, record.program)
        if not all(isinstance(each, str) for each in texts):
            raise TypeError
        if not all(each is None or isinstance(each, str) for each in open_):
            raise TypeError
    except (OSError, ValueError, TypeError):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "what was installed there cannot be told",
            place=str(path),
            hint="remove that directory, and install it again: remit init --install",
        ) from None
    return record
