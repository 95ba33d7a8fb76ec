"""The escape checks of `remit doctor`: in a sandbox every wall stands, and a missing one is noticed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from remit.model import Capabilities, Destruction, Ending, RunResult, RunSpec, Tier
from remit.profile import Profile, RunnerKind
from remit.runners import escapes, seccomp
from remit.runners.bubblewrap import find
from remit.runners.escapes import BOTH, FILTERED, Finding
from remit.runners.jail import WALLS, JailRequest, base_options, run_options
from remit.runners.sandbox import SandboxRunner
from remit.runners.wire import sealed_file
from tests.runners.support import begin, groups_naming

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.threat("T-16"),
    pytest.mark.needs("bwrap", "userns", "cgroup"),
]


async def _in(runner: SandboxRunner, spec: RunSpec) -> RunResult:
    lease = await begin(runner, spec)
    result = await runner.collect(lease)
    return replace(result, destruction=await runner.destroy(lease))


@pytest.fixture
async def findings(limited_runner: SandboxRunner) -> list[Finding]:
    async def run(spec: RunSpec) -> RunResult:
        return await _in(limited_runner, spec)

    capabilities = limited_runner.capabilities
    return await escapes.attempt(run, Profile(), capabilities, egress=False)


async def test_every_wall_of_a_sandbox_stands(findings: list[Finding]) -> None:
    assert [each for each in findings if not each.held] == []
    assert len(findings) >= 24
    assert len({each.name for each in findings}) == len(findings)
    assert groups_naming("remit-escape") == []


NOBODY = 300_001 if os.geteuid() == 0 else None
"""As in a run of root's: the host's root would own what /proc/sys lets only root write."""


def _inside(change: Callable[[list[str]], list[str]], *, filtered: bool = True) -> set[str]:
    """Which attempts succeed in a bubblewrap of ours with something taken away."""
    bwrap = find(None, for_others=False)
    assert bwrap is not None
    walls = list(WALLS)
    for flag in ("--block-fd", "--info-fd", "--seccomp", "--args"):
        at = walls.index(flag)
        del walls[at : at + 2]
    made = run_options(JailRequest(argv=(), tmp_bytes=8 << 20, over=()))
    options = change([*walls, *base_options(), *made])
    fd = sealed_file("seccomp", seccomp.program(seccomp.ARCHITECTURES[platform.machine()]))
    with escapes._host() as facts:
        attempts = [*BOTH, *FILTERED]
        facts |= {"attempts": attempts, "egress": False, "host_base": True, "tmp_bytes": 8 << 20}
        try:
            done = subprocess.run(
                [bwrap.path, *(["--seccomp", str(fd)] if filtered else []), *options, "--",
                 "/usr/bin/python3", "-I", "-S", "-c", escapes.INSIDE.read_text()],
                input=json.dumps(facts).encode(), env={}, capture_output=True, check=True,
                pass_fds=[fd] if filtered else [], user=NOBODY, group=NOBODY,
            )  # fmt: skip
        finally:
            os.close(fd)
    return {name for name, got in json.loads(done.stdout).items() if got}


def _without(*words: str) -> Callable[[list[str]], list[str]]:
    def change(options: list[str]) -> list[str]:
        at = next(i for i in range(len(options)) if options[i : i + len(words)] == [*words])
        return [*options[:at], *options[at + len(words) :]]

    return change


def _with(*words: str) -> Callable[[list[str]], list[str]]:
    def change(options: list[str]) -> list[str]:
        at = options.index("--remount-ro")
        return [*options[:at], *words, *options[at:]]

    return change


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (_without("--unshare-net"),
         {"host_abstract_socket", "host_network", "interfaces"}),
        (_without("--unshare-ipc"), {"shared_memory"}),
        (_without("--unshare-pid"), {"host_processes"}),
        (_without("--remount-ro", "/"), {"base_writable"}),
        (_with("--cap-add", "CAP_SYS_ADMIN"), {"privileges"}),
        (_with("--ro-bind", "/tmp", "/tmp"), {"host_files"}),
        (_with("--ro-bind", "/sys", "/sys"), {"kernel_files"}),
        (_with("--dev-bind", "/dev/zero", "/dev/kmsg"), {"devices"}),
        (lambda options: [str(64 << 20) if each == str(8 << 20) else each for each in options],
         {"memory_disk"}),
    ],
)  # fmt: skip
def test_a_wall_that_is_missing_is_noticed(
    change: Callable[[list[str]], list[str]], noticed: set[str]
) -> None:
    assert noticed <= _inside(change)


def test_with_all_of_them_nothing_is() -> None:
    assert _inside(lambda options: options) == set()


def test_a_filter_that_is_missing_is_noticed_by_each_kind_of_call() -> None:
    found = _inside(_without("--disable-userns"), filtered=False)
    assert set(FILTERED) - {"terminal_input"} <= found


KNOWN = Capabilities(name="x", tier=Tier.SANDBOX, digest="x", version="1")
RESULT = RunResult(ending=Ending.EXIT, exit_code=0, stdout=b"")


async def _judged(answer: Callable[[RunSpec], RunResult | None], **profile: Any) -> dict[str, Any]:
    async def run(spec: RunSpec) -> RunResult | None:
        return answer(spec)

    found = await escapes.attempt(run, Profile(**profile), KNOWN, egress=False)
    return {each.name: each.held for each in found}


async def test_what_could_not_be_tried_is_not_said_to_hold() -> None:
    assert set((await _judged(lambda _: None)).values()) == {None}
    by_name = await _judged(lambda _: RESULT)
    assert {by_name[name] for name in BOTH} == {None}


async def test_what_an_attempt_got_is_told_and_does_not_hold() -> None:
    got = {**{name: [] for name in [*BOTH, *FILTERED]}, "host_files": ["/root", "/home"]}
    found = await _judged(lambda _: replace(RESULT, stdout=json.dumps(got).encode()))
    assert (found["host_files"], found["host_network"], found["mounting"]) == (False, True, True)
    cut = {name: each for name, each in got.items() if name != "interfaces"}
    found = await _judged(lambda _: replace(RESULT, stdout=json.dumps(cut).encode()))
    assert found["interfaces"] is None
    got["devices"] = ["could not be tried: ValueError"]
    found = await _judged(lambda _: replace(RESULT, stdout=json.dumps(got).encode()))
    assert found["devices"] is None


async def test_a_limit_that_is_not_met_does_not_hold() -> None:
    found = await _judged(lambda _: RESULT)
    assert {found[name] for name in ("memory_limit", "pids_limit", "cpu_limit")} == {False}
    spinning = replace(RESULT, ending=Ending.TIMED_OUT, wall_ms=1000, limits_hit=("cpu", "wall"))
    for cpu_ms, held in ((220, True), (990, False)):
        spun = replace(spinning, cpu_ms=cpu_ms)
        found = await _judged(lambda _, spun=spun: spun)  # type: ignore[misc] # of one argument
        assert found["cpu_limit"] is held


async def test_what_is_left_of_a_run_is_told() -> None:
    left = Destruction(
        lease_id="x", processes_left=1, cgroup_removed=True, directory_removed=True,
        mounts_left=0, destroyed_ms=1, took_us=1,
    )  # fmt: skip
    assert (await _judged(lambda _: replace(RESULT, destruction=left)))["leaves_nothing"] is False


async def test_under_gvisor_its_own_kernel_answers_what_a_filter_would() -> None:
    found = await _judged(lambda _: RESULT, runner=RunnerKind.GVISOR)
    assert not found.keys() & FILTERED.keys()
    assert {"host_files", "host_network", "memory_limit"} <= found.keys()
