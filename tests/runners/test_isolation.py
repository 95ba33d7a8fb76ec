"""What the walls behind the namespaces do to a real run: Landlock, the filter, limits of disks."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.runners import landlock
from remit.runners.wire import sealed_file
from tests.runners.support import eventually, groups_naming
from tests.runners.wired import UID_BASE, Wired, wired

pytestmark = pytest.mark.needs("bwrap", "userns", "cgroup")
PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Wired]:
    with wired(tmp_path) as made:
        yield made


@pytest.fixture
def ruled(spawner: Wired) -> Wired:
    """A spawner whose kernel has all of Landlock that is used."""
    if landlock.abi() < 6:
        pytest.skip("this kernel lacks Landlock's network rules or scopes (Linux 6.12 has both)")
    assert set(spawner.hello["landlock"]) == {"network", "scope"}
    return spawner


CONNECT = """
import socket
def attempt(port, family=socket.AF_INET, host="127.0.0.1"):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        try:
            s.connect((host, port)); return "connected"
        except OSError as exc:
            return exc.strerror
"""


@pytest.mark.threat("T-32")
def test_no_port_but_the_ways_out_is_even_tried(ruled: Wired) -> None:
    source = CONNECT + "print([attempt(p) for p in (3128, 80, 443, 3129)])"
    source += "\nprint(attempt(443, socket.AF_INET6, '::1'))"
    lease, out = ruled.provision(*PYTHON, source, egress=True, fds=[sealed_file("trust", b"")])
    _, fds = ruled.hear("provisioned", lease=lease)
    with socket.socket(fileno=fds[0]):
        ruled.start(lease)
        refused = "'Permission denied'"
        expected = f"['connected', {refused}, {refused}, {refused}]\nPermission denied\n"
        assert out.read().decode() == expected


@pytest.mark.threat("T-32")
def test_without_a_way_out_its_port_is_like_any_other(ruled: Wired) -> None:
    said, _ = ruled.run(*PYTHON, CONNECT + "print(attempt(3128))")
    assert said == b"Permission denied\n"


def test_a_command_may_serve_itself_on_the_ports_for_it_and_on_no_other(ruled: Wired) -> None:
    source = (
        CONNECT
        + """
def serve(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port)); s.listen(); return attempt(port)
        except OSError as exc:
            return exc.strerror
print([serve(port) for port in (7999, 8000, 8099, 8100, 0, 3128)])
a, b = socket.socketpair(); a.send(b"x"); print(b.recv(1))
s = socket.socket(socket.AF_UNIX); s.bind("/job/s"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect("/job/s"); print("local")
s = socket.socket(socket.AF_UNIX); s.bind("\\0own"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect("\\0own"); print("abstract")
"""
    )
    said, _ = ruled.run(*PYTHON, source)
    refused = "'Permission denied'"
    served = f"[{refused}, 'connected', 'connected', {refused}, {refused}, {refused}]"
    assert said.decode().splitlines() == [served, "b'x'", "local", "abstract"]


def test_the_rules_hold_in_a_warm_slot_too(ruled: Wired) -> None:
    slot, out, _ = ruled.park("shell")
    said, _ = ruled.become(slot, out, *PYTHON, CONNECT + "print(attempt(80))")
    assert said == b"Permission denied\n"


def test_signals_go_to_the_runs_own_processes(ruled: Wired) -> None:
    source = """
import os, signal, time
pid = os.fork()
if pid == 0:
    time.sleep(60)
os.kill(pid, signal.SIGTERM); print(os.waitpid(pid, 0)[1])
"""
    assert ruled.run(*PYTHON, source)[0] == b"15\n"


def _under_rules(call: str) -> int:
    """The exit status of a child that entered the rules and then made `call`; -1: refused."""
    rules = landlock.ruleset(False)
    assert rules is not None
    pid = os.fork()
    if pid == 0:
        try:
            landlock.enter(os.dup(rules))
            exec(call)
            os._exit(0)
        except PermissionError:
            os._exit(1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_without_any_namespace_the_rules_alone_keep_a_process_in(ruled: Wired) -> None:
    """They are a wall of their own: no namespace is between this child and its parent."""
    name = f"\0remit-landlock-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server, socket.create_server(("127.0.0.1", 0)) as tcp:
        server.bind(name)
        server.listen()
        assert _under_rules(f"import os; os.kill({os.getpid()}, 0)") == 1
        dial = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})"
        assert _under_rules(dial) == 1
        assert _under_rules(f"import socket; socket.socket().connect({tcp.getsockname()})") == 1
        assert _under_rules("import socket; socket.socket().bind(('127.0.0.1', 0))") == 1
        assert _under_rules("import os; os.kill(os.getpid(), 0)") == 0


def test_a_kernel_that_has_landlock_and_refuses_it_makes_no_run() -> None:
    child = os.fork()
    if child == 0:  # what is entered is for good, also where only the half of it was
        try:
            landlock.enter(-1)
        except OSError:
            os._exit(3)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


# ------------------------------------------------------------------------------------ disks

READ = "for i in 1 2 3 4; do dd if=/usr/bin/dd of=/dev/null bs=64k count=1 iflag=direct; done"


@pytest.fixture
def disks(spawner: Wired) -> Wired:
    if not spawner.hello["io"]:
        pytest.skip("no control group limits disks here")
    return spawner


@pytest.mark.threat("T-17")
def test_a_run_reads_its_disk_no_faster_than_its_profile_says(disks: Wired) -> None:
    """64 KiB four times at 1 MiB a second is a quarter of a second."""
    taken = {}
    for rate in (None, 1):
        began = time.monotonic()
        _, end = disks.run("/bin/sh", "-c", READ, profile=_profile(io_mb_per_s=rate))
        taken[rate] = time.monotonic() - began
        assert end["code"] == 0
        assert end["evidence"]["cgroup_removed"]
        assert groups_naming(end["lease"]) == []
    assert taken[1] > 0.2
    assert taken[1] > taken[None] + 0.1


@pytest.mark.threat("T-17")
def test_where_a_limit_of_disks_cannot_be_held_the_run_is_refused(
    disks: Wired, reachable: Path
) -> None:
    """Version 1 does not see who wrote what the page cache writes out later."""
    if disks.hello["mode"] == "v2":
        pytest.skip("cgroup2 limits writes that go by the page cache too")
    if os.geteuid() == 0:
        os.chown(reachable, UID_BASE, UID_BASE)
    mounts = [["data", str(reachable), True]]
    lease, _ = disks.provision("/bin/true", profile=_profile(io_mb_per_s=1, mounts=mounts))
    assert "page cache" in disks.hear("refused", "provisioned", lease=lease)[0].get("fault", "")
    assert eventually(lambda: groups_naming(lease) == [], seconds=1)
    lease, _ = disks.provision("/bin/true", profile=_profile(mounts=mounts))
    assert disks.hear("refused", "provisioned", lease=lease)[0]["ev"] == "provisioned"


def _profile(**more: object) -> dict[str, object]:
    return {
        "runner": "sandbox",
        "base": {"kind": "host"},
        "mounts": [],
        "io_mb_per_s": None,
        **more,
    }
