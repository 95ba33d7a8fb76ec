"""Where requests may go whose address somebody else than the operator named (RFC 9728 §7.7).

A name is resolved here, every address of it is looked at, and the connection goes to one that was
looked at, so that another answer a moment later (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from remit.addresses import METADATA_NAMES, Reach, is_address, plain_host, reach
from remit.loopback import address_fault, is_loopback
from remit.runners.credentials.broker import BrokerFault

RESOLVE_S = 2.0
THREADS = 4

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a name; raises OSError where it has none."""

REFUSED = "an address that was found is not one that may be reached"


class Guard:
    """Decides by name and address; the same for metadata and for the endpoints that it names.

    Args:
        named: hosts that the operator wrote; they may be private, or this machine. Of others only
            public addresses are reached.
        resolve: the resolver.
    """

    def __init__(self, named: AbstractSet[str], *, resolve: Resolve | None = None) -> None:
        self._named = named
        self._resolve = resolve or self._resolved
        self._threads: ThreadPoolExecutor | None = None

    def allows(self, url: str, host: str) -> bool:
        """Whether the address is https, or http to this machine, of a host that may be asked."""
        if address_fault(url) is not None or not plain_host(host) or host in METADATA_NAMES:
            return False
        if is_address(host):
            return reach(host) >= self._least(host)
        return host in self._named or not is_loopback(host)

    def _least(self, host: str) -> Reach:
        return Reach.NAMED if host in self._named else Reach.PUBLIC

    async def look(self, host: str, port: int) -> str:
        """The address to connect to.

        Raises:
            BrokerFault: none, or one among them that may not be reached.
        """
        found: Sequence[str] = [host]
        if not is_address(host):
            try:
                async with asyncio.timeout(RESOLVE_S):
                    found = await self._resolve(host, port)
            except (OSError, TimeoutError, UnicodeError):
                found = []
        if not found:
            raise BrokerFault("the name of an address that was found resolves to nothing")
        if host == "localhost" and not all(map(is_loopback, found)):
            raise BrokerFault(REFUSED)
        if min(map(reach, found)) < self._least(host):
            raise BrokerFault(REFUSED)
        # Of this machine's two addresses most services listen at the older one alone.
        return min(found, key=lambda each: ":" in each)

    async def _resolved(self, host: str, port: int) -> Sequence[str]:
        """By the system's resolver, in threads of this guard alone: whoever's name servers do not
        answer keeps a thread long after we gave up, and the others' are needed elsewhere."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        asked = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, asked)
        return list(dict.fromkeys(str(each[4][0]) for each in found))
