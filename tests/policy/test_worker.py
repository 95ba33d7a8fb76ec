"""The worker process has nothing it could do harm with, and goes when its parent goes."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from remit.errors import PolicyFault
from remit.policy.process import (
    ENVIRONMENT,
    WORKER,
    command,
    frame,
    load_frame,
    parse_frame,
    run_once,
    try_frame,
)

MODULE = "package remit\nimport rego.v1\n"


@contextmanager
def _worker(memory_mb: int = 256) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has answered once, so that it has confined itself."""
    process = subprocess.Popen(
        command(memory_mb), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    try:
        assert _ask(process, load_frame({"a.rego": MODULE + "x := input.x\n"}, {})) == (b"R", b"{}")
        yield process
    finally:
        process.kill()
        process.communicate()


def _ask(process: subprocess.Popen[bytes], data: bytes) -> tuple[bytes, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(data)
    process.stdin.flush()
    size, kind = struct.unpack(">I1s", process.stdout.read(5))
    return kind, process.stdout.read(size)


def _proc(process: subprocess.Popen[bytes], name: str) -> str:
    with open(f"/proc/{process.pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


@pytest.mark.threat("T-20")
def test_worker_has_no_environment_but_the_allocator_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REMIT_SECRET", "hunter2")
    with _worker() as process:
        words = [word for word in _proc(process, "environ").split("\0") if word]
        assert words == ["MIMALLOC_ARENA_RESERVE=0"]


@pytest.mark.threat("T-20")
def test_worker_has_no_file_of_the_gateway() -> None:
    with open("/etc/hostname", "rb") as secret:
        os.set_inheritable(secret.fileno(), True)
        with _worker() as process:
            files = os.listdir(f"/proc/{process.pid}/fd")
            assert sorted(files) == ["0", "1", "2"]


@pytest.mark.threat("T-27")
def test_worker_is_confined() -> None:
    with _worker(memory_mb=256) as process:
        limits = {
            line[:26].strip(): line[26:46].strip() for line in _proc(process, "limits").splitlines()
        }
        assert limits["Max address space"] == str(256 * 1024 * 1024)
        assert limits["Max processes"] == "0"
        assert limits["Max open files"] == "16"
        assert limits["Max file size"] == "0"
        assert limits["Max core file size"] == "0"
        assert int(limits["Max cpu time"]) < 60
        assert "NoNewPrivs:\t1" in _proc(process, "status")


@pytest.mark.threat("T-27")
def test_allocator_keeps_nothing_that_the_limit_cannot_reach() -> None:
    with _worker() as process:
        (size,) = (
            int(line.split()[1])
            for line in _proc(process, "status").splitlines()
            if "VmPeak" in line
        )
        assert size < 200 * 1024


@pytest.mark.threat("T-18")
def test_worker_dies_with_its_parent_even_in_the_middle_of_an_evaluation() -> None:
    """The parent is killed while its worker spins; the kernel takes the worker along."""
    spin = (
        "count([1 | some a in numbers.range(1, 9999); some b in numbers.range(1, 9999); a + b < 0])"
    )
    program = f"""
import subprocess, sys, os
from remit.policy.process import ENVIRONMENT, command, frame, load_frame
child = subprocess.Popen(command(256), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT)
child.stdin.write(load_frame({{"a.rego": {MODULE + "x := " + spin!r}}}, {{}}))
child.stdin.write(frame(b"E", b"data.remit.x\\n{{}}"))
child.stdin.flush()
child.stdout.read(7)  # it has loaded
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        # Readable once the process has ended; a second is what promise 6 allows.
        import select

        assert select.select([worker], [], [], 1.0)[0] == [worker]
        os.close(worker)
    finally:
        parent.communicate()


def test_worker_whose_parent_went_before_it_started_ends_at_once() -> None:
    argv = [sys.executable, "-I", "-B", WORKER, "256", "1"]
    done = subprocess.run(argv, stdin=subprocess.PIPE, capture_output=False, timeout=10, env={})
    assert done.returncode == 0


def test_second_policy_is_refused_by_a_worker_that_has_one() -> None:
    with _worker() as process:
        kind, _ = _ask(process, load_frame({"a.rego": MODULE}, {}))
        assert kind == b"F"


@pytest.mark.threat("T-27")
def test_panic_is_told_as_one_and_ends_the_worker() -> None:
    """A panic derives from BaseException: what catches only Exception would lose the answer."""
    with _worker_with(MODULE + "x := time.parse_duration_ns(input.words)\n") as process:
        question = '{"words": "1é"}'.encode()
        kind, text = _ask(process, frame(b"E", b"data.remit.x\n" + question))
        assert kind == b"P"
        assert json.loads(text)["message"].startswith("the engine panicked: ")
        assert b"backtrace" not in text.lower()
        assert process.wait(10) == 0


def test_frame_of_no_known_kind_is_a_fault() -> None:
    with _worker() as process:
        assert _ask(process, frame(b"?", b"")) == (b"F", _fault("the frame's kind is not known"))
        assert _ask(process, frame(b"E", b'data.remit.x\n{"x": 1}')) == (b"R", b"1")


def test_frame_larger_than_any_policy_ends_the_worker() -> None:
    with _worker() as process:
        assert process.stdin is not None
        process.stdin.write(struct.pack(">I1s", 2**31, b"L"))
        process.stdin.flush()
        assert process.wait(10) == 0


def test_input_that_is_no_json_is_a_fault() -> None:
    with _worker() as process:
        assert _ask(process, frame(b"E", b"data.remit.x\n{"))[0] == b"F"
        assert _ask(process, frame(b"E", b"data.remit.x\n\xff"))[0] == b"F"
        assert _ask(process, frame(b"E", b"data.remit.x"))[0] == b"F"


def test_answer_that_is_too_large_is_a_fault() -> None:
    with _worker() as process:
        large = json.dumps({"x": "y" * 1024 * 1024}).encode()
        kind, text = _ask(process, frame(b"E", b"data.remit.x\n" + large))
        assert (kind, text) == (b"F", _fault("the answer is too large"))


def test_earlier_input_leaves_nothing_behind() -> None:
    with _worker() as process:
        for value in (1, None, "a", 2):
            document = json.dumps({} if value is None else {"x": value}).encode()
            kind, text = _ask(process, frame(b"E", b"data.remit.x\n" + document))
            assert (kind, text) == (
                (b"U", b"data.remit.x") if value is None else (b"R", json.dumps(value).encode())
            )


def test_module_that_does_not_parse_is_named_with_its_line() -> None:
    with pytest.raises(PolicyFault) as caught:
        run_once(parse_frame({"a.rego": MODULE + "x := \n"}))
    assert caught.value.place == "a.rego:4:1"
    assert "backtrace" not in caught.value.message


@pytest.mark.threat("T-27")
def test_worker_that_hangs_or_crashes_while_asked_once_is_a_fault() -> None:
    hang = (
        MODULE
        + "x := count([1 | some a in numbers.range(1, 9999); some b in numbers.range(1, 9999)])\n"
    )
    crash = MODULE + "f(n) := f(n + 1)\nx := f(1)\n"
    for text, timeout_s in ((hang, 0.3), (crash, 10)):
        with pytest.raises(PolicyFault) as caught:
            run_once(try_frame({"a.rego": text}, {}, ["data.remit.x"], {}), timeout_s=timeout_s)
        assert caught.value.code.value == "policy_unavailable"


@pytest.mark.slow
@pytest.mark.threat("T-27")
def test_kernel_ends_an_evaluation_that_nobody_stops() -> None:
    """Where the gateway itself hangs, CPU time is bounded all the same."""
    spin = "x := count([1 | some a in numbers.range(1, 99999); some b in numbers.range(1, 99999); a + b < 0])"
    with _worker_with(MODULE + spin) as process:
        assert process.stdin is not None
        process.stdin.write(frame(b"E", b"data.remit.x\n{}"))
        process.stdin.flush()
        assert process.wait(30) == -signal.SIGXCPU


@contextmanager
def _worker_with(module: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command(512), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    try:
        _ask(process, load_frame({"a.rego": module}, {}))
        yield process
    finally:
        process.kill()
        process.communicate()


def _fault(message: str) -> bytes:
    told: dict[str, Any] = {"message": message, "place": None}
    return json.dumps(told).encode()
