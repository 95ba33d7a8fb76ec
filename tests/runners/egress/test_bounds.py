"""Nothing a run does takes the proxy from the others, and whatever is over is over at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from remit.runners.egress import visit as visits
from remit.runners.egress.refusals import Unwilling
from tests.runners.egress.world import (
    Certificates,
    Destination,
    World,
    credential,
    destination,
    now_ms,
    ok,
    one,
    rule,
)

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.threat("T-32")]

Site = tuple[World, Destination]


@pytest.fixture
async def site(certs: Certificates) -> AsyncIterator[Site]:
    async with (
        destination(certs.chain) as there,
        one(certs, there, connections=4, bytes_mb=2) as found,
    ):
        found.open(rule("one.test", there.port, "GET", "POST"))
        yield found, there


async def until(holds) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def test_more_connections_than_allowed_are_turned_away_and_counted(site):
    found, _ = site
    clients = [await found.client() for _ in range(4)]
    await until(lambda: found.runs.open_visits == 4)
    further = await found.client()
    status, headers, _ = await further.answer()
    assert (status, headers["x-remit-refused"]) == (429, "too_many")
    await clients.pop().close()
    await until(lambda: found.runs.open_visits == 3)
    clients.append(await found.client())
    await until(lambda: found.runs.open_visits == 4)
    for client in [*clients, further]:
        await client.close()
    traffic = await found.traffic()
    assert traffic.refused == 1
    assert traffic.connections[0].refused == "too_many"


async def test_after_a_hundred_connections_the_rest_is_only_counted(site):
    found, _ = site
    for _ in range(103):
        client = await found.client()
        await client.ask("GET", "/evil.test/x", "x")
        await client.close()
    traffic = await found.traffic()
    assert (len(traffic.connections), traffic.more, traffic.refused) == (100, 3, 103)


async def test_where_a_run_went_is_told_though_it_made_a_hundred_other_connections_before(site):
    found, there = site
    for _ in range(101):
        client = await found.client()
        await client.ask("GET", "/evil.test/x", "x")
        await client.close()
    for _ in range(2):
        client = await found.tunnel("one.test", there.port)
        assert (await client.ask("GET", "/", f"one.test:{there.port}"))[0] == 200
        await client.close()
    traffic = await found.traffic()
    assert (len(traffic.connections), traffic.more) == (101, 2)
    last = traffic.connections[-1]
    assert (last.host, last.refused, last.requests) == ("one.test", None, 1)


@pytest.mark.parametrize("way", ["tunnel", "terminated"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_run_that_sent_and_received_as_much_as_it_may_is_cut_off(certs, way, direction):
    async with destination(certs.chain) as there, one(certs, there, bytes_mb=2) as found:
        methods = () if way == "tunnel" else ("GET", "POST")
        found.open(rule("one.test", there.port, *methods))
        size = 3 * 1_048_576
        there.reply = lambda asked: ok(b"x" * (size if direction == "down" else 1))
        ca = certs.authority if way == "tunnel" else None
        client = await found.tunnel("one.test", there.port, ca=ca)
        lines = f"POST / HTTP/1.1\r\nHost: one.test:{there.port}\r\nContent-Length: "
        client.write(f"{lines}{size if direction == 'up' else 0}\r\n\r\n".encode())
        if direction == "up":
            client.write(b"x" * size)
        got = await client.ended()
        assert len(got) <= 2 * 1_048_576
        await client.close()
        again = await found.client()
        assert (await again.answer())[1]["x-remit-refused"] == "too_much"
        await again.close()
        traffic = await found.traffic()
        assert {each.refused for each in traffic.connections} == {"too_much"}
        assert traffic.sent + traffic.received <= 2 * 1_048_576 + 200_000


async def test_a_head_that_never_ends_is_ended(site, monkeypatch):
    found, _ = site
    monkeypatch.setattr(visits, "HEAD_S", 0.2)
    client = await found.client()
    ticking = asyncio.create_task(tick(found))
    client.write(b"GET /one.test/ HTTP/1.1\r\n")
    with_more = asyncio.create_task(dribble(client))
    assert await client.ended() == b""
    for task in (ticking, with_more):
        task.cancel()
    await client.close()
    assert (await found.traffic()).connections[0].refused == "timeout"


async def test_a_greeting_that_never_ends_is_ended(site, monkeypatch):
    found, there = site
    monkeypatch.setattr(visits, "HEAD_S", 0.2)
    client = await found.client()
    client.write(f"CONNECT one.test:{there.port} HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01".encode())
    ticking = asyncio.create_task(tick(found))
    assert (await client.answer("CONNECT"))[0] == 200
    assert await client.ended() == b""
    ticking.cancel()
    await client.close()
    assert (await found.traffic()).connections[0].refused == "timeout"


async def test_a_destination_that_says_nothing_is_left(site, monkeypatch):
    found, there = site
    monkeypatch.setattr(visits, "IDLE_S", 0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    there.serving = serve
    client = await found.tunnel("one.test", there.port)
    ticking = asyncio.create_task(tick(found))
    client.write(f"GET / HTTP/1.1\r\nHost: one.test:{there.port}\r\n\r\n".encode())
    assert await client.ended() == b""
    ticking.cancel()
    await client.close()
    assert (await found.traffic()).connections[0].refused == "timeout"


async def test_a_connection_kept_open_between_requests_ends_without_being_a_refusal(
    site, monkeypatch
):
    found, there = site
    monkeypatch.setattr(visits, "WAIT_S", 0.2)
    client = await found.tunnel("one.test", there.port)
    assert (await client.ask("GET", "/", f"one.test:{there.port}"))[0] == 200
    ticking = asyncio.create_task(tick(found))
    assert await client.ended() == b""
    ticking.cancel()
    await client.close()
    assert (await found.traffic()).refused == 0


async def tick(found: World) -> None:
    while True:
        found.runs.tick()
        await asyncio.sleep(0.02)


async def dribble(client) -> None:
    while True:
        client.write(b"X")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["tunnel", "terminated"])
async def test_a_run_that_does_not_read_slows_its_destination_and_fills_no_memory(certs, way):
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        writer.transport.set_write_buffer_limits(high=65_536)
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536
        except OSError:
            pass

    async with destination(certs.chain) as there, one(certs, there, bytes_mb=500) as found:
        there.serving = serve
        found.open(rule("one.test", there.port, *(() if way == "tunnel" else ("GET",))))
        client = await found.tunnel(
            "one.test", there.port, ca=certs.authority if way == "tunnel" else None
        )
        transport: Any = client.writer.transport
        transport.pause_reading()
        client.write(f"GET / HTTP/1.1\r\nHost: one.test:{there.port}\r\n\r\n".encode())
        seen = -1
        async with asyncio.timeout(20):
            while sent != seen or sent == 0:
                seen = sent
                await asyncio.sleep(0.5)
        assert sent < 64 * 1_048_576, "what the kernel's buffers hold, and no more"
        await found.traffic()
        await client.close()


async def test_the_runs_end_closes_everything(site):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    assert (await client.ask("GET", "/", f"one.test:{there.port}"))[0] == 200
    found.runs._runs["run_1"].ends_ms = now_ms() - 1
    found.runs.tick()
    assert await client.ended() == b""
    await client.close()
    with pytest.raises(ConnectionError):
        await found.client()
        await (await found.client()).answer()
    assert (await found.traffic()).connections[0].refused == "timeout"


# -------------------------------------------------------------------------------- the fence


@pytest.mark.threat("T-35")
async def test_a_later_fence_ends_the_older_runs_connections_and_credentials(site):
    found, there = site
    found.lend(credential("one.test", there.port))
    client = await found.tunnel("one.test", there.port)
    assert (await client.ask("GET", "/", f"one.test:{there.port}"))[0] == 200
    found.open(rule("one.test", there.port, "GET"), run="run_2", fence=2)
    assert await client.ended() == b""
    await client.close()
    with pytest.raises(Unwilling, match="not open"):
        found.lend(credential("one.test", there.port))
    await until(lambda: found.runs.open_visits == 0)
    with pytest.raises(ConnectionError):
        await found.client()
    older = await found.traffic()
    assert older.connections[0].refused == "fenced"
    newer = await found.tunnel("one.test", there.port, run="run_2")
    assert (await newer.ask("GET", "/", f"one.test:{there.port}"))[0] == 200
    assert "authorization" not in there.asked[-1].headers
    await newer.close()


@pytest.mark.threat("T-35")
@pytest.mark.parametrize("fence", [0, 1])
@pytest.mark.parametrize("closed", [False, True])
async def test_a_fence_that_has_passed_opens_nothing(site, fence, closed):
    found, there = site
    if closed:
        await found.traffic()
    with pytest.raises(Unwilling, match="later fence"):
        found.open(rule("one.test", there.port), run="run_2", fence=fence)
    found.open(rule("one.test", there.port), run="run_3", fence=fence, key="another call")


@pytest.mark.threat("T-35")
async def test_fences_too_many_to_remember_are_folded_into_a_floor(site, monkeypatch):
    found, _ = site
    monkeypatch.setattr("remit.runners.egress.runs.MAX_FENCES", 3)
    for number in range(2, 8):
        found.open(rule("one.test", 1), run=f"r{number}", fence=number, key=f"k{number}")
    with pytest.raises(Unwilling, match="later fence"):
        found.open(rule("one.test", 1), run="late", fence=4, key="unheard of")
    found.open(rule("one.test", 1), run="next", fence=8, key="unheard of")


@pytest.mark.parametrize(
    ("facts", "why"),
    [({"run": "run_1", "fence": 9}, "open already"), ({"ends_ms": 1}, "time is over")],
)
async def test_what_cannot_be_opened_is_not(site, facts, why):
    found, _ = site
    with pytest.raises(Unwilling, match=why):
        found.open(rule("one.test", 1), **{"run": "run_2", "fence": 2, **facts})


async def test_a_run_without_an_authority_of_its_own_is_not_opened(site):
    found, _ = site
    found.runs.authorities.prepare("a")
    assert found.runs.authorities.take("a") is not None
    assert found.runs.authorities.take("a") is None


async def test_closing_a_run_closes_what_it_was_doing(site):
    found, there = site
    never = asyncio.Event()

    async def wait(asked) -> bytes:
        await never.wait()
        return b""

    there.reply = wait
    client = await found.tunnel("one.test", there.port)
    client.write(f"GET / HTTP/1.1\r\nHost: one.test:{there.port}\r\n\r\n".encode())
    await until(lambda: there.asked)
    async with asyncio.timeout(2):
        traffic = await found.traffic()
    assert traffic.connections[0].refused is None
    assert traffic.connections[0].requests == 1
    assert await client.ended() == b""
    await client.close()
    never.set()
    assert (await found.traffic()).connections == ()
