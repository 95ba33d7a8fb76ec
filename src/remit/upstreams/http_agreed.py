"""Finding out which revision and transport an HTTP server speaks, the newest first.

`server/discover` is asked as 2026-07-28 has it. A server that refuses it, by a JSON-RPC error or by
a status that may mean "not like this", is asked to shake hands over Streamable HTTP; one that
does not know that either is listened to as 2024-11-05 has it. An outage decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from remit.errors import Code, UpstreamFault
from remit.upstreams.http_answer import HttpRefusal
from remit.upstreams.http_connection import Sent
from remit.upstreams.http_line import Line
from remit.upstreams.http_modern import modern_request
from remit.upstreams.http_session import Session, unsent
from remit.upstreams.limits import Limits
from remit.upstreams.opening import Opened, discovered, no_common, only_modern, supported
from remit.upstreams.revisions import NEWEST_FIRST

MODERN = tuple(each for each in NEWEST_FIRST if each.modern)
SHAKEN = tuple(each for each in NEWEST_FIRST if not each.modern)


class Transport(StrEnum):
    """How a server is asked over HTTP."""

    STATELESS = "stateless"
    STREAMABLE = "streamable"
    EVENTS = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What a server speaks. `sessions`: whether it keeps a session for whoever asks it."""

    transport: Transport
    opened: Opened
    sessions: bool


async def agree(line: Line, limits: Limits, url: str) -> Agreed:
    """Ask a server what it speaks; the time is the caller's to bound.

    Raises:
        UpstreamFault: there is no agreement; no call was sent.
    """
    try:
        opened = await _discovered(line, limits)
        if opened is not None:
            return Agreed(transport=Transport.STATELESS, opened=opened, sessions=False)
        return await _shaken(line, limits, url)
    except UpstreamFault as fault:
        raise unsent(fault) from None


async def _discovered(line: Line, limits: Limits) -> Opened | None:
    for last in (False, True):
        try:
            reply = await modern_request(line, "server/discover", {}, limits, sent=Sent())
        except HttpRefusal as told:
            if told.elsewhere:
                return None
            raise
        except UpstreamFault as fault:
            if fault.code is not Code.UPSTREAM_ERROR:
                raise
            error = fault.answer or {}
            if only_modern(error, SHAKEN) and (last or MODERN[0] not in (supported(error) or ())):
                raise no_common() from None
            if last or MODERN[0] not in (supported(error) or ()):
                return None
        else:
            # A server that answers anything to what it does not know has not said that it knows it.
            named = isinstance(reply.result.get("supportedVersions"), list)
            return discovered(reply.result, MODERN) if named else None
    return None


async def _shaken(line: Line, limits: Limits, url: str) -> Agreed:
    transport = Transport.STREAMABLE
    try:
        session = await Session.shaken(line, limits, SHAKEN)
    except HttpRefusal as told:
        if not told.elsewhere:
            raise
        transport = Transport.EVENTS
        session = await Session.listening(line, limits, url, SHAKEN)
    agreed = Agreed(transport=transport, opened=session.opened, sessions=session.named)
    await session.close()
    return agreed
