"""Servers that want their token in another header: a whole gateway, and what it sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp.server.lowlevel.server import Server
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.doors.serving import served
from tests.path.conftest import HEAD
from tests.servers.test_gateway import World, call_tool, list_tools

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GIVE = HEAD + (
    'decision := answer("allow", {"constraints": {"egress": input.tool.egress,'
    ' "credentials": input.tool.credentials}})\n'
)
SECRET = "k3y-of-the-crm"
FORMS = {
    "X-Api-Key: {token}": ("x-api-key", SECRET),
    "Authorization: Token {token}": ("authorization", f"Token {SECRET}"),
}


class Locked:
    """An MCP server that answers nobody who does not send exactly this header."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name.encode(), value.encode()
        self.sent: list[dict[bytes, bytes]] = []
        crm: Server[Any] = Server("crm", on_list_tools=list_tools, on_call_tool=call_tool)
        self.app: ASGIApp = crm.streamable_http_app(json_response=True, stateless_http=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if headers.get(self.name) != self.value:
                await Response(status_code=401)(scope, receive, send)
                return
            self.sent.append(headers)
        await self.app(scope, receive, send)


def write(world: World) -> None:
    """Have the server's credential beside it, in a file."""
    config = world.folder / "remit.yaml"
    (world.folder / "crm.secret").write_text(SECRET)
    (world.folder / "crm.secret").chmod(0o600)
    file = {"name": "token", "content": "{token}"}
    section = {"broker": "static", "secret": f"file:{world.folder}/crm.secret", "file": file}
    whole = json.loads(config.read_text())
    whole["runners"] = {"credentials": {"crm": {**section, "unsafe_look": True}}}
    config.write_text(json.dumps(whole))


@pytest.mark.threat("T-33")
@pytest.mark.parametrize("header", sorted(FORMS))
async def test_a_server_is_looked_at_and_called_with_its_own_header(
    tmp_path: Path, header: str
) -> None:
    locked = Locked(*FORMS[header])
    async with served(locked) as url:
        server = {"name": "crm", "url": f"{url}/mcp", "authorization": "crm", "header": header}
        server["effect"] = "read"
        world = World(tmp_path / "gateway", server, policy=GIVE)
        write(world)
        async with world.open():
            await world.until("crm_find")
            result = await world.agent.call_tool("crm_find", {"who": "ada"})
            assert not result.is_error, result
            assert result.structured_content == {"who": "ada"}
            entries = await world.log()
    plan = next(each for each in entries if each["event"] == "call.intent")
    assert SECRET not in json.dumps(entries)
    assert plan["plan_hash"]
    for each in locked.sent:
        held = [name for name, value in each.items() if SECRET.encode() in value]
        assert held == [locked.name]


async def test_one_that_is_shown_a_bearer_token_and_wants_another_header_says_no(
    tmp_path: Path,
) -> None:
    locked = Locked("x-api-key", SECRET)
    async with served(locked) as url:
        server = {"name": "crm", "url": f"{url}/mcp", "authorization": "crm", "effect": "read"}
        world = World(tmp_path / "gateway", server, policy=GIVE)
        write(world)
        async with world.open():
            found = await world.servers.look("crm")
            assert "`header`" in (found.why or "")
    assert locked.sent == []
