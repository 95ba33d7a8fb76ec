"""Tools of the everything-server that ask their client: by a request, or by an unfinished result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Result = types.CallToolResult | types.InputRequiredResult
Work = Callable[[Any, Any], Awaitable[Result]]


def text(said: str, *, error: bool = False) -> types.CallToolResult:
    """A result of one text."""
    return types.CallToolResult(content=[types.TextContent(type="text", text=said)], is_error=error)


def invalid(message: str) -> MCPError:
    """The parameters are not what the method takes."""
    return MCPError(types.INVALID_PARAMS, message)


def lacking(**capabilities: Any) -> MCPError:
    """The client did not declare what the call needs."""
    return MCPError(
        types.MISSING_REQUIRED_CLIENT_CAPABILITY,
        "Missing required client capability",
        {"requiredCapabilities": capabilities},
    )


# --- by a request of the server's own (2025-11-25 and older)


# and, where the revision has no such requests, by an unfinished result


async def elicits(ctx: Any, params: Any) -> Result:
    """Ask for a name and an address of mail."""
    words = {"username": "User's response", "email": "User's email address"}
    schema = {
        "type": "object",
        "properties": {k: {"type": "string", "description": v} for k, v in words.items()},
        "required": list(words),
    }
    return await _elicit(ctx, params, (params.arguments or {})["message"], schema)


async def samples(ctx: Any, params: Any) -> Result:
    """Ask the client's model."""
    prompt = types.TextContent(type="text", text=(params.arguments or {})["prompt"])
    answer = await ctx.session.create_message(
        messages=[types.SamplingMessage(role="user", content=prompt)],
        max_tokens=100,
        related_request_id=ctx.request_id,
    )
    return text(f"LLM response: {getattr(answer.content, 'text', '')}")


async def _elicit(ctx: Any, params: Any, message: str, schema: dict[str, Any]) -> Result:
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        asked = types.ElicitRequestFormParams(message=message, requested_schema=schema)
        answer = (params.input_responses or {}).get("asked")
        if answer is None:
            return unfinished({"asked": types.ElicitRequest(params=asked)})
        return text(f"User response: action={answer.action}, content={answer.content}")
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return text(f"User response: action={answer.action}, content={answer.content}")


DEFAULTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "default": True},
    },
    "required": [],
}


def _titled(value: str, title: str) -> list[dict[str, str]]:
    numbers = ("First", "Second", "Third")
    return [
        {"const": f"{value}{at}", "title": f"{number} {title}"}
        for at, number in enumerate(numbers, start=1)
    ]


_PLAIN = ["option1", "option2", "option3"]
ENUMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": _PLAIN},
        "titledSingle": {"type": "string", "oneOf": _titled("value", "Option")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _PLAIN}},
        "titledMulti": {"type": "array", "items": {"anyOf": _titled("value", "Choice")}},
    },
    "required": [],
}


async def _defaults(ctx: Any, params: Any) -> Result:
    return await _elicit(ctx, params, "Values of each primitive type, with defaults.", DEFAULTS)


async def _enums(ctx: Any, params: Any) -> Result:
    return await _elicit(ctx, params, "Choices of each kind.", ENUMS)


# --- by an unfinished result (2026-07-28, SEP-2322)

Requests = dict[str, types.InputRequest]


def form(message: str, **fields: str) -> types.ElicitRequest:
    """A question with a form of required fields, each of a JSON type."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
    }
    return types.ElicitRequest(
        params=types.ElicitRequestFormParams(message=message, requested_schema=schema)
    )


def _sampling(prompt: str, tokens: int = 100) -> types.CreateMessageRequest:
    said = types.TextContent(type="text", text=prompt)
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(
            messages=[types.SamplingMessage(role="user", content=said)], max_tokens=tokens
        )
    )


def unfinished(requests: Mapping[str, Any], state: str | None = None) -> types.InputRequiredResult:
    """What has to be answered before the call can end."""
    return types.InputRequiredResult(input_requests=dict(requests), request_state=state)


def answers(params: Any, requests: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answers to all of these requests, each of its kind, or None if one lacks."""
    kinds = {
        "elicitation/create": types.ElicitResult,
        "sampling/createMessage": types.CreateMessageResult,
        "roots/list": types.ListRootsResult,
    }
    given = params.input_responses or {}
    found = {name: given.get(name) for name in requests}
    right = all(isinstance(found[name], kinds[each.method]) for name, each in requests.items())
    return found if right else None


def field(answer: Any, name: str) -> Any:
    """A field of an answered form; None if it was declined or lacks the field."""
    return (answer.content or {}).get(name)


def _asks(requests: Requests, said: Callable[[dict[str, Any]], str | None]) -> Work:
    """A tool that is done once all is answered, and `said` has words for it."""

    async def work(_: Any, params: Any) -> Result:
        found = answers(params, requests)
        words = said(found) if found is not None else None
        return text(words) if words is not None else unfinished(requests)

    return work


def _asks_with_state(requests: Requests, state: str, said: str) -> Work:
    """The same, for a client that also brings back the state."""

    async def work(_: Any, params: Any) -> Result:
        if answers(params, requests) is None:
            return unfinished(requests, state)
        if params.request_state != state:
            raise invalid("this is no state of this tool")
        return text(said)

    return work


async def _two_rounds(_: Any, params: Any) -> Result:
    first = {"step1": form("Step 1: What is your name?", name="string")}
    second = {"step2": form("Step 2: What is your favorite color?", color="string")}
    if params.request_state == "round 2" and (found := answers(params, second)):
        return text(f"all steps answered: {field(found['step2'], 'color')}")
    if params.request_state == "round 1" and answers(params, first):
        return unfinished(second, "round 2")
    return unfinished(first, "round 1")


async def _what_is_declared(ctx: Any, params: Any) -> Result:
    declared = ctx.session.client_capabilities or types.ClientCapabilities()
    requests: Requests = {}
    if declared.elicitation is not None:
        requests["user_name"] = NAME_FORM
    if declared.sampling is not None:
        requests["capital_question"] = CAPITAL
    if declared.roots is not None:
        requests["client_roots"] = types.ListRootsRequest()
    if not requests:
        raise lacking(elicitation={})
    return text("answered") if answers(params, requests) else unfinished(requests)


async def _needs_sampling(ctx: Any, _: Any) -> Result:
    declared = ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        raise lacking(sampling={})
    return text("the client can sample")


def _hello(found: dict[str, Any]) -> str | None:
    name = field(found["user_name"], "name")
    return f"Hello, {name}!" if isinstance(name, str) else None


NAME_FORM = form("What is your name?", name="string")
CAPITAL = _sampling("What is the capital of France?")
CONFIRM: Requests = {"confirm": form("Please confirm", ok="boolean")}
ALL_KINDS: Requests = {
    "user_name": NAME_FORM,
    "greeting": _sampling("Generate a greeting", 50),
    "client_roots": types.ListRootsRequest(),
}
PREFIX = "test_input_required_result"

WITHOUT_ARGUMENTS: dict[str, Work] = {
    "test_elicitation_sep1034_defaults": _defaults,
    "test_elicitation_sep1330_enums": _enums,
    "test_missing_capability": _needs_sampling,
    "test_streaming_elicitation": _asks({"user_name": NAME_FORM}, _hello),
    f"{PREFIX}_elicitation": _asks({"user_name": NAME_FORM}, _hello),
    f"{PREFIX}_sampling": _asks(
        {"capital_question": CAPITAL},
        lambda found: str(getattr(found["capital_question"].content, "text", "answered")),
    ),
    f"{PREFIX}_list_roots": _asks(
        {"client_roots": types.ListRootsRequest()},
        lambda found: ", ".join(str(root.uri) for root in found["client_roots"].roots),
    ),
    f"{PREFIX}_request_state": _asks_with_state(CONFIRM, "one question asked", "state-ok"),
    f"{PREFIX}_tampered_state": _asks_with_state(CONFIRM, "one question asked", "state-ok"),
    f"{PREFIX}_multiple_inputs": _asks_with_state(ALL_KINDS, "all asked", "all answered"),
    f"{PREFIX}_multi_round": _two_rounds,
    f"{PREFIX}_capabilities": _what_is_declared,
}
