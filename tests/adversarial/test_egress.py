"""Hostile programs with a way out: they reach what their plan names, and never the secret put in.

The same programs get what they are after through a proxy that does as it is asked.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from remit.model import Ending, RunSpec
from remit.runners.egress.runs import Bounds, Runs
from remit.runners.egress.upstream import Upstream
from remit.runners.messages import EGRESS_PORT, TRUST_FILE
from remit.runners.traces import forms
from tests.adversarial.hostile import Hostile, gains, given
from tests.adversarial.programs.egress import PROGRAMS
from tests.adversarial.way_out import WayOut, outside, way_out
from tests.runners.egress.world import SECRET, World, certificates, rule
from tests.runners.support import LIMITS, python

pytestmark = [pytest.mark.slow, pytest.mark.needs("bwrap", "userns", "cgroup")]


T = TypeVar("T")


class OutBox:
    """The way out on an event loop of its own, which serves the destinations while runs go."""

    def __init__(self, loop: asyncio.AbstractEventLoop, out: WayOut) -> None:
        self._loop = loop
        self.out = out

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)


@pytest.fixture(scope="module")
def outbox() -> Iterator[OutBox]:
    with tempfile.TemporaryDirectory(prefix="remit-out-") as state, asyncio.Runner() as loop:
        context = way_out(certificates(Path(state)), Path(state))
        out = loop.run(context.__aenter__())
        yield OutBox(loop.get_loop(), out)
        loop.run(context.__aexit__(None, None, None))


def seen(output: bytes) -> list[bytes]:
    return [form for form in forms(SECRET) if form in output]


def _parameters() -> list[Any]:
    return [
        pytest.param(each, id=each.name.replace(" ", "-"), marks=pytest.mark.threat(*each.threats))
        for each in PROGRAMS
    ]


@pytest.mark.parametrize("program", _parameters())
def test_contained(program: Hostile, outbox: OutBox, facts: dict[str, Any]) -> None:
    told = facts | outbox.out.ports() | {"proxy": EGRESS_PORT, "ca": TRUST_FILE}
    spec = RunSpec(argv=program.argv(), limits=LIMITS, stdin=given(told), egress=outbox.out.rules)
    result = outbox.wait(outbox.out.run(spec))
    said = (result.stdout + result.stderr).decode(errors="replace")
    assert gains(result.stdout) == [], said
    assert seen(result.stdout + result.stderr) == [], said
    assert outbox.out.trespasses() == []
    assert (result.ending, result.exit_code) == (Ending.EXIT, 0), said
    assert result.stdout.endswith(b"END\n"), said


@pytest.mark.parametrize("program", [each for each in _parameters() if each.values[0].without])
def test_it_would_notice_a_missing_wall(
    program: Hostile, outbox: OutBox, facts: dict[str, Any]
) -> None:
    told = facts | outbox.out.ports() | {"proxy": outbox.out.careless.port, "ca": "/dev/full"}
    said = outbox.wait(outside(outbox.out, program.argv(), told))
    assert gains(said) or seen(said), said.decode(errors="replace")


@pytest.mark.threat("T-32")
def test_what_its_plan_names_is_reached(outbox: OutBox, facts: dict[str, Any]) -> None:
    """Else all of this would be contained by a proxy that lets nothing through."""
    source = """
import json, sys, urllib.request
facts = json.load(sys.stdin)
print(urllib.request.urlopen(f"https://localhost:{facts['open']}/open/x").read())
"""
    argv = ("/usr/bin/python3", "-c", source)
    spec = RunSpec(
        argv=argv, limits=LIMITS, stdin=given(outbox.out.ports()), egress=outbox.out.rules
    )
    result = outbox.wait(outbox.out.run(spec))
    assert result.stdout == b"b'fine'\n", result.stderr
    assert [each.target for each in outbox.out.open.asked] == ["/open/x"]
    assert result.traffic is not None
    assert [each.injected for each in result.traffic.connections] == [("ci",)]


@pytest.mark.threat("T-33")
def test_a_run_to_which_its_secret_was_sent_back_is_flagged(
    outbox: OutBox, facts: dict[str, Any]
) -> None:
    (program,) = [each for each in PROGRAMS if "in the answer" in each.name]
    told = facts | outbox.out.ports() | {"proxy": EGRESS_PORT, "ca": TRUST_FILE}
    spec = RunSpec(argv=program.argv(), limits=LIMITS, stdin=given(told), egress=outbox.out.rules)
    result = outbox.wait(outbox.out.run(spec))
    assert result.traffic is not None
    assert result.traffic.echoed


BOUNDS = Bounds(connections=64, bytes_mb=1, unsafe_plain=frozenset())

LINGERS = """
import json, os, socket, sys, time
facts = json.load(sys.stdin)
one = socket.create_connection(("127.0.0.1", facts["proxy"]))
place = f"localhost:{facts['talk']}"
one.sendall(f"CONNECT {place} HTTP/1.1\\r\\nHost: {place}\\r\\n\\r\\n".encode())
print(one.recv(100).split()[1], flush=True)
if os.fork() == 0:
    os.setsid()
    while True:
        time.sleep(1)
"""


@pytest.mark.threat("T-32", "T-18")
def test_no_connection_outlives_its_run(outbox: OutBox) -> None:
    """What a run leaves open at the proxy is closed with it, before its end is reported."""
    told = outbox.out.ports() | {"proxy": EGRESS_PORT}
    spec = replace(python(LINGERS), stdin=given(told), egress=outbox.out.rules)
    result = outbox.wait(outbox.out.run(spec))
    assert result.stdout == b"b'200'\n", result.stderr
    assert result.traffic is not None
    assert [each.closed_ms >= each.opened_ms for each in result.traffic.connections] == [True]
    proxy = outbox.out.proxy.pid
    assert proxy is not None
    if os.geteuid() != 0:
        return  # nobody but root may look into the proxy
    ports = {f":{port:04X}" for port in outbox.out.ports().values()}
    for line in Path(f"/proc/{proxy}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        there, state, inode = fields[2], fields[3], fields[9]
        if there[-5:] in ports and inode in sockets_of(proxy):
            assert state != "01", line  # ESTABLISHED


def sockets_of(pid: int) -> set[str]:
    links = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    return {link[8:-1] for link in links if link.startswith("socket:[")}


@pytest.mark.anyio
@pytest.mark.threat("T-32")
async def test_no_name_is_looked_up_that_the_plan_does_not_have() -> None:
    """Else each question would carry a word out, to whoever answers for that name."""
    asked: list[str] = []

    async def look(host: str, port: int, share: asyncio.Semaphore) -> list[str]:
        await asyncio.sleep(0)
        asked.append(host)
        return ["127.0.0.1"]

    runs = Runs(Upstream(frozenset({("one.test", 1)}), "", look), BOUNDS)
    world = World(runs)
    world.open(rule("one.test", 1))
    for host in (
        "c2VjcmV0.example.com:1",
        "secret.one.test:1",
        "one.test.evil.test:1",
        "one.test:2",
    ):
        for line in (f"CONNECT {host}", f"GET http://{host}/", f"GET /{host}/x"):
            client = await world.client()
            client.write(f"{line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert b"403" in (await client.ended())[:20]
            await client.close()
    assert asked == []
    client = await world.client()
    client.write(b"CONNECT one.test:1 HTTP/1.1\r\nHost: one.test:1\r\n\r\n")
    await client.ended()
    await client.close()
    await runs.sweep(())
    assert asked == ["one.test"]
