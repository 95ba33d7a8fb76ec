"""The proxy as a process of its own: what it is given, what it gave up, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from remit.errors import RunnerFault
from remit.model import EgressRule
from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from remit.runners.landlock import abi
from remit.runners.wire import receive, send
from tests.runners.egress.world import (
    SECRET,
    Certificates,
    Client,
    Destination,
    credential,
    destination,
    now_ms,
    ok,
    rule,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32")]

OWN_UID = 399_998 if os.geteuid() == 0 else None


class Keeper:
    """The keeper's end of the proxy's socket."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.given = 0

    async def renew(self) -> socket.socket:
        self.close()
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.given += 1
        return theirs

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()

    async def say(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.socket is not None
        self.socket.setblocking(True)
        self.socket.settimeout(5)
        send(self.socket, message)
        answer = await asyncio.to_thread(receive, self.socket)
        assert answer is not None
        return answer[0]

    async def lend(self, there: Destination, **facts: Any) -> dict[str, Any]:
        message = {"op": "inject", "run": "r", "fence": 1, "ends_ms": now_ms() + 60_000}
        lent = [credential("localhost", there.port)]
        return await self.say({**message, "credentials": lent, **facts})


class Place:
    """A proxy, its keeper and one destination."""

    def __init__(self, proxy: EgressProxy, keeper: Keeper, there: Destination) -> None:
        self.proxy, self.keeper, self.there = proxy, keeper, there
        self.port = 0
        self.pem = ""

    async def open(self, *rules: EgressRule, run: str = "r", fence: int = 1) -> None:
        self.pem = (await self.proxy.prepare(run)).decode()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await self.proxy.open_run(
                run,
                prepared=run,
                fence=fence,
                key="call",
                rules=rules or (rule("localhost", self.there.port, "GET"),),
                listener_fd=listener.fileno(),
                ends_ms=now_ms() + 60_000,
            )
            self.port = listener.getsockname()[1]

    async def tunnel(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        place = f"localhost:{self.there.port}"
        client.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        assert (await client.answer("CONNECT"))[0] == 200
        await client.secure(self.pem, "localhost")
        return client

    async def ask(self, client: Client) -> bytes:
        status, _, body = await client.ask("GET", "/", f"localhost:{self.there.port}")
        assert status == 200
        return body


@pytest.fixture
async def place(certs: Certificates) -> AsyncIterator[Place]:
    keeper = Keeper()
    async with destination(certs.chain) as there:
        there.reply = lambda asked: ok(asked.headers.get("authorization", "none").encode())
        settings = EgressSettings(
            internal=(f"localhost:{there.port}",), ca_pem=certs.authority, uid=OWN_UID
        )
        proxy = await EgressProxy.open(settings, keeper.renew)
        try:
            yield Place(proxy, keeper, there)
        finally:
            await proxy.aclose()
            keeper.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.threat("T-33")
async def test_a_run_goes_out_with_what_the_keeper_lends_and_never_sees_it(place):
    await place.open()
    assert await place.keeper.lend(place.there) == {"ev": "injecting", "run": "r"}
    client = await place.tunnel()
    assert await place.ask(client) == b"Bearer " + b"*" * len(SECRET)
    assert place.there.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert await place.keeper.say({"op": "forget", "run": "r"}) == {"ev": "forgotten", "run": "r"}
    assert await place.ask(client) == b"none"
    await client.close()
    traffic = await place.proxy.close_run("r")
    (seen,) = traffic.connections
    assert (seen.host, seen.kind, seen.address, seen.requests) == (
        "localhost",
        "https",
        "127.0.0.1",
        2,
    )
    assert (seen.injected, seen.echoed, traffic.echoed) == (("ci",), True, True)
    assert SECRET not in repr(traffic)
    assert (await place.proxy.close_run("r")).connections == ()


@pytest.mark.threat("T-35")
async def test_the_keeper_is_told_no_without_a_word_of_the_secret(place):
    await place.open()
    for facts in (
        {"fence": 2},
        {"run": "other"},
        {"credentials": [credential("evil.test", 443)]},
        {"credentials": [credential("localhost", place.there.port, value=SECRET + "\n")]},
        {"credentials": [{"value": SECRET}]},
        {"credentials": SECRET},
        {"op": SECRET},
    ):
        answer = await place.keeper.lend(place.there, **facts)
        assert answer["ev"] == "refused"
        assert SECRET not in answer["fault"]
    client = await place.tunnel()
    assert await place.ask(client) == b"none"
    await client.close()


@pytest.mark.threat("T-35")
async def test_a_stale_fence_and_a_listener_that_is_none_open_nothing(place):
    await place.open(fence=5)
    with pytest.raises(RunnerFault, match="later fence"):
        await place.open(run="older", fence=5)
    facts = {"prepared": "x", "fence": 9, "key": "k", "rules": (), "ends_ms": now_ms() + 9_000}
    await place.proxy.prepare("x")
    with socket.socket() as unbound, pytest.raises(RunnerFault, match="listens"):
        await place.proxy.open_run("y", listener_fd=unbound.fileno(), **facts)
    with open("/dev/null") as no_socket, pytest.raises(RunnerFault):
        await place.proxy.open_run("y", listener_fd=no_socket.fileno(), **facts)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(RunnerFault, match="no authority"):
            await place.proxy.open_run(
                "y", listener_fd=listener.fileno(), **{**facts, "prepared": "never"}
            )
        odd = EgressRule(host="*.test", port=1)
        with pytest.raises(RunnerFault, match="plain"):
            await place.proxy.open_run(
                "y", listener_fd=listener.fileno(), **{**facts, "rules": (odd,)}
            )
    await place.open(run="newer", fence=6)


async def test_what_is_not_live_is_swept_and_told(place):
    await place.open()
    await place.open(run="s", fence=2)
    found = await place.proxy.sweep(["s"])
    assert [run for run, _ in found] == ["r"]
    assert await place.proxy.sweep(["s"]) == []


async def test_when_it_dies_every_connection_ends_and_the_next_need_starts_another(place):
    await place.open()
    client = await place.tunnel()
    assert await place.ask(client) == b"none"
    first = place.proxy.pid
    os.kill(first, signal.SIGKILL)
    assert await client.ended() == b""
    await client.close()
    await until(lambda: place.proxy.pid is None)
    traffic = await place.proxy.close_run("r")
    assert traffic.connections[0].kind == "lost"
    assert traffic.connections[0].refused == "lost"
    with pytest.raises(ConnectionError):
        await place.tunnel()
    await place.open()
    assert place.proxy.pid not in (None, first)
    assert place.keeper.given == 2
    assert (await place.keeper.lend(place.there))["ev"] == "injecting"
    client = await place.tunnel()
    assert await place.ask(client) == b"Bearer " + b"*" * len(SECRET)
    await client.close()


@pytest.mark.threat("T-35")
async def test_without_its_keeper_it_forgets_what_was_lent(place):
    await place.open()
    await place.keeper.lend(place.there)
    client = await place.tunnel()
    assert await place.ask(client) != b"none"
    place.keeper.close()
    async with asyncio.timeout(5):
        while await place.ask(client) != b"none":
            await asyncio.sleep(0.01)
    await place.proxy.connect_keeper()
    assert (await place.keeper.lend(place.there))["ev"] == "injecting"
    assert await place.ask(client) != b"none"
    await client.close()


async def test_when_it_hangs_it_is_ended(place, monkeypatch):
    monkeypatch.setattr("remit.runners.egress.client._ANSWER_S", 0.2)
    await place.open()
    os.kill(place.proxy.pid, signal.SIGSTOP)
    with pytest.raises(RunnerFault, match="in time"):
        await place.proxy.prepare("x")
    assert place.proxy.pid is None
    assert (await place.proxy.close_run("r")).connections[0].kind == "lost"


async def test_it_ends_with_its_control_socket_and_takes_its_connections_along(place):
    await place.open()
    client = await place.tunnel()
    pid = place.proxy.pid
    await place.proxy.aclose()
    assert await client.ended() == b""
    await client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RunnerFault):
        await place.proxy.prepare("x")


async def test_it_ends_by_itself_when_the_gateway_is_gone(certs):
    """Without anybody to kill it: only the other end of its socket goes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    from remit.runners.egress import proxy

    with theirs:
        argv = [sys.executable, "-I", str(proxy.__file__), str(theirs.fileno())]
        process = subprocess.Popen(argv, env={}, pass_fds=[theirs.fileno()])
    send(ours, {"op": "hello", "id": 1, "uid": None, **EgressSettings().facts()})
    answer = await asyncio.to_thread(receive, ours)
    assert answer is not None
    assert answer[0]["ev"] == "ready"
    ours.close()
    assert await asyncio.to_thread(process.wait, 5) == 0


@pytest.mark.threat("T-33")
async def test_it_has_given_up_what_it_does_not_need(place):
    await place.open()
    client = await place.tunnel()
    await place.ask(client)
    root = f"/proc/{place.proxy.pid}"
    with open(f"{root}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    with open(f"{root}/limits") as file:
        limits = {line[:26].strip(): line[26:].split()[1] for line in file}
    assert limits["Max core file size"] == "0"
    assert limits["Max open files"] == "16384"
    assert os.stat(f"{root}/environ").st_uid == 0, (
        "a process that can be traced or dumped is its user's"
    )
    if OWN_UID is not None:
        assert status["Uid"].split() == [str(OWN_UID)] * 4
        assert status["Gid"].split() == [str(OWN_UID)] * 4
        assert status["Groups"].strip() == ""
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        with open(f"{root}/environ", "rb") as binary:
            assert binary.read() == b""
        opened = {os.readlink(f"{root}/fd/{fd}") for fd in os.listdir(f"{root}/fd")}
        kinds = {each.split(":")[0] for each in opened}
        assert kinds <= {"socket", "anon_inode", "/dev/null"}, opened
    await client.close()


CONFINED = """
import os, socket, sys
from remit.runners.egress.confine import confine
held = confine(files=64)
print("held", held)
for path, mode in (("/proc/self/status", "r"), (sys.argv[1], "r"), ("/etc/hosts", "r"), ("/tmp/x", "w")):
    try:
        open(path, mode).close()
        print(path, mode, "yes")
    except OSError:
        print(path, mode, "no")
try:
    socket.create_server(("127.0.0.1", 0)).close()
    print("listen yes")
except OSError:
    print("listen no")
"""


def test_no_file_can_be_opened_but_those_of_the_resolver(tmp_path):
    secret = tmp_path / "ledger.db"
    secret.write_text("all of it")
    argv = [sys.executable, "-c", CONFINED, str(secret)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[0] == f"held {abi() > 0}"
    if abi() == 0:
        return  # this kernel has no Landlock; the rest of what is given up holds without
    assert said[1:] == [
        "/proc/self/status r no",
        f"{secret} r no",
        "/etc/hosts r yes",
        "/tmp/x w no",
        "listen no",
    ]


INSIDE = """
import fcntl, socket, struct, sys
control = socket.socket(fileno=int(sys.argv[1]))
with socket.socket() as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 0x41))
listener = socket.create_server(("127.0.0.1", 3128))
socket.send_fds(control, [b"x"], [listener.fileno()])
listener.close()
assert control.recv(1) == b"g"
def ask(place):
    with socket.create_connection(("127.0.0.1", 3128)) as way:
        way.sendall(f"GET /{place}/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
        return way.makefile("rb").read().split(b"\\r\\n")[0].decode()
print(ask(sys.argv[2]), "|", ask("evil.test"))
for port in (int(sys.argv[2].split(":")[1]), 53):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        print("reached")
    except OSError:
        print("unreachable")
"""


@pytest.mark.needs("userns")
async def test_a_listener_of_another_network_namespace_is_the_only_way_out(place):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    where = f"localhost:{place.there.port}"
    with theirs:
        process = subprocess.Popen(
            [
                *("unshare", "--user", "--map-root-user", "--net"),
                *(sys.executable, "-c", INSIDE, str(theirs.fileno()), where),
            ],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
    with ours:
        _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
        await place.proxy.prepare("n")
        await place.proxy.open_run(
            "n",
            prepared="n",
            fence=1,
            key="",
            rules=[rule("localhost", place.there.port)],
            listener_fd=fds[0],
            ends_ms=now_ms() + 60_000,
        )
        os.close(fds[0])
        ours.send(b"g")
        said, _ = await asyncio.to_thread(process.communicate, timeout=20)
    assert said.splitlines() == [
        "HTTP/1.1 200 OK | HTTP/1.1 403 Forbidden",
        "unreachable",
        "unreachable",
    ]
    traffic = await place.proxy.close_run("n")
    assert [each.refused for each in traffic.connections] == [None, "not_allowed"]


async def test_it_says_nothing_into_anybodys_log(place, capfd):
    await place.open()
    client = Client(*await asyncio.open_connection("127.0.0.1", place.port))
    client.write(b"GET /" + SECRET.encode() + b" HTTP/1.1\r\nX: \xff\r\n\r\n")
    await client.ended()
    await client.close()
    with contextlib.suppress(RunnerFault):
        await place.proxy._ask({"op": SECRET})
    await place.proxy.aclose()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
