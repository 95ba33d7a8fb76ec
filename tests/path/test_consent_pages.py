"""The pages on which a person consents, over HTTP, before a real pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.gateway import Gateway
from remit.testing.consents import MemoryConsents
from tests.doors.browsing import Browser, browser
from tests.doors.serving import served
from tests.path.conftest import MakePath
from tests.path.test_consents import DANA, DANAS, EVES, REF, World, a_world
from tests.path.test_path import code

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-53")]

URL = "http://127.0.0.1:8700"
HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@asynccontextmanager
async def pages(world: World) -> AsyncIterator[str]:
    gateway = Gateway(world.path.pipeline)
    async with served(mcp_app(gateway, DoorSettings(), consents=gateway.desk)) as url:
        yield url


async def asked(world: World, at: str) -> str:
    """Make a call that needs a consent; gives the address of the page, as it is really served."""
    reply = await world.call()
    assert code(reply) == "consent_required"
    return f"{at}/consents/{world.page(reply)}"


def answer_of(leaving: httpx2.Response, at: str, **more: str) -> str:
    """Where an authorization server sends the browser with this answer."""
    (state,) = parse_qs(urlsplit(leaving.headers["location"]).query)["state"]
    return f"{at}/consents/callback?" + urlencode({"state": state, **more})


def check_headers(answer: httpx2.Response) -> None:
    """No page of ours runs, loads, keeps or frames anything."""
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in policy
    assert "unsafe" not in policy
    assert "<script" not in answer.text


async def test_a_person_reads_what_is_asked_shows_a_key_and_comes_back(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path, public_url=URL)
    async with pages(world) as at, browser() as person:
        shown = await person.open(await asked(world, at))
        assert shown.status_code == 200
        for said in ("login.example.com", "MCP server crm", "for dana"):
            assert said in person.text
        leaving = await person.submit(DANAS.token)
        assert leaving.status_code == 303
        to = urlsplit(leaving.headers["location"])
        assert (to.scheme, to.netloc) == ("https", "login.example.com")
        assert parse_qs(to.query)["redirect_uri"] == [f"{URL}/consents/callback"]
        back = await person.come_back(answer_of(leaving, at, code="abc"), at)
        assert back.status_code == 200
        assert "may now act for dana" in person.text
        assert not [each for each in person.http.cookies if each.startswith("remit-consent-")
                    and each != "remit-consent-form"]  # fmt: skip
        for each in (shown, leaving, back):
            check_headers(each)
    assert list(world.consents.held) == [(REF, DANA)]
    assert code(await world.call()) == "ok"


async def test_cookies_are_for_this_site_alone_and_with_tls_for_this_host_alone(
    make_path: MakePath,
) -> None:
    for public, prefix, secure in ((URL, "", False), ("https://remit.example", "__Host-", True)):
        world = await a_world(make_path, public_url=public)
        async with pages(world) as at, browser() as person:
            shown = await person.open(await asked(world, at))
            (form,) = shown.headers.get_list("set-cookie")
            token = form.split(";")[0].partition("=")[2]
            name = f"{prefix}remit-consent-form"
            sent = {"cookie": f"{name}={token}", "sec-fetch-site": "same-origin"}
            leaving = await person.submit(DANAS.token, **sent)
            (back,) = leaving.headers.get_list("set-cookie")
        assert form.startswith(f"{name}=")
        assert back.startswith(f"{prefix}remit-consent-")
        for cookie, same_site in ((form, "Strict"), (back, "Lax")):
            parts = {each.strip() for each in cookie.split(";")}
            assert {"HttpOnly", "Path=/", f"SameSite={same_site}"} <= parts
            assert ("Secure" in parts) is secure


async def test_no_other_site_can_send_the_form(make_path: MakePath) -> None:
    world = await a_world(make_path, public_url=URL)
    async with pages(world) as at, browser() as person, browser() as victim:
        page = await asked(world, at)
        await person.open(page)
        for odd in (
            {"origin": "https://evil.example"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            refused = await person.submit(DANAS.token, **odd)
            assert refused.status_code == 403
            assert "location" not in refused.headers
        # A page of another site that knows link, key and a token of its own; the victim's browser
        # has none, or another.
        own = person.http.cookies["remit-consent-form"]
        sent = {"key": DANAS.token, "token": own}
        assert (await victim.http.post(page, data=sent)).status_code == 403
        await victim.open(page)
        assert (await victim.http.post(page, data=sent)).status_code == 403
        assert (await person.submit(DANAS.token)).status_code == 303
    assert world.consents.held == {}


async def test_a_wrong_key_is_told_alike_whoevers_it_is_and_too_many_are_stopped(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path, public_url=URL, authentications=3)
    async with pages(world) as at, browser() as person:
        await person.open(await asked(world, at))
        said = set()
        for key in (EVES.token, "remit_nobody_" + "a" * 43, "nothing"):
            refused = await person.submit(key)
            assert refused.status_code == 403
            check_headers(refused)
            said.add(person.text)
        assert len(said) == 1
        assert EVES.token not in person.page
        refused = await person.submit(EVES.token)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
    counted = [e for e in await world.path.entries() if e["event"] == "consent.given"]
    assert counted == []


async def test_a_page_that_is_not_there_is_the_same_whatever_it_was(make_path: MakePath) -> None:
    world = await a_world(make_path, public_url=URL)
    async with pages(world) as at, browser() as person, browser() as other:
        used = await asked(world, at)
        await person.open(used)
        leaving = await person.submit(DANAS.token)
        await person.come_back(answer_of(leaving, at, code="abc"), at)
        never = f"{at}/consents/{'A' * 32}"
        got = [await other.open(url) for url in (used, never, f"{at}/consents/x")]
        sent = [
            await other.http.post(url, data={"key": DANAS.token, "token": "x"})
            for url in (used, never)
        ]
    assert {each.status_code for each in (*got, *sent)} == {404}
    assert len({each.text for each in (*got, *sent)}) == 1
    assert "have the call made again" in got[0].text.lower()


async def test_what_comes_back_wrong_is_a_page_that_says_what_to_do(make_path: MakePath) -> None:
    world = await a_world(make_path, public_url=URL)
    async with pages(world) as at, browser() as person, browser() as thief:

        async def leaves() -> httpx2.Response:
            await person.open(await asked(world, at))
            return await person.submit(DANAS.token)

        async def says(who: Browser, url: str) -> str:
            got = await who.come_back(url, at)
            assert got.status_code == 400
            check_headers(got)
            return who.text

        first = await leaves()
        stolen = await says(thief, answer_of(first, at, code="abc"))
        assert "not the one in which the consent was begun" in stolen
        assert "Open the link in this browser" in stolen
        refused = await says(person, answer_of(first, at, error="access_denied"))
        assert "said no" in refused
        replayed = await says(person, answer_of(first, at, code="abc"))
        assert "was given already" in replayed
        twice = await leaves()
        unclear = await says(person, answer_of(twice, at, code="abc") + "&code=def")
        assert "cannot be read" in unclear
        second = await leaves()
        bad = await says(person, answer_of(second, at, iss="https://evil.example"))
        assert "cannot be used" in bad
        for odd in ("state=a&state=b", "state=%ff", "&".join(f"a{n}=1" for n in range(40)), ""):
            assert (await person.open(f"{at}/consents/callback?{odd}")).status_code == 400
    assert world.consents.held == {}


async def test_what_others_chose_is_shown_as_text(make_path: MakePath) -> None:
    hostile = MemoryConsents([REF], host="login.example.com")
    world = await a_world(make_path, consents=hostile, public_url=URL)
    page = world.path.pipeline.consenting.pages
    leads = await hostile.begin(REF, DANA, ["<script>1</script>", "a\u202eb"], URL, None)
    put = page.put(leads, '"><img src=x onerror=1>', ())
    async with pages(world) as at, browser() as person:
        shown = await person.open(f"{at}/consents/{put.id}")
    assert "<script>" not in shown.text
    assert "<img" not in shown.text
    assert "\u202e" not in shown.text
    assert "a\\u{202e}b" in shown.text
    assert "<script>1</script>" in person.text


async def test_pages_answer_to_their_own_hosts_alone_and_to_forms_that_are_forms(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path, public_url="https://remit.example")
    async with pages(world) as at, browser() as person:
        page = await asked(world, at)
        for path in (page, f"{at}/consents/callback", f"{at}/consents/client.json"):
            assert (
                await person.http.get(path, headers={"host": "evil.example"})
            ).status_code == 421
        assert (await person.http.get(page, headers={"host": "remit.example"})).status_code == 200
        assert (await person.http.post(page, json={"key": "x"})).status_code == 415
        long = {"key": "x" * 9_000}
        assert (await person.http.post(page, data=long)).status_code == 413
        assert (await person.http.delete(page)).status_code == 405


async def test_the_client_document_names_itself_and_the_way_back(make_path: MakePath) -> None:
    world = await a_world(make_path, public_url="https://remit.example")
    async with pages(world) as at, browser() as person:
        got = await person.http.get(f"{at}/consents/client.json")
    found: dict[str, Any] = got.json()
    assert found["client_id"] == "https://remit.example/consents/client.json"
    assert found["redirect_uris"] == ["https://remit.example/consents/callback"]
    assert found["token_endpoint_auth_method"] == "none"
    assert found["response_types"] == ["code"]
    without = await a_world(make_path, public_url=URL)
    async with pages(without) as at, browser() as person:
        assert (await person.http.get(f"{at}/consents/client.json")).status_code == 404


async def test_a_redirect_to_a_sign_in_is_let_by_the_pages_own_policy(make_path: MakePath) -> None:
    """Browsers hold where a form's answer leads against `form-action` too."""
    world = await a_world(make_path, public_url=URL)
    async with pages(world) as at, browser() as person:
        shown = await person.open(await asked(world, at))
    policy = dict(
        each.strip().split(" ", 1) for each in shown.headers["content-security-policy"].split(";")
    )
    assert policy["form-action"] == "'self' https:"


async def test_the_door_has_no_such_pages_where_nobody_consents(make_path: MakePath) -> None:
    world = await a_world(make_path, public_url=URL)
    door = mcp_app(Gateway(world.path.pipeline), DoorSettings())
    async with served(door) as at, browser() as person:
        got = await person.open(f"{at}/consents/callback?state=x")
    assert got.status_code == 404


ODD = (
    "%00", "%2e%2e", "..%2fcallback", "a" * 5_000, "%ff%fe", "callback/", "client.json/x", "%0d%0aset-cookie:a",
)  # fmt: skip


async def test_nothing_that_strangers_send_is_an_error_of_ours(make_path: MakePath) -> None:
    world = await a_world(make_path, public_url=URL)
    async with pages(world) as at, browser() as person:
        page = await asked(world, at)
        urls = [f"{at}/consents/{odd}" for odd in ODD]
        urls += [f"{at}/consents/callback?{odd}={odd}" for odd in ODD]
        urls += [f"{at}/consents/callback?state={odd}&code={odd}&iss={odd}" for odd in ODD]
        seen = [await person.http.get(url) for url in urls]
        bodies = (b"", b"\xff\xfe", b"key=%", b"key=%ff&token=%00", b"key&token", b"&" * 3_000)
        form = {b"content-type": b"application/x-www-form-urlencoded"}
        for cookie in ("", "remit-consent-form=", "remit-consent-form=\xff", "=;;=", "a" * 5_000):
            shown = {b"cookie": cookie.encode("latin-1")}
            for body in bodies:
                seen.append(await person.http.post(page, content=body, headers=form | shown))
            got = f"{at}/consents/callback?state=x&code=y"
            seen.append(await person.http.get(got, headers=shown))
    assert {each.status_code for each in seen} <= {400, 403, 404, 405}
    assert all("set-cookie" not in each.headers or each.status_code == 403 for each in seen)
    assert not any("Traceback" in each.text for each in seen)
    assert world.consents.held == {}
