"""Put entries into the text of remit.yaml; every other byte of it stays as it is.

Lines are only ever added. What comes out is read again: it must say what was there and what was
added, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from remit.errors import Code, ConfigError
from remit.settings.strict_yaml import read_yaml, scalar

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@-]*")
_WIDTH = 96

Tree = dict[str, Any]


def with_entries(
    before: bytes,
    servers: Sequence[Mapping[str, Any]],
    credentials: Mapping[str, Mapping[str, Any]],
    comments: Sequence[str] = (),
) -> bytes:
    """The file with more servers in `catalog.servers` and more of `runners.credentials`.

    Args:
        before: a configuration that was read strictly before.
        comments: a line to stand over each server; "" for none.

    Raises:
        ConfigError: `config_invalid`: they cannot be added without changing the rest, as where
            the place for them is written in braces or brackets.
    """
    text = before.decode("utf-8-sig")
    was = read_yaml(before, "remit.yaml").value or {}
    after = text
    if servers:
        notes = [*comments, *[""] * (len(servers) - len(comments))]
        rows = [row for one, note in zip(servers, notes, strict=True) for row in _item(one, note)]
        after = _put(after, ("catalog", "servers"), rows)
    if credentials:
        rows = [row for ref, one in credentials.items() for row in _member(ref, one)]
        after = _put(after, ("runners", "credentials"), rows)
    wanted = _merged(was, servers, credentials)
    content = before[: len(before) - len(text.encode("utf-8"))] + after.encode("utf-8")
    try:
        good = read_yaml(content, "remit.yaml").value == wanted
    except ConfigError:
        good = False
    if not good:
        raise _by_hand()
    return content


def as_text(
    servers: Sequence[Mapping[str, Any]], credentials: Mapping[str, Mapping[str, Any]]
) -> str:
    """The same entries alone, for a person to put where they belong."""
    return with_entries(b"", servers, credentials).decode("utf-8")


def _merged(
    was: Tree,
    servers: Sequence[Mapping[str, Any]],
    credentials: Mapping[str, Mapping[str, Any]],
) -> Tree:
    merged = dict(was)
    if servers:
        catalog = dict(was.get("catalog") or {})
        catalog["servers"] = [*servers, *(catalog.get("servers") or [])]
        merged["catalog"] = catalog
    if credentials:
        runners = dict(was.get("runners") or {})
        runners["credentials"] = {**credentials, **(runners.get("credentials") or {})}
        merged["runners"] = runners
    return merged


def _put(text: str, path: tuple[str, str], rows: Sequence[str]) -> str:
    """The rows as first entries below a path of two keys; both are made where they are not there."""
    newline = "\r\n" if "\r\n" in text else "\n"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and not _block(root):
        raise _by_hand()
    top = _entry(root, path[0])
    if top is None:
        gap = "" if not text or text.endswith("\n\n") else newline
        gap = gap if text.endswith("\n") or not text else newline + gap
        lines = [f"{path[0]}:", f"  {path[1]}:", *(f"    {row}" for row in rows)]
        return text + gap + newline.join(lines) + newline
    key, value = top
    inner = _entry(value, path[1]) if _block(value) else None
    if inner is None:
        indent = " " * _column(value, key)
        lines = [f"{indent}{path[1]}:", *(f"{indent}  {row}" for row in rows)]
        return _after_line(text, key, value, lines, newline)
    key, value = inner
    indent = " " * _column(value, key)
    return _after_line(text, key, value, [indent + row for row in rows], newline)


def _block(node: Any) -> bool:
    return isinstance(node, yaml.MappingNode) and not node.flow_style


def _entry(node: Any, name: str) -> tuple[Any, Any] | None:
    if node is None:
        return None
    return next(((key, value) for key, value in node.value if key.value == name), None)


def _column(value: Any, key: Any) -> int:
    """How far what is below a key is indented, or would be."""
    filled = isinstance(value, yaml.CollectionNode) and not value.flow_style
    column: int = value.start_mark.column if filled else key.start_mark.column + 2
    return column


def _after_line(text: str, key: Any, value: Any, rows: Sequence[str], newline: str) -> str:
    """The rows on lines of their own behind the line of a key whose value begins below it."""
    empty = isinstance(value, yaml.ScalarNode) and value.value == ""
    if not empty and value.start_mark.line == key.start_mark.line:
        raise _by_hand()
    end = text.find("\n", key.end_mark.index)
    head, rest = (text + newline, "") if end < 0 else (text[: end + 1], text[end + 1 :])
    return head + newline.join(rows) + newline + rest


def _item(one: Mapping[str, Any], note: str) -> list[str]:
    rows = [row for key, value in one.items() for row in _member(key, value)]
    comment = [f"# {note}"] if note else []
    return [*comment, f"- {rows[0]}", *(f"  {row}" for row in rows[1:])]


def _member(key: str, value: Any) -> list[str]:
    flat = f"{_word(key)}: {_flow(value)}"
    if not isinstance(value, dict | list) or not value or len(flat) <= _WIDTH:
        return [flat]
    if isinstance(value, dict):
        inside = [row for name, part in value.items() for row in _member(name, part)]
    else:
        inside = [f"- {_flow(part)}" for part in value]
    return [f"{_word(key)}:", *(f"  {row}" for row in inside)]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_word(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    return _word(value) if isinstance(value, str) else json.dumps(value)


def _word(text: str) -> str:
    """A text in YAML: a plain word where that is what it reads as, else in double quotes."""
    plain = _PLAIN.fullmatch(text) and isinstance(scalar(text), str)
    return text if plain else json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")


def _by_hand() -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        "the entries cannot be added without changing the rest of the file",
        hint="write `catalog:` and `runners:` as indented blocks, or add by hand what "
        "--dry-run prints",
    )
