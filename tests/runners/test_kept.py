"""Environments that are kept: each connection from them is of the run whose turn it is, or none."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from remit.errors import RunnerFault
from remit.model import EgressRule, Lease, RunSpec, Traffic
from remit.ports import Dialogue
from remit.profile import Profile
from remit.runners import keeping
from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from remit.runners.wire import receive, send
from tests.ports import free_port
from tests.runners.support import GATEWAY, groups_naming, new_lease, python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
]

SERVER = """
import socket, sys
held = None
def connect():
    try:
        return socket.create_connection(("127.0.0.1", 3128), 5)
    except OSError as fault:
        return type(fault).__name__
def ask(to, url):
    host = url.split("/")[2]
    try:
        to.sendall(f"GET {url} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
        said = b""
        while b"hello" not in said and (piece := to.recv(65536)):
            said += piece
    except OSError:
        said = b""
    return said.split(b"\\r\\n")[0].decode() or "closed"
for line in sys.stdin:
    verb, _, url = line.strip().partition(" ")
    if verb == "hold":
        held = connect()
        said = held if isinstance(held, str) else "held"
    elif verb == "use":
        said = ask(held, url)
    else:
        to = connect()
        said = to if isinstance(to, str) else ask(to, url)
    print(said, flush=True)
"""
OK = "HTTP/1.1 200 OK"


@dataclass(slots=True)
class Kept:
    """One kept server, spoken with; and all requests that the other side saw."""

    runner: SandboxRunner
    proxy: EgressProxy
    port: int
    keeper: socket.socket
    seen: list[bytes] = field(default_factory=list)
    session: Lease = field(default_factory=lambda: new_lease("kept"))
    profile: str = "sandbox"

    def spec(self, path: str = "/", **more) -> RunSpec:
        rule = EgressRule(host="127.0.0.1", port=self.port, path_prefix=path)
        return replace(python(SERVER), egress=(rule,), **{"profile": self.profile, **more})

    @property
    def dialogue(self) -> Dialogue:
        return self.runner.dialogue(self.session)

    async def tell(self, verb: str, path: str = "/") -> str:
        await self.dialogue.write(f"{verb} http://127.0.0.1:{self.port}{path}\n".encode())
        said = b""
        while not said.endswith(b"\n"):
            piece = await self.dialogue.read()
            assert piece
            said += piece
        return said.decode().strip()

    async def attached(self, path: str = "/", **more) -> Lease:
        own = replace(new_lease("turn"), fence=more.pop("fence", 1))
        await self.runner.attach(self.session, own, self.spec(path, **more))
        return own

    async def detached(self, own: Lease) -> Traffic:
        traffic = await self.runner.detach(own)
        assert traffic is not None
        return traffic

    async def lent(self, own: Lease) -> str:
        """What the proxy answers to a keeper that lends the run a header."""
        credential = {"ref": "token", "host": "127.0.0.1", "port": self.port, "path_prefix": None,
                      "header": "authorization", "value": "Bearer planted", "secrets": ["planted"]}  # fmt: skip
        lent = {"op": "inject", "run": own.id, "fence": own.fence, "ends_ms": own.deadline_ms}
        send(self.keeper, {**lent, "credentials": [credential]})
        answer = await asyncio.to_thread(receive, self.keeper)
        assert answer is not None
        return str(answer[0]["ev"])


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with keeping_one(tmp_path) as made:
        yield made


@asynccontextmanager
async def keeping_one(
    tmp_path: Path,
    profile: Profile = Profile(),  # noqa: B008 - frozen
) -> AsyncIterator[Kept]:
    """A server that is kept in this profile, and whatever it reaches."""
    seen: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def keeper_socket() -> socket.socket:
        return theirs.dup()

    place = (f"127.0.0.1:{port}",)
    settings = EgressSettings(internal=place, unsafe_plain=place)
    proxy = await EgressProxy.open(settings, keeper_socket)
    settings_of = SandboxSettings(
        state_dir=tmp_path, gateway=GATEWAY, profiles={"sandbox": Profile(), profile.name: profile}
    )
    runner = await SandboxRunner.open(settings_of, proxy)
    made = Kept(runner, proxy, port, ours, seen, profile=profile.name)
    await runner.keep(made.session, replace(made.spec(), dialogue=True))
    await runner.start(made.session)
    yield made
    assert (await runner.destroy(made.session)).complete
    assert groups_naming(made.session.id) == []
    await runner.aclose()
    await proxy.aclose()
    for each in (ours, theirs):
        each.close()
    server.close()
    for writer in writers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.threat("T-32")
async def test_nobody_gets_out_but_in_a_turn(kept: Kept) -> None:
    assert await kept.tell("get") == "ConnectionRefusedError"
    for number in range(3):
        own = await kept.attached()
        assert await kept.tell("get", f"/{number}") == OK
        traffic = await kept.detached(own)
        assert [(each.port, each.requests) for each in traffic.connections] == [(kept.port, 1)]
        assert await kept.tell("get") == "ConnectionRefusedError"
    assert [head.split()[1] for head in kept.seen] == [b"/0", b"/1", b"/2"]


@pytest.mark.threat("T-32")
async def test_each_turn_reaches_what_its_own_plan_names(kept: Kept) -> None:
    for mine, other in (("/a", "/b"), ("/b", "/a")):
        own = await kept.attached(mine)
        assert await kept.tell("get", mine) == OK
        assert await kept.tell("get", other) == "HTTP/1.1 403 Forbidden (Remit egress: path)"
        assert (await kept.detached(own)).refused == 1


@pytest.mark.threat("T-32")
async def test_a_connection_of_one_turn_is_closed_and_none_of_the_next(kept: Kept) -> None:
    own = await kept.attached()
    assert await kept.tell("hold") == "held"
    assert await kept.tell("use") == OK
    assert (await kept.detached(own)).connections[0].requests == 1
    after = await kept.attached()
    assert await kept.tell("use") == "closed"
    assert (await kept.detached(after)).connections == ()
    assert len(kept.seen) == 1


@pytest.mark.threat("T-32")
async def test_a_connection_that_was_only_begun_in_one_turn_is_none_of_the_next(
    kept: Kept,
) -> None:
    own = await kept.attached()
    assert await kept.tell("hold") == "held"
    await kept.detached(own)
    after = await kept.attached()
    assert await kept.tell("use") == "closed"
    assert await kept.tell("get") == OK
    await kept.detached(after)
    assert len(kept.seen) == 1


@pytest.mark.threat("T-33")
async def test_what_one_run_is_lent_is_not_put_into_the_requests_of_the_next(kept: Kept) -> None:
    own = await kept.attached()
    assert await kept.lent(own) == "injecting"
    assert await kept.tell("get") == OK
    assert (await kept.detached(own)).connections[0].injected == ("token",)
    after = await kept.attached()
    assert await kept.tell("get") == OK
    assert (await kept.detached(after)).connections[0].injected == ()
    assert [b"Bearer planted" in head for head in kept.seen] == [True, False]


@pytest.mark.threat("T-35")
async def test_an_older_fence_of_the_same_call_gets_no_turn(kept: Kept) -> None:
    newer = await kept.attached(fence=7, fence_key="sha256:one")
    await kept.detached(newer)
    with pytest.raises(RunnerFault):
        await kept.attached(fence=6, fence_key="sha256:one")
    assert await kept.tell("get") == "ConnectionRefusedError"
    await kept.detached(await kept.attached(fence=8, fence_key="sha256:one"))


@pytest.mark.threat("T-32")
async def test_one_turn_at_a_time_and_a_turn_that_is_given_up_is_over(kept: Kept) -> None:
    own = await kept.attached()
    with pytest.raises(RunnerFault):
        await kept.attached()
    await kept.detached(own)
    for turns in range(6):
        own = new_lease("turn")
        attaching = asyncio.ensure_future(kept.runner.attach(kept.session, own, kept.spec()))
        for _ in range(turns):
            await asyncio.sleep(0)
        attaching.cancel()
        await asyncio.wait([attaching])
        if not attaching.cancelled():  # the proxy was quicker
            await kept.runner.detach(own)
        assert await kept.lent(own) == "refused"  # the proxy knows no such run any more
        assert await kept.tell("get") == "ConnectionRefusedError"
    own = await kept.attached()
    assert await kept.tell("get") == OK
    assert len((await kept.detached(own)).connections) == 1


@pytest.mark.threat("T-32")
async def test_a_turn_that_is_given_up_in_the_moment_it_is_given_is_over(kept: Kept) -> None:
    own = new_lease("turn")
    attaching = asyncio.ensure_future(kept.runner.attach(kept.session, own, kept.spec()))
    await asyncio.sleep(0)  # it has asked
    assert kept.proxy._channel is not None
    answer = kept.proxy._channel._control
    assert select.select([answer], [], [], 10)[0]  # it is answered, and has not heard
    attaching.cancel()
    await asyncio.wait([attaching])
    assert attaching.cancelled()
    assert await kept.lent(own) == "refused"


@pytest.mark.threat("T-32")
async def test_a_sweep_spares_the_run_whose_turn_it_is(kept: Kept) -> None:
    own = await kept.attached()
    await kept.runner.sweep(frozenset())
    assert await kept.tell("get") == OK
    await kept.detached(own)


@pytest.mark.threat("T-32")
async def test_destroying_the_environment_ends_the_turn(kept: Kept) -> None:
    own = await kept.attached()
    assert await kept.tell("hold") == "held"
    assert (await kept.runner.destroy(kept.session)).complete
    assert await kept.lent(own) == "refused"
    assert len((await kept.detached(own)).connections) <= 1
    with pytest.raises(RunnerFault):
        await kept.attached()


@pytest.mark.threat("T-32")
async def test_a_proxy_that_dies_takes_the_turn_along_and_there_is_no_other(kept: Kept) -> None:
    own = await kept.attached()
    assert kept.proxy.pid is not None
    killed = os.pidfd_open(kept.proxy.pid)
    os.kill(kept.proxy.pid, signal.SIGKILL)
    await asyncio.to_thread(select.select, [killed], [], [])
    os.close(killed)
    assert [each.kind for each in (await kept.detached(own)).connections] == ["lost"]
    assert await kept.tell("get") == "ConnectionRefusedError"
    with pytest.raises(RunnerFault):
        await kept.attached()


@pytest.mark.threat("T-32")
async def test_a_turn_reaches_no_further_than_the_profile_and_is_of_no_other(
    kept: Kept, tmp_path: Path
) -> None:
    rule = EgressRule(host="127.0.0.1", port=kept.port, path_prefix="/a")
    profiles = {"sandbox": Profile(), "near": Profile(name="near", egress=(rule,))}
    settings = SandboxSettings(state_dir=tmp_path, gateway=f"{GATEWAY}-near", profiles=profiles)
    runner = await SandboxRunner.open(settings, kept.proxy)
    session, own = new_lease("near"), new_lease("turn")
    try:
        await runner.keep(session, kept.spec("/a", profile="near"))
        for refused in (kept.spec("/", profile="near"), kept.spec("/a")):
            with pytest.raises(RunnerFault):
                await runner.attach(session, own, refused)
        await runner.attach(session, own, kept.spec("/a/b", profile="near"))
        await runner.detach(own)
        assert (await runner.destroy(session)).complete
    finally:
        await runner.aclose()


@pytest.mark.threat("T-32")
async def test_what_has_ended_or_has_no_way_out_has_no_turn(kept: Kept) -> None:
    session, own = new_lease("within"), new_lease("turn")
    await kept.runner.keep(session, replace(kept.spec(), egress=(), dialogue=True))
    with pytest.raises(RunnerFault):
        await kept.runner.attach(session, own, kept.spec())
    await kept.runner.stop(session, grace_s=0)
    with pytest.raises(RunnerFault):
        await kept.runner.attach(session, own, replace(kept.spec(), egress=()))
    assert await kept.runner.detach(own) is None
    assert (await kept.runner.destroy(session)).complete


@pytest.mark.threat("T-32")
def test_a_socket_that_rests_refuses_forgets_its_queue_and_can_be_robbed_of_nothing() -> None:
    place = ("127.77.3.128", free_port("127.77.3.128"))
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)  # a port that is named stays its own
        listening.listen()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        keeping.prepare(listening.fileno())
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(place)
            keeping.hear(listening.fileno())
            with (
                socket.create_connection(place) as served,
                socket.create_connection(place) as queued,
            ):
                taken, _ = listening.accept()
                keeping.deafen(listening.fileno())
                keeping.deafen(listening.fileno())
                with pytest.raises(ConnectionResetError):
                    queued.recv(1)
                taken.sendall(b"x")
                assert served.recv(1) == b"x"  # whoever took it has to close it
                taken.close()
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(place)
            thief.listen()
            with pytest.raises(OSError, match="in use"):
                keeping.hear(listening.fileno())
