"""The revisions of MCP that are spoken with servers, and how each dresses a request.

Up to 2025-11-25 a connection begins with the `initialize` handshake. From 2026-07-28 there is
none: each request says in `_meta` which revision it is of, who asks and what they can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import remit
from remit.upstreams.tracing import trace_context

_PREFIX = "io.modelcontextprotocol/"

_ASKED_BACK = ("sampling", "roots", "elicitation", "tasks")
"""Capabilities that a server of the handshake uses by sending requests to its client."""


class Revision(StrEnum):
    """A released revision of MCP."""

    R2024_11_05 = "2024-11-05"
    R2025_03_26 = "2025-03-26"
    R2025_06_18 = "2025-06-18"
    R2025_11_25 = "2025-11-25"
    R2026_07_28 = "2026-07-28"

    @property
    def modern(self) -> bool:
        """Whether it has no handshake and dresses each request instead."""
        return self is Revision.R2026_07_28

    @property
    def batches(self) -> bool:
        """Whether a server may send an array of messages (2025-03-26 only)."""
        return self is Revision.R2025_03_26


NEWEST_FIRST: tuple[Revision, ...] = tuple(reversed(Revision))


def client_info() -> dict[str, Any]:
    """Who asks: the gateway, never the caller behind it."""
    return {"name": "remit", "version": remit.__version__}


def dressed(
    params: Mapping[str, Any], revision: Revision, capabilities: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of a request as this revision wants them.

    Args:
        params: the request's own parameters, without `_meta`.
        revision: what was negotiated, or is being asked for.
        capabilities: what the caller declared, passed on as it is.

    Where calls are traced the request names its span (`traceparent`, SEP-414), in any revision.
    """
    traced = trace_context()
    if not revision.modern:
        return {**params, "_meta": traced} if traced else dict(params)
    meta = {
        **traced,
        f"{_PREFIX}protocolVersion": revision.value,
        f"{_PREFIX}clientInfo": client_info(),
        f"{_PREFIX}clientCapabilities": dict(capabilities),
    }
    return {**params, "_meta": meta}


def initialize_params(revision: Revision, capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """What `initialize` offers.

    Of the caller's capabilities those are left out which a server would use by sending requests
    to its client: these are refused here, and nothing is declared that is then refused.
    """
    kept = {name: value for name, value in capabilities.items() if name not in _ASKED_BACK}
    return {
        "protocolVersion": revision.value,
        "capabilities": kept,
        "clientInfo": client_info(),
    }
