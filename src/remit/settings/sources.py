"""Where each setting comes from: flag, then `REMIT_…` variable, then file, then default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remit.errors import Code, ConfigError
from remit.settings.strict_yaml import Document, read_yaml, scalar

PREFIX = "REMIT_"


class Sources:
    """The merged settings before validation, and where each came from."""

    def __init__(self, document: Document, file: str) -> None:
        self.values: dict[str, Any] = document.value if document.value is not None else {}
        self._document = document
        self._file = file
        self._over: dict[str, str] = {}

    def lay_over(self, place: str, value: Any, source: str) -> None:
        """Set the value at a dotted place of words, over whatever is there."""
        *outer, last = place.split(".")
        target = self.values
        for word in outer:
            inner = target.get(word)
            if not isinstance(inner, dict):
                inner = target[word] = {}
            target = inner
        target[last] = value
        self._over[place] = source

    def came_from(self, place: str, file: str) -> None:
        """Say that the value at a place is that of another file which this place's section names."""
        self._over[place] = f"{self.where(place)} ({file})"

    def source(self, place: str) -> str | None:
        """What set this place: a flag, a variable, or a line of the file; None for a default."""
        for over, source in self._over.items():
            if place == over or place.startswith((over + ".", over + "[")):
                return source
        line = self._document.lines.get(place)
        return None if line is None else f"{self._file}:{line}"

    def where(self, place: str) -> str:
        """The source of a place, or of the nearest thing around it, for an error."""
        found = self.source(place)
        if found is not None:
            return found
        line = self._document.line(place)
        return self._file if line is None else f"{self._file}:{line}"


def gather(path: Path, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Sources:
    """Read the file and lay variables and flags over it.

    Raises:
        ConfigError: `config_not_found`, or `config_invalid` if the file is not strict YAML with
            a mapping at the top.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            Code.CONFIG_NOT_FOUND,
            f"the configuration cannot be read: {exc.strerror}",
            place=str(path),
            hint="`remit init` writes one here; --config FILE names another",
        ) from None
    document = read_yaml(data, str(path))
    if document.value is not None and not isinstance(document.value, dict):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "the file must hold sections such as `server:`",
            place=f"{path}:1",
            hint="`remit init` in an empty directory shows what it looks like",
        )
    sources = Sources(document, str(path))
    for name, text in sorted(environ.items()):
        words = name.removeprefix(PREFIX).lower()
        if name.startswith(PREFIX) and "__" in words:
            sources.lay_over(words.replace("__", "."), _variable(name, text), name)
    for place, value in flags.items():
        if value is not None:
            sources.lay_over(place, value, "--" + place.rpartition(".")[2].replace("_", "-"))
    return sources


def _variable(name: str, text: str) -> Any:
    """A plain word as YAML would read it; lists, mappings and quoted text as YAML."""
    if text[:1] in ("[", "{", '"', "'"):
        return read_yaml(text.encode("utf-8", "surrogateescape"), name).value
    return scalar(text)
