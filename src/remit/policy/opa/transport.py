"""Requests to one OPA server: kept connections, a fresh one where none is left, one retry.

No proxy and no redirect is ever followed, and nothing of the environment is looked at.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct

from remit.errors import Code, PolicyFault
from remit.policy.opa.address import Address
from remit.policy.opa.connection import Connection, HttpAnswer

CONNECT_S = 0.05
MOST_CONNECTIONS = 64
IDLE_S = 20.0
"""How long a connection that nobody uses is kept: shorter than servers and proxies keep theirs."""

_RETRY_S = 0.005
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Transport:
    """Speaks to one server. Deadlines are the caller's: cancelling a request ends its connection.

    Args:
        address: the server.
        connect_s: longest time for one connection to be made, TLS not counted.
        most: connections at once; who finds all in use waits.
    """

    def __init__(
        self, address: Address, *, connect_s: float = CONNECT_S, most: int = MOST_CONNECTIONS
    ) -> None:
        self._address = address
        self._connect_s = connect_s
        self._places = asyncio.Semaphore(most)
        self._idle: list[Connection] = []
        self._closed = False

    async def request(self, method: str, path: str, body: bytes = b"") -> HttpAnswer:
        """The whole answer to one request, whatever its status.

        It is sent at most once: only a connection that could not be made is tried again.

        Raises:
            PolicyFault: `policy_unavailable`, `policy_bad_decision` (larger than 1 MiB) or
                `policy_not_ready` (not the server that was configured).
        """
        request = self._head(method, path, len(body)) + body
        async with self._places:
            connection = self._kept() or await self._fresh()
            try:
                answer = await connection.exchange(request)
            except BaseException:
                connection.abort()
                raise
            if self._closed or not connection.idle:
                connection.abort()
            else:
                self._idle.append(connection)
            return answer

    def close(self) -> None:
        """End every connection that is not in use now; those in use end with their request."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def _head(self, method: str, path: str, size: int) -> bytes:
        address = self._address
        lines = [
            f"{method} {address.prefix}{path} HTTP/1.1",
            f"Host: {address.authority}",
            "Accept: application/json",
        ]
        if method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {size}"]
        if address.token is not None:
            lines.append(f"Authorization: Bearer {address.token}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _kept(self) -> Connection | None:
        """The connection used last that is still good; what was closed or lay too long is ended."""
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle and connection.used_s >= oldest:
                return connection
            connection.abort()
        return None

    async def _fresh(self) -> Connection:
        try:
            return await self._connect()
        except ConnectionError:
            await asyncio.sleep(_RETRY_S)  # it may be starting; nothing was sent yet
        except OSError as error:
            raise _unreachable(error) from None
        try:
            return await self._connect()
        except OSError as error:
            raise _unreachable(error) from None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        opened = await self._open()
        try:
            if self._address.unix is not None:
                _, connection = await loop.create_unix_connection(Connection, sock=opened)
                return connection
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._address.tls
            host = self._address.host if tls is not None else None
            _, connection = await loop.create_connection(
                Connection, sock=opened, ssl=tls, server_hostname=host
            )
            return connection
        except BaseException:
            opened.close()
            raise

    async def _open(self) -> socket.socket:
        """A connected socket, of the user it must be of where it is a Unix socket."""
        try:
            async with asyncio.timeout(self._connect_s):
                if self._address.unix is None:
                    return await _open_tcp(self._address.host, self._address.port)
                opened = await _open_unix(self._address.unix)
        except TimeoutError:
            raise PolicyFault(
                Code.POLICY_UNAVAILABLE, "the OPA server does not take connections in time"
            ) from None
        try:
            check_peer(opened, self._address.peers)
        except BaseException:
            opened.close()
            raise
        return opened


def check_peer(opened: socket.socket, allowed: frozenset[int]) -> None:
    """See that who listens at a connected Unix socket is one of these OS users (SO_PEERCRED).

    Does not check which program that is, nor who else may write to the directory. A user of
    another user namespace shows as the overflow user, and is refused.

    Raises:
        PolicyFault: `policy_not_ready`.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is not None:
        told = opened.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(told)[1] in allowed:
            return
    raise PolicyFault(
        Code.POLICY_NOT_READY,
        "the OPA server's socket belongs to a user who is not trusted with it",
        hint="run OPA as root, as Remit's user, or name its user in policy.opa.socket_uid",
    )


async def _open_tcp(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: OSError = OSError("no address")
    for family, _, _, _, address in found:
        try:
            return await _connected(family, address)
        except OSError as error:
            failed = error
    raise failed


async def _connected(family: int, address: tuple[object, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, address)
    except BaseException:
        opened.close()
        raise
    return opened


async def _open_unix(path: str) -> socket.socket:
    """Connect to a Unix socket, which is done at once or says that its queue is full (EAGAIN).

    The event loop would take that for a connection that is being made.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        opened.setblocking(False)
        while True:
            try:
                opened.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_RETRY_S)
            else:
                return opened
    except BaseException:
        opened.close()
        raise


def _unreachable(error: OSError) -> PolicyFault:
    if isinstance(error, ssl.SSLCertVerificationError):
        return PolicyFault(
            Code.POLICY_NOT_READY,
            "the OPA server's certificate is not trusted, or is for another name",
            hint="see policy.opa.ca_file, and the name in policy.opa.url",
        )
    if isinstance(error, ssl.SSLError):
        return PolicyFault(
            Code.POLICY_NOT_READY,
            "TLS with the OPA server failed",
            hint="see policy.opa.ca_file, cert_file and key_file",
        )
    if isinstance(error, socket.gaierror):
        why = ": its name has no address"
    else:
        why = f": {os.strerror(error.errno)}" if error.errno else ""
    return PolicyFault(Code.POLICY_UNAVAILABLE, f"the OPA server cannot be reached{why}")
