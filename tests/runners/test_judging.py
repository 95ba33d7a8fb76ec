"""Pure decisions: how a run ended, what may be mounted, what a tier is, which bubblewrap."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.model import Capabilities, Ending, RunResult, RunSpec, Tier
from remit.profile import Ceilings, Profile
from remit.runners import bubblewrap, hints, looks, probe, wire
from remit.runners.bubblewrap import Bubblewrap
from remit.runners.mounts import file_fault, source_fault
from remit.runners.request import read
from remit.runners.verdict import judge
from tests.plugins.machine import ROOT

END: dict[str, Any] = {
    "began": True,
    "why": None,
    "code": 0,
    "signal": None,
    "oom_kills": 0,
    "pids_refused": 0,
    "throttled": 0,
    "files": [],
}


@pytest.mark.parametrize(
    ("seen", "ending", "limits"),
    [
        ({}, Ending.EXIT, ()),
        ({"code": 3}, Ending.EXIT, ()),
        ({"code": 139}, Ending.SIGNAL, ()),
        ({"code": None, "signal": 9}, Ending.SIGNAL, ()),
        ({"code": 137, "oom_kills": 1}, Ending.OUT_OF_MEMORY, ("memory",)),
        ({"code": None, "signal": 9, "oom_kills": 2}, Ending.OUT_OF_MEMORY, ("memory",)),
        ({"code": 0, "oom_kills": 1}, Ending.EXIT, ("memory",)),
        ({"code": 139, "oom_kills": 1}, Ending.SIGNAL, ("memory",)),
        ({"code": 2, "pids_refused": 9}, Ending.EXIT, ("pids",)),
        ({"signal": 9, "code": None, "why": "wall"}, Ending.TIMED_OUT, ("wall",)),
        ({"signal": 9, "code": None, "why": "output"}, Ending.OUTPUT_LIMIT, ("output",)),
        ({"code": 0, "why": "stop"}, Ending.CANCELLED, ()),
        ({"signal": 9, "code": None, "why": "gateway_gone"}, Ending.LOST, ()),
        ({"began": False, "signal": 9, "code": None, "why": "wall"}, Ending.NOT_STARTED, ("wall",)),
        ({"began": False, "code": 1}, Ending.NOT_STARTED, ()),
        ({"files": [["a", "irregular"]]}, Ending.EXIT, ("collect",)),
        ({"files": [["a", "missing"], ["b", "ok"]]}, Ending.EXIT, ()),
    ],
)
def test_an_ending_is_what_was_done_before_what_was_seen(seen, ending, limits) -> None:
    verdict = judge({**END, **seen})
    assert (verdict.ending, verdict.limits_hit) == (ending, limits)
    if ending is Ending.NOT_STARTED:
        assert (verdict.exit_code, verdict.signal) == (None, None)


def test_too_much_output_is_too_much_however_soon_it_ended() -> None:
    verdict = judge(END, flooded=True)
    assert (verdict.ending, verdict.exit_code) == (Ending.OUTPUT_LIMIT, 0)
    assert judge({**END, "why": "wall"}, flooded=True).ending is Ending.TIMED_OUT


@pytest.mark.threat("T-16")
@given(st.text(max_size=20))
def test_a_file_name_that_passes_stays_below_the_job_directory(name: str) -> None:
    if file_fault(name) is None:
        assert os.path.normpath(f"/job/{name}") == f"/job/{name}"


@pytest.mark.threat("T-16")
@given(st.lists(st.sampled_from(["..", ".", "", "usr", "proc", "etc"]), max_size=5))
def test_a_mount_source_that_passes_is_spelt_plainly(parts: list[str]) -> None:
    source = "/" + "/".join(parts)
    if source_fault(source) is None:
        assert os.path.normpath(source) == source
        assert source.split("/")[1] == "usr"


LIMITS = {
    "wall_s": 1,
    "memory_mb": 1,
    "pids": 1,
    "cpu_percent": 1,
    "tmp_mb": 1,
    "open_files": 1,
}
MESSAGE = {
    "lease": "a",
    "argv": ["true"],
    "env": [],
    "mounts": [],
    "files": [],
    "collect": [],
    "deadline_ms": 0,
    "limits": LIMITS,
}


@pytest.mark.threat("T-16")
@pytest.mark.parametrize(
    "wrong",
    [
        {"lease": "../x"},
        {"lease": ""},
        {"lease": "a/b"},
        {"argv": []},
        {"argv": [""]},
        {"argv": ["a\0b"]},
        {"argv": "true"},
        {"env": [["A=B", "x"]]},
        {"env": [["A", "x\0--bind\0/\0/"]]},
        {"files": ["../x"]},
        {"collect": ["/etc/passwd"]},
        {"mounts": [["../x", "/usr", False]]},
        {"mounts": [["a", "/usr", False], ["a", "/usr", True]]},
        {"limits": {**LIMITS, "pids": 0}},
        {"limits": {**LIMITS, "pids": True}},
        {"limits": {**LIMITS, "memory_mb": 1 << 40}},
        {"limits": {**LIMITS, "wall_s": "1"}},
    ],
)
def test_the_spawner_believes_nothing_it_is_told(wrong: dict) -> None:
    read(MESSAGE, mount_uid=None)
    with pytest.raises(ValueError):
        read({**MESSAGE, **wrong}, mount_uid=None)


def test_the_spawner_needs_nothing_but_the_standard_library() -> None:
    script = (
        f"import sys; sys.path.append({str(ROOT / 'src')!r}); before = set(sys.modules);"
        "import remit.runners.spawner; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert tops - set(sys.stdlib_module_names) == {"remit"}
    ours = {name for name in done.stdout.split() if name.startswith("remit.")}
    assert ours - {"remit.runners"} <= {
        f"remit.runners.{path.stem}" for path in (ROOT / "src/remit/runners").glob("*.py")
    }


@given(st.binary(max_size=3), st.integers(0, 100_000))
def test_messages_of_any_size_arrive_whole_with_their_descriptors(tail: bytes, size: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sent = wire.sealed_file("x", tail)
        wire.send(ours, {"text": "x" * size, "tail": tail.hex()}, [sent])
        received = wire.receive(theirs)
        assert received is not None
        message, fds = received
        assert message == {"text": "x" * size, "tail": tail.hex()}
        assert [os.read(fd, 10) for fd in fds] == [tail]
        wire.close_all([sent, *fds])
        ours.close()
        assert wire.receive(theirs) is None


def test_a_sealed_file_cannot_be_changed_by_whoever_gets_it() -> None:
    fd = wire.sealed_file("x", b"data")
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"evil", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


BWRAP = Bubblewrap(path="/usr/bin/bwrap", version=(0, 12, 0), digest="0", bundled=False)
TOOLS = probe.Tools(bwrap=BWRAP)


async def _examined(look: RunResult | None, *, mode: str = "hybrid", **more: Any) -> Capabilities:
    disk: RunResult | None = more.pop("disk", None)

    async def run(_: RunSpec, name: str, __: Profile) -> RunResult | None:
        return look if name == "look" else disk

    return await probe.examine(run, {"mode": mode, "own_uid": True}, TOOLS, **more)


GOOD = RunResult(
    ending=Ending.OUT_OF_MEMORY,
    stdout="\n".join(probe.ISOLATION).encode(),
    limits_hit=("memory", "pids"),
)
SLOWED = Profile(name="slow", io_mb_per_s=5)
WAY_OUT = b"\nlistens=0100007F:0C38"


@pytest.mark.anyio
@pytest.mark.parametrize("name", probe.ISOLATION)
async def test_one_wall_that_does_not_stand_is_no_sandbox(name: str) -> None:
    assert (await _examined(GOOD)).tier is Tier.SANDBOX
    others = "\n".join(set(probe.ISOLATION) - {name}).encode()
    found = await _examined(replace(GOOD, stdout=others))
    assert (found.tier, found.missing) == (Tier.NONE, (name,))
    assert found.hint


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"limits_hit": ("pids",)}, ("memory_limit",)),
        ({"ending": Ending.SIGNAL}, ("memory_limit",)),
        ({"limits_hit": ("memory",)}, ("pids_limit",)),
    ],
)
async def test_a_limit_that_was_not_seen_to_hold_is_degraded(
    changed: dict[str, Any], missing: tuple[str, ...]
) -> None:
    found = await _examined(replace(GOOD, **changed))
    assert (found.tier, found.missing) == (Tier.DEGRADED, missing)


@pytest.mark.anyio
async def test_without_cgroups_no_bomb_is_set_off_to_find_out() -> None:
    asked: list[RunSpec] = []

    async def run(spec: RunSpec, _: str, __: Profile) -> RunResult:
        asked.append(spec)
        return replace(GOOD, ending=Ending.EXIT, limits_hit=())

    found = await probe.examine(run, {"mode": "none"}, TOOLS)
    assert (found.tier, found.missing) == (Tier.DEGRADED, probe.LIMITS)
    (only,) = asked
    assert looks.BOMBS not in only.argv[2]


@pytest.mark.anyio
async def test_a_probe_that_could_not_run_holds_nothing() -> None:
    found = await _examined(None)
    assert found.tier is Tier.NONE
    assert not any(found.holds[name] for name in (*probe.ISOLATION, *probe.LIMITS))


@pytest.mark.anyio
async def test_a_way_out_is_there_if_it_was_seen_and_nothing_else_listens() -> None:
    with_it = replace(GOOD, stdout=GOOD.stdout + WAY_OUT)
    found = await _examined(with_it, egress=True)
    assert (found.tier, found.holds["egress"]) == (Tier.SANDBOX, True)
    for look, egress in ((GOOD, True), (with_it, False)):
        found = await _examined(look, egress=egress)
        assert (found.tier, found.holds["egress"]) == (Tier.NONE, False)
        assert found.missing == ("network_none",)
    other = replace(GOOD, stdout=with_it.stdout + b"\nlistens=00000000:0016")
    assert (await _examined(other, egress=True)).tier is Tier.NONE


@pytest.mark.anyio
async def test_a_profile_whose_disks_are_not_slowed_is_refused_and_only_such_a_one() -> None:
    slow = RunResult(ending=Ending.EXIT, exit_code=0, wall_ms=250)
    found = await _examined(GOOD, profile=SLOWED, disk=slow)
    assert (found.tier, found.holds["io_limit"], found.profile) == (Tier.SANDBOX, True, "slow")
    for disk in (None, replace(slow, wall_ms=5), replace(slow, exit_code=1)):
        found = await _examined(GOOD, profile=SLOWED, disk=disk)
        assert (found.tier, found.missing) == (Tier.NONE, ("io_limit",))
        assert found.hint
    assert "io_limit" not in (await _examined(GOOD)).holds


@pytest.mark.anyio
async def test_another_profile_or_reach_is_another_runner() -> None:
    digests = [(await _examined(GOOD, **more)).digest for more in (
        {}, {"profile": Profile(ceilings=Ceilings(pids=5))}, {"egress_digest": "sha256:0"},
    )]  # fmt: skip
    assert len(set(digests)) == 3
    renamed = await _examined(GOOD, profile=Profile(name="other"))
    assert renamed.digest == digests[0]


def _bwrap(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho bubblewrap {version}\n")
    path.chmod(0o755)
    return path


def test_the_systems_bubblewrap_is_used_if_sound_else_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, bundled = tmp_path / "system", tmp_path / "bundled"
    monkeypatch.setattr("shutil.which", lambda *_, **__: str(system))
    monkeypatch.setattr(bubblewrap, "_bundled", lambda: str(bundled))
    for own, other, wanted in (
        ("0.12.0", "0.13.0", "0.12.0"),
        ("0.8.0", "0.11.0", "0.11.0"),
        ("0.11.1", "0.11.0", "0.11.1"),
        ("0.7.0", "0.11.0", "0.11.0"),
    ):
        _bwrap(system, own)
        _bwrap(bundled, other)
        found = bubblewrap.find(for_others=False)
        assert found is not None
        assert found.text == wanted
    _bwrap(system, "0.7.0")
    _bwrap(bundled, "0.6.3")
    assert bubblewrap.find(for_others=False) is None


def test_a_bubblewrap_that_runs_cannot_reach_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    path = _bwrap(tmp_path / "closed/bwrap", "0.12.0")
    assert bubblewrap.find(path, for_others=False) is not None
    assert bubblewrap.find(path, for_others=True) is None


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({"/proc/sys/user/max_user_namespaces": "0"}, "user.max_user_namespaces"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, "unprivileged_userns_clone=1"),
        (
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_the_hint_is_the_command_for_what_this_host_refuses(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], command: str
) -> None:
    monkeypatch.setattr(hints, "setting", settings.get)
    assert command in hints.user_namespaces()


@pytest.mark.parametrize(
    ("uid", "read_only", "command"),
    [(1000, False, "sudo env"), (1000, True, "--privileged"), (0, False, "--privileged")],
)
def test_in_a_container_the_hint_for_limits_is_root_only_where_root_could_divide(
    monkeypatch: pytest.MonkeyPatch, uid: int, read_only: bool, command: str
) -> None:
    monkeypatch.setattr(hints, "systemd", lambda: False)
    monkeypatch.setattr(hints, "in_container", lambda: True)
    monkeypatch.setattr(hints, "read_only", lambda _: read_only)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert command in hints.cgroups()


def test_under_systemd_the_hint_for_limits_is_a_delegated_scope(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hints, "systemd", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert hints.cgroups() == ("systemd-run --user --scope --quiet -p Delegate=yes -- remit serve")
