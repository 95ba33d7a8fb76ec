"""Finding out which revision and transport an HTTP server speaks, the newest first.

`server/discover` is asked as 2026-07-28 has it. A server that refuses it, by a JSON-RPC error or by
a status that may mean "not like this", is asked to shake hands over Streamable HTTP; one that
does not know that either is listened to as 2024-11-05 has it. An outage decides nothing. Silence is
neither: after a while the handshake is offered besides, and what is answered first is taken, unless
the server spoke 2026-07-28 before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
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
    """What a server speaks.

    `sessions`: whether it keeps a session for whoever asks it. `silent`: whether it left
    `server/discover` without an answer.
    """

    transport: Transport
    opened: Opened
    sessions: bool
    silent: bool = False


async def agree(line: Line, limits: Limits, url: str, *, before: Agreed | None = None) -> Agreed:
    """Ask a server what it speaks; the time is the caller's to bound.

    Args:
        limits: `unanswered_s` says how long `server/discover` may stay without an answer before
            the handshake is offered besides.
        before: what was agreed with it last.

    Raises:
        UpstreamFault: there is no agreement; no call was sent.
    """
    probe = asyncio.create_task(_discovered(line, limits))
    try:
        await asyncio.wait({probe}, timeout=_patience_s(before, limits))
        if not probe.done():
            return await _either(probe, line, limits, url)
        return _stateless(probe.result()) or await _shaken(line, limits, url)
    except UpstreamFault as fault:
        raise unsent(fault) from None
    finally:
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)


def _patience_s(before: Agreed | None, limits: Limits) -> float | None:
    """How long only `server/discover` is out; None: until it is answered. A server that spoke
    2026-07-28 is not led back to an older revision by its silence, which is an outage."""
    if before is None:
        return limits.unanswered_s
    if before.transport is Transport.STATELESS:
        return None
    return 0.0 if before.silent else limits.unanswered_s


async def _either(
    probe: asyncio.Task[Opened | None], line: Line, limits: Limits, url: str
) -> Agreed:
    """Offer the handshake too, and take what the server answers first."""
    shake = asyncio.create_task(_shaken(line, limits, url))
    try:
        await asyncio.wait({probe, shake}, return_when=asyncio.FIRST_COMPLETED)
        if shake.done() and isinstance(shake.exception(), UpstreamFault):
            await asyncio.wait({probe})
        if probe.done() and (found := _stateless(probe.result())) is not None:
            return found
        return replace(await shake, silent=not probe.done())
    finally:
        shake.cancel()
        await asyncio.gather(shake, return_exceptions=True)


def _stateless(opened: Opened | None) -> Agreed | None:
    if opened is None:
        return None
    return Agreed(transport=Transport.STATELESS, opened=opened, sessions=False)


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
