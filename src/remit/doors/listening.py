"""MCP's methods by which a client is told of changes: `subscriptions/listen` (2026-07-28), and
`resources/subscribe` and `resources/unsubscribe` (earlier revisions, on the stream of the session).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from remit.doors.beside import METHOD_NOT_FOUND, result_beside
from remit.doors.book import Book, Places
from remit.doors.changes import LISTS, Changes, Told
from remit.doors.edge import INTERNAL_ERROR, INVALID_PARAMS
from remit.doors.gateway import Gateway
from remit.doors.settings import DoorSettings
from remit.errors import Code, InputError, Refused
from remit.model import Call, Caller, Method
from remit.ports import Now

Context = ServerRequestContext[Any, Any]
Result = dict[str, Any]

MakeCall = Callable[[Context, Method, str, Mapping[str, Any]], Call]
"""A call of what the catalog has under a name, as this request brings it.

Raises:
    InputError: it brings claims that are none.
"""

Who = Callable[[Context], tuple[Caller, str, Mapping[str, Any]]]

SESSION_ID = "mcp-session-id"


class Listening:
    """The methods, for one gateway.

    Args:
        call: the call that a request brings.
        who: the caller of a request, from where, and its parameters as the door read them.
    """

    def __init__(
        self, gateway: Gateway, settings: DoorSettings, now: Now, *, call: MakeCall, who: Who
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._now = now
        self._call = call
        self._who = who
        self._places = Places(settings)
        self._books: dict[str, Book] = {}
        self.changes = Changes(gateway, settings)

    def serve(self, server: Server[Any]) -> None:
        """Have the library's server answer them."""
        server.add_request_handler(
            "subscriptions/listen", types.SubscriptionsListenRequestParams, self.listen
        )
        server.add_request_handler(
            "resources/subscribe", types.SubscribeRequestParams, self.subscribe
        )
        server.add_request_handler(
            "resources/unsubscribe", types.UnsubscribeRequestParams, self.unsubscribe
        )

    # ------------------------------------------------------------------------------- 2026-07-28

    async def listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """`subscriptions/listen`: the caller's own lists, and resources that it may subscribe to.

        The stream lasts until the client closes it, its credential is no longer valid, a resource
        was acknowledged that it may no longer be told of, or the gateway stops. There is no replay:
        whoever asks again lists and reads again.
        """
        caller, source_ip, _ = self._who(ctx)
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        lists = self._wanted(params.notifications)
        book = self._made_book(caller, whole=True)
        try:
            with self.changes.subscription(caller):
                uris = await self._honoured(ctx, book, params.notifications)
                async with self.changes.listening(
                    caller, source_ip, lists=lists, book=book
                ) as listener:
                    await ctx.session.send_notification(
                        _acknowledged(lists, uris, meta), ctx.request_id
                    )
                    while (told := await listener.changed()) is not None:
                        for each in _notifications(told, meta):
                            await ctx.session.send_notification(each, ctx.request_id)
        except Refused as refused:
            data = {"code": refused.code.value}
            raise MCPError(INTERNAL_ERROR, refused.message, data) from None
        finally:
            book.close()
        return types.SubscriptionsListenResult(_meta=meta)

    def _wanted(self, asked: types.SubscriptionFilter) -> frozenset[str]:
        """The lists whose changes are asked for, as far as there are such lists."""
        wanted = {
            "tools": asked.tools_list_changed,
            "prompts": asked.prompts_list_changed,
            "resources": asked.resources_list_changed,
        }
        offered = self._gateway.offers.methods()
        return frozenset(
            name
            for name, flag in wanted.items()
            if flag is True and (LISTS[name] is None or LISTS[name] in offered)
        )

    async def _honoured(
        self, ctx: Context, book: Book, asked: types.SubscriptionFilter
    ) -> list[str]:
        """The resources that may be subscribed to; each is asked for by a call of its own.

        Raises:
            Refused: `rate_limited`: there are too many.
        """
        found = []
        uris = dict.fromkeys(asked.resource_subscriptions or ())
        if len(uris) > self._settings.max_resources_per_caller:
            raise Refused(Code.RATE_LIMITED, "too many resources are asked for at once")
        for uri in uris:
            name = self._gateway.offers.watcher(uri) or f"{Method.RESOURCES_SUBSCRIBE}:"
            await book.add(uri, self._made(ctx, name, uri))
            if book.holds(uri):
                found.append(uri)
        return found

    def _made(self, ctx: Context, name: str, uri: str) -> Call:
        try:
            return self._call(ctx, Method.RESOURCES_SUBSCRIBE, name, {"uri": uri})
        except InputError as exc:
            raise MCPError(INVALID_PARAMS, exc.message, {"code": exc.code.value}) from None

    # ------------------------------------------------------------------------- earlier revisions

    async def subscribe(self, ctx: Context, _: types.SubscribeRequestParams) -> Result:
        """`resources/subscribe`: a call; its success has this session told."""
        book, (caller, _source, asked) = self._book_for(ctx), self._who(ctx)
        uri = asked["uri"]
        name = self._gateway.offers.watcher(uri) or f"{Method.RESOURCES_SUBSCRIBE}:"
        try:
            reply = await book.add(uri, self._made(ctx, name, uri))
        except Refused as refused:
            await self._gateway.refuse_at_door(refused.code, caller.id)
            data = {"code": refused.code.value}
            raise MCPError(INTERNAL_ERROR, refused.message, data) from None
        return result_beside(
            reply, ctx, missing=MCPError(
                INVALID_PARAMS, "Resource not found, or nothing tells when it changes",
                {"code": Code.UNKNOWN_TOOL.value, "uri": uri},
            )
        )  # fmt: skip

    async def unsubscribe(self, ctx: Context, _: types.UnsubscribeRequestParams) -> Result:
        """`resources/unsubscribe`: nothing more is told; whether anything was, is not said."""
        self._book_for(ctx).remove(self._who(ctx)[2]["uri"])
        return {"resultType": "complete"}

    def _book_for(self, ctx: Context) -> Book:
        """The book of the request's session.

        Raises:
            MCPError: no such method: nothing is offered, or the revision has it not.
        """
        session = None if ctx.request is None else ctx.request.headers.get(SESSION_ID)
        offered = Method.RESOURCES_SUBSCRIBE in self._gateway.offers.methods()
        modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        if not offered or modern or session is None:
            raise MCPError(METHOD_NOT_FOUND, "Method not found")
        return self.book(session, self._who(ctx)[0])

    def book(self, session_id: str, caller: Caller) -> Book:
        """The book of a session of an earlier revision, which is this caller's."""
        found = self._books.get(session_id)
        if found is None:
            found = self._books[session_id] = self._made_book(caller, whole=False)
        return found

    def _made_book(self, caller: Caller, *, whole: bool) -> Book:
        return Book(self._gateway, caller, self._places, self._settings, self._now, whole=whole)

    def ended(self, session_id: str) -> None:
        """The session is over."""
        book = self._books.pop(session_id, None)
        if book is not None:
            book.close()


async def tell_session(session: ServerSession, told: Told) -> None:
    """Say what changed on the stream of a session of an earlier revision."""
    if "tools" in told.lists:
        await session.send_tool_list_changed()
    if "prompts" in told.lists:
        await session.send_prompt_list_changed()
    if "resources" in told.lists:
        await session.send_resource_list_changed()
    for uri in told.uris:
        await session.send_resource_updated(uri)


def _acknowledged(
    lists: frozenset[str], uris: list[str], meta: dict[str, Any]
) -> types.SubscriptionsAcknowledgedNotification:
    honoured = types.SubscriptionFilter(
        tools_list_changed="tools" in lists or None,
        prompts_list_changed="prompts" in lists or None,
        resources_list_changed="resources" in lists or None,
        resource_subscriptions=uris or None,
    )
    return types.SubscriptionsAcknowledgedNotification(
        params=types.SubscriptionsAcknowledgedNotificationParams(notifications=honoured, _meta=meta)
    )


def _notifications(told: Told, meta: dict[str, Any]) -> list[types.ServerNotification]:
    params = types.NotificationParams(_meta=meta)
    found: list[types.ServerNotification] = []
    if "tools" in told.lists:
        found.append(types.ToolListChangedNotification(params=params))
    if "prompts" in told.lists:
        found.append(types.PromptListChangedNotification(params=params))
    if "resources" in told.lists:
        found.append(types.ResourceListChangedNotification(params=params))
    for uri in told.uris:
        about = types.ResourceUpdatedNotificationParams(uri=uri, _meta=meta)
        found.append(types.ResourceUpdatedNotification(params=about))
    return found
