"""The MCP door: one endpoint for revision 2026-07-28 and for those with a handshake.

`McpDoor.__call__` is the whole way in, in the order in which it is checked. What comes through
goes to the library's session managers and from there to `protocol`, where the gateway is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.auth.middleware.bearer_auth import (
    AuthenticatedUser,
    AuthorizationContext,
    authorization_context,
)
from mcp.server.auth.provider import AccessToken
from mcp.server.lowlevel.server import Server
from mcp.server.session import ServerSession
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from remit.consenting import ConsentDesk
from remit.doors import edge
from remit.doors.changes import LISTS
from remit.doors.consents import consent_routes
from remit.doors.edge import Fields, TurnedAway
from remit.doors.exchange import Exchange
from remit.doors.gateway import Gateway
from remit.doors.issuer import PublicIssuer, issuer_routes
from remit.doors.listening import tell_session
from remit.doors.protocol import EXCHANGE, INBOUND, Inbound, Protocol, session_claim
from remit.doors.settings import DoorSettings
from remit.errors import Code, Refused, RemitError
from remit.model import Caller
from remit.ports import Now
from remit.telemetry import logger

METHODS = ("POST", "GET", "DELETE")
SESSION = b"mcp-session-id"
VERSION = b"mcp-protocol-version"
LAST_EVENT_ID = b"last-event-id"
LISTEN = "subscriptions/listen"

log = logger()


def _system_now() -> int:
    return time.time_ns() // 1_000_000


def mcp_app(
    gateway: Gateway,
    settings: DoorSettings,
    *,
    now: Now = _system_now,
    issuer: PublicIssuer | None = None,
    consents: ConsentDesk | None = None,
) -> Starlette:
    """The ASGI application of the MCP door, at `/mcp`, the public pages of the issuer, and those on
    which people consent.

    Serve it with `proxy_headers` off: addresses are taken from the connection alone.
    """
    door = McpDoor(gateway, settings, Protocol(gateway, settings, now))
    public = [] if issuer is None else issuer_routes(issuer, settings)
    public += [] if consents is None else consent_routes(consents, settings)
    routes = [Route("/mcp", endpoint=door), *public]
    app = Starlette(routes=routes, lifespan=lambda _app: door.run())
    app.router.redirect_slashes = False  # a redirect would repeat the Host header
    app.state.door = door
    return app


def end_streams(app: Starlette) -> None:
    """End the streams on which clients wait for nothing, so that a server that is asked to stop
    need not wait for them. Calls under way go on."""
    door: McpDoor = app.state.door
    door.end_streams()


class McpDoor:
    """The endpoint."""

    def __init__(self, gateway: Gateway, settings: DoorSettings, protocol: Protocol) -> None:
        self._gateway = gateway
        self._settings = settings
        self._protocol = protocol
        server = protocol.server()
        # No sessions exist on the modern wire; its manager only carries single exchanges.
        self._modern = StreamableHTTPSessionManager(
            server, json_response=True, max_request_body_size=settings.body_limit_bytes
        )
        self._legacy = Sessions(server, settings, protocol)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve until the context ends; then every session is closed."""
        async with self._modern.run(), self._legacy.run():
            yield

    def end_streams(self) -> None:
        """End every stream on which a client waits for changes."""
        self._protocol.listening.changes.end()
        self._legacy.end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request: checked in this order, then served or turned away."""
        source = edge.source_ip(scope)
        body: bytes | None = None
        try:
            # (1) no page of another site, whatever name it reached us by
            headers = edge.fields(scope)
            edge.check_host(headers, self._settings)
            legacy = _check_shape(scope["method"], headers)
            # (2) bounded, by what it says of itself and then by what comes
            edge.check_length(headers, self._settings.body_limit_bytes)
            # (3) who asks
            caller = await self._gateway.authenticate(headers.get(b"authorization"), source)
            body = await edge.read_body(
                receive, self._settings.body_limit_bytes, self._settings.body_timeout_s
            )
            # (4) one message, which every parser reads alike
            message = edge.read_message(body) if scope["method"] == "POST" else {}
            inbound = _inbound(headers, caller, source, message)
        except TurnedAway as turned:
            await self._gateway.refuse_at_door(turned.code, source)
            await self._turn_away(turned, body, receive, send)
            return
        except Refused as refused:  # counted by whoever refused
            await self._turn_away(edge.refused(refused), body, receive, send)
            return
        except RemitError as fault:
            log.exception("door_fault", code=fault.code.value)
            await self._turn_away(_unavailable(), body, receive, send)
            return
        # (5) the library, with the same bytes
        again = edge.replay(body, receive)
        scope[INBOUND] = inbound
        if legacy:
            await self._serve_legacy(scope, inbound, again, send)
        else:
            exchange = Exchange(
                receive,
                send,
                # The library makes the stream of a subscription itself.
                may_stream=_accepts(headers, "text/event-stream", "text/*")
                and message.get("method") != LISTEN,
                keepalive_s=self._settings.keepalive_s,
            )
            scope[EXCHANGE] = exchange
            await exchange.run(lambda: self._modern.handle_request(scope, again, exchange.send))

    async def _turn_away(
        self, turned: TurnedAway, body: bytes | None, receive: Receive, send: Send
    ) -> None:
        to = await edge.peek_id(receive) if body is None else edge.request_id(body)
        await edge.answer(turned, to, send)

    async def _serve_legacy(
        self, scope: Scope, inbound: Inbound, receive: Receive, send: Send
    ) -> None:
        session_id = edge.fields(scope).get(SESSION)
        asked = inbound.message.get("id") if "method" in inbound.message else None
        try:
            with self._protocol.under_way.hold(scope, inbound.caller, session_id, asked):
                await self._in_session(scope, inbound, receive, send)
        except TurnedAway as turned:
            await self._gateway.refuse_at_door(turned.code, inbound.source_ip)
            await edge.answer(turned, asked, send)

    async def _in_session(
        self, scope: Scope, inbound: Inbound, receive: Receive, send: Send
    ) -> None:
        # A session answers only to the credential that opened it.
        owner = _session_owner(inbound.caller)
        scope["user"] = owner
        if inbound.session_id is None:
            await self._legacy.make_room(owner)
        if scope["method"] != "GET":
            await self._legacy.handle_request(scope, receive, send)
            return
        # Nothing is kept to be told again, and the library answers nothing to who asks for it.
        scope["headers"] = [each for each in scope["headers"] if each[0] != LAST_EVENT_ID]
        stream = _Started(send)
        telling = asyncio.ensure_future(self._tell(scope, inbound, stream.open))
        try:
            await self._legacy.handle_request(scope, receive, stream)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self, scope: Scope, inbound: Inbound, stream: asyncio.Event) -> None:
        """Say on the standing stream of a session what has changed of what its caller sees."""
        session_id = edge.fields(scope).get(SESSION, "")
        if not self._legacy.is_owner(scope["user"], session_id):
            return  # whoever asks hears from the library that there is no such session
        listening = self._protocol.listening
        async with listening.changes.listening(
            inbound.caller,
            inbound.source_ip,
            lists=frozenset(LISTS),
            book=listening.book(session_id, inbound.caller),
        ) as listener:
            await stream.wait()
            while (told := await listener.changed()) is not None:
                session = self._legacy.owned_by(scope["user"], session_id)
                if session is not None:
                    await tell_session(session, told)
        self._legacy.end_stream(scope["user"], session_id)


class _Started:
    """A `send` that notes when a stream of events has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.open = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.start" and message["status"] == 200:
            self.open.set()


class Sessions(StreamableHTTPSessionManager):
    """The sessions of earlier revisions, of which one caller may hold only so many.

    Many clients open a session for each call and never end it, so the oldest idle one gives way;
    only a caller all of whose sessions are busy is refused another.
    """

    def __init__(self, server: Server[Any], settings: DoorSettings, protocol: Protocol) -> None:
        super().__init__(
            server,
            json_response=False,
            stateless=False,
            session_idle_timeout=settings.session_idle_s,
            max_request_body_size=settings.body_limit_bytes,
            max_sessions=settings.max_sessions,
        )
        self._max_per_caller = settings.max_sessions_per_caller
        self._opened = protocol.opened
        self._ended = protocol.ended

    async def make_room(self, user: AuthenticatedUser) -> None:
        """End this caller's oldest idle session if it has as many as it may have."""
        owned = self._owned(authorization_context(user))
        if len(owned) < self._max_per_caller:
            return
        for session_id in owned:
            transport = self._server_instances[session_id]
            if not transport._requests_in_flight:  # noqa: SLF001 - the library has no other word
                await self._discard_session(session_id, transport)
                return

    def end_streams(self) -> None:
        """End the standing stream of each session; the session itself stays."""
        for transport in self._server_instances.values():
            transport.close_standalone_sse_stream()

    def is_owner(self, user: AuthenticatedUser, session_id: str) -> bool:
        """Whether there is such a session, open or just opening, and it is this caller's."""
        return self._session_owners.get(session_id) == authorization_context(user)

    def owned_by(self, user: AuthenticatedUser, session_id: str) -> ServerSession | None:
        """The open session of that id, if it is this caller's."""
        if not self.is_owner(user, session_id):
            return None
        return self._opened.get(session_id)

    def end_stream(self, user: AuthenticatedUser, session_id: str) -> None:
        """End the standing stream of this caller's session."""
        transport = self._server_instances.get(session_id)
        if transport is not None and self.owned_by(user, session_id) is not None:
            transport.close_standalone_sse_stream()

    async def _discard_session(
        self, session_id: str, transport: StreamableHTTPServerTransport
    ) -> None:
        self._ended(session_id)
        await super()._discard_session(session_id, transport)

    def _admit_session(
        self, requestor: AuthorizationContext | None
    ) -> StreamableHTTPServerTransport | None:
        if requestor is None or len(self._owned(requestor)) >= self._max_per_caller:
            return None
        if len(self._opened) > len(self._server_instances):
            # One that said that it is open in the moment in which it was ended.
            for ended in self._opened.keys() - self._server_instances.keys():
                self._ended(ended)
        return super()._admit_session(requestor)

    def _owned(self, owner: AuthorizationContext) -> list[str]:
        """The owner's open sessions, oldest first."""
        return [
            session_id
            for session_id, holder in self._session_owners.items()
            if holder == owner and session_id in self._server_instances
        ]


def _check_shape(method: str, headers: Fields) -> bool:
    """Whether the request is of a revision with a handshake; methods and media types fit it.

    Raises:
        TurnedAway: 405, 406 or 415.
    """
    version = headers.get(VERSION)
    legacy = version is None or version in HANDSHAKE_PROTOCOL_VERSIONS
    in_session = legacy and SESSION in headers
    if method not in METHODS or (method != "POST" and not in_session):
        allow = b"GET, POST, DELETE" if in_session else b"POST"
        raise TurnedAway(
            405, edge.INVALID_REQUEST, Code.NOT_SERVED, "this method is not served here",
            headers=((b"allow", allow),),
        )  # fmt: skip
    if method == "POST":
        edge.check_json(headers)
        if not _accepts(headers, "application/json", "application/*"):
            raise TurnedAway(
                406, edge.INVALID_REQUEST, Code.NOT_SERVED,
                "accept both application/json and text/event-stream",
            )  # fmt: skip
    return legacy


def _accepts(headers: Fields, *media_types: str) -> bool:
    accepted = headers.get(b"accept", "").lower()
    offers = {part.split(";")[0].strip() for part in accepted.split(",")}
    return "*/*" in offers or any(media_type in offers for media_type in media_types)


def _inbound(headers: Fields, caller: Caller, source: str, message: dict[str, Any]) -> Inbound:
    return Inbound(
        caller=caller,
        source_ip=source,
        message=message,
        idempotency_key=headers.get(b"idempotency-key"),
        session_id=session_claim(headers.get(SESSION)),
    )


def _session_owner(caller: Caller) -> AuthenticatedUser:
    """The caller and its key, as the library compares owners of sessions; it holds no token."""
    owner = f"{caller.key_id}\n{caller.id}"
    return AuthenticatedUser(AccessToken(token="", client_id=owner, scopes=[]))


def _unavailable() -> TurnedAway:
    return TurnedAway(503, edge.UNAVAILABLE, Code.LEDGER_UNAVAILABLE, "Remit cannot take calls now")
