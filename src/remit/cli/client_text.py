"""Put the gateway's entry into the text of a client's file; every other byte stays as it is.

The text is read strictly before (a key that stands twice is refused) and again after: what comes
out must be what was there and the entry, and nothing else.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Literal

from remit.cli.client_entry import NAME
from remit.errors import Code, ConfigError, Conflict

Form = Literal["json", "toml"]
_SPACE = re.compile(r"[ \t\r\n]*")
_BY_HAND = "add the entry by hand: the same command without --install prints it"


def with_pieces(before: bytes | None, pieces: Mapping[str, Any], form: Form) -> bytes:
    """The file with the pieces in it; the same bytes if it has them all.

    Args:
        before: the file as it is; None if there is none.
        pieces: what each top key must hold: an object of named entries, or a list of entries with
            an `id`.

    Raises:
        ConfigError: `config_invalid`: the file is not what its client reads, or the entry cannot
            be added without touching the rest.
        Conflict: `wrong_state`: an entry of this name is there and says something else.
    """
    empty = "{}\n" if form == "json" else ""
    text = empty if before is None else _decoded(before)
    was = read_text(text, form)
    missing = {key: part for key, value in pieces.items() if (part := _missing(was, key, value))}
    if not missing and before is not None:
        return before
    after = _into_json(text, missing) if form == "json" else _onto_toml(text, missing)
    if not _holds(after, _merged(was, missing), form):
        raise _invalid("the entry cannot be added without changing the rest", _BY_HAND)
    return after.encode("utf-8")


def _holds(text: str, wanted: Mapping[str, Any], form: Form) -> bool:
    """Whether the text says this and nothing else."""
    try:
        return read_text(text, form) == wanted
    except ConfigError:
        return False


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid("the file is not UTF-8", _BY_HAND) from None


def read_text(text: str, form: Form) -> dict[str, Any]:
    """The file's values; nothing of them is ever said, as other entries may hold secrets."""
    try:
        if form == "toml":
            return tomllib.loads(text)
        whole = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        line = (
            re.search(r"\bline (\d+)", str(error)) if not isinstance(error, _TwiceError) else None
        )
        where = f", from line {line[1]} on" if line else ""
        why = " (a key stands twice)" if isinstance(error, _TwiceError) else ""
        raise _invalid(f"the file is not valid {form.upper()}{where}{why}", _mend(form)) from None
    if not isinstance(whole, dict):
        raise _invalid("the file is not a JSON object", _BY_HAND)
    return whole


def _mend(form: Form) -> str:
    return f"correct it, or {_BY_HAND}" + (" (JSON has no comments)" if form == "json" else "")


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) != len(pairs):
        raise _TwiceError
    return whole


def _no_constant(_: str) -> float:
    raise ValueError


def _missing(was: Mapping[str, Any], key: str, wanted: Any) -> Any:
    """What of this piece the file has not; empty if it has it all."""
    if key not in was:
        return wanted
    there = was[key]
    if not isinstance(there, type(wanted)):
        raise _invalid(f"`{key}` is not what the client reads", _BY_HAND)
    if isinstance(wanted, dict):
        name, mine, found = NAME, wanted[NAME], [there[NAME]] if NAME in there else []
    else:
        name, mine = wanted[0]["id"], wanted[0]
        found = [each for each in there if isinstance(each, dict) and each.get("id") == name]
    if any(each != mine for each in found):
        raise Conflict(
            Code.WRONG_STATE,
            f"`{key}` has another entry `{name}`, and it is not overwritten",
            hint="take that entry out or rename it, then install again",
        )
    return None if found else wanted


def _merged(was: Mapping[str, Any], missing: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(was)
    for key, part in missing.items():
        merged[key] = (
            {**was.get(key, {}), **part} if isinstance(part, dict) else [*part, *was.get(key, [])]
        )
    return merged


def _into_json(text: str, missing: Mapping[str, Any]) -> str:
    """Each piece as the first member of its object or list."""
    for key, part in reversed(list(missing.items())):
        top = after_space(text, 0)
        place = value_of(text, top, key)
        if place is None:
            text = put_first(text, top, _member(key, part, text), 1)
        elif isinstance(part, dict):
            text = put_first(text, place, _member(NAME, part[NAME], text), 2)
        else:
            text = put_first(text, place, _dumped(part[0], text), 2)
    return text


def value_of(text: str, opening: int, key: str) -> int | None:
    """Where the value of a key begins, in an object of a text that is known to be JSON."""
    decode = json.JSONDecoder().raw_decode
    at = after_space(text, opening + 1)
    while text[at] != "}":
        name, at = decode(text, at)
        at = after_space(text, after_space(text, at) + 1)
        if name == key:
            return at
        _, at = decode(text, at)
        at = after_space(text, at)
        if text[at] == ",":
            at = after_space(text, at + 1)
    return None


def after_space(text: str, at: int) -> int:
    """The first place from `at` on that is no white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def put_first(text: str, opening: int, piece: str, level: int) -> str:
    """A piece as the first entry of an object or list that opens there, indented by `level`."""
    line, unit = _style(text)
    first = line + unit * level + piece.replace("\n", line + unit * level)
    head, rest = text[: opening + 1], text[opening + 1 :]
    inside = rest[after_space(rest, 0) :]
    if inside[0] in "}]":
        return head + first + line + unit * (level - 1) + inside
    return head + first + "," + rest


def _member(key: str, value: Any, text: str) -> str:
    return f"{json.dumps(key)}: {_dumped(value, text)}"


def _dumped(value: Any, text: str) -> str:
    return json.dumps(value, indent=_style(text)[1], ensure_ascii=False)


def _style(text: str) -> tuple[str, str]:
    """The line end and the indentation that the file has."""
    found = re.search(r"\{\r?\n([ \t]+)\"", text)
    return "\r\n" if "\r\n" in text else "\n", found[1] if found else "  "


def _onto_toml(text: str, missing: Mapping[str, Any]) -> str:
    """A table at the end, where it can belong to nothing that stands before."""
    line, _ = _style(text)
    for key, part in missing.items():
        rows = [f"[{key}.{NAME}]"]
        # A JSON string or list of strings is one in TOML too, if nothing in it is escaped as
        # half of a surrogate pair; what was written is read back in any case.
        rows += [f"{name} = {json.dumps(v, ensure_ascii=False)}" for name, v in part[NAME].items()]
        gap = "" if not text else line if text.endswith("\n") else line * 2
        text += gap + line.join(rows) + line
    return text


def _invalid(message: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, hint=hint)
