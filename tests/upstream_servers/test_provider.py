"""A person consents at an authorization server that is not ours, and a call of theirs goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import mcp_types as types
import pytest
from mcp.server.lowlevel.server import Server
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from remit.model import Principal
from remit.runners.credentials.authorization_code import AuthorizationCodeBroker
from remit.testing.consents import ALICE, REDIRECT
from tests.doors.browsing import Browser, browser
from tests.doors.serving import MODERN, client, served
from tests.runners.credentials.consenting import Kept
from tests.runners.credentials.test_authorization_code import run_of
from tests.runners.credentials.world import kit, now_ms, section
from tests.servers.test_consents import OLGA, Behind, machine
from tests.servers.test_gateway import call_tool, list_tools
from tests.upstream_servers.provided import Provider, provider, signed_in

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.threat("T-53"),
    pytest.mark.needs("upstream-servers"),
]


@dataclass
class Resource:
    """An MCP server that asks the provider about each token; `refuses` are taken no more."""

    shown: list[str] = field(default_factory=list)
    about: list[dict[str, Any]] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    login: Provider | None = None
    url: str = ""

    def __post_init__(self) -> None:
        crm: Server[Any] = Server("crm", on_list_tools=list_tools, on_call_tool=call_tool)
        self.app: ASGIApp = crm.streamable_http_app(json_response=True, stateless_http=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode(): v.decode() for k, v in scope.get("headers", ())}
        if headers.get("mcp-method") == "tools/call":
            assert self.login is not None
            token = headers.get("authorization", "").removeprefix("Bearer ")
            found = await self.login.about(token)
            self.shown.append(token)
            self.about.append(found)
            good = found["active"] and found["aud"] == self.url and "read" in found["scope"].split()
            if not good or token in self.refuses:
                await Response(status_code=401)(scope, receive, send)
                return
        await self.app(scope, receive, send)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[Behind, Resource]]:
    resource = Resource()
    async with served(resource) as url:
        resource.url = f"{url}/mcp"
        with provider(resource.url) as resource.login:
            behind = Behind(folder, url, resource.login.url)
            whole = json.loads((folder / "remit.yaml").read_text())
            whole["approvals"]["hold_s"] = 120
            (folder / "remit.yaml").write_text(json.dumps(whole))
            async with behind.open():
                await behind.until("crm_find")
                yield behind, resource
            await resource.login.http.aclose()


@dataclass
class Person:
    """Goes where a client is sent, agrees to all there, and comes back."""

    it: Behind
    browser: Browser
    pages: list[asyncio.Task[str]] = field(default_factory=list)

    async def asked(self, _: Any, params: Any) -> types.ElicitResult:
        """What a client does that opens pages: it goes on at once."""
        self.pages.append(asyncio.create_task(self.consents(params.url)))
        return types.ElicitResult(action="accept")

    async def consents(self, url: str) -> str:
        assert (await self.browser.open(url)).status_code == 200
        leaving = await self.browser.submit(self.it.keys["ann"].token)
        assert leaving.status_code == 303, self.browser.text
        where, callback = leaving.headers["location"], f"{self.it.address}/consents/callback"
        back = await signed_in(self.browser.http, where, "ann", callback)
        await self.browser.come_back(back, self.it.address)
        return self.browser.text


async def test_a_person_consents_at_a_certified_provider_and_it_is_renewed_and_ended_there(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "g") as (it, resource), browser() as browsing:
        ann = Person(it, browsing)
        async with client(
            it.address, MODERN, key=it.key.token, elicitation_callback=ann.asked
        ) as agent:
            first = await agent.call_tool("crm_find", {"who": "ada"})
            assert not first.is_error, first
            assert "may now act for ann" in await ann.pages[0]
            # The server takes the token no more: the next call has a new one, got by refreshing.
            resource.refuses.add(resource.shown[0])
            told = machine(await agent.call_tool("crm_find", {"who": "ada"}))
            assert told["code"] == "upstream_unauthorized"
            renewed = await agent.call_tool("crm_find", {"who": "ada"})
            assert not renewed.is_error, renewed
        one, again, two = resource.shown
        assert one == again != two
        assert len(ann.pages) == 1
        anns = Principal(tenant="default", subject="ann")
        (held,) = await it.gateway.consents(OLGA)
        assert (held.principal, held.renewable) == (anns, True)
        assert await it.gateway.revoke_consent(OLGA, "crm", anns)
        assert resource.login is not None
        assert not (await resource.login.about(two))["active"]
        assert machine(await it.agent.call_tool("crm_find", {"who": "ada"}))["code"] == (
            "consent_required"
        )
        said = json.dumps(await it.log())
    assert {each["scope"] for each in resource.about if each["active"]} == {"read"}
    assert not any(token in said for token in resource.shown)


async def test_refresh_tokens_that_a_provider_exchanges_are_used_once_each() -> None:
    ahead_ms, resource = 0, "http://127.0.0.1:1/mcp"
    with provider(resource) as login:
        words = {"broker": "authorization_code", "resource": resource, "issuer": login.url}
        made = section(**words, scopes=["read"])
        broker = AuthorizationCodeBroker(kit(made, now=lambda: now_ms() + ahead_ms, sealed=Kept()))
        page = await broker.begin(ALICE, ("read",), REDIRECT, None)
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as http:
            back = await signed_in(http, page.url, "alice", REDIRECT)
        await broker.finish(page.state, dict(parse_qsl(urlsplit(back).query)))
        tokens = []
        for hour in range(3):
            ahead_ms = hour * 3_600_000
            lent = await broker.lend(replace(run_of(lives_s=20_000), scopes=("read",)))
            tokens.append(lent.fields["token"])
            assert (await login.about(tokens[-1]))["active"]
        assert len(set(tokens)) == 3
        assert await broker.end(ALICE)
        assert [(await login.about(each))["active"] for each in tokens[1:]] == [False, False]
        await login.http.aclose()
        await broker.aclose()
