"""One connection that a run made: what it asks for, whether it may, and the way there."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING

import h11

from remit.addresses import split_authority
from remit.runners.egress.greeting import read_greeting
from remit.runners.egress.heads import Head, HeadReader, like_a_variable, read_head
from remit.runners.egress.refusals import Refusal, answer_bytes
from remit.runners.egress.relay import ClientGone, Order, Peer, relay
from remit.runners.egress.rules import split_target
from remit.runners.egress.streams import PlainStream, Stream, TlsStream
from remit.runners.egress.tally import Entry

if TYPE_CHECKING:
    from remit.runners.egress.runs import Run

HEAD_S = 20.0
"""From the first byte of a head or greeting to its last."""
WAIT_S = 90.0
"""Without a request on an open connection."""
IDLE_S = 600.0
"""Without a byte in either direction within a request or tunnel."""

_LINGER_S = 1.0
_LINGER_BYTES = 262_144
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"  # a fatal alert (RFC 8446 §6)
_ABSOLUTE = re.compile(r"(?i:http)://([^/?#]{1,300})((?:[/?].*)?)")
_BASED = re.compile(r"/([^/?]{1,300})((?:[/?].*)?)")


class Visit:
    """Serves one accepted connection until its end. `expire` says when it has waited too long."""

    def __init__(self, run: Run, sock: socket.socket) -> None:
        self._run = run
        self._plain = PlainStream(sock, self._count)
        self._answers: Stream | None = self._plain
        """Where a refusal can be told; nowhere once a CONNECT was answered."""
        self._entry: Entry | None = None
        self._before = (0, 0)
        self._upstream: tuple[tuple[str, int, bool], Peer, PlainStream] | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: str | None = None
        self._limit = IDLE_S
        self._due = time.monotonic() + HEAD_S
        self._fixed = True

    def start(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._serve())
        return self._task

    def end(self, code: str | None) -> None:
        """End it now; `code` is why, where that is a refusal."""
        self._ending = self._ending or code
        if self._task is not None:
            self._task.cancel()

    def tick(self, now: float) -> None:
        if now > self._due:
            self.end("timeout" if self._fixed or self._limit != WAIT_S else None)

    # --------------------------------------------------------------------------- accounting

    def _phase(self, seconds: float, *, fixed: bool = False) -> None:
        """So long may nothing happen (or, fixed, may all of it take) from now on."""
        self._limit, self._fixed = seconds, fixed
        self._due = time.monotonic() + seconds

    def _head_began(self) -> None:
        self._phase(HEAD_S, fixed=True)

    def _stir(self, received: int = 0, sent: int = 0) -> None:
        if not self._fixed:
            self._due = time.monotonic() + self._limit

    def _count(self, received: int, sent: int) -> None:
        self._stir()
        if self._entry is None:
            self._before = (self._before[0] + received, self._before[1] + sent)
        elif not self._run.tally.count(self._entry, received, sent):
            raise Refusal("too_much")

    def _about(self, host: str, port: int, kind: str) -> Entry:
        """The record's entry for this destination; a connection has one for each."""
        entry = self._entry
        if entry is None or (entry.host, entry.port) != (host, port):
            if entry is not None:
                self._run.tally.close(entry)
            named = self._run.rules.names(host, port)
            entry = self._entry = self._run.tally.open(host, port, kind, named=named)
            (sent, received), self._before = self._before, (0, 0)
            self._count(sent, received)
        return entry

    # ------------------------------------------------------------------------------ serving

    async def _serve(self) -> None:
        try:
            await self._first()
        except Refusal as refusal:
            await self._refuse(refusal.code, self._answers)
        except (ClientGone, OSError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            if self._ending is not None:
                self._note(self._ending)
        except Exception:  # noqa: BLE001 - whatever it is: closed, counted, and told to nobody
            self._note("internal")
        finally:
            self._drop_upstream()
            self._plain.sock.close()
            if self._entry is not None:
                self._run.tally.close(self._entry)

    def _note(self, code: str) -> None:
        if self._entry is None:
            with contextlib.suppress(Refusal):
                self._about("", 0, "http")
        if self._entry is not None:
            self._run.tally.refuse(self._entry, code)

    async def _refuse(self, code: str, stream: Stream | None) -> None:
        """Record it, say it where that can still be said, and let the run's side read it."""
        self._note(code)
        if stream is None:
            return
        self._plain.count = None  # these last words are the proxy's own
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await stream.send(answer_bytes(code))
                stream.finish()
                left = _LINGER_BYTES
                while left > 0 and (data := await self._plain.receive()):
                    left -= len(data)

    async def _first(self) -> None:
        """Requests to the proxy itself: CONNECT, a whole URL, or the destination in the path."""
        if self._run.tally.spent:
            raise Refusal("too_much")
        reader = HeadReader(self._plain, self._head_began)
        while (raw := await reader.next()) is not None:
            self._phase(IDLE_S)
            head = read_head(raw)
            if head.method == "CONNECT":
                await self._connect(head, reader.rest)
                return
            host, port, secure, target = _destination(head)
            entry = self._about(host, port, "https" if secure else "http")
            if not await self._request(reader, raw, head, entry, secure=secure, target=target):
                return
            self._phase(WAIT_S)

    # ------------------------------------------------------------------------------ CONNECT

    async def _connect(self, head: Head, rest: bytes) -> None:
        place = split_authority(head.target)
        if place is None:
            raise Refusal("malformed")
        host, port = place
        entry = self._about(host, port, "tunnel")
        if not self._run.rules.names(host, port):
            raise Refusal("not_allowed")
        if self._run.rules.open(host, port) and not self._run.purse.at(host, port):
            await self._tunnel(entry, rest)
            return
        if not self._run.terminate:
            raise Refusal("not_allowed")
        entry.kind = "https"
        await self._established(entry, rest)
        await self._terminated(entry)

    async def _established(self, entry: Entry, rest: bytes) -> None:
        """Answer the CONNECT and read the greeting; what was read is there to be read again."""
        await self._plain.send(_ESTABLISHED)
        self._answers = None
        self._phase(HEAD_S, fixed=True)
        data = rest
        try:
            while (greeting := read_greeting(data)) is None:
                piece = await self._plain.receive()
                if not piece:
                    raise ClientGone
                data += piece
        except ValueError:
            self._note("not_tls")
            raise ClientGone from None
        expected = None if self._run.is_address(entry.host) else entry.host
        if greeting.hidden or greeting.name != expected:
            with contextlib.suppress(OSError):
                await self._plain.send(_UNRECOGNIZED_NAME)
            self._note("sni_mismatch")
            raise ClientGone
        self._plain.unread(data)

    async def _tunnel(self, entry: Entry, rest: bytes) -> None:
        other, entry.address = await self._run.connect(entry.host, entry.port)
        try:
            await self._established(entry, rest)
            self._phase(IDLE_S)
            await _splice(self._plain, other)
        finally:
            other.sock.close()

    async def _terminated(self, entry: Entry) -> None:
        """TLS ends here, as the host's by the run's own authority; each request is looked at."""
        stream = TlsStream(self._plain, self._run.authority.context(entry.host), server=True)
        try:
            await stream.handshake()
        except (ssl.SSLError, OSError):
            self._note("client_tls")
            raise ClientGone from None
        reader = HeadReader(stream, self._head_began)
        self._phase(WAIT_S)
        try:
            while (raw := await reader.next()) is not None:
                self._phase(IDLE_S)
                head = read_head(raw)
                place = split_authority((head.get(b"host") or b"").decode("latin-1"), 443)
                if place != (entry.host, entry.port):
                    raise Refusal("host_mismatch")
                target = head.target
                if not await self._request(reader, raw, head, entry, secure=True, target=target):
                    break
                self._phase(WAIT_S)
        except Refusal as refusal:
            await self._refuse(refusal.code, stream)
            return
        stream.finish()

    # ----------------------------------------------------------------------------- requests

    async def _request(
        self, reader: HeadReader, raw: bytes, head: Head, entry: Entry, *, secure: bool, target: str
    ) -> bool:
        """Check one request and pass it on; whether another may follow on this connection."""
        self._check(head, entry, target)
        client = Peer(reader.stream, h11.SERVER, "malformed")
        client.h11.receive_data(raw + reader.rest)
        first = await client.event()
        if not isinstance(first, h11.Request) or first.target != head.target.encode("ascii"):
            raise Refusal("malformed")  # the two parsers do not agree
        upstream = await self._peer(entry, secure=secure)
        # Only now: what was lent may have been taken back while it was connected to.
        order = self._order(head, entry, secure=secure, target=target)
        entry.requests += 1
        entry.injected += [each.ref for each in order.put if each.ref not in entry.injected]
        try:
            await relay(client, upstream, order)
        except Refusal as refusal:
            if client.h11.our_state is not h11.SEND_RESPONSE:
                self._note(refusal.code)
                raise ClientGone from None  # too late for another answer: it stays broken off
            raise
        finally:
            if not upstream.finished or upstream.h11.trailing_data[0]:
                self._drop_upstream()
            else:
                upstream.h11.start_next_cycle()
        reader.rest = client.h11.trailing_data[0]
        return client.finished

    def _check(self, head: Head, entry: Entry, target: str) -> tuple[str, str]:
        """Path and query of a request that is let through."""
        path, query = split_target(target)
        if head.method in ("CONNECT", "TRACE"):
            raise Refusal("method")
        strict = self._run.purse.path_decides(entry.host, entry.port)
        names = frozenset(like_a_variable(name) for name, _ in head.headers)
        self._run.rules.check(entry.host, entry.port, head.method, path, names, strict=strict)
        return path, query

    def _order(self, head: Head, entry: Entry, *, secure: bool, target: str) -> Order:
        run, host, port = self._run, entry.host, entry.port
        path, query = self._check(head, entry, target)
        safe = secure or (host, port) in run.unsafe_plain
        return Order(
            host=host,
            port=port,
            secure=secure,
            method=head.method,
            path=path,
            query=query,
            headers=head.headers,
            has_body=head.has_body,
            waits=head.get(b"expect") is not None,
            put=run.purse.fitting(host, port, path) if safe else (),
            purse=run.purse,
            based=head.target.startswith("/") and target != head.target,
            echoed=lambda: run.tally.echo(entry),
        )

    async def _peer(self, entry: Entry, *, secure: bool) -> Peer:
        """The connection to the destination: the last one, if it is the same and still quiet."""
        wanted = (entry.host, entry.port, secure)
        if self._upstream is not None:
            place, peer, _ = self._upstream
            if place == wanted and peer.stream.quiet:
                return peer
            self._drop_upstream()
        plain, entry.address = await self._run.connect(entry.host, entry.port)
        plain.count = self._stir
        try:
            stream = await self._run.secure(plain, entry.host) if secure else plain
        except BaseException:
            plain.sock.close()
            raise
        peer = Peer(stream, h11.CLIENT, "upstream")
        self._upstream = (wanted, peer, plain)
        return peer

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream[2].sock.close()
            self._upstream = None


def _destination(head: Head) -> tuple[str, int, bool, str]:
    """Host, port, whether by TLS, and target of a request to the proxy.

    Raises:
        Refusal: `malformed` or `host_mismatch`.
    """
    secure = head.target.startswith("/")
    found = (_BASED if secure else _ABSOLUTE).fullmatch(head.target)
    place = split_authority(found[1], 443 if secure else 80) if found else None
    if found is None or place is None:
        raise Refusal("not_allowed" if secure else "malformed")
    host = head.get(b"host")
    if not secure and host is not None and split_authority(host.decode("latin-1"), 80) != place:
        raise Refusal("host_mismatch")
    target = found[2] if found[2].startswith("/") else f"/{found[2]}"
    return *place, secure, target


async def _splice(left: PlainStream, right: PlainStream) -> None:
    """Both directions until both have ended; a fault in one ends the other."""

    async def pump(source: PlainStream, sink: PlainStream) -> None:
        while data := await source.receive():
            await sink.send(data)
        sink.finish()

    tasks = [asyncio.create_task(pump(left, right)), asyncio.create_task(pump(right, left))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
