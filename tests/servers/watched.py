"""A server of notes that tells of changes, in each revision; and a gateway in front of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.session import ServerSession
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from remit.app import door_settings
from remit.config import Settings
from remit.doors.mcp import end_streams, mcp_app
from remit.identity.keys import new_key
from remit.model import Health
from tests.doors.serving import served
from tests.path.conftest import HEAD
from tests.servers.test_gateway import World

MODERN = "2026-07-28"
EVENTS = "2024-11-05"

RULES = HEAD + (
    'give := {"constraints": {"egress": input.tool.egress}}\n'
    'kept := {"note://kept"}\n'
    'uri := object.get(input.arguments, "uri", "")\n'
    'decision := answer("allow", give) if not uri in kept\n'
    'decision := answer("deny", {}) if uri in kept\n'
)

ALL = NotificationOptions(tools_changed=True, prompts_changed=True, resources_changed=True)


@dataclass
class Notes:
    """What the server has, and who wants to be told; `revision` is the only one that it speaks."""

    revision: str = MODERN
    uris: list[str] = field(default_factory=lambda: ["note://a", "note://b", "note://kept"])
    about: str = "Greets somebody."
    tools: list[str] = field(default_factory=lambda: ["find"])
    does: str = "Finds."
    subscribed: list[str] = field(default_factory=list)
    sessions: dict[str, ServerSession] = field(default_factory=dict)
    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    refuses: set[str] = field(default_factory=set)
    listens: list[ListenHandler] = field(default_factory=list)
    open: int = 0
    asked: anyio.Event = field(default_factory=anyio.Event)

    def _moved(self) -> None:
        self.asked.set()
        self.asked = anyio.Event()

    async def until_subscribed(self, *uris: str) -> None:
        """Until exactly these are subscribed to."""
        with anyio.fail_after(20):
            while set(self.subscribed) != set(uris):
                await self.asked.wait()

    async def until_open(self) -> None:
        """Until somebody listens."""
        with anyio.fail_after(20):
            while not self.open:
                await self.asked.wait()

    def cut(self) -> None:
        """End every stream on which somebody listens."""
        for each in self.listens:
            each.close()

    async def list_tools(self, _: Any, __: Any) -> types.ListToolsResult:
        says = {self.tools[0]: self.does} if self.tools else {}
        made = [
            types.Tool(name=each, description=says.get(each), input_schema={"type": "object"})
            for each in self.tools
        ]
        return types.ListToolsResult(tools=made)

    async def call_tool(self, _: Any, __: Any) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text="done")])

    async def resources(self, _: Any, __: Any) -> types.ListResourcesResult:
        listed = [types.Resource(uri=uri, name=uri.removeprefix("note://")) for uri in self.uris]
        return types.ListResourcesResult(resources=listed)

    async def templates(self, _: Any, __: Any) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=[])

    async def contents(self, _: Any, params: Any) -> types.ReadResourceResult:
        text = types.TextResourceContents(uri=params.uri, text="A note.")
        return types.ReadResourceResult(contents=[text])

    async def prompts(self, _: Any, __: Any) -> types.ListPromptsResult:
        greet = types.Prompt(name="greet", description=self.about)
        return types.ListPromptsResult(prompts=[greet, types.Prompt(name="stays")])

    async def prompt(self, _: Any, __: Any) -> types.GetPromptResult:
        said = types.TextContent(type="text", text="Greet.")
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=said)])

    async def subscribe(self, ctx: Any, params: Any) -> types.EmptyResult:
        if params.uri in self.refuses:
            raise ValueError("no")
        self.subscribed.append(params.uri)
        self.sessions[params.uri] = ctx.session
        self._moved()
        return types.EmptyResult()

    async def unsubscribe(self, _: Any, params: Any) -> types.EmptyResult:
        self.subscribed.remove(params.uri)
        del self.sessions[params.uri]
        self._moved()
        return types.EmptyResult()

    async def listen(self, ctx: Any, params: Any) -> types.SubscriptionsListenResult:
        uris = list(params.notifications.resource_subscriptions or ())
        handler = ListenHandler(self.bus)
        self.listens.append(handler)
        self.subscribed += uris
        self.open += 1
        self._moved()
        try:
            return await handler(ctx, params)
        finally:
            self.listens.remove(handler)
            self.open -= 1
            for uri in uris:
                self.subscribed.remove(uri)
            self._moved()

    async def update(self, uri: str, *, about: str | None = None) -> None:
        """Say that a resource changed, to whoever subscribed to it; or to `about` instead."""
        if self.revision == MODERN:
            await self.bus.publish(ResourceUpdated(uri))
        elif (session := self.sessions.get(about or uri)) is not None:
            await session.send_resource_updated(uri)

    async def relisted(self, what: str, session: ServerSession | None = None) -> None:
        """Say that a list changed."""
        if self.revision == MODERN:
            events: dict[str, ServerEvent] = {
                "tools": ToolsListChanged(),
                "prompts": PromptsListChanged(),
                "resources": ResourcesListChanged(),
            }
            await self.bus.publish(events[what])
        else:
            assert session is not None
            await getattr(session, f"send_{what.removesuffix('s')}_list_changed")()

    def made(self) -> Server[Any]:
        legacy = {
            "on_subscribe_resource": self.subscribe,
            "on_unsubscribe_resource": self.unsubscribe,
        }
        modern = {"on_subscriptions_listen": self.listen}
        server: Server[Any] = Server(
            "notes",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.resources,
            on_list_resource_templates=self.templates,
            on_read_resource=self.contents,
            on_list_prompts=self.prompts,
            on_get_prompt=self.prompt,
            **(modern if self.revision == MODERN else legacy),
        )
        plain = server.create_initialization_options
        server.create_initialization_options = lambda *_, **__: plain(ALL)  # type: ignore[method-assign]  # it tells of its lists
        return server

    def app(self) -> Starlette:
        """The server at `/mcp`, in its revision alone."""
        if self.revision == EVENTS:
            return self._events()
        manager = StreamableHTTPSessionManager(self.made(), json_response=False)

        async def door(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            if self.revision == MODERN:
                await manager.handle_request(scope, receive, send)
                return
            if request.headers.get("mcp-protocol-version") == MODERN:
                await PlainTextResponse("no", status_code=400)(scope, receive, send)
                return
            body = await request.body()
            message = json.loads(body) if body else {}
            if message.get("method") == "initialize":
                message["params"]["protocolVersion"] = self.revision
                body = json.dumps(message).encode()
            headers = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
            given = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def again() -> Any:
                return next(given, None) or await receive()

            length = (b"content-length", b"%d" % len(body))
            await manager.handle_request({**scope, "headers": [*headers, length]}, again, send)

        @asynccontextmanager
        async def life(_: Starlette) -> AsyncIterator[None]:
            async with manager.run():
                yield

        class Door:
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await door(scope, receive, send)

        return Starlette(routes=[Route("/mcp", Door())], lifespan=life)

    def _events(self) -> Starlette:
        events = SseServerTransport("/messages/")

        async def listen(request: Request) -> Response:
            async with events.connect_sse(request.scope, request.receive, request._send) as (
                read,
                out,
            ):
                server = self.made()
                await server.run(read, out, server.create_initialization_options())
            return Response()

        return Starlette(
            routes=[
                Route("/mcp", listen, methods=["GET"]),
                Mount("/messages/", app=events.handle_post_message),
            ]
        )


class Heard(World):
    """A gateway whose door looks often, with two agents' keys and policy that can be changed."""

    door: Starlette
    bob: str

    def _door(self, settings: Settings) -> ASGIApp:
        self.door = mcp_app(self.gateway, replace(door_settings(settings), **DOOR))
        return self.door

    @property
    def url(self) -> str:
        return self._url

    def bobs(self) -> str:
        """Let a second agent in, before the gateway is opened; its key."""
        key = new_key("k2")
        written = self.folder / "remit.yaml"
        whole = json.loads(written.read_text())
        facts = {"id": "k2", "subject": "bob", "kind": "agent", "sha256": key.sha256}
        whole["identity"]["keys"].append(facts)
        written.write_text(json.dumps(whole))
        return key.token

    async def rule(self, rego: str) -> None:
        """Put another policy in force."""
        upkeep = self.gateway._upkeep
        assert upkeep is not None
        before = upkeep.layers
        (self.folder / "policy" / "policy.rego").write_text(rego)
        upkeep.look()
        with anyio.fail_after(60):
            while upkeep.layers == before:
                await anyio.sleep(0.01)

    def end_streams(self) -> None:
        """As a gateway does that is asked to stop."""
        end_streams(self.door)


DOOR: dict[str, Any] = {"recheck_s": 0.1, "told_apart_s": 0.01, "max_resources_per_caller": 3}


@asynccontextmanager
async def world(notes: Notes, folder: Path, **more: Any) -> AsyncIterator[Heard]:
    """A gateway with the server, which was looked at."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(notes.app()))
        server = {"name": "notes", "url": f"{url}/mcp", "effect": "read", **OFFERED, **more}
        made = Heard(folder / "gateway", server)
        made.bob = made.bobs()
        (folder / "gateway" / "policy" / "policy.rego").write_text(RULES)
        await stack.enter_async_context(made.open())
        assert (await made.servers.look("notes")).health is Health.READY
        yield made


OFFERED = {"resources": "offer", "prompts": "offer"}
