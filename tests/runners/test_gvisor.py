"""Real runs under gVisor: what they see, how they end, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remit.runners.wire import close_all, sealed_file
from tests.runners.support import alive, eventually, groups_naming, processes_of
from tests.runners.test_unprivileged import as_user, delegated, source
from tests.runners.wired import UID_BASE, Wired, wired

pytestmark = [
    pytest.mark.slow,
    pytest.mark.threat("T-16"),
    pytest.mark.needs("bwrap", "userns", "cgroup", "runsc"),
]

__all__ = ["source"]

RUNSC = {"path": "/usr/bin/runsc", "platform": "ptrace"}
PROFILE: dict[str, Any] = {
    "runner": "gvisor",
    "base": {"kind": "host"},
    "mounts": [],
    "io_mb_per_s": None,
}
PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Wired]:
    with wired(tmp_path, RUNSC) as made:
        yield made


def _run(spawner: Wired, *argv: str, **more: Any) -> tuple[bytes, dict[str, Any]]:
    """Run it, and look from outside that nothing of it is left."""
    said, end = spawner.run(*argv, profile=PROFILE, **more)
    evidence = end["evidence"]
    assert (evidence["processes_left"], evidence["mounts_left"]) == (0, 0)
    assert evidence["cgroup_removed"]
    assert evidence["directory_removed"]
    assert groups_naming(end["lease"]) == []
    assert end["lease"] not in Path("/proc/self/mountinfo").read_text()
    return said, end


def test_a_run_sees_another_kernel_and_nothing_of_the_host(spawner: Wired) -> None:
    source = """
import os
print(open("/proc/version").read().split()[2], os.getcwd(), sorted(os.listdir("/")))
print([path for path in ("/root", "/home", "/etc/shadow", "/gv", "/sys/kernel/security",
    "/sys/fs/cgroup/unified", "/dev/kmsg", "/proc/kcore") if os.path.exists(path)])
print(sorted(each for each in os.listdir("/proc") if each.isdigit()))
"""
    said, end = _run(spawner, *PYTHON, source)
    kernel, job, *_ = said.decode().split()
    assert kernel == "4.4.0" != os.uname().release
    assert job == "/job"
    assert said.decode().splitlines()[1:] == ["[]", "['1']"]
    assert end["code"] == 0


def test_input_arguments_environment_and_files_go_in_and_files_come_out(spawner: Wired) -> None:
    script = (
        'cat; echo "$1 $VALUE"; cat given/a; printf result >out; printf x >/tmp/y; echo no >/usr/z'
    )
    files = [sealed_file("file", b"from a file\n")]
    lease, out = spawner.provision(
        "/bin/sh", "-c", script, "sh", "a b\n\"'", profile=PROFILE, stdin=b"input ",
        env=[["VALUE", "of = it"]], files=["given/a"], collect=["out", "missing"], fds=files,
    )  # fmt: skip
    assert spawner.hear("provisioned", "refused", lease=lease)[0]["ev"] == "provisioned"
    spawner.start(lease)
    said = out.read()
    end, fds = spawner.hear("ended", lease=lease)
    assert said.startswith(b"input a b\n\"' of = it\nfrom a file\n")
    assert b"cannot create /usr/z" in said
    assert end["files"] == [["out", "ok"], ["missing", "missing"]]
    assert os.pread(fds[0], 100, 0) == b"result"
    close_all(fds)


def test_it_can_be_spoken_with(spawner: Wired) -> None:
    lease, feeding, hearing = spawner.speak("/bin/cat", profile=PROFILE)
    spawner.start(lease)
    for word in (b"one\n", b"two\n"):
        os.write(feeding, word)
        assert os.read(hearing, 100) == word
    os.close(feeding)
    assert spawner.hear("ended", lease=lease)[0]["code"] == 0
    assert os.read(hearing, 100) == b""
    os.close(hearing)


def test_nothing_runs_before_it_is_started(spawner: Wired) -> None:
    lease, out = spawner.provision("/bin/echo", "ran", profile=PROFILE)
    spawner.hear("provisioned", lease=lease)
    names = {Path(f"/proc/{pid}/cmdline").read_bytes()[:6] for pid in processes_of(lease)}
    assert names == {b"bwrap\0"}
    spawner.tell(op="destroy", lease=lease)
    assert spawner.hear("ended", lease=lease)[0]["began"] is False
    assert out.read() == b""


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_how_a_command_ended_is_told(spawner: Wired, command: str, code: int) -> None:
    assert _run(spawner, "/bin/sh", "-c", command)[1]["code"] == code


def test_a_command_that_is_not_there_does_not_run(spawner: Wired) -> None:
    said, end = _run(spawner, "/no/such/command")
    assert end["code"] not in {0, None}
    assert b"no such file" in said


def test_being_asked_to_end_reaches_the_command_alone(spawner: Wired) -> None:
    source = (
        "import os, signal, time\n"
        "signal.signal(15, lambda *_: (os.write(1, b'told\\n'), os._exit(3)))\n"
        "os.write(1, b'ready\\n')\n"
        "while True: time.sleep(0.05)"  # told before a long sleep begins, it would sleep first
    )
    lease, out = spawner.provision(*PYTHON, source, profile=PROFILE)
    spawner.hear("provisioned", lease=lease)
    spawner.start(lease)
    assert out.first() == b"ready\n"
    spawner.tell(op="stop", lease=lease, grace_s=10)
    end = spawner.hear("ended", lease=lease)[0]
    assert out.read() == b"told\n"
    assert (end["why"], end["code"]) == ("stop", 3)


def test_who_will_not_end_is_killed_with_all_of_gvisor(spawner: Wired) -> None:
    source = (
        "import signal, time; signal.signal(15, signal.SIG_IGN)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    lease, out = spawner.provision(*PYTHON, source, profile=PROFILE)
    spawner.hear("provisioned", lease=lease)
    spawner.start(lease)
    out.first()
    pids = processes_of(lease)
    assert len(pids) > 4  # bubblewrap twice, runsc, its kernel, its file server
    spawner.tell(op="stop", lease=lease, grace_s=0.2)
    end = spawner.hear("ended", lease=lease)[0]
    assert end["evidence"]["processes_left"] == 0
    assert alive(pids) == []
    assert groups_naming(lease) == []


@pytest.mark.threat("T-18")
@pytest.mark.parametrize("victim", ["spawner", "runsc", "runsc-sandbox", "runsc-gofer"])
def test_whichever_process_dies_nothing_of_the_run_outlives_it(spawner: Wired, victim: str) -> None:
    lease, out = spawner.provision(
        *PYTHON, "print('ready', flush=True); import time; time.sleep(60)", profile=PROFILE
    )
    spawner.hear("provisioned", lease=lease)
    spawner.start(lease)
    out.first()
    pids = processes_of(lease)
    if victim == "spawner":
        os.kill(spawner.process.pid, signal.SIGKILL)
    else:
        argument = {"runsc": b"/gv/runsc"}.get(victim, victim.encode())
        (pid, *_) = [
            pid
            for pid in pids
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] == argument
        ]
        os.kill(pid, signal.SIGKILL)
        if victim == "runsc-gofer":  # only who reads a file misses it: the deadline is the end
            spawner.tell(op="kill", lease=lease, why="test")
        assert spawner.hear("ended", lease=lease)[0]["evidence"]["processes_left"] == 0
    assert eventually(lambda: alive(pids) == [], seconds=2)
    for group in groups_naming(lease):  # of a killed spawner, for the next one's sweep
        Path(group).rmdir()


@pytest.mark.threat("T-17")
def test_memory_beyond_the_limit_ends_the_run(spawner: Wired) -> None:
    source = "x = bytearray(600 << 20); print('got it')"
    said, end = _run(spawner, *PYTHON, source, limits={"memory_mb": 64})
    assert b"got it" not in said
    assert end["oom_kills"] > 0
    assert end["code"] != 0


@pytest.mark.threat("T-17")
def test_a_fork_bomb_stays_in_its_group(spawner: Wired) -> None:
    began = time.monotonic()
    script = "while :; do sleep 30 & done"
    _, end = _run(spawner, "/bin/sh", "-c", script, limits={"wall_s": 4, "pids": 16})
    assert time.monotonic() - began < 60
    assert end["evidence"]["processes_left"] == 0


@pytest.mark.threat("T-17")
def test_the_disk_in_memory_has_its_size(spawner: Wired) -> None:
    script = "dd if=/dev/zero of=/job/fill bs=1M count=64 2>&1 | tail -1; wc -c </job/fill"
    said, _ = _run(spawner, "/bin/sh", "-c", script, limits={"tmp_mb": 2})
    assert int(said.split()[-1]) <= 2 << 20


DIAL = """
import socket
for port in (3128, 80, %d):
    try:
        print(port, socket.create_connection(("127.0.0.1", port), 3).recv(9))
    except OSError as exc:
        print(port, "refused")
print([name for _, name in socket.if_nameindex()])
"""


@pytest.mark.threat("T-32")
def test_the_way_out_works_and_is_the_only_one(spawner: Wired) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        lease, out = spawner.provision(
            *PYTHON, DIAL % port, profile=PROFILE, egress=True, fds=[sealed_file("trust", b"CA")]
        )
        report, fds = spawner.hear("provisioned", "refused", lease=lease)
        assert report["ev"] == "provisioned", report
        with socket.socket(fileno=fds[0]) as listening:
            spawner.start(lease)
            served, _ = listening.accept()
            with served:
                served.send(b"served")
            said = out.read().decode().splitlines()
    assert said == ["3128 b'served'", "80 refused", f"{port} refused", "['lo']"]


@pytest.mark.threat("T-32")
def test_without_a_way_out_its_loopback_is_gvisors(spawner: Wired) -> None:
    said, _ = _run(spawner, *PYTHON, DIAL % 22)
    assert said == b"3128 refused\n80 refused\n22 refused\n['lo']\n"


@pytest.mark.threat("T-37")
def test_credentials_and_the_trust_file_are_where_every_run_has_them(spawner: Wired) -> None:
    script = "cat /run/remit/ca.pem /run/remit/credentials/token; echo x >/run/remit/credentials/y"
    lease, out = spawner.provision(
        "/bin/sh", "-c", script, profile=PROFILE, egress=True, handed=True,
        fds=[sealed_file("trust", b"CA ")],
    )  # fmt: skip
    close_all(spawner.hear("provisioned", lease=lease)[1])
    assert spawner.start(lease, token=b"secret ")["ev"] == "started"
    said = out.read()
    assert said.startswith(b"CA secret ")
    assert b"Read-only" in said


@pytest.mark.threat("T-37")
def test_mounts_are_at_their_place_and_as_writable_as_they_are(
    spawner: Wired, reachable: Path
) -> None:
    (reachable / "given").write_text("data")
    if os.geteuid() == 0:
        os.chown(reachable, UID_BASE, UID_BASE)
    for writable in (False, True):
        mounts = [["data", str(reachable), writable]]
        script = "cat /mnt/data/given; echo new >/mnt/data/new"
        said, end = spawner.run("/bin/sh", "-c", script, profile={**PROFILE, "mounts": mounts})
        assert said.startswith(b"data")
        assert (end["code"] == 0) is writable
        assert (reachable / "new").exists() is writable


@pytest.mark.threat("T-36")
def test_no_slot_is_kept_of_it(spawner: Wired) -> None:
    with pytest.raises(AssertionError, match="gVisor keeps no slot"):
        spawner.park("shell", profile=PROFILE)


def test_without_runsc_a_profile_of_it_is_refused(tmp_path: Path) -> None:
    with wired(tmp_path) as spawner:
        lease, _ = spawner.provision("/bin/true", profile=PROFILE)
        assert "no such runner" in spawner.hear("refused", lease=lease)[0]["fault"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become another user")
def test_it_needs_no_root(source: Path) -> None:
    with delegated("memory", "pids", "cpu", "unified") as groups:
        said = as_user(source, groups, module="tests.runners.gvisor_script")
    assert said["said"] == ["4.4.0", "token", "served"]
    assert said["result"] == "result"
    assert (said["evidence"]["processes_left"], said["evidence"]["cgroup_removed"]) == (0, True)


@pytest.mark.threat("T-16")
def test_no_file_it_leaves_in_a_mount_acts_as_its_owner(spawner: Wired, reachable: Path) -> None:
    shared = reachable / "shared"
    shared.mkdir()
    if os.geteuid() == 0:
        os.chown(shared, UID_BASE, UID_BASE)
    source = """
import os
for how in (lambda: os.open("/mnt/m/a", os.O_CREAT | os.O_WRONLY, 0o6755),
            lambda: os.chmod("/mnt/m/b", 0o4755), lambda: os.mkdir("/mnt/m/c")):
    open("/mnt/m/b", "w").close()
    try:
        how()
    except OSError:
        pass
"""
    said, end = _run(spawner, *PYTHON, source, mounts=[["m", str(shared), True]])
    assert end["code"] == 0, said
    modes = {path.name: path.stat().st_mode for path in shared.iterdir()}
    assert "b" in modes
    assert not any(mode & 0o6000 for mode in modes.values()), modes
