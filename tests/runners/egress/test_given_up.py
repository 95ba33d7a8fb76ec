"""What the proxy process cannot do any more, and that nothing else leads out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys

import pytest

from remit.errors import RunnerFault
from remit.runners.landlock import abi
from tests.runners.egress.process import OWN_UID
from tests.runners.egress.world import (
    SECRET,
    Client,
    now_ms,
    rule,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32")]


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


BECOME = "import os; from remit.runners.egress.confine import become; become({uid}); print(os.getgroups())"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has groups to give up; to run it: be root")
def test_no_group_of_the_gateways_is_kept():
    argv = [sys.executable, "-c", BECOME.format(uid=OWN_UID)]
    done = subprocess.run(argv, extra_groups=[7], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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
        "HTTP/1.1 200 OK | HTTP/1.1 403 Forbidden (Remit egress: not_allowed)",
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
