"""A server behind OAuth: it is shown a token that Remit got for the call, never the caller's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.server.lowlevel.server import Server
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.doors.serving import served
from tests.path.conftest import HEAD
from tests.runners.credentials.fakes import FakeAuthorization, serving
from tests.runners.credentials.oauth import KEYS, Place, pem, placed
from tests.servers.test_gateway import World, call_tool, list_tools

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GIVE = HEAD + (
    'decision := answer("allow", {"constraints": {"egress": input.tool.egress,'
    ' "credentials": input.tool.credentials}})\n'
)
FILE = {"name": "token", "content": "{token}"}
ISSUER = "https://remit.example"


class Protected:
    """An MCP server that lets calls pass with a token that its authorization server gave."""

    def __init__(self, live: dict[str, Any], *, lists: bool = True, tells: bool = False) -> None:
        self.live = live
        self.shown: list[str] = []
        self.lists, self.tells = lists, tells
        crm: Server[Any] = Server("crm", on_list_tools=self.tools, on_call_tool=call_tool)
        self.app: ASGIApp = crm.streamable_http_app(json_response=True, stateless_http=True)

    async def tools(self, ctx: Any, params: Any) -> types.ListToolsResult:
        found = await list_tools(ctx, params)
        if self.tells:
            found.tools[0].description = f"Finds with {self.shown[-1]}."
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode(): v.decode() for k, v in scope.get("headers", ())}
        asked = scope["type"] == "http"
        if asked and (not self.lists or headers.get("mcp-method") == "tools/call"):
            token = headers.get("authorization", "").removeprefix("Bearer ")
            self.shown.append(token)
            if token not in self.live:
                await Response(status_code=401)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Behind(World):
    """A gateway whose server is shown this credential."""

    def __init__(self, folder: Path, url: str, credential: dict[str, Any], **more: Any) -> None:
        server = {
            "name": "crm",
            "url": f"{url}/mcp",
            "authorization": "crm",
            "scopes": ["read"],
            "tools": [{"name": "find", "effect": "read"}],
        }
        super().__init__(folder, server)
        whole = json.loads((folder / "remit.yaml").read_text())
        whole["runners"] = {"credentials": {"crm": {**credential, "file": FILE}}, **more}
        (folder / "remit.yaml").write_text(json.dumps(whole))
        (folder / "policy" / "policy.rego").write_text(GIVE)
        (folder / "secret").write_text("s3cr%41t+:with space")
        (folder / "secret").chmod(0o600)
        (folder / "key.pem").write_text(pem(KEYS["ES256"]))
        (folder / "key.pem").chmod(0o600)

    @property
    def address(self) -> str:
        """Where its door listens."""
        return self._url.removesuffix("/mcp")


def exchange(url: str) -> dict[str, Any]:
    return {
        "broker": "exchange",
        "token_url": f"{url}/token",
        "revocation_url": f"{url}/revoke",
        "subject_audience": "https://login.example.com",
        "client_id": "remit",
        "client_secret": "file:secret",
    }


@pytest.mark.threat("T-42")
async def test_a_server_sees_who_calls_by_an_exchanged_token_that_is_dead_after_the_call(
    tmp_path: Path,
) -> None:
    worlds: list[Behind] = []
    server = FakeAuthorization(lambda: f"{worlds[0].address}/.well-known/jwks.json", lambda: ISSUER)
    seen: list[dict[str, Any]] = []

    def remember(body: dict[str, Any]) -> dict[str, Any]:
        seen.extend(server.live.values())
        return body

    server.change = remember
    protected = Protected(server.live)
    with serving(server) as login:
        async with served(protected) as url:
            issuer = {"url": ISSUER, "algorithm": "RS256"}
            worlds.append(Behind(tmp_path / "gateway", url, exchange(login), issuer=issuer))
            async with worlds[0].open() as world:
                await world.until("crm_find")
                result = await world.agent.call_tool("crm_find", {"who": "ada"})
                assert not result.is_error, result
                entries = await world.log()
    [token] = protected.shown
    [given] = seen
    assert given["claims"]["caller"]["subject"] == "bot"
    assert (given["claims"]["tool"], given["scope"]) == ("crm_find", "read")
    assert server.live == {}
    assert world.key.token not in token
    outcome = next(each for each in entries if each["event"] == "call.outcome")
    assert token not in json.dumps(entries)
    [loan] = outcome["loans"]
    assert (loan["broker"], loan["revoked"]) == ("exchange", True)


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as made:
        yield made


async def test_a_server_is_shown_a_token_of_remits_own_and_its_refusal_is_told(
    place: Place, tmp_path: Path
) -> None:
    protected = Protected(place.server.live)
    async with served(protected) as url:
        credential = client(place, url)
        async with Behind(tmp_path / "gateway", url, credential).open() as world:
            await world.until("crm_find")
            result = await world.agent.call_tool("crm_find", {"who": "ada"})
            assert not result.is_error, result
            assert place.server.given[0]["resource"] == f"{url}/mcp"
            assert place.server.live == {}
            protected.live = {}
            refused = await world.agent.call_tool("crm_find", {"who": "eve"})
            assert refused.is_error
            assert (refused.meta or {})["dev.remit/decision"]["code"] == "upstream_unauthorized"
            entries = await world.log()
    outcomes = [each for each in entries if each["event"] == "call.outcome"]
    assert [loan["revoked"] for each in outcomes for loan in each["loans"]] == [True, True]


def client(place: Place, url: str, **more: Any) -> dict[str, Any]:
    return {
        "broker": "client_credentials",
        "resource": f"{url}/mcp",
        "issuer": place.server.url,
        "token_url": f"{place.server.url}/token",
        "revocation_url": f"{place.server.url}/revoke",
        "client_id": "remit",
        "client_auth": "private_key_jwt",
        "private_key": "file:key.pem",
        **more,
    }


async def test_a_server_that_lists_for_a_token_alone_is_seen_where_the_operator_wrote_so(
    place: Place, tmp_path: Path
) -> None:
    protected = Protected(place.server.live, lists=False)
    async with served(protected) as url:
        credential = client(place, url, unsafe_look=True)
        async with Behind(tmp_path / "gateway", url, credential).open() as world:
            await world.until("crm_find")
            result = await world.agent.call_tool("crm_find", {"who": "ada"})
            assert not result.is_error, result
            assert place.server.live == {}
            assert len(place.server.given) == 2


@pytest.mark.threat("T-33")
async def test_without_that_nothing_is_shown_and_the_operator_is_told_why_it_is_not_seen(
    place: Place, tmp_path: Path
) -> None:
    protected = Protected(place.server.live, lists=False)
    async with served(protected) as url:
        credential = client(place, url)
        async with Behind(tmp_path / "gateway", url, credential).open() as world:
            found = await world.servers.look("crm")
            assert found.tools == ()
            assert "unsafe_look" in (found.why or "")
    assert set(protected.shown) == {""}
    assert place.server.given == []


@pytest.mark.threat("T-33")
async def test_a_list_that_holds_the_token_it_was_shown_is_offered_to_nobody(
    place: Place, tmp_path: Path
) -> None:
    protected = Protected(place.server.live, lists=False, tells=True)
    async with served(protected) as url:
        credential = client(place, url, unsafe_look=True)
        async with Behind(tmp_path / "gateway", url, credential).open() as world:
            found = await world.servers.look("crm")
            assert found.health.value == "broken"
            assert found.tools == ()
            assert "lists the credential" in (found.why or "")
    assert place.server.live == {}
