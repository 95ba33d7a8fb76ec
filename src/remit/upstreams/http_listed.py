"""The tools that a server listed, kept for a moment, and which of them were compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from remit.model import UpstreamCall
from remit.upstreams.asking import check_definition
from remit.upstreams.http_parameters import Mirrored, mirrored


class Ttl:
    """For how long a server says that a list holds (2026-07-28 §Caching); of pages the shortest."""

    def __init__(self) -> None:
        self.seconds = math.inf

    def add(self, page: Mapping[str, Any]) -> None:
        """Take what one page says; what is no such word is none.

        Nor is 0: libraries send it for servers that have said nothing, and believing it would cost
        each read of theirs a second request.
        """
        told = page.get("ttlMs")
        if isinstance(told, int | float) and not isinstance(told, bool) and told > 0:
            self.seconds = min(self.seconds, told / 1000)


class Listed:
    """One list, as the server gave it under one authorization.

    Args:
        items: the list.
        read_s: when, on the loop's clock.
        mirrors: whether the server's revision has parameters in headers.
        ttl_s: for how long the server says that it holds.
    """

    def __init__(
        self,
        items: Sequence[dict[str, Any]],
        read_s: float,
        *,
        mirrors: bool,
        ttl_s: float = math.inf,
    ) -> None:
        self.items = usable(items) if mirrors else list(items)
        self.read_s = read_s
        self.ttl_s = ttl_s
        self._mirrors = mirrors
        self._by_name = {str(item["name"]): item for item in self.items}
        self._same: dict[tuple[str, str], Mirrored] = {}

    def check(self, call: UpstreamCall) -> Mirrored:
        """That the tool is the one of the plan; and which of its arguments go into headers.

        Raises:
            UpstreamFault: `tool_changed`; nothing was sent.
        """
        key = (call.tool, call.definition)
        found = self._same.get(key)
        if found is None:
            item = self._by_name.get(call.tool)
            check_definition(call, [] if item is None else [item])
            found = ()
            if self._mirrors and item is not None:
                found = mirrored(item.get("inputSchema")) or ()
            self._same[key] = found
        return found


def usable(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools without those whose `x-mcp-header` is not allowed, which must not be offered."""
    return [item for item in items if mirrored(item.get("inputSchema")) is not None]
