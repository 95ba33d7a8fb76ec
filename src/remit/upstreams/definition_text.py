"""Text that defines servers, read within bounds: JSON, JSON with comments, and TOML.

A fault says which kind of file, where and what to do. It never echoes a value, and a key only
where it does not look like a secret.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from remit import canonical
from remit.errors import Code, ConfigError, InputError
from remit.upstreams.found import escaped
from remit.upstreams.secretlike import shown

MAX_JSON = 8 * 1024 * 1024
MAX_TOML = 512 * 1024
MAX_TOML_LINE = 8 * 1024
MAX_DEPTH = 64
MAX_TEXT = 32 * 1024
MAX_ITEMS = 512
MAX_NAME = 200

_STRING = r'"(?:[^"\\]|\\.)*+"?+'
_COMMENT = re.compile(rf"{_STRING}|//[^\n\r]*+|/\*(?s:.*?)\*/", re.DOTALL)
_COMMA = re.compile(rf"{_STRING}|,(?=\s*+[\]}}])", re.DOTALL)
_INSIDE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the file in its own spelling; nothing here counts with it."""

    text: str


class _Repeated(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Repeated
    return result


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=Number
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionText:
    """One file of a person: its kind in words and its path, for faults; it is never opened here."""

    file: str
    path: str

    def fault(self, pointer: str, message: str, hint: str) -> ConfigError:
        return ConfigError(
            Code.CONFIG_INVALID,
            f"{self.file}: {message}",
            place=f"{self.path}#{pointer}" if pointer else self.path,
            hint=hint,
        )

    def json(self, text: str, *, comments: bool = False) -> Mapping[str, Any]:
        """The object that the text holds.

        Args:
            text: JSON of at most 8 MiB, nested at most 64 deep.
            comments: comments and trailing commas are allowed.

        Raises:
            ConfigError: `config_invalid`; a key that stands twice is refused, since two readers
                would take different servers from it.
        """
        if len(text) > MAX_JSON:
            self._too_large(MAX_JSON)
        text = text.removeprefix("\ufeff")
        if comments:
            text = _plain(text)
        try:
            canonical.check_depth(text, MAX_DEPTH)
            tree = _DECODER.decode(text)
        except _Repeated:
            hint = "keep one of the two; otherwise it is unclear which one counts"
            raise self.fault("", "an object has the same key twice", hint) from None
        except json.JSONDecodeError as exc:
            where = f"line {exc.lineno} column {exc.colno}"
            hint = "mend the JSON there" + ("" if comments else "; it may hold no comments")
            raise self.fault("", f"not valid JSON ({where})", hint) from None
        except (InputError, RecursionError):
            self._too_deep()
        return self.table(tree, "")

    def toml(self, text: str) -> Mapping[str, Any]:
        """The table that TOML text of at most 512 KiB holds; raises as `json` does."""
        if len(text) > MAX_TOML or max(map(len, text.split("\n"))) > MAX_TOML_LINE:
            self._too_large(MAX_TOML)
        try:
            return tomllib.loads(text.removeprefix("\ufeff"))
        except tomllib.TOMLDecodeError as exc:
            found = re.search(r"\(at (line [0-9]+, column [0-9]+|end of document)\)", str(exc))
            where = found[1] if found else "somewhere"
            raise self.fault("", f"not valid TOML ({where})", "mend the TOML there") from None
        except RecursionError:
            self._too_deep()
        except ValueError:
            hint = "write numbers and dates that exist"
            raise self.fault("", "not valid TOML (a number or a date)", hint) from None

    def _too_large(self, limit: int) -> NoReturn:
        hint = "give a file with the servers only, in lines of usual length"
        raise self.fault("", f"larger than is read here ({limit} characters)", hint)

    def _too_deep(self) -> NoReturn:
        raise self.fault("", "nested too deeply", "give a file with the servers only")

    def table(self, node: object, pointer: str) -> Mapping[str, Any]:
        if not isinstance(node, dict):
            raise self.fault(pointer, "this must be a table of keys", "write it as name and value")
        return node

    def items(self, node: object, pointer: str) -> list[Any]:
        if not isinstance(node, list):
            raise self.fault(pointer, "this must be a list", "write it in [ ], one text each")
        if len(node) > MAX_ITEMS:
            raise self.fault(pointer, f"more than {MAX_ITEMS} items", "split it up")
        return node

    def named(self, node: object, pointer: str) -> Mapping[str, Any]:
        """A table whose keys are names that a person gave: bounded, without control characters."""
        found = self.table(node, pointer)
        if len(found) > MAX_ITEMS:
            raise self.fault(pointer, f"more than {MAX_ITEMS} entries", "split it up")
        return found

    def name(self, key: str, pointer: str) -> str:
        if not key.strip() or len(key) > MAX_NAME or _INSIDE.search(key) or not _whole(key):
            hint = f"use a name of 1 to {MAX_NAME} printable characters"
            raise self.fault(pointer, "a name cannot be used", hint)
        return key

    def text(self, node: object, pointer: str, *, lines: bool = False, empty: bool = False) -> str:
        """One text; a number is taken in its own spelling, anything else is a fault."""
        if isinstance(node, Number):
            node = node.text
        elif isinstance(node, int | float) and not isinstance(node, bool):
            node = str(node) if not isinstance(node, int) or abs(node) < 10**18 else None
        if not isinstance(node, str):
            raise self.fault(pointer, "this must be a text", "write it in quotes")
        bad = _INSIDE.search(node.translate({9: None, 10: None, 13: None}) if lines else node)
        if bad or not _whole(node):
            raise self.fault(pointer, "a text holds a control character", "take it out")
        if len(node) > MAX_TEXT:
            raise self.fault(pointer, f"longer than {MAX_TEXT} characters", "shorten it")
        if not node.strip() and not empty:
            raise self.fault(pointer, "this is empty", "give it a value or take it out")
        return node

    def flag(self, node: object, pointer: str) -> bool:
        if not isinstance(node, bool):
            raise self.fault(pointer, "this must be true or false", "write it without quotes")
        return node


def _whole(text: str) -> bool:
    """Whether the text is Unicode throughout: no half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _plain(text: str) -> str:
    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return found if found.startswith('"') else re.sub(r"[^\n\r]", " ", found)

    return _COMMA.sub(blank, _COMMENT.sub(blank, text))


def unknown(table: Mapping[str, Any], known: frozenset[str]) -> tuple[str, ...]:
    """The keys that are not taken, as they may be shown, at most 64 of them."""
    return tuple(shown(key) for key in sorted(table) if key not in known)[:64]


def at(pointer: str, key: str | int) -> str:
    return f"{pointer}/{escaped(str(key))}"
