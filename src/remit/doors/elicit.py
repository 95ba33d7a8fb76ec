"""What a caller's client can be asked, and asking it where its revision knows no unfinished results.

A client of 2026-07-28 gets a question as the result of its call and makes the call again with the
answer. One of an earlier revision is asked by `elicitation/create` on the stream of its request,
between two such calls: nothing runs while a person thinks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from remit.canonical import encode
from remit.errors import Code
from remit.model import Frozen, Question, Reply

ANSWER_WITHIN_S = 600.0
"""How long a client of an earlier revision has for all questions of one round."""

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
FORMS_SINCE = "2025-06-18"
"""The first revision in which a client can be asked to fill in a form."""

PAGES_SINCE = "2025-11-25"
"""The first revision in which a client can be asked to open a page."""

Context = ServerRequestContext[Any, Any]


def capabilities_of(ctx: Context, meta: Mapping[str, Any]) -> Frozen:
    """Of the capabilities that the client declared, those that MCP servers are told of.

    These are forms and pages to open, never its model, its files or its log. An `elicitation` that
    names neither means forms.

    Args:
        meta: of the request, where the newest revision has them.
    """
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        declared = meta.get(CAPABILITIES)
    else:
        params = ctx.session.client_params
        declared = None if params is None else params.capabilities.model_dump(by_alias=True)
    found = declared.get("elicitation") if isinstance(declared, Mapping) else None
    if not isinstance(found, Mapping) or ctx.protocol_version < FORMS_SINCE:
        return Frozen(b"{}")
    modes = [mode for mode in ("form", "url") if isinstance(found.get(mode), Mapping)]
    if not any(isinstance(each, Mapping) for each in found.values()):
        modes = ["form"]
    if ctx.protocol_version < PAGES_SINCE:
        modes = [mode for mode in modes if mode == "form"]
    return Frozen(encode({"elicitation": {mode: {} for mode in modes}} if modes else {}))


def asks_itself(ctx: Context) -> bool:
    """Whether the door has to ask this client, because its revision has no unfinished results."""
    return ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS


async def ask(ctx: Context, question: Question) -> dict[str, Any] | None:
    """The client's answers, a declined or dismissed question among them; None if it gives none."""
    answers: dict[str, Any] = {}
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            for name, each in question.requests.value().items():
                answers[name] = await _one(ctx, question.page or name, each["params"])
    except (MCPError, TimeoutError, ValidationError):
        return None
    return answers


async def _one(ctx: Context, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    message, on = params["message"], ctx.request_id
    if params["mode"] == "url":
        known_as = params.get("elicitationId", name)
        got = await ctx.session.elicit_url(message, params["url"], known_as, related_request_id=on)
    else:
        form = params["requestedSchema"]
        got = await ctx.session.elicit_form(message, form, related_request_id=on)
    answer: dict[str, Any] = {"action": got.action}
    return answer if got.content is None else {**answer, "content": got.content}


def goes_to(question: Question, answers: Mapping[str, Any]) -> frozenset[str]:
    """The page of Remit's own that the person said they open; none for a server's question."""
    accepted = all(each.get("action") == "accept" for each in answers.values())
    return frozenset() if question.page is None or not accepted else frozenset({question.page})


async def left(ctx: Context, pages: Iterable[str]) -> None:
    """Say that the person is done on these pages (`notifications/elicitation/complete`)."""
    for page in pages:
        with suppress(MCPError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await ctx.session.send_elicit_complete(page, related_request_id=ctx.request_id)


def unanswered(reply: Reply) -> Reply:
    """The reply to a call whose question this client did not answer."""
    if reply.question is not None and reply.question.page is not None:
        return replace(reply, question=None)  # the error already says where the person is to go
    text = (
        "The MCP server asked for input, and the client gave no answer. The call was not finished; "
        f"call again to be asked again. [{Code.INPUT_NOT_GIVEN}]"
    )
    return Reply(
        content=Frozen(encode([{"type": "text", "text": text}])),
        structured=None,
        is_error=True,
        decision={**reply.decision, "code": Code.INPUT_NOT_GIVEN.value},
        receipt=reply.receipt,
        unsafe=reply.unsafe,
    )
