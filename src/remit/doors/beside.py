"""MCP's methods for what servers offer beside tools: resources, prompts, completion.

Reading a resource, getting a prompt and completing an argument are calls like `tools/call`, and the
same things come of them; but their results have no place for an error, so whatever is no result is
a JSON-RPC error with the same machine part in its data. Lists are the caller's own, a page at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError

from remit.doors.edge import INVALID_PARAMS
from remit.doors.gateway import Offers
from remit.doors.settings import DoorSettings
from remit.doors.wire import (
    DECISION,
    RECEIPT,
    meta_of,
    page_of,
    read_cursor,
    result_of,
    text_of,
    wire_prompt,
)
from remit.errors import Code, InputError
from remit.model import Caller, Method, Reply, ResourceLists

REFUSED = 4030
"""The JSON-RPC error of a call that Remit, policy or the server refused."""

METHOD_NOT_FOUND = -32601
MAX_NAME = 128

Context = ServerRequestContext[Any, Any]
Result = dict[str, Any]
Make = Callable[[Context, Method, str, Mapping[str, Any]], Awaitable[Reply]]
"""Makes a call of what the catalog has under a name, and gives its reply."""

Who = Callable[[Context], tuple[Caller, str, Mapping[str, Any]]]
Items = Callable[[ResourceLists], Sequence[tuple[str, Any]]]


class Beside:
    """The methods, for one gateway.

    Args:
        make: makes the call.
        who: the caller of a request, from where, and its parameters as the door read them.
    """

    def __init__(self, offers: Offers, settings: DoorSettings, make: Make, who: Who) -> None:
        self._offers = offers
        self._settings = settings
        self._make = make
        self._who = who

    def serve(self, server: Server[Any]) -> None:
        """Have the library's server answer them."""
        paginated = types.PaginatedRequestParams
        server.add_request_handler("resources/list", paginated, self.list_resources)
        server.add_request_handler("resources/templates/list", paginated, self.list_templates)
        server.add_request_handler(
            "resources/read", types.ReadResourceRequestParams, self.read_resource
        )
        server.add_request_handler("prompts/list", paginated, self.list_prompts)
        server.add_request_handler("prompts/get", types.GetPromptRequestParams, self.get_prompt)
        server.add_request_handler(
            "completion/complete", types.CompleteRequestParams, self.complete
        )

    def hints(self) -> dict[Any, CacheHint]:
        """How long clients may keep what these methods give; what is read, not at all."""
        listed = CacheHint(ttl_ms=self._settings.list_ttl_ms, scope="private")
        return {
            "resources/list": listed,
            "resources/templates/list": listed,
            "prompts/list": listed,
            "resources/read": CacheHint(ttl_ms=0, scope="private"),
        }

    def fit(self, found: types.ServerCapabilities) -> types.ServerCapabilities:
        """The capabilities without those of which nothing is offered."""
        offered = self._offers.methods()
        resources = prompts = None
        if Method.RESOURCES_READ in offered:
            subscribe = Method.RESOURCES_SUBSCRIBE in offered or None
            resources = types.ResourcesCapability(subscribe=subscribe, list_changed=True)
        if Method.PROMPTS_GET in offered:
            prompts = types.PromptsCapability(list_changed=True)
        completions = found.completions if Method.COMPLETE in offered else None
        return found.model_copy(
            update={"resources": resources, "prompts": prompts, "completions": completions}
        )

    async def list_resources(self, ctx: Context, params: types.PaginatedRequestParams) -> Result:
        """`resources/list`: what servers listed last, by URI."""
        return await self._listed(ctx, params, "resources", lambda each: each.resources)

    async def list_templates(self, ctx: Context, params: types.PaginatedRequestParams) -> Result:
        """`resources/templates/list`: likewise."""
        return await self._listed(ctx, params, "resourceTemplates", lambda each: each.templates)

    async def _listed(
        self, ctx: Context, params: types.PaginatedRequestParams, member: str, of: Items
    ) -> Result:
        """A page of what servers listed, by the text that names each."""
        self._served(Method.RESOURCES_READ)
        caller, source, _ = self._who(ctx)
        found = [item for each in await self._offers.resources(caller, source) for item in of(each)]
        return self._page(sorted(found, key=_first), member, caller, params)

    async def list_prompts(self, ctx: Context, params: types.PaginatedRequestParams) -> Result:
        """`prompts/list`: those that this caller may see, by name."""
        self._served(Method.PROMPTS_GET)
        caller, source, _ = self._who(ctx)
        found = [wire_prompt(each) for each in await self._offers.prompts(caller, source)]
        return self._page([(str(each["name"]), each) for each in found], "prompts", caller, params)

    async def read_resource(self, ctx: Context, _: types.ReadResourceRequestParams) -> Result:
        """`resources/read`: a call of the one server that has the URI."""
        self._served(Method.RESOURCES_READ)
        uri = self._who(ctx)[2]["uri"]
        # What nobody has is looked for as what is hidden is, and refused alike.
        name = self._offers.reader(uri) or f"{Method.RESOURCES_READ}:"
        reply = await self._make(ctx, Method.RESOURCES_READ, name, {"uri": uri})
        return result_beside(
            reply, ctx, missing=MCPError(
                INVALID_PARAMS, "Resource not found",
                {"code": Code.UNKNOWN_TOOL.value, "uri": uri},
            )
        )  # fmt: skip

    async def get_prompt(self, ctx: Context, _: types.GetPromptRequestParams) -> Result:
        """`prompts/get`: a call of the server whose prompt it is."""
        self._served(Method.PROMPTS_GET)
        asked = self._who(ctx)[2]
        short = len(asked["name"]) <= MAX_NAME
        name = f"{Method.PROMPTS_GET}:{asked['name'] if short else ''}"
        reply = await self._make(ctx, Method.PROMPTS_GET, name, asked.get("arguments") or {})
        return result_beside(reply, ctx, missing=_unknown("Unknown prompt"))

    async def complete(self, ctx: Context, params: types.CompleteRequestParams) -> Result:
        """`completion/complete`: a call of the server whose prompt or template it is about."""
        self._served(Method.COMPLETE)
        caller, source, _ = self._who(ctx)
        asked = params.model_dump(by_alias=True, exclude_none=True)
        found = await self._offers.completer(caller, source, asked["ref"])
        name, ref = found or (f"{Method.COMPLETE}:", asked["ref"])
        arguments = {"ref": ref, "argument": asked["argument"]}
        if "context" in asked:
            arguments["context"] = asked["context"]
        reply = await self._make(ctx, Method.COMPLETE, name, arguments)
        return result_beside(reply, ctx, missing=_unknown("Unknown prompt or template"))

    def _served(self, method: Method) -> None:
        if method not in self._offers.methods():
            raise MCPError(METHOD_NOT_FOUND, "Method not found")

    def _page(
        self,
        items: Sequence[tuple[str, Any]],
        member: str,
        caller: Caller,
        params: types.PaginatedRequestParams,
    ) -> Result:
        try:
            after = read_cursor(params.cursor, caller)
        except InputError as exc:
            raise MCPError(INVALID_PARAMS, exc.message, {"code": exc.code.value}) from None
        shown, cursor = page_of(items, caller, after, self._settings.page_size)
        listed = [each if isinstance(each, Mapping) else each.value() for _, each in shown]
        result: Result = {"resultType": "complete", member: listed}
        return result if cursor is None else {**result, "nextCursor": cursor}


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def _unknown(what: str) -> MCPError:
    return MCPError(INVALID_PARAMS, what, {"code": Code.UNKNOWN_TOOL.value})


def result_beside(reply: Reply, ctx: Context, *, missing: MCPError) -> Result:
    """The result that a reply holds.

    Raises:
        MCPError: it holds none; `missing` where there is nothing of that name for this caller.
    """
    code = reply.decision.get("code")
    if code == Code.UNKNOWN_TOOL:
        raise missing
    meta = meta_of(reply)
    if reply.question is not None:
        return result_of(reply, ctx.protocol_version)
    if reply.is_error or reply.jsonrpc_error is not None or reply.structured is None:
        number = reply.jsonrpc_error or (
            INVALID_PARAMS if code == Code.INVALID_ARGUMENTS else REFUSED
        )
        receipt = {RECEIPT: meta[RECEIPT]} if RECEIPT in meta else {}
        raise MCPError(number, text_of(reply), {**meta[DECISION], **receipt})
    return {"resultType": "complete", **reply.structured.value(), "_meta": meta}
