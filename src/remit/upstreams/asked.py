"""One question to a server under way: its task, how it is given up, and what is heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import RunSpec
from remit.telemetry import logger
from remit.upstreams.outcome import Heard, answered, failed
from remit.upstreams.reports import Reports

log = logger()


class Asked:
    """Asks once, in a task of its own.

    Promises that `heard` never says `unasked` of a call of which a byte may have gone out.

    Args:
        ask: asks, and gives the result object; calls `sending` before the first byte can go.
        spec: bounds what of an answer is kept, and has the call.
    """

    def __init__(self, ask: Callable[[Asked], Awaitable[dict[str, Any]]], spec: RunSpec) -> None:
        self.reports = Reports()
        self._output_bytes = spec.limits.output_bytes
        self._capabilities = {} if spec.upstream is None else spec.upstream.capabilities.value()
        self._withdraw: Callable[[], object] | None = None
        self._given_up = False
        self._task = asyncio.ensure_future(ask(self))

    def sending(self, withdraw: Callable[[], object]) -> None:
        """From here on the call may be sent; `withdraw` gives it up at the server.

        Raises:
            UpstreamFault: `cancelled`: it was given up before.
        """
        if self._given_up:
            raise UpstreamFault(Code.CANCELLED, "the call was cancelled")
        self._withdraw = withdraw

    def give_up(self) -> None:
        """Cancel the call, wherever it is; one that has its answer keeps it."""
        self._given_up = True
        if self._withdraw is not None:
            self._withdraw()
        elif not self._task.done():
            self._task.cancel()

    def abandon(self) -> None:
        """Cancel it however it stands, because nobody waits for it any more."""
        self._task.cancel()

    async def heard(self) -> Heard:
        """What came of it; never raises but for its own cancellation, which cancels the asking."""
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait([self._task])
            raise
        finally:
            self.reports.end()
        sent = self._withdraw is not None
        fault = (
            UpstreamFault(Code.CANCELLED, "the call was cancelled", sent=sent)
            if self._task.cancelled()
            else self._task.exception()
        )
        match fault:
            case None:
                return answered(
                    self._task.result(),
                    output_bytes=self._output_bytes,
                    capabilities=self._capabilities,
                )
            case UpstreamFault():
                return failed(fault, output_bytes=self._output_bytes)
            case RunnerFault():
                lacks = UpstreamFault(fault.code, fault.message, sent=sent, hint=fault.hint)
                return failed(lacks, output_bytes=self._output_bytes)
            case _:
                log.error("asking_failed", error=type(fault).__name__)
                own = UpstreamFault(Code.INTERNAL, "asking failed inside the gateway", sent=sent)
                return failed(own, output_bytes=self._output_bytes)
