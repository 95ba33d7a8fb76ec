"""Take servers out of the text of a client's file; every other byte stays as it is.

The text is read strictly before and after: what comes out must be what was there without the
servers, and nothing else.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from remit.cli.client_entry import CLIENTS, Door
from remit.cli.client_file import Edit
from remit.cli.client_text import Form, after_space, read_text, value_of, with_pieces
from remit.errors import Code, ConfigError

_TABLE = re.compile(r"^[ \t]*\[[^\n]*\][ \t]*(?:#[^\n]*)?$", re.MULTILINE)


def only_remit(client: str, names: Collection[str], door: Door) -> Edit:
    """The edit after which a client's file names the gateway and not these servers.

    Args:
        client: one of `CLIENTS`.
        door: how the client is to reach the gateway.
    """
    known = CLIENTS[client]
    return partial(
        _edited, names=sorted(names), pieces=known.pieces(door), form=known.form, key=known.servers
    )


def _edited(
    before: bytes | None, *, names: list[str], pieces: Mapping[str, Any], form: Form, key: str
) -> bytes:
    if before is None:
        raise _by_hand()
    with_remit = with_pieces(before, pieces, form)  # read strictly, so it is UTF-8 and of the form
    text = with_remit.decode("utf-8")
    was = read_text(text, form)
    wanted = dict(was)
    wanted[key] = {name: one for name, one in was[key].items() if name not in names}
    for name in names:
        text = (
            _without_member(text, key, name) if form == "json" else _without_table(text, key, name)
        )
    try:
        good = read_text(text, form) == wanted
    except ConfigError:
        good = False
    if not good:
        raise _by_hand()
    return text.encode("utf-8")


def _without_member(text: str, key: str, name: str) -> str:
    """An object's member and one of the commas beside it, in a text that is known to be JSON."""
    opening = value_of(text, after_space(text, 0), key)
    if opening is None or text[opening] != "{":
        raise _by_hand()
    decode = json.JSONDecoder().raw_decode
    before, at = opening + 1, after_space(text, opening + 1)
    while text[at] != "}":
        start = at
        found, at = decode(text, at)
        _, end = decode(text, after_space(text, after_space(text, at) + 1))
        comma = after_space(text, end)
        more = text[comma] == ","
        if found == name:
            if more:
                return text[:start] + text[after_space(text, comma + 1) :]
            return text[:before] + text[end:]
        before = end
        at = after_space(text, comma + 1) if more else comma
    return text


def _without_table(text: str, key: str, name: str) -> str:
    """The tables of one server, each from its heading to the next one."""
    heads = list(_TABLE.finditer(text))
    kept, last = [], 0
    for number, head in enumerate(heads):
        end = heads[number + 1].start() if number + 1 < len(heads) else len(text)
        if _path(head[0])[:2] == [key, name]:
            kept.append(text[last : head.start()])
            last = end
    return "".join([*kept, text[last:]])


def _path(heading: str) -> list[str]:
    """The keys of a table's heading, as TOML reads them; none where it is no plain table."""
    try:
        tree: Any = tomllib.loads(heading)
    except (tomllib.TOMLDecodeError, RecursionError):
        return []
    keys = []
    while isinstance(tree, dict) and tree:
        found, tree = next(iter(tree.items()))
        keys.append(found)
    return keys


def _by_hand() -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        "the servers cannot be taken out without changing the rest of the file",
        hint="take them out by hand, and add what `remit connect CLIENT` prints",
    )
