"""The admin door's routes about MCP servers: how they are, what they list, and what is accepted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field
from starlette.responses import JSONResponse, Response

from remit.doors import admin_json as values
from remit.doors.visit import Act, Visit
from remit.errors import Code, InputError
from remit.model import PartDifference, ServerStatus, ToolState, ToolStatus

WAITING = frozenset({ToolState.NEW, ToolState.CHANGED})
"""The states that end when somebody accepts what was seen."""


class PinBody(values.Body):
    """The digest that was looked at, so that no other definition is accepted."""

    tool: str = Field(min_length=1, max_length=1_024)
    digest: str = Field(min_length=1, max_length=100)


def tool_status_json(status: ToolStatus) -> dict[str, Any]:
    """A tool; `waits` says that it is offered once somebody accepts it."""
    return {**values.plain(asdict(status)), "waits": status.state in WAITING}


def server_json(status: ServerStatus) -> dict[str, Any]:
    """A server; what it says of itself stands in `claimed`."""
    fields = values.plain(asdict(status))
    claimed = {"name": fields.pop("claimed_name"), "version": fields.pop("claimed_version")}
    tools = [tool_status_json(each) for each in status.tools]
    return {**fields, "claimed": claimed, "tools": tools}


def difference_json(difference: PartDifference) -> dict[str, Any]:
    return {"part": difference.part, "diff": difference.diff}


async def _servers(visit: Visit) -> Response:
    found = await visit.gateway.servers(visit.operator)
    return JSONResponse({"servers": [server_json(one) for one in found]})


async def _look(visit: Visit) -> Response:
    visit.read(values.EmptyBody)
    return JSONResponse(server_json(await visit.gateway.look(visit.operator, visit.name())))


async def _differences(visit: Visit) -> Response:
    named = visit.query("tool")
    if len(named) > 1 or not all(named):
        raise InputError(Code.INVALID_ARGUMENTS, "`tool` must be one tool's name", place="?tool")
    # What the operator may not read is refused before anything is missed.
    status, found = await visit.gateway.differences(
        visit.operator, visit.name(), named[0] if named else ""
    )
    said = {"tool": tool_status_json(status), "differences": [difference_json(d) for d in found]}
    return JSONResponse(said)


async def _pin(visit: Visit) -> Response:
    body = visit.read(PinBody)
    after = await visit.gateway.pin(visit.operator, visit.name(), body.tool, body.digest)
    return JSONResponse(tool_status_json(after))


SERVER_ROUTES: tuple[tuple[str, str, Act], ...] = (
    ("GET", "/v1/servers", _servers),
    ("POST", "/v1/servers/{name}/look", _look),
    ("GET", "/v1/servers/{name}/differences", _differences),
    ("POST", "/v1/servers/{name}/pin", _pin),
)
