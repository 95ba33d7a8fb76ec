"""A credential is put in for its exact destination, by verified TLS, and never after a redirect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from remit.runners.egress.refusals import Unwilling
from tests.runners.egress.world import (
    SECRET,
    Certificates,
    Client,
    Destination,
    World,
    credential,
    destination,
    now_ms,
    ok,
    one,
    rule,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-33")]

Sites = tuple[World, Destination, Destination]
VALUE = f"Bearer {SECRET}"


@pytest.fixture
async def sites(certs: Certificates) -> AsyncIterator[Sites]:
    """one.test, whose credential is for /v1, and two.test, which has none."""
    async with (
        destination(certs.chain) as first,
        destination(certs.chain) as second,
        one(certs, first, second) as found,
    ):
        found.open(rule("one.test", first.port), rule("two.test", second.port, "GET"))
        found.lend(credential("one.test", first.port, path_prefix="/v1"))
        yield found, first, second


async def ask(client: Client, path: str, there: Destination, *headers: str, name: str = "one.test"):
    return await client.ask("GET", path, f"{name}:{there.port}", *headers)


async def test_it_replaces_the_runs_own_and_goes_where_it_is_for(sites):
    found, first, _ = sites
    client = await found.tunnel("one.test", first.port)
    for path in ("/v1", "/v1/x", "/v1x", "/", "/v2/v1"):
        assert (await ask(client, path, first, "authorization: Bearer own"))[0] == 200
    given = [asked.headers.get("authorization") for asked in first.asked]
    assert given == [VALUE, VALUE, None, None, None]
    await client.close()
    (seen,) = (await found.traffic()).connections
    assert (seen.injected, seen.echoed) == (("ci",), False)


async def test_it_is_put_into_requests_by_the_destination_in_the_path(sites):
    found, first, second = sites
    client = await found.client()
    await client.ask("GET", f"/one.test:{first.port}/v1/x", "x", "Authorization: own")
    await client.ask("GET", f"/two.test:{second.port}/v1/x", "x", "Authorization: own")
    assert first.asked[0].headers["authorization"] == VALUE
    assert "authorization" not in second.asked[0].headers
    await client.close()


async def test_a_path_that_can_be_read_in_two_ways_is_refused_where_a_path_decides(sites):
    found, first, _ = sites
    for path in ("/v1/../v2", "/v2/%2e%2e/v1", "/v1%2fx", "//v1"):
        client = await found.tunnel("one.test", first.port)
        assert (await ask(client, path, first))[1]["x-remit-refused"] == "path"
        await client.close()
    assert first.asked == []


async def test_a_path_that_decides_nothing_may_be_spelt_as_its_server_wants(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port, "GET"))
        client = await found.tunnel("one.test", there.port)
        assert (await ask(client, "/@scope%2fname", there))[0] == 200
        await client.close()


async def test_it_is_never_sent_in_the_clear_unless_that_is_named(certs):
    async with destination(None) as there:
        for unsafe in ([], [("one.test", there.port)]):
            async with one(certs, there, unsafe_plain=unsafe) as found:
                found.open(rule("one.test", there.port))
                found.lend(credential("one.test", there.port))
                client = await found.client()
                place = f"one.test:{there.port}"
                await client.ask("GET", f"http://{place}/", place, "Authorization: own")
                await client.close()
        given = [asked.headers.get("authorization") for asked in there.asked]
        assert given == [None, VALUE]


async def test_it_is_not_sent_to_a_host_that_cannot_be_verified(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.runs._upstream = found.runs._upstream.__class__(
            found.runs._upstream._internal, "", found.runs._upstream._look
        )
        found.open(rule("one.test", there.port))
        found.lend(credential("one.test", there.port))
        client = await found.tunnel("one.test", there.port)
        assert (await ask(client, "/", there))[1]["x-remit-refused"] == "upstream_tls"
        assert there.asked == []
        await client.close()


@pytest.mark.threat("T-34")
async def test_what_is_taken_back_while_its_request_still_connects_is_not_sent(sites, monkeypatch):
    found, first, _ = sites
    asked, go = asyncio.Event(), asyncio.Event()

    async def look(host: str, port: int, share: asyncio.Semaphore) -> list[str]:
        asked.set()
        await go.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr(found.runs._upstream, "_look", look)
    client = await found.tunnel("one.test", first.port)
    asking = asyncio.create_task(ask(client, "/v1", first))
    await asked.wait()
    found.runs.forget("run_1")
    go.set()
    assert (await asking)[0] == 200
    assert "authorization" not in first.asked[0].headers
    await client.close()
    assert (await found.traffic()).connections[0].injected == ()


async def test_the_runs_own_is_dropped_however_its_name_is_spelt(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port))
        found.lend(credential("one.test", there.port, header="Private-Token", value="lent-one"))
        client = await found.tunnel("one.test", there.port)
        await ask(client, "/", there, "Private_Token: own", "PRIVATE_token: own too")
        (asked,) = there.asked
        assert "own" not in repr(asked.headers)
        assert asked.headers["private-token"] == "lent-one"
        await client.close()


@pytest.mark.parametrize(
    "header", ["Host", "Content-Length", "Transfer-Encoding", "connection", "Proxy-Authorization"]
)
async def test_a_header_that_frames_the_request_is_not_lent(sites, header):
    found, first, _ = sites
    with pytest.raises(Unwilling):
        found.lend(credential("one.test", first.port, header=header, value="5"))


async def test_of_two_for_one_header_the_longer_path_wins(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port))
        wide = credential("one.test", there.port, header="X-Key", value="wide")
        narrow = credential(
            "one.test", there.port, header="x-key", value="deep", path_prefix="/a/b"
        )
        found.lend(narrow, wide)
        client = await found.tunnel("one.test", there.port)
        await ask(client, "/a", there, "X-Key: own")
        await ask(client, "/a/b/c", there, "x-kEY: own")
        assert [asked.headers["x-key"] for asked in there.asked] == ["wide", "deep"]
        await client.close()


# ------------------------------------------------------------------------------- redirects


def to(location: str, status: str = "302 Found") -> bytes:
    return ok(b"", f"Location: {location}", status=status)


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
@pytest.mark.parametrize(
    "location",
    [
        "https://one.test:{port}/v1/x",
        "https://ONE.test:{port}/v1/x?q#f",
        "//one.test:{port}/v1/x",
        "HTTPS://one.test:{port}/v1/./x",
        "https://one.test:{port}/v1/y/../x",
        "https://one.test:{port}/v1/%78",
        "https://one.test:{port}/v1//x",
    ],
)
async def test_what_another_destination_redirects_to_gets_nothing(sites, location, status):
    found, first, second = sites
    second.reply = lambda asked: to(location.format(port=first.port), status)
    client = await found.tunnel("two.test", second.port)
    status_code, headers, _ = await ask(client, "/go", second, name="two.test")
    assert status_code == int(status[:3])
    assert headers["location"] == location.format(port=first.port)
    await client.close()
    client = await found.tunnel("one.test", first.port)
    await ask(client, "/v1/x", first)
    await ask(client, "/v1/x?other", first)
    await ask(client, "/v1/elsewhere", first)
    given = [asked.headers.get("authorization") for asked in first.asked]
    assert given == [None, None, VALUE]
    await client.close()


async def test_what_a_redirect_named_gets_nothing_of_what_is_lent_anew_either(sites):
    found, first, second = sites
    second.reply = lambda asked: to(f"https://one.test:{first.port}/v1/x")
    client = await found.tunnel("two.test", second.port)
    await ask(client, "/", second, name="two.test")
    await client.close()
    found.runs.forget("run_1")
    found.lend(credential("one.test", first.port, path_prefix="/v1", value="Bearer another-one"))
    client = await found.tunnel("one.test", first.port)
    await ask(client, "/v1/x", first)
    await ask(client, "/v1/y", first)
    given = [asked.headers.get("authorization") for asked in first.asked]
    assert given == [None, "Bearer another-one"]
    await client.close()


async def test_a_redirect_within_what_the_credential_is_for_keeps_it(sites):
    found, first, _ = sites
    first.reply = lambda asked: to("/v1/new") if asked.target == "/v1/old" else ok()
    client = await found.tunnel("one.test", first.port)
    assert (await ask(client, "/v1/old", first))[1]["location"] == "/v1/new"
    await ask(client, "/v1/new", first)
    assert first.asked[1].headers["authorization"] == VALUE
    await client.close()


async def test_a_redirect_into_it_from_the_same_host_but_another_path_gets_nothing(sites):
    found, first, _ = sites
    first.reply = lambda asked: to("../v1/admin") if asked.target == "/pub/x" else ok()
    client = await found.tunnel("one.test", first.port)
    await ask(client, "/pub/x", first)
    await ask(client, "/v1/admin", first)
    assert "authorization" not in first.asked[1].headers
    await client.close()


@pytest.mark.parametrize(
    "location",
    [
        "https:one.test:{port}/v1/x",
        "https:/one.test:{port}/v1/x",
        "https:///one.test:{port}/v1/x",
        "///one.test:{port}/v1/x",
        "https://one.test:{port}\\v1/x",
        "https://two.test@one.test:{port}/v1/x",
        "https://one%2etest:{port}/v1/x",
        "https://one.test.:{port}/v1/x",
        "https://0x7f.1:{port}/v1/x",
        "https://one.test:{port}/v1/ x",
        "https://one.test:{port}/v1/\xe4",
        "https://[one.test]:{port}/v1/x",
        "https://one.test:port/v1/x",
    ],
)
async def test_a_redirect_that_clients_could_understand_differently_is_not_passed_on(
    sites, location
):
    found, first, second = sites
    raw = location.format(port=first.port).encode("latin-1")
    second.reply = lambda asked: (
        b"HTTP/1.1 302 x\r\nContent-Length: 0\r\nLocation: " + raw + b"\r\n\r\n"
    )
    client = await found.tunnel("two.test", second.port)
    status, headers, _ = await ask(client, "/", second, name="two.test")
    assert (status, headers["x-remit-refused"]) == (502, "upstream")
    await client.close()


async def test_a_redirect_to_a_private_address_leads_nowhere(sites):
    found, _, second = sites
    second.reply = lambda asked: to("http://169.254.169.254/latest/meta-data/")
    client = await found.tunnel("two.test", second.port)
    assert (await ask(client, "/", second, name="two.test"))[0] == 302
    await client.close()
    client = await found.client()
    _, headers, _ = await client.ask("GET", "http://169.254.169.254/latest", "169.254.169.254")
    assert headers["x-remit-refused"] == "not_allowed"
    await client.close()


async def test_a_redirect_in_the_form_with_the_destination_in_the_path_stays_in_it(sites):
    found, first, second = sites
    locations = [
        "/new?q=1",
        f"https://one.test:{first.port}/v1/x",
        "http://one.test/x",
        "mailto:a@b",
    ]
    second.reply = lambda asked: to(locations[int(asked.target[1:])])
    client = await found.client()
    seen = []
    for number in range(4):
        answer = await client.ask("GET", f"/two.test:{second.port}/{number}", "x")
        seen.append(answer[1]["location"])
    assert seen == [
        f"/two.test:{second.port}/new?q=1",
        f"/one.test:{first.port}/v1/x",
        "http://one.test/x",
        "mailto:a@b",
    ]
    await client.ask("GET", f"/one.test:{first.port}/v1/x", "x")
    assert "authorization" not in first.asked[0].headers
    await client.close()


async def test_after_very_many_redirects_nothing_is_put_in_any_more(sites, monkeypatch):
    found, first, second = sites
    monkeypatch.setattr("remit.runners.egress.purse._MAX_HANDED", 2)
    second.reply = lambda asked: to(f"https://one.test:{first.port}/v1{asked.target}")
    client = await found.tunnel("two.test", second.port)
    for number in range(3):
        await ask(client, f"/{number}", second, name="two.test")
    await client.close()
    client = await found.tunnel("one.test", first.port)
    await ask(client, "/v1/unrelated", first)
    assert "authorization" not in first.asked[0].headers
    await client.close()


# ------------------------------------------------------------------------ who may lend what


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"fence": 2}, "another fence"),
        ({"fence": 0}, "another fence"),
        ({"run": "run_2"}, "not open"),
    ],
)
async def test_only_an_open_run_with_this_fence_is_lent_anything(sites, facts, why):
    found, first, _ = sites
    with pytest.raises(Unwilling, match=why):
        found.lend(credential("one.test", first.port), **facts)


@pytest.mark.parametrize(
    "facts",
    [
        {"host": "three.test"},
        {"port": 1},
        {"value": ""},
        {"value": "a\r\nX: b"},
        {"value": " a"},
        {"header": "X-\xfc"},
    ],
)
async def test_what_no_rule_names_or_no_header_can_hold_is_not_lent(sites, facts):
    found, first, _ = sites
    before = found.runs._runs["run_1"].purse._injections
    with pytest.raises((Unwilling, ValueError)):
        found.lend(
            credential("one.test", first.port), {**credential("one.test", first.port), **facts}
        )
    assert found.runs._runs["run_1"].purse._injections == before


async def test_what_is_forgotten_or_over_is_not_put_in(sites):
    found, first, _ = sites
    client = await found.tunnel("one.test", first.port)
    await ask(client, "/v1", first)
    found.runs.forget("run_1")
    await ask(client, "/v1", first)
    found.lend(credential("one.test", first.port))
    found.runs._runs["run_1"].lent_until_ms = now_ms() - 1
    found.runs.tick()
    await ask(client, "/v1", first)
    given = [asked.headers.get("authorization") for asked in first.asked]
    assert given == [VALUE, None, None]
    await client.close()
