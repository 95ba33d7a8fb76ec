"""The keeper's line to the egress proxy: what is injected goes here, and to nobody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from remit.runners.credentials.broker import BrokerFault
from remit.runners.wire import close_all, receive, send

ANSWER_S = 3.0


class ProxyLine:
    """One egress proxy at a time. Where it does not answer, its socket is closed: it then forgets
    all that it was lent."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._turn = asyncio.Lock()

    def connect(self, sock: socket.socket) -> None:
        """Talk to the proxy at the other end of this socket from now on."""
        self.close()
        sock.setblocking(False)
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._on_readable)

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result({})

    async def inject(
        self, run: str, fence: int, ends_ms: int, credentials: Sequence[Mapping[str, Any]]
    ) -> None:
        """Have the proxy set these headers for the run.

        Raises:
            BrokerFault: it does not: it is not there, or the run is not open with this fence.
        """
        message = {
            "op": "inject",
            "run": run,
            "fence": fence,
            "ends_ms": ends_ms,
            "credentials": [dict(each) for each in credentials],
        }
        answer = await asyncio.shield(self._ask(message))
        if answer.get("ev") != "injecting":
            why = answer.get("fault", "it is not there")
            raise BrokerFault(f"the egress proxy does not inject: {why}")

    async def forget(self, run: str) -> None:
        """Have the proxy forget what the run was lent; when this returns it has, or its line is cut
        and it forgot everything."""
        answer = await asyncio.shield(self._ask({"op": "forget", "run": run}))
        if answer.get("ev") != "forgotten":
            self.close()

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            if self._socket is None:
                return {}
            self._answer = asyncio.get_running_loop().create_future()
            try:
                send(self._socket, message)
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._answer
            except (OSError, TimeoutError):
                self.close()
                return {}
            finally:
                self._answer = None
            return answer if answer.get("run") == message["run"] else {}

    def _on_readable(self) -> None:
        if self._socket is None:
            return
        try:
            received = receive(self._socket)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self.close()
            return
        message, fds = received
        close_all(fds)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)
