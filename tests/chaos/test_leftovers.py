"""The finder of leftovers finds one of each sort: a look that finds nothing would prove nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.leftovers import Own, children, find, left
from tests.chaos.world import adopt_orphans
from tests.runners.support import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("userns", "cgroup"),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can plant what is another user's; to run it: sudo"
    ),
    pytest.mark.threat("T-18", "T-34"),
]

USERS = range(2_000_000_000 - os.getpid() * 4, 2_000_000_000 - os.getpid() * 4 + 4)
LIVES = "import time; print(flush=True); time.sleep(60)"
LISTENS = "import socket; s = socket.create_server(('127.0.0.1', 0)); " + LIVES
GIVES = """
import ctypes, os, socket, sys
assert ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) == 0
with socket.socket(fileno=int(sys.argv[1])) as to, socket.socket() as made:
    socket.send_fds(to, [b"x"], [made.fileno()])
"""


@pytest.fixture
def own(reachable: Path) -> Own:
    adopt_orphans()
    data = reachable / "data"
    for folder in ("runners/slots", "runners/leases", "runners/bases", "keeper/loans"):
        (data / folder).mkdir(parents=True)
    return Own(data=data, gateway=f"planted-{os.getpid()}", users=USERS, ours=children())


@contextlib.contextmanager
def living(*argv: str, own: Own, **more: Any) -> Iterator[tuple[Own, int]]:
    """A process that said a line, and that the test knows to be its own child."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, **more) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield dataclasses.replace(own, ours=own.ours | {process.pid}), process.pid
        finally:
            process.kill()


def python(source: str) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-I", "-S", "-c", source)


@contextlib.contextmanager
def adopted(own: Own) -> Iterator[Own]:
    """A process whose parent is gone."""
    said = subprocess.check_output(["/bin/sh", "-c", "sleep 60 >/dev/null & echo $!"])
    try:
        yield own
    finally:
        os.kill(int(said), signal.SIGKILL)


@contextlib.contextmanager
def of_a_user(own: Own) -> Iterator[Own]:
    with living(*python(LIVES), own=own, user=USERS[2]) as (known, _):
        yield known


@contextlib.contextmanager
def in_the_data_directory(own: Own) -> Iterator[Own]:
    with living(*python(LIVES), own=own, cwd=own.data) as (known, _):
        yield known


@contextlib.contextmanager
def group(own: Own) -> Iterator[Own]:
    path = Path("/sys/fs/cgroup/pids" if Path("/sys/fs/cgroup/pids").is_dir() else "/sys/fs/cgroup")
    made = path / f"remit-{own.gateway}" / "run_1"
    made.mkdir(parents=True)
    try:
        yield own
    finally:
        made.rmdir()
        made.parent.rmdir()


@contextlib.contextmanager
def in_a_group(own: Own) -> Iterator[Own]:
    with group(own), living(*python(LIVES), own=own) as (known, pid):
        [path] = Path("/sys/fs/cgroup").glob(f"**/remit-{own.gateway}/run_1")
        (path / "cgroup.procs").write_text(str(pid))
        yield known
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not (path / "cgroup.procs").read_text(), seconds=10)


@contextlib.contextmanager
def mounted(own: Own) -> Iterator[Own]:
    """In the mount namespace of another process, where this one does not see it."""
    here = own.data / "runners" / "slots"
    script = f"mount -t tmpfs planted {here} && echo && exec sleep 60"
    with living("unshare", "--mount", "/bin/sh", "-c", script, own=own) as (known, _):
        assert str(here) not in Path("/proc/self/mountinfo").read_text()
        yield known


@contextlib.contextmanager
def namespace(own: Own) -> Iterator[Own]:
    inside = ("unshare", "--user", "--net", *python(LIVES))
    with living(*inside, own=own, user=USERS[3]) as (known, _):
        yield known


@contextlib.contextmanager
def namespace_held(own: Own) -> Iterator[Own]:
    """By a descriptor alone: whoever was in it is gone."""
    with namespace(own) as known:
        pid = min(known.ours - own.ours)
        held = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        yield own
    finally:
        os.close(held)


@contextlib.contextmanager
def namespace_mounted(own: Own) -> Iterator[Own]:
    """By a mount alone, elsewhere than in the data directory."""
    place = own.data.parent.with_name(f"planted-namespace-{os.getpid()}")
    place.touch()
    with namespace(own) as known:
        pid = min(known.ours - own.ours)
        subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/net", place], check=True)
    try:
        yield own
    finally:
        subprocess.run(["umount", place], check=True)
        place.unlink()


@contextlib.contextmanager
def namespace_of_a_socket(own: Own) -> Iterator[Own]:
    """By a socket of the gateway's that was made in it."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            argv = [*python(GIVES), str(theirs.fileno())]
            subprocess.run(argv, pass_fds=[theirs.fileno()], user=USERS[2], check=True)
        _, [held], _, _ = socket.recv_fds(ours, 1, 1)
    try:
        yield own
    finally:
        os.close(held)


def entry(*folders: str) -> Callable[[Own], AbstractContextManager[Own]]:
    @contextlib.contextmanager
    def made(own: Own) -> Iterator[Own]:
        path = own.data.joinpath(*folders, "run_1")
        path.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(path)

    return made


@contextlib.contextmanager
def named_socket(own: Own) -> Iterator[Own]:
    path = own.data / "left.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        yield own
    path.unlink()


@contextlib.contextmanager
def listening(own: Own) -> Iterator[Own]:
    with living(*python(LISTENS), own=own, user=USERS[2]) as (known, _):
        yield known


@contextlib.contextmanager
def lent(own: Own) -> Iterator[Own]:
    yield dataclasses.replace(own, lent=lambda: ["ghs_1234"])


PLANTED: tuple[tuple[Callable[[Own], AbstractContextManager[Own]], str, bool], ...] = (
    (adopted, "process {} (adopted)", False),
    (of_a_user, "process {} (of a run's user)", False),
    (in_the_data_directory, "process {} (in the data directory)", False),
    (group, "control group /sys/fs/cgroup/", False),
    (in_a_group, "process {} (in a control group)", False),
    (mounted, "mount, seen by process {}:", False),
    (namespace, "namespace {} user: process {} is in it", False),
    (namespace, "namespace {} net: process {} is in it", False),
    (namespace_held, "namespace {} net:[{}]: a descriptor of process", False),
    (namespace_mounted, "namespace {} mounted at", False),
    (namespace_of_a_socket, "namespace {} net: socket:[{}], a socket of process", True),
    (entry("runners", "slots"), "directory:", False),
    (entry("runners", "leases"), "directory:", False),
    (entry("runners", "bases"), "directory:", False),
    (entry("keeper", "loans"), "credential in the keeper's journal: run_1", False),
    (named_socket, "socket:", False),
    (listening, "socket: tcp", False),
    (lent, "credential still lent: ghs_1234", False),
)


@pytest.mark.parametrize(("plant", "line", "alive"), PLANTED, ids=[line for _, line, _ in PLANTED])
def test_what_is_planted_is_found_and_then_gone(
    own: Own, plant: Callable[[Own], AbstractContextManager[Own]], line: str, alive: bool
) -> None:
    gateway = os.getpid() if alive else None
    assert find(own, alive=gateway) == []
    with plant(own) as known:
        found = find(known, alive=gateway)
    assert [each for each in found if _fits(each, line)], found
    assert left(own, alive=gateway, within_s=5) == []


def _fits(found: str, line: str) -> bool:
    """Whether it begins as the line does, with a number for each `{}`."""
    pieces = line.split("{}")
    for at, piece in enumerate(pieces):
        if at:
            found = found.lstrip("0123456789")
        if not found.startswith(piece):
            return False
        found = found[len(piece) :]
    return True


def test_only_slots_that_may_wait_are_passed_over(own: Own) -> None:
    """A slot too many, or a run under a slot's name without a control group, is found."""
    path = Path("/sys/fs/cgroup/pids" if Path("/sys/fs/cgroup/pids").is_dir() else "/sys/fs/cgroup")
    root = path / f"remit-{own.gateway}"
    for name in ("slot-a", "slot-b"):
        (root / name).mkdir(parents=True)
        (own.data / "runners/leases" / name).touch()
    (own.data / "runners/leases/slot-c").touch()
    try:
        found = find(own, alive=os.getpid(), slots=1)
        assert sorted(each.rpartition("/")[2] for each in found) == ["slot-b", "slot-b", "slot-c"]
        assert len(find(own, alive=os.getpid(), slots=2)) == 1
    finally:
        for name in ("slot-a", "slot-b"):
            (root / name).rmdir()
        root.rmdir()


def test_another_gateways_things_are_passed_over(own: Own) -> None:
    other = dataclasses.replace(own, data=Path("/var/empty/other"), gateway="other", users=range(0))
    with living(*python(LIVES), own=other, cwd=own.data, user=USERS[2]) as (known, _):
        assert find(known) == []
