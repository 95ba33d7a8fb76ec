"""One request and its answer on the 2026-07-28 wire: JSON if it comes soon, else a stream.

The library's JSON mode neither notices that the client has gone nor sends progress; its stream
mode does both at a third more CPU for each call. This stands between the two: the answer is plain
JSON unless something is sent before it, or nothing is for a while; then the response becomes
server-sent events, which end with the same answer.

On this wire a closed connection is a cancel (MCP 2026-07-28, cancellation over HTTP).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from starlette.types import Message, Receive, Send

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_KEEPALIVE = b": still here\r\n\r\n"


WATCH_AFTER_S = 0.01
"""Age from which a request's connection is watched; most are answered before, and a connection
that was closed meanwhile is seen as soon as it is looked at."""


class Exchange:
    """The response side of one request; give its `send` to whoever answers."""

    def __init__(
        self, receive: Receive, send: Send, *, may_stream: bool, keepalive_s: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._may_stream = may_stream
        self._keepalive_s = keepalive_s
        self._answered = False
        self._streaming = False
        self._gone = False
        self._lock = asyncio.Lock()

    async def run(self, answering: Callable[[], Awaitable[None]]) -> None:
        """Answer, and stop when the client closes the connection before the answer is sent.

        A cancel reaches `answering` once, as `CancelledError`.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an exchange runs in a task")
        watch = _Later(WATCH_AFTER_S, lambda: self._watch(task))
        try:
            await answering()
        except asyncio.CancelledError:
            if not self._gone:
                raise  # not our doing: the server is stopping
            task.uncancel()
        finally:
            watch.cancel()

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while True:
            try:
                async with asyncio.timeout(self._keepalive_s):
                    message = await self._receive()
            except TimeoutError:
                await self._emit(_KEEPALIVE)
                continue
            if message["type"] == "http.disconnect":
                if not self._answered:
                    self._gone = True
                    task.cancel()
                return

    async def send(self, message: Message) -> None:
        """Send a part of the answer: as it is, or as the last event of the stream."""
        async with self._lock:
            self._answered = True
            if not self._streaming:
                await self._send(message)
            elif message["type"] == "http.response.body":
                body = _event(message.get("body", b""))
                await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification that belongs to this request; dropped where it cannot be sent."""
        note = {"jsonrpc": "2.0", "method": method, "params": params}
        await self._emit(_event(json.dumps(note, separators=(",", ":")).encode()))

    async def _emit(self, chunk: bytes) -> None:
        async with self._lock:
            if self._answered or not self._may_stream:
                return
            if not self._streaming:
                self._streaming = True
                await self._send(
                    {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
                )
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})


class _Later:
    """A task that is only made if it is not cancelled before."""

    def __init__(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._work())

    def cancel(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


def _event(data: bytes) -> bytes:
    """One server-sent event; `data` is JSON without line breaks."""
    return b"event: message\r\ndata: " + data + b"\r\n\r\n"
