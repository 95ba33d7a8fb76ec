"""Requests to a server of revision 2026-07-28: one POST each, nothing before and nothing after.

The server may answer with JSON, or with a stream of events of which the last is the answer. It
may not ask anything itself. Closing the stream is how a request is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from itertools import count
from typing import Any

from remit import canonical
from remit.errors import Code, UpstreamFault
from remit.upstreams.http_answer import HttpRefusal, messages, parsed, refusal
from remit.upstreams.http_connection import Head, HttpConnection, Sent
from remit.upstreams.http_line import Headers, Line
from remit.upstreams.http_parameters import header_value
from remit.upstreams.http_sse import Events
from remit.upstreams.limits import Limits
from remit.upstreams.messages import (
    Allowance,
    Progress,
    Reply,
    invalid,
    outcome_of,
    progress_of,
)
from remit.upstreams.revisions import Revision, dressed

_REVISION = Revision.R2026_07_28
_NUMBERS = count(1)
_NONE: Mapping[str, Any] = {}


async def modern_request(
    line: Line,
    method: str,
    params: Mapping[str, Any],
    limits: Limits,
    *,
    sent: Sent,
    name: str | None = None,
    headers: Headers = (),
    progress: Callable[[Progress], None] | None = None,
    capabilities: Mapping[str, Any] = _NONE,
) -> Reply:
    """Ask, and wait for the answer; the time is the caller's to bound.

    Args:
        params: without `_meta`.
        sent: told before any byte goes out.
        name: of the tool, which is repeated in a header.
        headers: of parameters that are repeated.
        progress: called with each report; returns at once and does not raise.
        capabilities: what the server is told that the caller's client can do.

    Raises:
        UpstreamFault: there is no result; `sent` of it says whether bytes had gone out.
        InputError: the parameters have no canonical JSON form; nothing was sent.
    """
    number = next(_NUMBERS)
    full = dressed(params, _REVISION, capabilities)
    if progress is not None:
        full["_meta"]["progressToken"] = number
    body = canonical.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": full})
    standard = [("MCP-Protocol-Version", _REVISION.value), ("Mcp-Method", method)]
    if name is not None:
        standard.append(("Mcp-Name", header_value(name)))
    try:
        async with line.request("POST", [*standard, *headers], body, sent=sent) as (got, head):
            return await _answer(line, got, head, _Asked(number, limits, progress))
    except HttpRefusal:
        raise
    except UpstreamFault as fault:
        raise UpstreamFault(
            fault.code, fault.message, sent=sent.value, answer=fault.answer, hint=fault.hint
        ) from None


class _Asked:
    """One request whose answer is awaited."""

    def __init__(
        self, number: int, limits: Limits, progress: Callable[[Progress], None] | None
    ) -> None:
        self.number = number
        self.limits = limits
        self._progress = progress
        self._allowance: Allowance | None = None

    def take(self, data: bytes) -> Reply | None:
        """The result, if this message is the answer.

        Raises:
            UpstreamFault: it is an error, or what no server may send.
        """
        limits = self.limits
        value = parsed(data, depth=limits.depth, most=limits.line_bytes, values=limits.values)
        if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
            raise invalid("the MCP server sent what is no JSON-RPC message")
        if "method" in value:
            self._unasked(value, len(data))
            return None
        given = value.get("id")
        if type(given) is not int or given != self.number:
            raise invalid("the MCP server answered a request that was not made here")
        outcome = outcome_of(value, len(data))
        if isinstance(outcome, UpstreamFault):
            raise outcome
        return outcome

    def refused(self, value: dict[str, Any]) -> UpstreamFault:
        """The fault in an error message that came with a status of failure; its id may be null."""
        if value.get("id") not in (None, self.number):
            return invalid("the MCP server answered a request that was not made here")
        outcome = outcome_of(value, 0)
        assert isinstance(outcome, UpstreamFault), "it has an error"
        return outcome

    def _unasked(self, value: dict[str, Any], size: int) -> None:
        if self._allowance is None:
            self._allowance = Allowance(self.limits)
        self._allowance.spend(size)
        if "id" in value:
            raise invalid("the MCP server asked something itself, which its revision has not")
        params = value.get("params")
        if value["method"] != "notifications/progress" or not isinstance(params, dict):
            return
        token = params.get("progressToken")
        report = progress_of(params)
        mine = type(token) is int and token == self.number
        if mine and self._progress is not None and report is not None:
            self._progress(report)


async def _answer(line: Line, got: HttpConnection, head: Head, asked: _Asked) -> Reply:
    if head.status != 200:
        told = await refusal(got, head, line.limits)
        raise told if isinstance(told, HttpRefusal) else asked.refused(told)
    most = asked.limits.line_bytes
    async with aclosing(messages(got, head, Events(2 * most), most)) as each:
        async for data in each:
            if (reply := asked.take(data)) is not None:
                return reply
    raise UpstreamFault(Code.UPSTREAM_GONE, "the MCP server ended its answer before the result")
