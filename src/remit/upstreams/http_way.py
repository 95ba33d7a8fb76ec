"""The way to servers: names resolved here, every address checked, TLS verified; one per process.

What a name resolves to is looked at once, and the connection goes to the address that was looked
at, so that another answer a moment later (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from remit.addresses import Reach, connected, is_address, reach
from remit.errors import Code, UpstreamFault
from remit.loopback import is_loopback
from remit.tls import client_context
from remit.upstreams.http_connection import HttpConnection
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.http_target import Target

MAX_ADDRESSES = 8

Look = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a name.

Raises:
    OSError: it has none.
"""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, by the system's resolver.

    In a thread of its own, so that a name nobody answers for keeps no other name waiting.

    Raises:
        OSError: it has none.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: Exception | None) -> None:
        if not found.done():
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

    def look() -> None:
        addresses: list[str] = []
        error: Exception | None = None
        try:
            told = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(each[4][0]) for each in told))
        except (OSError, UnicodeError) as caught:
            error = caught if isinstance(caught, OSError) else OSError("no name")
        with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits any more
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=look, name="resolve", daemon=True).start()
    return await found


class Way:
    """Makes connections to servers.

    Args:
        internal: hosts with ports whose address may be private though only a name is written.
        ca_pem: authorities (PEM) beside the system's.
        look: the resolver.
    """

    def __init__(
        self,
        *,
        internal: AbstractSet[tuple[str, int]] = frozenset(),
        ca_pem: str = "",
        look: Look = resolve,
    ) -> None:
        self._internal = internal
        self._ca_pem = ca_pem
        self._look = look
        self._tls: ssl.SSLContext | None = None

    async def connect(self, target: Target, limits: HttpLimits) -> HttpConnection:
        """A connection to one of the checked addresses, with TLS where the target has it.

        Raises:
            UpstreamFault: `upstream_unreachable`; nothing was sent.
        """
        addresses = await self._addresses(target, limits)
        sock = await _first(addresses, target.port, limits.connect_s)
        try:
            if self._strict(target) and sock.getsockname()[0] == sock.getpeername()[0]:
                raise _refused()  # this very machine, which may listen for itself there
            return await self._opened(sock, target, limits)
        except BaseException:
            sock.close()
            raise

    def _strict(self, target: Target) -> bool:
        """Whether only public addresses will do: neither named literally, nor said to be internal."""
        named = is_address(target.host) or is_loopback(target.host)
        return not named and (target.host, target.port) not in self._internal

    async def _addresses(self, target: Target, limits: HttpLimits) -> Sequence[str]:
        found: Sequence[str] = [target.host]
        if not is_address(target.host):
            try:
                async with asyncio.timeout(limits.resolve_s):
                    found = await self._look(target.host, target.port)
            except (OSError, TimeoutError):
                found = []
        if not found:
            raise _unreachable("its name has no address", "look at the name in the server's url")
        if target.host == "localhost" and not all(is_loopback(each) for each in found):
            raise _refused()
        least = min(reach(address) for address in found)
        if least < (Reach.PUBLIC if self._strict(target) else Reach.NAMED):
            raise _refused()
        return found[:MAX_ADDRESSES]

    async def _opened(
        self, sock: socket.socket, target: Target, limits: HttpLimits
    ) -> HttpConnection:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        how: dict[str, Any] = {}
        if target.secure:
            if self._tls is None:
                self._tls = client_context(self._ca_pem)
            how = {"ssl": self._tls, "server_hostname": target.host}
            how["ssl_handshake_timeout"] = limits.tls_s
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: HttpConnection(limits), sock=sock, **how)
        except ssl.SSLCertVerificationError:
            hint = "see runners.egress.ca_file, and the name in the server's url"
            raise _unreachable(
                "its certificate is not trusted, or is for another name", hint
            ) from None
        except (OSError, ValueError):
            raise _unreachable("TLS with it failed", "does it speak TLS at this port?") from None
        return made


async def _first(addresses: Sequence[str], port: int, seconds: float) -> socket.socket:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for number, address in enumerate(addresses):
                sock = await connected(address, port, seconds / (len(addresses) - number))
                if sock is not None:
                    return sock
    raise _unreachable("it takes no connection", "does it run, and is the port the right one?")


def _refused() -> UpstreamFault:
    return _unreachable(
        "its address is not one that may be reached",
        "a private address has to stand in the server's url itself, or its host:port in"
        " runners.egress.internal; metadata services and link-local addresses are never reached",
    )


def _unreachable(why: str, hint: str) -> UpstreamFault:
    message = f"the MCP server cannot be reached: {why}"
    return UpstreamFault(Code.UPSTREAM_UNREACHABLE, message, hint=hint)
