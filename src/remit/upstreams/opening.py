"""Finding out which revision of MCP a server speaks.

The newest is tried first: `server/discover`. A server that answers it with an error, or not at
all, is asked to shake hands; one that answers late, after the handshake was offered, is still
believed, since servers may be slow to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit.errors import Code, UpstreamFault
from remit.upstreams.exchange import Exchange
from remit.upstreams.limits import Limits
from remit.upstreams.messages import Reply, invalid
from remit.upstreams.revisions import Revision, dressed, initialize_params

UNSUPPORTED_VERSION = -32022
_SERVER_INFO = "io.modelcontextprotocol/serverInfo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was agreed, and what the server says of itself, which nobody has checked."""

    revision: Revision
    capabilities: Mapping[str, Any]
    info: Mapping[str, Any] | None
    instructions: str | None


async def negotiate(
    exchange: Exchange,
    revisions: Sequence[Revision],
    capabilities: Mapping[str, Any],
    limits: Limits,
) -> Opened:
    """Agree with a server on one of `revisions`.

    Args:
        exchange: nothing has been asked on it yet.
        revisions: those that may be agreed on, best first; at least one.
        capabilities: what the caller declared.
        limits: `open_s` and `unanswered_s` are used.

    Raises:
        UpstreamFault: it did not come to an agreement; no call was sent.
    """
    parley = _Parley(exchange, revisions, capabilities, limits)
    if not parley.modern:
        return await parley.shake()
    probe = asyncio.create_task(parley.discover())
    try:
        if not parley.shaken:
            await asyncio.wait({probe})
        else:
            await asyncio.wait({probe}, timeout=limits.unanswered_s)
        if not probe.done():
            return await parley.either(probe)
        return parley.verdict(probe) or await parley.shake()
    finally:
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)


class _Parley:
    def __init__(
        self,
        exchange: Exchange,
        revisions: Sequence[Revision],
        capabilities: Mapping[str, Any],
        limits: Limits,
    ) -> None:
        self._exchange = exchange
        self._capabilities = capabilities
        self._limits = limits
        self.modern = [each for each in revisions if each.modern]
        self.shaken = [each for each in revisions if not each.modern]

    async def discover(self) -> Reply:
        return await self._exchange.request(
            "server/discover",
            dressed({}, self.modern[0], self._capabilities),
            within_s=self._limits.open_s,
            cancellable=False,
        )

    async def shake(self) -> Opened:
        if not self.shaken:
            raise no_common()
        reply = await self._exchange.request(
            "initialize",
            initialize_params(self.shaken[0], self._capabilities),
            within_s=self._limits.open_s,
            cancellable=False,
        )
        chosen = [each for each in self.shaken if each == reply.result.get("protocolVersion")]
        if not chosen:
            raise no_common()
        opened = _opened(chosen[0], reply.result, reply.result.get("serverInfo"))
        self._exchange.batches = opened.revision.batches
        self._exchange.notify("notifications/initialized")
        return opened

    def verdict(self, probe: asyncio.Task[Reply]) -> Opened | None:
        """What the answer to `server/discover` means; None is "shake hands"."""
        try:
            result = probe.result().result
        except UpstreamFault as fault:
            if fault.code is not Code.UPSTREAM_ERROR:
                raise
            if only_modern(fault.answer or {}, self.shaken):
                raise no_common() from None
            return None
        return discovered(result, self.modern)

    async def either(self, probe: asyncio.Task[Reply]) -> Opened:
        """Offer the handshake too, and take what the server answers first."""
        shake = asyncio.create_task(self.shake())
        try:
            await asyncio.wait({probe, shake}, return_when=asyncio.FIRST_COMPLETED)
            if shake.done() and _refused(shake):
                await asyncio.wait({probe})
            if probe.done() and (opened := self.verdict(probe)) is not None:
                return opened
            return await shake
        finally:
            shake.cancel()
            await asyncio.gather(shake, return_exceptions=True)


def discovered(result: Mapping[str, Any], modern: Sequence[Revision]) -> Opened | None:
    """What a result of `server/discover` means; None if it names none of these revisions.

    Raises:
        UpstreamFault: it is no such result.
    """
    offered = result.get("supportedVersions")
    if not isinstance(offered, list):
        raise invalid("the server's answer to server/discover names no revisions")
    chosen = [each for each in modern if each in offered]
    if not chosen:
        return None
    meta = result.get("_meta")
    return _opened(chosen[0], result, meta.get(_SERVER_INFO) if isinstance(meta, dict) else None)


def supported(error: Mapping[str, Any]) -> list[Any] | None:
    """The revisions that a refusal of a revision names; None if the error is no such refusal."""
    data = error.get("data")
    named = data.get("supported") if isinstance(data, dict) else None
    return named if error.get("code") == UNSUPPORTED_VERSION and isinstance(named, list) else None


def only_modern(error: Mapping[str, Any], shaken: Sequence[Revision]) -> bool:
    """Whether a refusal of the revision names others, and none that could be shaken on."""
    named = supported(error)
    return named is not None and not any(each in named for each in shaken)


def _refused(shake: asyncio.Task[Opened]) -> bool:
    fault = shake.exception()
    return isinstance(fault, UpstreamFault) and fault.code is Code.UPSTREAM_ERROR


def _opened(revision: Revision, result: Mapping[str, Any], info: Any) -> Opened:
    capabilities, instructions = result.get("capabilities"), result.get("instructions")
    if not isinstance(capabilities, dict):
        raise invalid("the server does not say what it can do")
    return Opened(
        revision=revision,
        capabilities=capabilities,
        info=info if isinstance(info, dict) else None,
        instructions=instructions if isinstance(instructions, str) else None,
    )


def no_common() -> UpstreamFault:
    """The fault of a server with which no revision is shared."""
    return invalid("the server speaks no revision of MCP that may be used with it")
