"""What a message may not bring as the streams of a run, with the spawner alone."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from remit.runners.wire import close_all, sealed_file
from tests.runners.support import alive, eventually, groups_naming, processes_of
from tests.runners.wired import Wired, mute, name, request, source, wired

pytestmark = [pytest.mark.slow, pytest.mark.needs("bwrap", "userns", "cgroup")]


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Wired]:
    with wired(tmp_path) as made:
        yield made


def _pipe(end: int) -> int:
    both = os.pipe()
    os.close(both[1 - end])
    return both[end]


def _socket() -> int:
    ours, theirs = socket.socketpair()
    ours.close()
    return theirs.detach()


def _file() -> int:
    with tempfile.TemporaryFile() as file:
        file.write(b"of the host")
        return os.dup(file.fileno())


def _loose() -> int:
    """In memory, but whoever has it can change it."""
    return os.memfd_create("loose", os.MFD_ALLOW_SEALING)


STRANGE: dict[str, Callable[[], int]] = {
    "a file": _file,
    "a socket": _socket,
    "a directory": lambda: os.open("/", os.O_RDONLY),
    "a pipe to read": lambda: _pipe(0),
    "a pipe to write": lambda: _pipe(1),
    "a device": lambda: os.open("/dev/zero", os.O_RDONLY),
    "memory that changes": _loose,
}


def _refused(spawner: Wired, fds: list[int], **more: object) -> str:
    lease = name()
    spawner.tell(fds, **request("provision", lease=lease, argv=["/bin/cat"], **more))
    report = spawner.hear("refused", "provisioned", "ended", lease=lease)[0]
    assert report["ev"] == "refused"
    assert groups_naming(lease) == []
    return str(report["fault"])


@pytest.mark.threat("T-16")
@pytest.mark.parametrize("strange", STRANGE)
def test_a_dialogue_takes_no_input_that_a_message_brings(spawner: Wired, strange: str) -> None:
    fault = _refused(spawner, [STRANGE[strange](), _pipe(1)], dialogue=True)
    assert fault == "the descriptors do not match the files"
    fault = _refused(spawner, [STRANGE[strange](), mute(), mute()], dialogue=True)
    assert fault == "the descriptors do not match the files"


@pytest.mark.threat("T-16")
@pytest.mark.parametrize("strange", sorted(set(STRANGE) - {"a pipe to write"}))
def test_standard_error_is_a_pipe_to_write_or_nothing_is_made(spawner: Wired, strange: str) -> None:
    fault = _refused(spawner, [STRANGE[strange]()], dialogue=True)
    assert fault == "an output is not the writing end of a pipe"


@pytest.mark.threat("T-16")
@pytest.mark.parametrize("strange", STRANGE)
def test_input_of_any_run_is_memory_that_cannot_change(spawner: Wired, strange: str) -> None:
    fault = _refused(spawner, [STRANGE[strange](), mute(), mute()])
    assert fault == "the input is neither a file in memory nor /dev/null"


@pytest.mark.threat("T-16")
@pytest.mark.parametrize("at", [1, 2])
def test_output_of_any_run_is_a_pipe_to_write(spawner: Wired, at: int) -> None:
    fds = [source(b""), mute(), mute()]
    os.close(fds[at])
    fds[at] = _socket()
    assert _refused(spawner, fds) == "an output is not the writing end of a pipe"


@pytest.mark.threat("T-36")
def test_a_slot_has_no_stranger_for_an_output_either(spawner: Wired) -> None:
    slot = name("slot")
    message = {**request("park", lease=slot), "kind": "shell", "prefix": []}
    spawner.tell([mute(), _socket()], **message)
    assert spawner.hear("refused", "parked", lease=slot)[0]["ev"] == "refused"
    assert groups_naming(slot) == []


@pytest.mark.threat("T-36")
def test_a_slot_cannot_become_a_run_that_is_spoken_with(spawner: Wired) -> None:
    slot, _, _ = spawner.park("shell")
    lease = name()
    message = request("claim", lease=lease, argv=["/bin/cat"], dialogue=True)
    spawner.tell([_pipe(0)], **{**message, "slot": slot})
    assert spawner.hear("refused", "claimed", lease=lease)[0]["ev"] == "refused"
    spawner.hear("ended", lease=slot)


@pytest.mark.threat("T-16")
def test_the_spawner_keeps_no_end_and_no_other_run_has_one(spawner: Wired) -> None:
    first = spawner.speak("/bin/cat")
    second = spawner.speak("/bin/cat")
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in (*first[1:], *second[1:])}
    assert len(ours) == 4
    assert _open(spawner.process.pid) & ours == set()
    for (own, *ends), (other, *_) in ((first, second), (second, first)):
        spawner.start(own)
        mine = {os.readlink(f"/proc/self/fd/{fd}") for fd in ends}
        assert all(_open(pid) & ours <= mine for pid in processes_of(own))
        assert not any(_open(pid) & mine for pid in processes_of(other))
    for lease, *ends in (first, second):
        close_all(ends)
        assert (
            spawner.hear("ended", lease=lease)[0]["code"] == 0
        )  # its input ended, as nobody has it


def _open(pid: int) -> set[str]:
    """What a process has open: nothing, if it has ended meanwhile."""
    found = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


@pytest.mark.threat("T-18")
@pytest.mark.parametrize("end", ["control", "process"])
def test_it_dies_with_gateway_or_spawner_though_its_input_stays_open(
    tmp_path: Path, end: str
) -> None:
    with wired(tmp_path) as spawner:
        lease, *ends = spawner.speak("/bin/cat")
        spawner.start(lease)
        os.write(ends[0], b"x")
        assert os.read(ends[1], 1) == b"x"  # it stands: before, a sweep would be needed to end it
        pids = processes_of(lease)
        if end == "process":
            spawner.process.send_signal(signal.SIGKILL)
        else:
            spawner.control.shutdown(socket.SHUT_RDWR)
        assert eventually(lambda: alive(pids) == [], seconds=20)
        assert os.read(ends[1], 1) == b""
        close_all(ends)


def test_a_sealed_file_and_the_null_device_are_taken(spawner: Wired) -> None:
    for given in (sealed_file("stdin", b"word"), os.open("/dev/null", os.O_RDONLY)):
        lease = name()
        fds = [given, mute(), mute()]
        spawner.tell(fds, **request("provision", lease=lease, argv=["/bin/true"]))
        assert spawner.hear("provisioned", "refused", lease=lease)[0]["ev"] == "provisioned"
        spawner.tell(op="destroy", lease=lease)
        spawner.hear("ended", lease=lease)
