"""Grants for imported tools, in the `data.json` of a policy that is made like the starter one.

In the starter policy a grant alone lets nothing change: reads are allowed by it, and what writes
or destroys needs people to agree as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remit.cli.client_file import look, placed
from remit.cli.client_text import after_space, put_first, read_text, value_of
from remit.errors import ConfigError, RemitError
from remit.model import CallerKind

if TYPE_CHECKING:
    from remit.config import Settings


def with_grants(settings: Settings, tools: Sequence[str]) -> tuple[Path, bytes, bytes, str] | None:
    """The policy's data with the agents' group granted these tools everywhere.

    Returns:
        The file, what it holds, what it would hold, and the group; None where the policy is not
        made like the starter one, or more than one group of agents has grants.
    """
    paths = settings.policy.paths
    if len(paths) != 1 or not tools:
        return None
    path = paths[0] / "data.json"
    try:
        with placed(path):
            seen = look(path)
        if seen is None or list(paths[0].glob(".signatures.json")):
            return None
        text = seen.content.decode("utf-8")
        was = read_text(text, "json")
    except (RemitError, OSError, UnicodeDecodeError):
        return None
    granted = was.get("grants")
    if not isinstance(granted, dict) or "" not in (was.get("environments") or {}):
        return None
    callers = [each.caller for each in settings.callers if each.caller.kind is CallerKind.AGENT]
    groups = {group for caller in callers for group in caller.groups} & granted.keys()
    if len(groups) != 1:
        return None
    (group,) = groups
    after = _added(text, group, [tool for tool in tools if tool not in granted[group]])
    wanted = {
        **was,
        "grants": {**granted, group: {**{tool: ["*"] for tool in tools}, **granted[group]}},
    }
    try:
        good = read_text(after, "json") == wanted
    except ConfigError:
        good = False
    return (path, seen.content, after.encode("utf-8"), group) if good else None


def _added(text: str, group: str, tools: Sequence[str]) -> str:
    for tool in reversed(tools):
        grants = value_of(text, after_space(text, 0), "grants")
        opening = None if grants is None else value_of(text, grants, group)
        if opening is not None and text[opening] == "{":
            text = put_first(text, opening, f'{json.dumps(tool)}: ["*"]', 3)
    return text
