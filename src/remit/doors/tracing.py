"""The server span that `mcp` makes, without the words of whoever calls.

The library names its span after what the request says: method, tool, request id, and the text of
an error. A caller chooses all of these. Here it gets to see a request in which only known words
are left; the tool's name is put in when the tool was found (`remit.telemetry.annotate_call`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import ValidationError

METHODS = frozenset(
    {"initialize", "ping", "server/discover", "tools/list", "tools/call"}
    | {f"notifications/{name}" for name in ("initialized", "cancelled", "progress")}
)
OTHER = "other"

Context = ServerRequestContext[Any, Any]


class ServerSpan(ServerMiddleware[Any]):
    """Runs the library's own tracing middleware on a request that tells nothing.

    Of the trace context it keeps `traceparent`, so that a caller's trace goes on here, and leaves
    out `tracestate` and `baggage`, which are free text.
    """

    def __init__(self, inner: ServerMiddleware[Any]) -> None:
        self._inner = inner

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        raised: list[Exception] = []

        async def blind(_told: Context) -> HandlerResult:
            try:
                return await call_next(ctx)
            except Exception as error:  # noqa: BLE001 - only for the span; raised again below
                raised.append(error)
                raise MCPError(_code(error), "") from None

        try:
            return await self._inner(_without_words(ctx), blind)
        except MCPError:
            if raised:
                raise raised[0] from None
            raise


def _code(error: Exception) -> int:
    if isinstance(error, ValidationError):
        return INVALID_PARAMS
    return error.error.code if isinstance(error, MCPError) else INTERNAL_ERROR


def _without_words(ctx: Context) -> Context:
    return replace(
        ctx,
        method=ctx.method if ctx.method in METHODS else OTHER,
        params=None,
        request_id=ctx.request_id if isinstance(ctx.request_id, int) else None,
        meta=_parent(ctx.meta),
    )


def _parent(meta: Mapping[str, Any] | None) -> Any:
    """Only the part of the trace context that has a fixed form (W3C Trace Context 3.2)."""
    parent = (meta or {}).get("traceparent")
    return {"traceparent": parent} if isinstance(parent, str) else None
