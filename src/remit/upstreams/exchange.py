"""JSON-RPC 2.0 with one untrusted server: who asked what, what was answered, who may speak.

Anything that a server must not do ends the exchange with one fault, which each request in flight
gets with its own word on whether it had been sent. Nothing is guessed after a lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remit.errors import Code, UpstreamFault
from remit.upstreams.limits import Limits
from remit.upstreams.lines import ByteStream, LineReader, line
from remit.upstreams.messages import (
    Allowance,
    Progress,
    Reply,
    invalid,
    outcome_of,
    progress_of,
)

_METHOD_NOT_FOUND = -32601
_ID_CHARS = 1024


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A request in flight; `sent` is true from before its first byte is written."""

    future: asyncio.Future[Reply]
    progress: Callable[[Progress], None] | None
    key: str | None
    sent: bool = False


class Exchange:
    """Requests to one server and its answers, any number at once.

    Promises that each request ends: with a result, or with an UpstreamFault. Does not look at
    what a result means.
    """

    def __init__(self, stream: ByteStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._lines = LineReader(
            stream, line_bytes=limits.line_bytes, depth=limits.depth, values=limits.values
        )
        self._asked: dict[int, _Asked] = {}
        self._late: set[int] = set()
        self._last = 0
        self._room = asyncio.Semaphore(limits.in_flight)
        self._unwritten: asyncio.Queue[tuple[bytes, _Asked | None]] = asyncio.Queue(
            limits.unwritten + 4 * limits.in_flight
        )
        self._drained = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._fault: UpstreamFault | None = None
        self._allowance = Allowance(limits)
        self._tasks = (
            asyncio.create_task(self._guarded(self._read)),
            asyncio.create_task(self._guarded(self._write)),
        )
        self.batches = False
        self.tools_changed = False
        self.when_tools_change: Callable[[], None] = _nothing
        self.told: Callable[[str, Mapping[str, Any]], None] = _untold

    @property
    def open(self) -> bool:
        """Whether requests can still be made."""
        return self._fault is None

    async def request(
        self,
        method: str,
        params: dict[str, Any],
        *,
        within_s: float,
        progress: Callable[[Progress], None] | None = None,
        key: str | None = None,
        cancellable: bool = True,
    ) -> Reply:
        """Ask, and wait for the answer.

        Args:
            method: the JSON-RPC method.
            params: its parameters; with `progress`, a progress token is added.
            within_s: seconds until it is given up, which the server is told.
            progress: called with each report; must return at once, and not raise.
            key: a name by which `cancel` finds it; not sent.
            cancellable: whether the server is told when it is given up.

        Raises:
            UpstreamFault: there is no result; `sent` says whether any of it was written.
            InputError: the parameters have no canonical JSON form; nothing was sent.
        """
        number, asked = 0, None
        try:
            async with asyncio.timeout(within_s), self._room:
                number, asked = self._ask(method, params, progress, key)
                return await asked.future
        except TimeoutError:
            message = f"the server did not answer within {within_s:g} s"
            sent = asked is not None and asked.sent
            raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message, sent=sent) from None
        finally:
            if asked is not None and self._asked.get(number) is asked:
                self._give_up(number, tell=cancellable)

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Tell the server something; nothing is known of its arrival."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = dict(params)
        self._send(message)

    def cancel(self, key: str) -> bool:
        """Give up the requests of this key, and say whether there was one.

        Each then raises `cancelled`; what had been sent may run on or have run.
        """
        found = [number for number, asked in self._asked.items() if asked.key == key]
        for number in found:
            _fail(self._asked[number], Code.CANCELLED, "the call was cancelled")
            self._give_up(number, tell=True)
        return bool(found)

    async def written(self) -> None:
        """Wait until all that was to be sent is written, or never will be."""
        await self._idle.wait()

    async def over(self) -> UpstreamFault:
        """Wait until it has ended; why."""
        await asyncio.wait(self._tasks)
        return self._fault or UpstreamFault(Code.CANCELLED, "the conversation was closed")

    async def close(self) -> None:
        """End it; every request in flight raises `cancelled`."""
        self._end(UpstreamFault(Code.CANCELLED, "the conversation was closed"))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ask(
        self,
        method: str,
        params: dict[str, Any],
        progress: Callable[[Progress], None] | None,
        key: str | None,
    ) -> tuple[int, _Asked]:
        self._check_open()
        number = self._last + 1
        if progress is not None:
            params = {**params, "_meta": {**params.get("_meta", {}), "progressToken": number}}
        data = line({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        asked = _Asked(
            future=asyncio.get_running_loop().create_future(), progress=progress, key=key
        )
        self._last = number
        self._asked[number] = asked
        self._enqueue(data, asked)
        return number, asked

    def _check_open(self) -> None:
        if self._fault is not None:
            raise UpstreamFault(self._fault.code, self._fault.message)

    def _give_up(self, number: int, *, tell: bool) -> None:
        asked = self._asked.pop(number)
        if not asked.future.done():
            asked.future.cancel()
        if not asked.sent:
            return
        self._late.add(number)
        if len(self._late) > self._limits.late:
            self._end(invalid("the server leaves too many requests without an answer"))
        elif tell and self.open:
            self.notify("notifications/cancelled", {"requestId": number})

    def _end(self, fault: UpstreamFault) -> None:
        """The one place where an exchange ends; the first reason stays."""
        if self._fault is not None:
            return
        self._fault = fault
        for asked in self._asked.values():
            _fail(asked, fault.code, fault.message)
        self._asked.clear()
        self._idle.set()
        for task in self._tasks:
            task.cancel()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except UpstreamFault as fault:
            self._end(fault)
        except asyncio.CancelledError:
            self._end(UpstreamFault(Code.CANCELLED, "the conversation was closed"))
            raise
        except Exception:  # noqa: BLE001 - whatever it was, nobody may be left waiting for it
            self._end(UpstreamFault(Code.INTERNAL, "the conversation failed inside the gateway"))

    # Writing

    def _send(self, message: Mapping[str, Any]) -> None:
        self._enqueue(line(message), None)

    def _enqueue(self, data: bytes, asked: _Asked | None) -> None:
        try:
            self._unwritten.put_nowait((data, asked))
            if self.open:
                self._idle.clear()
        except asyncio.QueueFull:
            self._end(invalid("the server does not read what it is sent"))

    async def _write(self) -> None:
        while True:
            if self._unwritten.qsize() <= self._limits.unwritten:
                self._drained.set()
            if self._unwritten.empty():
                self._idle.set()
            data, asked = await self._unwritten.get()
            if asked is not None:
                if asked.future.done():
                    continue  # given up before it was sent: it never will be
                asked.sent = True
            try:
                async with asyncio.timeout(self._limits.write_s):
                    await self._stream.write(data)
            except TimeoutError:
                raise invalid("the server does not read what it is sent") from None
            except (OSError, EOFError):
                raise UpstreamFault(Code.UPSTREAM_GONE, "the server's stream broke") from None

    # Reading

    async def _read(self) -> None:
        while True:
            if self._unwritten.qsize() > self._limits.unwritten:
                self._drained.clear()  # who does not read what was asked for is not listened to
                await self._drained.wait()
            value, size = await self._lines.next()
            if isinstance(value, list) and value and self.batches:
                for each in value:
                    self._take(each, size)
            else:
                self._take(value, size)

    def _take(self, value: Any, size: int) -> None:
        if value is None:
            self._allowance.spend(size)
            return
        if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
            raise invalid("the server sent a line that is no JSON-RPC message")
        if "method" in value:
            self._allowance.spend(size)
            self._take_unasked(value)
        else:
            self._take_answer(value, size)

    def _take_unasked(self, value: dict[str, Any]) -> None:
        method, params = value["method"], value.get("params", {})
        if not isinstance(method, str) or not isinstance(params, dict):
            raise invalid("the server sent a line that is no JSON-RPC message")
        if "id" not in value:
            if method == "notifications/progress":
                self._report(params)
            if method == "notifications/tools/list_changed" and not self.tools_changed:
                self.tools_changed = True
                self.when_tools_change()
            self.told(method, params)
            return
        number = value["id"]
        if type(number) is not int and not (isinstance(number, str) and len(number) <= _ID_CHARS):
            raise invalid("the server sent a request with an impossible id")
        if method == "ping":
            self._send({"jsonrpc": "2.0", "id": number, "result": {}})
        else:
            error = {"code": _METHOD_NOT_FOUND, "message": "Method not found"}
            self._send({"jsonrpc": "2.0", "id": number, "error": error})

    def _report(self, params: dict[str, Any]) -> None:
        token = params.get("progressToken")
        asked = self._asked.get(token) if type(token) is int else None
        report = progress_of(params)
        if report is not None and asked is not None and asked.progress is not None:
            asked.progress(report)

    def _take_answer(self, value: dict[str, Any], size: int) -> None:
        number = value.get("id")
        if type(number) is not int or not 0 < number <= self._last:
            raise invalid("the server answered a request that was never made")
        if number in self._late:
            self._late.discard(number)
            self._allowance.spend(size)
            return
        asked = self._asked.get(number)
        if asked is None:
            raise invalid("the server answered a request twice")
        if not asked.sent:
            raise invalid("the server answered a request before it was made")
        outcome = outcome_of(value, size)
        del self._asked[number]
        if asked.future.done():
            return  # its asker is just giving up
        if isinstance(outcome, Reply):
            asked.future.set_result(outcome)
        else:
            asked.future.set_exception(outcome)


def _nothing() -> None:
    """Nobody wants to know."""


def _untold(_method: str, _params: Mapping[str, Any]) -> None:
    """Nobody wants to know."""


def _fail(asked: _Asked, code: Code, message: str) -> None:
    if not asked.future.done():
        asked.future.set_exception(UpstreamFault(code, message, sent=asked.sent))
        asked.future.exception()  # its asker may be gone, and then nobody is to be told
