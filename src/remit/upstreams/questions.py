"""What an MCP server may ask its caller before it goes on with a call.

MCP 2026-07-28, `input_required`: the result of the call is a set of questions and a state of the
server's own; the caller makes the same call again with both. Only `elicitation/create` passes, a
form or a page to open, and only as the caller's client declared it. A server's wish to use the
caller's model or to see its files is never passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from remit.errors import Code, UpstreamFault
from remit.upstreams.walk import walk

MAX_QUESTIONS = 32
MAX_NAME = 128
MAX_MESSAGE = 4_096
MAX_URL = 2_048
MAX_STATE = 16_384
MAX_FORM_DEPTH = 8
MAX_FORM_VALUES = 2_000
FIELD_TYPES = frozenset({"string", "number", "integer", "boolean", "array"})


def checked(result: Mapping[str, Any], capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The questions of a result, each of its known members and no other.

    Args:
        result: of type `input_required`.
        capabilities: those that the server was told of.

    Raises:
        UpstreamFault: `upstream_error` if it asks what this caller cannot be asked;
            `upstream_invalid` if it is no set of questions. The server answered either way.
    """
    requests, state = result.get("inputRequests"), result.get("requestState")
    modes = capabilities.get("elicitation", {})
    if requests is None and state is None:
        raise _invalid("asks nothing, and gives no state to come back with")
    if state is not None and (not isinstance(state, str) or len(state) > MAX_STATE):
        raise _invalid(f"gives a state that is no text of at most {MAX_STATE} characters")
    if not isinstance(requests, dict | None) or len(requests or {}) > MAX_QUESTIONS:
        raise _invalid(f"gives its questions as no object of at most {MAX_QUESTIONS}")
    if requests and not modes:
        raise _refused("asks for input, which this caller's client did not say it can give")
    asked = {_name(name): _question(each, modes) for name, each in (requests or {}).items()}
    return {"resultType": "input_required", "inputRequests": asked, "requestState": state}


def _name(name: str) -> str:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise _invalid(f"names a question otherwise than with 1 to {MAX_NAME} plain characters")
    return name


def _question(each: object, modes: Mapping[str, Any]) -> dict[str, Any]:
    method = each.get("method") if isinstance(each, dict) else None
    if not isinstance(method, str) or not isinstance(each, dict):
        raise _invalid("asks something that is no request")
    if method != "elicitation/create":
        raise _refused("asks for more than a form or a page to open, which is never passed on")
    params = each.get("params")
    if not isinstance(params, dict):
        raise _invalid("asks without saying what")
    mode, message = params.get("mode", "form"), params.get("message")
    made = _MODES.get(mode) if isinstance(mode, str) else None
    if made is None:
        raise _invalid("asks in a way that is neither a form nor a page to open")
    if mode not in modes:
        raise _refused(f"asks by {mode}, which this caller's client did not say it can do")
    if not isinstance(message, str) or not 0 < len(message) <= MAX_MESSAGE:
        raise _invalid(f"asks with no message of 1 to {MAX_MESSAGE} characters")
    return {
        "method": method,
        "params": {"mode": mode, "message": message, **made(params)},
    }


def _form(params: Mapping[str, Any]) -> dict[str, Any]:
    schema = params.get("requestedSchema")
    fields = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or schema.get("type") != "object" or type(fields) is not dict:
        raise _invalid("asks with a form that is no object of fields")
    for count, (_, depth, _, _) in enumerate(walk(schema)):
        if depth > MAX_FORM_DEPTH or count > MAX_FORM_VALUES:
            raise _invalid("asks with a form that is too large or too deep")
    for each in fields.values():
        if not isinstance(each, dict) or each.get("type") not in FIELD_TYPES:
            raise _invalid("asks with a form whose fields are not plain values")
    return {"requestedSchema": schema}


def _page(params: Mapping[str, Any]) -> dict[str, Any]:
    url, name = params.get("url"), params.get("elicitationId")
    if not isinstance(url, str) or len(url) > MAX_URL or not _plain(url):
        raise _invalid(f"asks for a page whose address is no url of at most {MAX_URL} characters")
    if name is None:
        return {"url": url}
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise _invalid("names a page to open otherwise than with plain characters")
    return {"url": url, "elicitationId": name}


_MODES: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"form": _form, "url": _page}


def _plain(url: str) -> bool:
    """An address of the web whose host is what it seems: no name before an `@`, ASCII alone."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _refused(what: str) -> UpstreamFault:
    return UpstreamFault(Code.UPSTREAM_ERROR, f"the server {what}", sent=True)


def _invalid(what: str) -> UpstreamFault:
    return UpstreamFault(Code.UPSTREAM_INVALID, f"the server {what}", sent=True)
