"""Requests of earlier revisions that are not answered yet, one of each id in a session.

The library finds the stream on which an answer goes by the request's id alone: of two requests
with one id, one would never be answered and the other could be given what is not its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from starlette.types import Scope

from remit.doors import edge
from remit.doors.edge import TurnedAway
from remit.errors import Code
from remit.model import Caller

OF_THE_LIBRARY = "_GET_stream"
"""The name under which the library keeps a session's standing stream, among the ids."""

MAX_LOST = 10_000

UNDER_WAY = "remit.under_way"
"""Where the id that a request has taken stands in its ASGI scope."""

Key = tuple[str, str, int | str]


class UnderWay(ServerMiddleware[Any]):
    """Which ids are taken; as middleware it sees whether a request still goes on.

    An id whose connection was lost before its answer stays taken, of the last `MAX_LOST` such: its
    answer may come whenever, and goes to whoever waits under this id.
    """

    def __init__(self) -> None:
        self._held: Counter[Key] = Counter()
        self._lost: dict[Key, None] = {}

    @contextmanager
    def hold(
        self, scope: Scope, caller: Caller, session: str | None, request_id: str | int | None
    ) -> Iterator[None]:
        """Take the id while the request's connection is served; without session or id, nothing.

        Raises:
            TurnedAway: 400: a request of this id is under way in this session of this caller.
        """
        if session is None or request_id is None:
            yield
            return
        key = (f"{caller.key_id}\n{caller.id}", session, _number(request_id))
        if request_id == OF_THE_LIBRARY or key in self._held or key in self._lost:
            raise TurnedAway(
                400, edge.INVALID_REQUEST, Code.NOT_SERVED,
                "a request with this id is under way in this session",
                hint="each request of a session has an id of its own",
            )  # fmt: skip
        scope[UNDER_WAY] = key
        try:
            with self._count(key):
                yield
        finally:
            if key in self._held:
                self._lose(key)

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Take the id until the handler has ended, also where the connection is lost before."""
        key: Key | None = None if ctx.request is None else ctx.request.scope.get(UNDER_WAY)
        if key is None:
            return await call_next(ctx)
        with self._count(key):
            return await call_next(ctx)

    def _lose(self, key: Key) -> None:
        self._lost[key] = None
        if len(self._lost) > MAX_LOST:
            del self._lost[next(iter(self._lost))]

    @contextmanager
    def _count(self, key: Key) -> Iterator[None]:
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]


def _number(request_id: str | int) -> int | str:
    """The id as the library tells ids apart: "7" and 7 are one."""
    try:
        return int(request_id)
    except ValueError:
        return request_id
