"""Passes one request to its destination and the answer back, each framed anew by h11."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11

from remit.addresses import authority
from remit.runners.egress.heads import Headers, end_to_end
from remit.runners.egress.purse import Injection, Purse, where
from remit.runners.egress.refusals import Refusal
from remit.runners.egress.streams import PIECE, Stream
from remit.runners.lines import read_in_time
from remit.runners.traces import Blanker

MAX_INCOMPLETE = 65_536
_MAX_INTERIM = 16
_MAX_ANSWERED = 256  # headers of one answer
_LAST_WORD_S = 5.0


class ClientGone(Exception):
    """The run's side ended; there is nobody to answer."""


class Peer:
    """An HTTP/1.1 connection to one side; `fault` is the refusal for what it does wrong."""

    def __init__(self, stream: Stream, role: Any, fault: str) -> None:
        self.stream = stream
        self.fault = fault
        read_in_time()
        self.h11 = h11.Connection(role, max_incomplete_event_size=MAX_INCOMPLETE)

    async def event(self) -> Any:
        """The next event of the other side.

        Raises:
            Refusal: what came is not HTTP, or the destination broke off.
            ClientGone: the run's side broke off.
        """
        # Where something is there already nothing waits: without this, one peer that is fast
        # would have the loop for itself.
        await asyncio.sleep(0)
        try:
            while (event := self.h11.next_event()) is h11.NEED_DATA:
                self.h11.receive_data(await self._receive())
        except h11.RemoteProtocolError:
            raise Refusal(self.fault) from None
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise Refusal(self.fault)
        return event

    async def _receive(self) -> bytes:
        try:
            data = await self.stream.receive()
        except (ssl.SSLError, OSError):
            raise self._gone() from None
        if not data and self.fault == "malformed":
            raise ClientGone
        return data

    def _gone(self) -> Exception:
        return ClientGone() if self.fault == "malformed" else Refusal(self.fault)

    async def send(self, event: Any) -> None:
        """Raises ClientGone, or Refusal for a destination that does not take it."""
        try:
            data = self.h11.send(event)
        except h11.LocalProtocolError:
            raise Refusal("upstream") from None
        try:
            if data:
                await self.stream.send(data)
        except (ssl.SSLError, OSError):
            raise self._gone() from None

    @property
    def finished(self) -> bool:
        """Whether this exchange is over on both sides and another may follow."""
        return self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request that was let through, and whom to tell of it.

    `based` is true where the destination stands in the path (`/HOST/path`): redirects are then
    rewritten to the same form. `echoed` is called when a secret came back.
    """

    host: str
    port: int
    secure: bool
    method: str
    path: str
    query: str
    headers: Sequence[tuple[bytes, bytes]]
    has_body: bool
    waits: bool
    put: Sequence[Injection]
    purse: Purse
    based: bool
    echoed: Callable[[], None]

    @property
    def url(self) -> str:
        scheme, default = ("https", 443) if self.secure else ("http", 80)
        return f"{scheme}://{authority(self.host, self.port, default)}{self.path}{self.query}"


def request_event(order: Order) -> h11.Request:
    """The request as the destination gets it."""
    host = authority(order.host, order.port, 443 if order.secure else 80).encode("ascii")
    kept = [
        (name, value)
        for name, value in end_to_end([*order.headers])
        if name not in (b"host", b"expect", b"content-length")
    ]
    headers = [(b"host", host), *order.purse.headers(kept, order.host, order.port, order.put)]
    if order.has_body:
        length = next((value for name, value in order.headers if name == b"content-length"), None)
        framing = (
            (b"transfer-encoding", b"chunked") if length is None else (b"content-length", length)
        )
        headers.append(framing)
    elif order.method in ("POST", "PUT", "PATCH"):
        headers.append((b"content-length", b"0"))
    return h11.Request(method=order.method, target=order.path + order.query, headers=headers)


async def relay(client: Peer, upstream: Peer, order: Order) -> None:
    """Pass the request and its body on, and the answer back, both at once.

    Raises:
        Refusal: one side is not to be trusted any further. Whether an answer began already, the
            client's state tells.
        ClientGone: the run's side ended.
    """
    await upstream.send(request_event(order))
    if not order.has_body:
        await _upload(client, upstream, order)
        await _download(client, upstream, order)
        return
    up = asyncio.create_task(_upload(client, upstream, order))
    down = asyncio.create_task(_download(client, upstream, order))
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and (fault := up.exception()) is not None:
            if not isinstance(fault, Refusal) or fault.code != upstream.fault:
                raise fault
            # The destination takes no more; it may still say why.
            await asyncio.wait({down}, timeout=_LAST_WORD_S)
            if not down.done():
                raise fault
        await down
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _upload(client: Peer, upstream: Peer, order: Order) -> None:
    if order.has_body and order.waits and client.h11.they_are_waiting_for_100_continue:
        await client.send(h11.InformationalResponse(status_code=100, headers=[]))
    while not isinstance(event := await client.event(), h11.EndOfMessage):
        if not isinstance(event, h11.Data):
            raise Refusal("malformed")
        await upstream.send(h11.Data(data=event.data))
    await upstream.send(h11.EndOfMessage())  # without trailers


async def _download(client: Peer, upstream: Peer, order: Order) -> None:
    response = await _final(upstream)
    headers, decode = _response_headers(order, response)
    phrase = b""
    if response.status_code in HTTPStatus._value2member_map_:
        phrase = HTTPStatus(response.status_code).phrase.encode("ascii")
    await client.send(
        h11.Response(status_code=response.status_code, headers=headers, reason=phrase)
    )
    blanker = order.purse.blanker()
    try:
        await _body(client, upstream, blanker, _Unpacked() if decode else None)
    finally:
        if blanker.found:
            order.echoed()
    await client.send(h11.EndOfMessage())


async def _body(client: Peer, upstream: Peer, blanker: Blanker, unpacked: _Unpacked | None) -> None:
    while not isinstance(event := await upstream.event(), h11.EndOfMessage):
        pieces = [bytes(event.data)] if unpacked is None else unpacked.feed(bytes(event.data))
        for piece in pieces:
            if data := blanker.feed(piece):
                await client.send(h11.Data(data=data))
            await asyncio.sleep(0)  # compressed data may be nothing, again and again
    if unpacked is not None and not unpacked.whole:
        raise Refusal("upstream")
    if data := blanker.finish():
        await client.send(h11.Data(data=data))


async def _final(upstream: Peer) -> h11.Response:
    """The final response; those before it are the destination's words to the proxy."""
    for _ in range(_MAX_INTERIM):
        event = await upstream.event()
        if isinstance(event, h11.Response):
            return event
        if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
            break
    raise Refusal("upstream")


def _response_headers(order: Order, response: h11.Response) -> tuple[Headers, bool]:
    """The answer's headers as the run may see them, and whether its body has to be unpacked."""
    # Names as they came, since a secret may stand in capitals in them; h11 hands them on in small.
    came = [(bytes(name), bytes(value)) for name, value in response.headers.raw_items()]
    if len(came) > _MAX_ANSWERED:
        raise Refusal("upstream")
    given = [(_clean(order, name, b"")[0].lower(), value) for name, value in came]
    coding = (
        b",".join(value for name, value in given if name == b"content-encoding").strip().lower()
    )
    bodied = order.method != "HEAD" and response.status_code not in (204, 304)
    packed = order.purse.guarded and bodied and coding not in (b"", b"identity")
    if packed and coding not in (b"gzip", b"x-gzip", b"deflate"):
        raise Refusal("encoded")
    chunked = any(name == b"transfer-encoding" for name, _ in given)
    out: Headers = []
    for name, value in end_to_end(given):
        if name == b"content-length" and (chunked or packed):
            continue
        if name == b"content-encoding" and packed:
            continue
        if name == b"location" and 300 <= response.status_code < 400:
            order.purse.redirected(order.url, value, order.put)
            value = _rewritten(order, value) if order.based else value  # noqa: PLW2901
        out.append(_clean(order, name, value))
    return out, packed


def _clean(order: Order, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    name, in_name = order.purse.blank(name)
    value, in_value = order.purse.blank(value)
    if in_name + in_value:
        order.echoed()
    return name, value


def _rewritten(order: Order, location: bytes) -> bytes:
    """A redirect in the form that the run used: the destination in the path."""
    target = where(order.url, location)
    if target is None or location.lower().startswith(b"http://"):
        return location
    host, port, path = target
    query = location.partition(b"#")[0].partition(b"?")
    return f"/{authority(host, port, 443)}{path}".encode("ascii") + query[1] + query[2]


class _Unpacked:
    """Gzip or zlib data, in pieces of bounded size; `whole` once its end was seen."""

    def __init__(self) -> None:
        self._new()

    def _new(self) -> None:
        self._inflate = zlib.decompressobj(wbits=47)

    @property
    def whole(self) -> bool:
        return self._inflate.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises Refusal: `encoded`; it is neither."""
        while data or not self._inflate.eof:
            if self._inflate.eof:
                self._new()  # another member (RFC 1952 §2.2)
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error:
                raise Refusal("encoded") from None
            yield piece
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if not data and len(piece) < PIECE:
                return
