"""Connects to a destination: the name resolved here, every address checked, TLS verified."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from remit.addresses import METADATA_NAMES, Reach, connected, is_address, reach
from remit.runners.egress.refusals import Refusal
from remit.runners.egress.streams import PlainStream, TlsStream
from remit.tls import client_context

RESOLVE_S = 10.0
CONNECT_S = 10.0
TLS_S = 10.0
MAX_ADDRESSES = 8
_THREADS = 16
LOOKS = 2
"""Names that are looked up for one run at once. A look that takes long goes on when nobody waits
for it any more, and counts until it has ended: one run's slow names are not all that is done."""

Look = Callable[[str, int, asyncio.Semaphore], Awaitable[Sequence[str]]]
"""Gives the addresses of a name; the semaphore is the share of one run in looking names up."""


class Resolver:
    """The system's resolver, in a few threads; what cannot be asked in time fails."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolve")

    async def look(self, host: str, port: int, share: asyncio.Semaphore) -> Sequence[str]:
        """The name's addresses, in the system's order.

        Raises:
            Refusal: `resolve`.
        """

        def ended(done: asyncio.Future[list[str]]) -> None:
            share.release()
            if not done.cancelled():
                done.exception()  # it is the waiting one's, if anybody still waits

        try:
            async with asyncio.timeout(RESOLVE_S):
                await share.acquire()
                asked = asyncio.get_running_loop().run_in_executor(self._threads, _look, host, port)
                asked.add_done_callback(ended)
                return await asyncio.shield(asked)
        except (TimeoutError, OSError, UnicodeError):
            raise Refusal("resolve") from None


def _look(host: str, port: int) -> list[str]:
    # Bytes are taken as they are: no other spelling of the name is made of them.
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Upstream:
    """The way to destinations.

    Args:
        internal: destinations that may have an address which is not public.
        ca_pem: authorities beside the system's.
        look: the resolver.
    """

    def __init__(self, internal: frozenset[tuple[str, int]], ca_pem: str, look: Look) -> None:
        self._internal = internal
        self._look = look
        self._context = client_context(ca_pem)

    async def addresses(self, host: str, port: int, share: asyncio.Semaphore) -> Sequence[str]:
        """Addresses that may be connected to.

        Raises:
            Refusal: `address` if any one may not be, or `resolve`.
        """
        if host in METADATA_NAMES:
            raise Refusal("address")
        found = [host] if is_address(host) else await self._look(host, port, share)
        if not found:
            raise Refusal("resolve")
        least = min(reach(address) for address in found)
        if least < (Reach.NAMED if (host, port) in self._internal else Reach.PUBLIC):
            raise Refusal("address")
        return found[:MAX_ADDRESSES]

    async def connect(
        self, host: str, port: int, share: asyncio.Semaphore
    ) -> tuple[PlainStream, str]:
        """A connection to one of the checked addresses, and which.

        Raises:
            Refusal: `address`, `resolve` or `connect`.
        """
        addresses = await self.addresses(host, port, share)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                for number, address in enumerate(addresses):
                    left = len(addresses) - number
                    sock = await connected(address, port, CONNECT_S / left)
                    if sock is not None:
                        self._check_elsewhere(sock, host, port)
                        return PlainStream(sock), address
        raise Refusal("connect")

    def _check_elsewhere(self, sock: socket.socket, host: str, port: int) -> None:
        """Refuse this very machine, which may listen on a public address of its own for itself."""
        if (host, port) not in self._internal and sock.getsockname()[0] == sock.getpeername()[0]:
            sock.close()
            raise Refusal("address")

    async def secure(self, plain: PlainStream, host: str) -> TlsStream:
        """TLS to the host that the connection was made for, verified.

        Raises:
            Refusal: `upstream_tls`.
        """
        stream = TlsStream(plain, self._context, server=False, host=host)
        try:
            async with asyncio.timeout(TLS_S):
                await stream.handshake()
        except (ssl.SSLError, OSError, ValueError, TimeoutError):
            raise Refusal("upstream_tls") from None
        return stream
