"""What Remit answers to MCP's methods, once a request has come through the door.

The library routes and shapes; each handler asks the gateway and translates. Name, arguments and
`_meta` are taken from the message as the door read it, so that one reading decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError

from remit.canonical import encode
from remit.doors.beside import Beside
from remit.doors.claims import Client, read_claims, read_idempotency_key
from remit.doors.edge import INTERNAL_ERROR, INVALID_PARAMS
from remit.doors.elicit import ask, asks_itself, capabilities_of, goes_to, left, unanswered
from remit.doors.exchange import Exchange
from remit.doors.gateway import Gateway
from remit.doors.listening import SESSION_ID, Listening
from remit.doors.progress import SendProgress, progress_to
from remit.doors.settings import DoorSettings
from remit.doors.tracing import ServerSpan
from remit.doors.under_way import UnderWay
from remit.doors.wire import WireTools, fit, page, read_cursor, result_of, text_of
from remit.errors import Code, InputError
from remit.model import Call, Caller, Frozen, Method, Question, Reply
from remit.ports import Now
from remit.telemetry import logger

INBOUND = "remit.inbound"
"""Where the door leaves an `Inbound` in a request's ASGI scope."""

EXCHANGE = "remit.exchange"
"""Where it leaves the `Exchange` of a request on the 2026-07-28 wire."""

MAX_TOOL_NAME = 128

Context = ServerRequestContext[Any, Any]
Result = dict[str, Any]

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """A request as the door let it in: who sent it, from where, and what it says."""

    caller: Caller
    source_ip: str
    message: Mapping[str, Any]
    idempotency_key: str | None = None
    session_id: str | None = None


class ToolServer(Server[Any]):
    """The library's server, which says in a handshake too that the list of tools may change, and of
    other capabilities those of which anything is offered."""

    fit: Callable[[types.ServerCapabilities], types.ServerCapabilities]

    def get_capabilities(self, *more: Any, **named: Any) -> types.ServerCapabilities:
        return self.fit(super().get_capabilities(*more, **named))

    def create_initialization_options(
        self, notification_options: NotificationOptions | None = None, *more: Any, **named: Any
    ) -> InitializationOptions:
        told = notification_options or NotificationOptions(tools_changed=True)
        return super().create_initialization_options(told, *more, **named)


class Protocol:
    """MCP's methods, for one gateway."""

    def __init__(self, gateway: Gateway, settings: DoorSettings, now: Now) -> None:
        self._gateway = gateway
        self._settings = settings
        self._now = now
        self._tools = WireTools()
        self.listening = Listening(gateway, settings, now, call=self._subscribing, who=_who)
        self.under_way = UnderWay()
        self._beside = Beside(gateway.offers, settings, self._make, _who)
        self.opened: dict[str, ServerSession] = {}
        """Sessions of earlier revisions by their id, to say on their streams what changed; whoever
        ends a session takes it out."""

    def server(self) -> Server[Any]:
        """The library's server, with these methods and no other capability.

        `get_tool_input_schema` knows no tool: it is asked before anyone knows who calls, and
        where it fails the library lets the call through. No tool is published with
        `x-mcp-header`, so there is nothing it could check.
        """
        hint = CacheHint(ttl_ms=self._settings.list_ttl_ms, scope="private")
        server = ToolServer(
            self._settings.name,
            version=self._settings.version,
            instructions=self._settings.instructions,
            cache_hints={"tools/list": hint, "server/discover": hint, **self._beside.hints()},
            get_tool_input_schema=lambda _name: None,
        )
        server.fit = self._beside.fit
        self._beside.serve(server)
        server.add_request_handler("tools/list", types.PaginatedRequestParams, self.list_tools)
        server.add_request_handler("tools/call", types.CallToolRequestParams, self.call_tool)
        self.listening.serve(server)
        server.add_notification_handler(
            "notifications/initialized", types.NotificationParams, self.initialized
        )
        own = [ServerSpan(each) for each in server.middleware] if self._settings.tracing else []
        server.middleware[:] = [self.under_way, *own]
        return server

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams) -> Result:
        """`tools/list`: what this caller may see, sorted by name, a page at a time."""
        inbound = inbound_of(ctx)
        caller, size = inbound.caller, self._settings.page_size
        try:
            after = read_cursor(params.cursor, caller)
        except InputError as exc:
            raise MCPError(INVALID_PARAMS, exc.message, {"code": exc.code.value}) from None
        tools = await self._gateway.visible(
            caller, source_ip=inbound.source_ip, after=after, enough=size + 1
        )
        shown, cursor = page(tools, caller, after, size)
        listed = [fit(self._tools.of(tool), ctx.protocol_version) for tool in shown]
        result: Result = {"resultType": "complete", "tools": listed}
        return result if cursor is None else {**result, "nextCursor": cursor}

    def ended(self, session_id: str) -> None:
        """A session of an earlier revision is over."""
        self.opened.pop(session_id, None)
        self.listening.ended(session_id)

    async def initialized(self, ctx: Context, _params: types.NotificationParams) -> None:
        """A session of an earlier revision is open; what changes can be said on its GET stream."""
        session_id = None if ctx.request is None else ctx.request.headers.get(SESSION_ID)
        if session_id is not None:
            self.opened[session_id] = ctx.session

    async def call_tool(self, ctx: Context, _params: types.CallToolRequestParams) -> Result:
        """`tools/call`: the call goes to the gateway, its reply to the caller."""
        inbound = inbound_of(ctx)
        params = inbound.message["params"]
        name = params["name"]
        if len(name) > MAX_TOOL_NAME:
            await self._gateway.refuse_at_door(Code.UNKNOWN_TOOL, inbound.caller.id)
            raise unknown_tool(name)
        try:
            call = self._call(ctx, inbound, params)
        except InputError as exc:
            await self._gateway.refuse_at_door(exc.code, inbound.caller.id)
            return result_of(_refusal(exc), ctx.protocol_version)
        reply = await self._carried(ctx, inbound, call)
        if reply.decision.get("code") == Code.UNKNOWN_TOOL:
            # A question about a tool that is not there is answered like a call to it.
            raise unknown_tool(str(reply.decision.get("tool", name)))
        if reply.jsonrpc_error is not None:
            raise MCPError(reply.jsonrpc_error, text_of(reply), dict(reply.decision))
        return result_of(reply, ctx.protocol_version)

    async def _make(
        self, ctx: Context, method: Method, name: str, arguments: Mapping[str, Any]
    ) -> Reply:
        """The reply to a call by another method than `tools/call`."""
        inbound = inbound_of(ctx)
        params = {**inbound.message["params"], "name": name, "arguments": arguments}
        try:
            call = replace(self._call(ctx, inbound, params), method=method)
        except InputError as exc:
            await self._gateway.refuse_at_door(exc.code, inbound.caller.id)
            raise MCPError(INVALID_PARAMS, exc.message, {"code": exc.code.value}) from None
        return await self._carried(ctx, inbound, call)

    def _subscribing(
        self, ctx: Context, method: Method, name: str, arguments: Mapping[str, Any]
    ) -> Call:
        """The call by which a resource is subscribed to; it may be made again later."""
        inbound = inbound_of(ctx)
        meta = inbound.message["params"].get("_meta")
        params = {"name": name, "arguments": arguments, "_meta": meta}
        return replace(self._call(ctx, inbound, params), method=method, idempotency_key=None)

    async def _carried(self, ctx: Context, inbound: Inbound, call: Call) -> Reply:
        """The gateway's reply, its questions on the way asked of a client that has to be asked."""
        async with progress_to(_sender(ctx, inbound)) as progress:
            reply = await self._ask(call, progress)
            opened: set[str] = set()
            while (question := reply.question) is not None and asks_itself(ctx):
                if question.page in opened:
                    break  # the person is still there; the error says where, and to call again
                answers = await ask(ctx, question)
                if answers is None:
                    reply = unanswered(reply)
                    continue
                opened |= goes_to(question, answers)
                progress.again()
                reply = await self._ask(self._again(call, question, answers), progress)
            still = None if reply.question is None else reply.question.page
            await left(ctx, opened - {still})
        return reply

    async def _ask(self, call: Call, progress: Any) -> Reply:
        try:
            return await self._gateway.call(call, progress)
        except Exception:  # the library would show some clients the exception's text
            log.exception("call_failed", call=call.id)
            raise MCPError(
                INTERNAL_ERROR,
                "Remit could not carry out this call",
                {"code": Code.INTERNAL.value},
            ) from None

    def _again(self, call: Call, question: Question, answers: Mapping[str, Any]) -> Call:
        """The same call, with answers to what was asked while it was made."""
        return replace(
            call,
            id=self._gateway.new_call_id(),
            received_ms=self._now(),
            answers=answers,
            request_state=question.state,
        )

    def _call(self, ctx: Context, inbound: Inbound, params: Mapping[str, Any]) -> Call:
        meta = params.get("_meta") or {}
        return Call(
            id=self._gateway.new_call_id(),
            caller=inbound.caller,
            tool_name=params["name"],
            arguments=params.get("arguments") or {},
            received_ms=self._now(),
            claims=read_claims(meta, _client(ctx), session_id=inbound.session_id),
            idempotency_key=read_idempotency_key(meta, inbound.idempotency_key),
            source_ip=inbound.source_ip,
            capabilities=capabilities_of(ctx, meta),
            answers=params.get("inputResponses"),
            request_state=params.get("requestState"),
        )


def inbound_of(ctx: Context) -> Inbound:
    """What the door let in; a request that did not come through the door has none."""
    inbound = None if ctx.request is None else ctx.request.scope.get(INBOUND)
    if not isinstance(inbound, Inbound):
        raise MCPError(INTERNAL_ERROR, "this request did not come through the door")
    return inbound


def _who(ctx: Context) -> tuple[Caller, str, Mapping[str, Any]]:
    inbound = inbound_of(ctx)
    # A list may be asked for without `params`, and clients of sessions do that.
    return inbound.caller, inbound.source_ip, inbound.message.get("params") or {}


def unknown_tool(name: str) -> MCPError:
    """The one answer for a tool that does not exist and one that this caller may not see."""
    data = {"code": Code.UNKNOWN_TOOL.value}
    return MCPError(INVALID_PARAMS, f"Unknown tool: {name[:MAX_TOOL_NAME]}", data)


def session_claim(session_id: str | None) -> str | None:
    """A session's name for the record, from which the session id cannot be told."""
    if session_id is None:
        return None
    return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()[:32]


def _client(ctx: Context) -> Client:
    params = ctx.session.client_params
    if params is None:
        return Client()
    return Client(name=params.client_info.name, version=params.client_info.version)


def _sender(ctx: Context, inbound: Inbound) -> SendProgress | None:
    """How progress reaches whoever made this call; None if they asked for none."""
    token = (inbound.message["params"].get("_meta") or {}).get("progressToken")
    if not isinstance(token, str | int):
        return None
    exchange = ctx.request.scope.get(EXCHANGE) if ctx.request is not None else None
    if not isinstance(exchange, Exchange):

        async def over_session(count: float, total: float | None, message: str) -> None:
            await ctx.session.report_progress(count, total, message or None)

        return over_session

    async def over_exchange(count: float, total: float | None, message: str) -> None:
        params: dict[str, Any] = {"progressToken": token, "progress": count}
        if total is not None:
            params["total"] = total
        if message:
            params["message"] = message
        await exchange.notify("notifications/progress", params)

    return over_exchange


def _refusal(exc: InputError) -> Reply:
    place = f" (at {exc.place})" if exc.place else ""
    text = f"Refused: {exc.message}{place}. [{exc.code}]"
    return Reply(
        content=Frozen(encode([{"type": "text", "text": text}])),
        structured=None,
        is_error=True,
        decision={"code": exc.code.value} | ({"place": exc.place} if exc.place is not None else {}),
    )
