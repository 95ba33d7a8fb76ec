"""A server at which each person consents: a whole gateway, its keeper, real clients and a browser."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mcp_types as types
import pytest
from anyio import to_thread
from mcp.client.client import Client
from mcp.server.lowlevel.server import Server
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from remit.identity.keys import NewKey, new_key
from remit.model import Operator, Permission, Principal
from tests.cli.serving import Serving
from tests.doors.browsing import Browser, browser
from tests.doors.serving import LEGACY, MODERN, client, served
from tests.path.conftest import HEAD
from tests.runners.credentials.consenting import FakeConsentServer
from tests.runners.credentials.fakes import serving
from tests.servers.test_gateway import World, call_tool, list_tools

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.threat("T-53")]

GIVE = HEAD + (
    'decision := answer("allow", {"constraints": {"egress": input.tool.egress,'
    ' "credentials": input.tool.credentials}})\n'
)
OLGA = Operator(subject="olga", may=frozenset(Permission))


class Protected:
    """An MCP server that lets calls pass with a token of its authorization server, and says whose."""

    def __init__(self, login: FakeConsentServer, *, lists: bool = True) -> None:
        self.login = login
        self.lists = lists
        self.shown: list[str] = []
        self.wants = ""
        crm: Server[Any] = Server("crm", on_list_tools=list_tools, on_call_tool=call_tool)
        self.app: ASGIApp = crm.streamable_http_app(json_response=True, stateless_http=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode(): v.decode() for k, v in scope.get("headers", ())}
        calls = headers.get("mcp-method") == "tools/call"
        if scope["type"] == "http" and (calls or not self.lists):
            token = headers.get("authorization", "").removeprefix("Bearer ")
            self.shown.append(token)
            given = self.login.live(token)
            if given is None:
                await Response(status_code=401)(scope, receive, send)
                return
            if self.wants and self.wants not in given.scopes:
                said = f'Bearer error="insufficient_scope", scope="{self.wants}"'
                refused = Response(status_code=403, headers={"www-authenticate": said})
                await refused(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Behind(World):
    """A gateway whose server is shown what the caller's person gave."""

    def __init__(
        self,
        folder: Path,
        url: str,
        login: str,
        look_as: str | None = None,
        scopes: Sequence[str] = ("read",),
        **approvals: Any,
    ) -> None:
        tool = {"name": "find", "effect": "read"}
        server = {"name": "crm", "url": f"{url}/mcp", "authorization": "crm", "tools": [tool]}
        super().__init__(folder, server, policy=GIVE)
        self.listening: socket.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.keys: dict[str, NewKey] = {name: new_key(name) for name in ("ann", "ben", "eve")}
        whole = json.loads((folder / "remit.yaml").read_text())
        whole["server"]["public_url"] = self.address
        keys = [{"id": "k1", "subject": "bot", "sha256": self.key.sha256, "on_behalf_of": ["ann"]}]
        keys += [
            {"id": name, "subject": name, "kind": "human", "sha256": key.sha256}
            for name, key in self.keys.items()
        ]
        whole["identity"]["keys"] = keys
        whole["approvals"] = {"hold_s": 0, **approvals}
        credential = {
            "broker": "authorization_code",
            "resource": f"{url}/mcp",
            "issuer": login,
            "scopes": list(scopes),
            "file": {"name": "token", "content": "{token}"},
        }
        if look_as is not None:
            credential["unsafe_look_as"] = look_as
        whole["runners"] = {"credentials": {"crm": credential}}
        (folder / "remit.yaml").write_text(json.dumps(whole))


@dataclass
class Town:
    """The gateway, the server behind it, and where people sign in."""

    world: Behind
    login: FakeConsentServer
    server: Protected
    asked: list[Any] = field(default_factory=list)

    async def consents(self, person: Browser, url: str, who: str = "ann") -> str:
        """Open the page as this person, agree at the authorization server, and come back."""
        shown = await person.open(url)
        assert shown.status_code == 200, person.text
        leaving = await person.submit(self.world.keys[who].token)
        assert leaving.status_code == 303, person.text
        signed_in = await person.http.get(leaving.headers["location"])
        assert signed_in.status_code == 302, signed_in.text
        await person.come_back(signed_in.headers["location"], self.world.address)
        return person.text

    async def call(self, agent: Client, **named: Any) -> types.CallToolResult:
        return await agent.call_tool("crm_find", {"who": "ada"}, **named)


@asynccontextmanager
async def town(folder: Path, **approvals: Any) -> AsyncIterator[Town]:
    login = FakeConsentServer()
    with serving(login) as login.url:
        server = Protected(login)
        async with served(server) as url:
            world = Behind(folder, url, login.url, **approvals)
            async with world.open():
                await world.until("crm_find")
                yield Town(world, login, server)


def machine(result: types.CallToolResult) -> Mapping[str, Any]:
    assert result.meta is not None
    found: Mapping[str, Any] = result.meta["dev.remit/decision"]
    return found


async def test_each_person_consents_once_and_only_their_own_calls_use_it(tmp_path: Path) -> None:
    async with town(tmp_path / "g") as it, browser() as ann, browser() as ben:
        agent = it.world.agent
        first = machine(await it.call(agent))
        assert first["code"] == "consent_required"
        url = first["consent"]["url"]
        assert url.startswith(f"{it.world.address}/consents/")
        assert first["consent"]["subject"] == "ann"
        assert "may now act for ann" in await it.consents(ann, url)
        for _ in range(2):
            assert not (await it.call(agent)).is_error
        async with client(it.world.address, MODERN, key=it.world.keys["ben"].token) as other:
            told = machine(await it.call(other))
            assert (told["code"], told["consent"]["subject"]) == ("consent_required", "ben")
            await it.consents(ben, told["consent"]["url"], "ben")
            assert not (await it.call(other)).is_error
        async with client(it.world.address, MODERN, key=it.world.keys["ann"].token) as own:
            assert not (await it.call(own)).is_error
        entries = await it.world.log()
        anns, bens = (grant.access for grant in it.login.grants)
        used = [next(n for n, g in enumerate((anns, bens)) if t in g) for t in it.server.shown]
        assert used == [0, 0, 1, 0]
        given = [e for e in entries if e["event"] == "consent.given"]
        assert [(e["subject"], e["key"], e["server"]) for e in given] == [
            ("ann", "ann", "crm"),
            ("ben", "ben", "crm"),
        ]
        said = json.dumps(entries)
        for grant in it.login.grants:
            assert not any(token in said for token in (*grant.access, grant.refresh))
        outcome = next(e for e in entries if e["event"] == "call.outcome")
        assert outcome["loans"][0]["broker"] == "authorization_code"


async def test_what_is_ended_is_over_there_too_and_asked_for_again(tmp_path: Path) -> None:
    async with town(tmp_path / "g") as it, browser() as ann:
        agent = it.world.agent
        await it.consents(ann, machine(await it.call(agent))["consent"]["url"])
        assert not (await it.call(agent)).is_error
        (held,) = await it.world.gateway.consents(OLGA)
        assert (held.ref, held.principal) == ("crm", Principal(tenant="default", subject="ann"))
        assert await it.world.gateway.revoke_consent(OLGA, "crm", held.principal)
        assert all(grant.ended for grant in it.login.grants)
        assert machine(await it.call(agent))["code"] == "consent_required"
        revoked = [e for e in await it.world.log() if e["event"] == "consent.revoked"]
        assert [(e["operator"], e["confirmed"]) for e in revoked] == [("olga", True)]


@pytest.mark.parametrize("mode", [MODERN, "legacy"])
async def test_a_client_that_opens_pages_goes_on_by_itself_when_its_person_consented(
    tmp_path: Path, mode: str
) -> None:
    async with town(tmp_path / "g", hold_s=60) as it, browser() as ann:
        going: list[asyncio.Task[str]] = []
        asked: list[Any] = []

        async def person(_: Any, params: Any) -> types.ElicitResult:
            asked.append(params)
            going.append(asyncio.create_task(it.consents(ann, params.url)))
            return types.ElicitResult(action="accept")

        async with client(
            it.world.address, mode, key=it.world.key.token, elicitation_callback=person
        ) as agent:
            assert agent.session.protocol_version == (LEGACY if mode == "legacy" else MODERN)
            result = await it.call(agent)
        assert not result.is_error, result
        assert "may now act for ann" in await going[0]
        (params,) = asked
        assert params.mode == "url"
        assert params.message.startswith("Remit asks ann: ")
        assert urlsplit(params.url).netloc == urlsplit(it.world.address).netloc
        events = [e["event"] for e in await it.world.log()]
    assert events.count("call.intent") == 1
    assert len(it.server.shown) == 1


async def test_a_client_that_says_no_is_told_and_nothing_is_asked_of_the_server(
    tmp_path: Path,
) -> None:
    async def no(_: Any, __: Any) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    async with town(tmp_path / "g") as it:
        for mode in (MODERN, "legacy"):
            async with client(
                it.world.address, mode, key=it.world.key.token, elicitation_callback=no
            ) as agent:
                assert machine(await it.call(agent))["code"] == "consent_declined"
        refused = [e["code"] for e in await it.world.log() if e["event"] == "call.refused"]
    assert refused == ["consent_required", "consent_declined"] * 2
    assert it.server.shown == []
    assert it.login.pages == []


async def test_an_answer_of_another_server_or_of_another_browser_gives_nothing(
    tmp_path: Path,
) -> None:
    async with town(tmp_path / "g") as it, browser() as ann, browser() as eve:
        agent = it.world.agent
        first = machine(await it.call(agent))["consent"]["url"]
        await eve.open(first)
        assert (await eve.submit(it.world.keys["eve"].token)).status_code == 403
        assert (await eve.submit(it.world.key.token)).status_code == 403  # the agent's own
        it.login.iss = "https://evil.example"
        assert "Nothing" in await it.consents(ann, first) or "not" in ann.text
        it.login.iss = ""
        again = machine(await it.call(agent))["consent"]["url"]
        assert again != first
        await ann.open(again)
        leaving = await ann.submit(it.world.keys["ann"].token)
        back = await ann.http.get(leaving.headers["location"])
        stolen = await eve.come_back(back.headers["location"], it.world.address)
        assert stolen.status_code == 400
        assert machine(await it.call(agent))["code"] == "consent_required"
        done = await ann.come_back(back.headers["location"], it.world.address)
        assert done.status_code == 200
        assert not (await it.call(agent)).is_error
        given = [e for e in await it.world.log() if e["event"] == "consent.given"]
    assert len(given) == 1


async def test_a_served_gateway_names_the_port_that_the_system_gave_it(tmp_path: Path) -> None:
    login = FakeConsentServer()
    with serving(login) as login.url:
        async with served(Protected(login)) as url:
            world = Behind(tmp_path / "g", url, login.url)
            world.listening.close()
            config = world.folder / "remit.yaml"
            whole = json.loads(config.read_text())
            whole["server"] |= {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
            whole["telemetry"] = {"log_format": "json"}
            del whole["server"]["public_url"]
            config.write_text(json.dumps(whole))
            with Serving(config) as gateway:
                await to_thread.run_sync(gateway.until, "tools_seen")
                at = (await to_thread.run_sync(gateway.until, "serving"))["mcp"]
                async with client(at.removesuffix("/mcp"), MODERN, key=world.key.token) as agent:
                    told = machine(await agent.call_tool("crm_find", {"who": "ada"}))
                assert told["consent"]["url"].startswith(at.removesuffix("/mcp") + "/consents/")
                async with browser() as person:
                    assert (await person.open(told["consent"]["url"])).status_code == 200
                assert await to_thread.run_sync(gateway.stop) == 0


async def test_a_server_that_lists_its_tools_for_a_token_alone_is_looked_at_as_who_is_written(
    tmp_path: Path,
) -> None:
    login = FakeConsentServer()
    with serving(login) as login.url:
        server = Protected(login, lists=False)
        async with served(server) as url:
            world = Behind(tmp_path / "g", url, login.url, look_as="eve")
            async with world.open(), browser() as eve:
                it = Town(world, login, server)
                before = await world.servers.look("crm")
                assert before.tools == ()
                assert "has not consented" in (before.why or "")
                eves = Principal(tenant="default", subject="eve")
                asked = await world.gateway.ask_consent(OLGA, "crm", eves)
                await it.consents(eve, asked["url"], "eve")
                await world.servers.look("crm")
                await world.until("crm_find")
                # What shows the tools makes nobody's calls but its own person's.
                told = machine(await it.call(world.agent))
                assert (told["code"], told["consent"]["subject"]) == ("consent_required", "ann")
                async with client(world.address, MODERN, key=world.keys["eve"].token) as own:
                    assert not (await it.call(own)).is_error


async def test_a_consent_that_ended_at_its_server_is_asked_for_again(tmp_path: Path) -> None:
    async with town(tmp_path / "g") as it, browser() as ann:
        agent = it.world.agent
        await it.consents(ann, machine(await it.call(agent))["consent"]["url"])
        for grant in it.login.grants:
            grant.ended = True
        told = [machine(await it.call(agent)) for _ in range(3)]
        # Not accepted; then got anew, which shows that it is over; then asked for.
        codes = ["upstream_unauthorized", "consent_required", "consent_required"]
        assert [each["code"] for each in told] == codes
        assert [each.get("outcome") for each in told] == ["failed", "never_started", None]
        assert "consent" in told[2]
        await it.consents(ann, told[2]["consent"]["url"])
        assert not (await it.call(agent)).is_error
    assert it.login.refreshes == 1


async def test_a_server_that_wants_more_than_was_given_has_the_person_asked_for_both(
    tmp_path: Path,
) -> None:
    async with town(tmp_path / "g", scopes=()) as it, browser() as ann:
        agent = it.world.agent
        await it.consents(ann, machine(await it.call(agent))["consent"]["url"])
        assert not (await it.call(agent)).is_error
        scopes: list[str] = []
        for further in ("read", "write"):
            scopes.append(further)
            it.server.wants = further
            failed = await it.call(agent)
            told = machine(failed)
            assert (told["code"], told["outcome"]) == ("upstream_unauthorized", "failed")
            assert "consent" not in told
            (said,) = failed.content
            assert isinstance(said, types.TextContent)
            assert "make the call again" in said.text
            asked = machine(await it.call(agent))
            assert (asked["code"], asked["consent"]["scopes"]) == ("consent_required", scopes)
            assert "may now act for ann" in await it.consents(ann, asked["consent"]["url"])
            assert it.login.pages[-1]["scope"].split() == scopes
            assert not (await it.call(agent)).is_error
        (held,) = await it.world.gateway.consents(OLGA)
        assert held.scopes == ("read", "write")
        entries = await it.world.log()
    first, second, last = (grant.access for grant in it.login.grants)
    shown = [
        next(n for n, g in enumerate((first, second, last)) if t in g) for t in it.server.shown
    ]
    assert shown == [0, 0, 1, 1, 2]
    assert [each["event"] for each in entries].count("consent.given") == 3
