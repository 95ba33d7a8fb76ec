"""A real proxy process with a keeper and one destination."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from remit.model import EgressRule
from remit.runners.egress.client import EgressProxy
from remit.runners.wire import receive, send
from tests.runners.egress.world import (
    Client,
    Destination,
    credential,
    now_ms,
    rule,
)

OWN_UID = 399_998 if os.geteuid() == 0 else None


class Keeper:
    """The keeper's end of the proxy's socket."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.given = 0

    async def renew(self) -> socket.socket:
        self.close()
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.given += 1
        return theirs

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()

    async def say(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.socket is not None
        self.socket.setblocking(True)
        self.socket.settimeout(5)
        send(self.socket, message)
        answer = await asyncio.to_thread(receive, self.socket)
        assert answer is not None
        return answer[0]

    async def lend(self, there: Destination, **facts: Any) -> dict[str, Any]:
        message = {"op": "inject", "run": "r", "fence": 1, "ends_ms": now_ms() + 60_000}
        lent = [credential("localhost", there.port)]
        return await self.say({**message, "credentials": lent, **facts})


class Place:
    """A proxy, its keeper and one destination."""

    def __init__(self, proxy: EgressProxy, keeper: Keeper, there: Destination) -> None:
        self.proxy, self.keeper, self.there = proxy, keeper, there
        self.port = 0
        self.pem = ""

    async def open(self, *rules: EgressRule, run: str = "r", fence: int = 1) -> None:
        self.pem = (await self.proxy.prepare(run)).decode()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await self.proxy.open_run(
                run,
                prepared=run,
                fence=fence,
                key="call",
                rules=rules or (rule("localhost", self.there.port, "GET"),),
                listener_fd=listener.fileno(),
                ends_ms=now_ms() + 60_000,
            )
            self.port = listener.getsockname()[1]

    async def tunnel(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        place = f"localhost:{self.there.port}"
        client.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        assert (await client.answer("CONNECT"))[0] == 200
        await client.secure(self.pem, "localhost")
        return client

    async def ask(self, client: Client) -> bytes:
        status, _, body = await client.ask("GET", "/", f"localhost:{self.there.port}")
        assert status == 200
        return body
