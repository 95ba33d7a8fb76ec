"""The spawner alone: the way out, handed files, slots, and what malformed messages do to it."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.runners import handed
from remit.runners.handed import Handing
from remit.runners.wire import close_all, sealed_file
from tests.runners.support import alive, eventually, groups_naming, processes_of
from tests.runners.wired import LIMITS, Wired, mute, name, source, wired

pytestmark = [pytest.mark.slow, pytest.mark.needs("bwrap", "userns", "cgroup")]


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Wired]:
    with wired(tmp_path) as made:
        yield made


def _trust() -> int:
    return sealed_file("trust", b"CERTIFICATES")


# ----------------------------------------------------------------------------- the way out

_DIAL = (
    "import socket; s = socket.create_connection(('127.0.0.1', 3128)); print(s.recv(9)); "
    "print([n for _, n in socket.if_nameindex()])"
)


@pytest.mark.threat("T-32")
def test_the_way_out_is_a_socket_inside_and_the_only_one(spawner: Wired) -> None:
    argv = ("/usr/bin/python3", "-I", "-c", _DIAL)
    lease, out = spawner.provision(*argv, egress=True, fds=[_trust()])
    report, fds = spawner.hear("provisioned", "refused", "ended", lease=lease)
    assert report["ev"] == "provisioned"
    assert len(fds) == 1
    with socket.socket(fileno=fds[0]) as listening:
        assert listening.getsockname() == ("127.0.0.1", 3128)
        with pytest.raises(ConnectionRefusedError):  # it is not of the host's network
            socket.create_connection(("127.0.0.1", 3128), 1)
        spawner.start(lease)
        served, _ = listening.accept()
        with served:
            served.send(b"served")
        assert out.read() == b"b'served'\n['lo']\n"
    assert spawner.hear("ended", lease=lease)[0]["code"] == 0


@pytest.mark.threat("T-32")
def test_without_egress_nobody_listens_and_nothing_is_passed(spawner: Wired) -> None:
    lease, out = spawner.provision("/usr/bin/python3", "-I", "-c", _DIAL)
    _, fds = spawner.hear("provisioned", lease=lease)
    assert fds == []
    spawner.start(lease)
    said = out.read()
    assert b"ConnectionRefusedError" in said or b"PermissionError" in said  # Landlock comes first


@pytest.mark.threat("T-37")
def test_the_trust_file_is_there_and_cannot_be_changed(spawner: Wired) -> None:
    script = "cat /run/remit/ca.pem; echo x >/run/remit/ca.pem; rm /run/remit/ca.pem; ls /run/remit"
    argv = ("/bin/sh", "-c", script)
    lease, out = spawner.provision(*argv, egress=True, fds=[_trust()])
    close_all(spawner.hear("provisioned", lease=lease)[1])
    spawner.start(lease)
    said = out.read()
    assert said.startswith(b"CERTIFICATES")
    assert said.count(b"Read-only file system") == 2
    assert said.endswith(b"ca.pem\n")


# --------------------------------------------------------------------------- handed files


@pytest.mark.threat("T-33")
@pytest.mark.parametrize("parked", [False, True])
def test_a_credential_is_a_file_in_the_runs_memory_for_its_user_alone(
    spawner: Wired, parked: bool
) -> None:
    script = "cd /run/remit/credentials; stat -c '%a %U %s' token; cat token; df -P . | tail -1"
    argv = ("/bin/sh", "-c", script)
    if parked:
        slot, out, _ = spawner.park("shell")
        lease = spawner.claim(slot, *argv)
        spawner.hear("claimed", lease=lease)
    else:
        lease, out = spawner.provision(*argv, handed=True)
        spawner.hear("provisioned", lease=lease)
    assert spawner.start(lease, token=b"hunter2")["ev"] == "started"
    said = out.read().splitlines()
    assert said[0] == b"400 job 7"
    assert said[1].startswith(b"hunter2tmpfs")
    end = spawner.hear("ended", lease=lease)[0]
    assert end["evidence"]["mounts_left"] == 0


@pytest.mark.threat("T-37")
@pytest.mark.parametrize("bad", ["../x", "a/b", "", ".", "x\0y", "a" * 65])
def test_a_credential_of_a_strange_name_is_refused_and_nothing_starts(
    spawner: Wired, bad: str
) -> None:
    lease, _ = spawner.provision("/bin/true", handed=True)
    spawner.hear("provisioned", lease=lease)
    fd = sealed_file("credential", b"x")
    spawner.tell([fd], op="start", lease=lease, credentials=[bad])
    assert spawner.hear("refused", "started", lease=lease)[0]["ev"] == "refused"
    spawner.tell(op="destroy", lease=lease)
    assert spawner.hear("ended", lease=lease)[0]["began"] is False


def test_credentials_for_a_run_that_was_made_without_a_place_for_them_end_it(
    spawner: Wired,
) -> None:
    lease, _ = spawner.provision("/bin/true")
    spawner.hear("provisioned", lease=lease)
    refused = spawner.start(lease, token=b"x")
    assert refused["ev"] == "refused"
    assert refused["fault"] == "files could not be written into the sandbox"
    assert spawner.hear("ended", lease=lease)[0]["began"] is False


def test_a_file_that_could_not_be_written_is_told_with_the_kernels_reason(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of somebody else")
    fd = sealed_file("credential", b"x")
    what = Handing(directory=str(tmp_path), names=["token"], fds=[fd], mode=0o400)
    child = handed.start(what, None, None, privileged=True)
    assert handed.why(os.waitpid(child, 0)[1]) == "EEXIST"
    os.close(fd)
    assert (tmp_path / "token").read_text() == "of somebody else"
    assert handed.why(signal.SIGALRM) == "ended by signal 14"


# ----------------------------------------------------------------------------------- slots


@pytest.mark.threat("T-36")
def test_a_slot_is_claimed_once_and_destroyed_after(spawner: Wired) -> None:
    slot, out, _ = spawner.park("shell")
    first = spawner.claim(slot, "/bin/echo", "first")
    second = spawner.claim(slot, "/bin/echo", "second")
    assert spawner.hear("claimed", lease=first)[0]["slot"] == slot
    assert spawner.hear("refused", lease=second)[0]["op"] == "claim"
    spawner.start(first)
    assert out.read() == b"first\n"
    end = spawner.hear("ended", lease=first)[0]
    assert (end["slot"], end["code"], end["began"]) == (slot, 0, True)
    assert groups_naming(slot) == []
    third = spawner.claim(slot, "/bin/echo", "third")
    assert spawner.hear("refused", lease=third)


@pytest.mark.threat("T-36")
def test_two_slots_share_neither_user_nor_process_nor_input(spawner: Wired) -> None:
    slots = [
        spawner.park(kind, *prefix) for kind, prefix in (("shell", ()), ("python", ("python3",)))
    ]
    pids = [processes_of(slot) for slot, _, _ in slots]
    assert all(len(each) == 3 for each in pids)
    if spawner.hello["own_uid"]:
        assert len({os.stat(f"/proc/{each[0]}").st_uid for each in pids}) == 2
    cat = ("/bin/cat",), ("python3", "-c", "import sys; print(sys.stdin.read(), end='')")
    for (slot, out, _), argv, text in zip(slots, cat, (b"one", b"two"), strict=True):
        assert spawner.become(slot, out, *argv, stdin=text)[0] == text


@pytest.mark.threat("T-36")
@pytest.mark.parametrize("limits", [{"tmp_mb": 4}, {"open_files": 512}])
def test_a_slot_of_other_limits_is_refused_and_ended(spawner: Wired, limits: dict) -> None:
    slot, _, _ = spawner.park("shell")
    lease = spawner.claim(slot, "/bin/true", limits=limits)
    assert spawner.hear("refused", lease=lease)[0]["fault"] == "the slot is not of the run's limits"
    assert spawner.hear("ended", lease=slot)[0]["began"] is False
    assert groups_naming(slot) == []


@pytest.mark.threat("T-17")
def test_a_claimed_slot_has_the_limits_of_its_run(spawner: Wired) -> None:
    slot, out, _ = spawner.park("shell")
    argv = ("/bin/sh", "-c", "ulimit -n; ulimit -Hn; echo; exec sleep 60")
    limits = {"memory_mb": 32, "pids": 5, "open_files": 64}
    lease = spawner.claim(slot, *argv, limits=limits)
    spawner.hear("claimed", lease=lease)
    spawner.start(lease)
    said = b""
    while said.count(b"\n") < 2:
        said += out.first()
    assert said.startswith(b"64\n64\n")
    memory = [Path(each) for each in groups_naming(slot)]
    files = {path.name: path.read_text().strip() for each in memory for path in each.glob("*")
             if path.name in {"memory.limit_in_bytes", "memory.max", "pids.max"}}  # fmt: skip
    assert files.pop("pids.max") == "7"
    assert set(files.values()) == {str(32 << 20)}
    spawner.tell(op="destroy", lease=lease)
    spawner.hear("ended", lease=lease)


@pytest.mark.threat("T-36")
def test_input_that_is_no_file_in_memory_is_refused(spawner: Wired) -> None:
    """A pipe could keep the spawner waiting for ever."""
    slot, _, _ = spawner.park("shell")
    reading, writing = os.pipe()
    lease = name()
    spawner.tell([reading], op="claim", slot=slot, lease=lease, argv=["/bin/cat"], env=[], files=[],
                 collect=[], limits=LIMITS, deadline_ms=round(time.time() * 1000) + 9000)  # fmt: skip
    assert "neither a file in memory" in spawner.hear("refused", lease=lease)[0]["fault"]
    os.close(writing)


def test_a_slot_grows_old_and_is_ended(spawner: Wired) -> None:
    slot, _, _ = spawner.park("shell", deadline_ms=round(time.time() * 1000) + 700)
    end = spawner.hear("ended", lease=slot)[0]
    assert (end["began"], end["why"], end["evidence"]["cgroup_removed"]) == (False, "held", True)


def test_a_slot_whose_command_cannot_wait_says_so(spawner: Wired) -> None:
    out_of = {"kind": "python", "prefix": ["/usr/bin/python3.2"]}
    slot, fds = name("slot"), [mute(), mute()]
    spawner.tell(fds, op="park", lease=slot, limits=LIMITS, egress=False,
                 deadline_ms=round(time.time() * 1000) + 9000, **out_of)  # fmt: skip
    assert spawner.hear("ended", "parked", lease=slot)[0]["ev"] == "ended"


@pytest.mark.threat("T-18")
def test_files_of_a_run_go_into_a_slot_and_come_back(spawner: Wired) -> None:
    slot, out, _ = spawner.park("shell")
    files = [("in", b"given"), ("deep/er/in", b"too")]
    script = "cat in deep/er/in >out; stat -c %U:%a in"
    said, end = spawner.become(slot, out, "/bin/sh", "-c", script, files=files, collect=["out"])
    assert said == b"job:644\n"
    assert end["files"] == [["out", "ok"]]


# -------------------------------------------------------------------------- ends and evidence


@pytest.mark.threat("T-18")
def test_evidence_says_when_each_kind_of_thing_was_seen_gone(spawner: Wired) -> None:
    _, end = spawner.run("/bin/true")
    evidence = end["evidence"]
    assert evidence["directory_removed"] is True
    seen = evidence["seen_us"]
    assert set(seen) == {"processes", "cgroup", "mounts", "directory"}
    assert 0 <= seen["processes"] <= seen["cgroup"] <= evidence["took_us"]


@pytest.mark.threat("T-18")
@pytest.mark.parametrize("kill", ["control", "process"])
def test_parked_and_held_sandboxes_die_with_the_gateway_or_the_spawner(
    tmp_path: Path, kill: str
) -> None:
    with wired(tmp_path) as spawner:
        slot, _, _ = spawner.park("shell")
        lease, _ = spawner.provision("/bin/true", egress=True, fds=[_trust()])
        close_all(spawner.hear("provisioned", lease=lease)[1])
        pids = processes_of(slot) + processes_of(lease)
        assert len(alive(pids)) == 5
        if kill == "process":
            spawner.process.send_signal(signal.SIGKILL)
        else:
            spawner.control.shutdown(socket.SHUT_RDWR)
        # A held sandbox that nobody is left to release stays until the next sweep.
        parked = processes_of(slot)
        assert eventually(lambda: alive(parked) == [], seconds=2)
    with wired(tmp_path) as next_one:
        next_one.tell(op="sweep", live=[], leases=[slot, lease], roots=[])
        found = next_one.hear("swept")[0]["found"]
        assert all(each["processes_left"] == 0 and each["cgroup_removed"] for each in found)
    assert alive(pids) == []
    assert groups_naming(slot) == groups_naming(lease) == []


@pytest.mark.threat("T-18")
def test_a_sweep_finds_directories_of_slots_that_nobody_holds(
    tmp_path: Path, spawner: Wired
) -> None:
    left = name("left")
    (tmp_path / "slots" / left / "deep").mkdir(parents=True)
    (tmp_path / "slots" / left / "deep" / "file").write_text("x")
    (tmp_path / "slots" / "live").mkdir()
    spawner.tell(op="sweep", live=["live"], leases=[], roots=[])
    found = spawner.hear("swept")[0]["found"]
    assert [each["lease"] for each in found] == [left]
    assert found[0]["directory_removed"] is True
    assert os.listdir(tmp_path / "slots") == ["live"]


# ------------------------------------------------------------------------ what cannot be read

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = {
    "provision": ("argv", "env", "mounts", "files", "collect", "limits", "profile", "deadline_ms"),
    "park": ("kind", "prefix", "limits", "profile", "deadline_ms"),
    "claim": ("slot", "argv", "env", "files", "limits", "deadline_ms"),
}


@pytest.fixture(scope="module")
def tough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    with wired(tmp_path_factory.mktemp("state")) as made:
        yield made


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
@given(data=st.data())
def test_a_message_with_any_field_wrong_is_refused_and_nothing_else_happens(
    tough: Wired, data: st.DataObject
) -> None:
    op = data.draw(st.sampled_from(sorted(_FIELDS)))
    message = {"argv": ["/bin/true"], "env": [], "mounts": [], "files": [], "collect": [],
               "limits": LIMITS, "profile": {}, "deadline_ms": round(time.time() * 1000) + 9000,
               "kind": "shell", "prefix": [], "slot": "none"}  # fmt: skip
    message[data.draw(st.sampled_from(_FIELDS[op]))] = data.draw(_json)
    lease = name()
    fds = [mute(), mute()] if op == "park" else [source(b"")]
    fds += [mute(), mute()] if op == "provision" else []
    tough.tell(fds, **message, op=op, lease=lease)
    report = tough.hear("refused", "provisioned", "parked", "ended", lease=lease)[0]
    if report["ev"] in {"provisioned", "parked"}:  # it was right by chance
        tough.tell(op="destroy", lease=lease)
        assert tough.hear("ended", lease=lease)[0]["evidence"]["cgroup_removed"]
    else:
        assert groups_naming(lease) == []


@pytest.mark.parametrize("bad", [{}, {"op": "no such"}, {"op": "sweep"}, {"op": "hello"}, []])
def test_a_message_that_says_nothing_ends_the_spawner_and_all_it_holds(
    spawner: Wired, bad: object
) -> None:
    slot, _, _ = spawner.park("shell")
    pids = processes_of(slot)
    if isinstance(bad, dict):
        spawner.tell(**bad)
    else:
        spawner.control.send(b"[]")
    assert spawner.process.wait(10) == 0
    assert eventually(lambda: alive(pids) == [], seconds=1)
    assert groups_naming(slot) == []
    assert select.select([spawner.control], [], [], 1)[0]
