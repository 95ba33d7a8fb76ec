"""The same runner without root: as a user with control groups of its own, and without."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.plugins.machine import CGROUPS, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="this user is unprivileged already; to run it: be root"
    ),
]

USER = 54_321

SCRIPT = """
import asyncio, json, sys
from pathlib import Path
from remit.errors import RunnerFault
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.runners.support import limited, new_lease, python, run, shell

async def main():
    state, unsafe = Path(sys.argv[1]), sys.argv[2] == "unsafe"
    settings = SandboxSettings(state_dir=state, gateway="unprivileged", unsafe_degraded=unsafe)
    runner = await SandboxRunner.open(settings)
    found = runner.capabilities
    said = {"tier": found.tier, "missing": found.missing, "hint": found.hint,
            "own_uid": found.holds["own_uid"], "mode": runner.cgroup_mode}
    try:
        result, evidence = await run(runner, shell("id -u; echo out >f; exit 4"))
        said |= {"code": result.exit_code, "out": result.stdout.decode(),
                 "complete": evidence.complete}
        from dataclasses import replace
        spec = replace(shell("echo out >f"), collect=("f",))
        said["file"] = (await run(runner, spec))[0].files["f"].decode()
        bomb = limited(python("b=[]\\nwhile 1: b.append(bytearray(1<<20))"), memory_mb=64)
        said["bomb"] = (await run(runner, bomb))[0].ending
        said["slow"] = (await run(runner, limited(shell("sleep 60"), wall_s=1)))[0].ending
        spec = shell("trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done")
        lease = new_lease()
        await runner.provision(lease, spec)
        await runner.start(lease)
        async for _ in runner.stream(lease):
            break
        await runner.stop(lease, grace_s=5)
        said["stopped"] = (await runner.collect(lease)).exit_code
        said["left"] = (await runner.destroy(lease)).processes_left
    except RunnerFault as fault:
        said["refused"] = fault.code
    await runner.aclose()
    print(json.dumps(said))

asyncio.run(main())
"""


@pytest.fixture
def source(reachable: Path) -> Path:
    """The code and a state directory, where the other user can read and write them."""
    shutil.copytree(ROOT / "src", reachable / "src")
    shutil.copytree(ROOT / "tests/runners", reachable / "tests/runners")
    (reachable / "tests/__init__.py").touch()
    (reachable / "tests/plugins").mkdir()
    shutil.copy(ROOT / "tests/plugins/machine.py", reachable / "tests/plugins")
    (reachable / "state").mkdir()
    os.chown(reachable / "state", USER, USER)
    return reachable


def as_user(
    source: Path,
    groups: list[Path],
    *,
    unsafe: bool = False,
    before: Callable[[], None] = lambda: None,
    module: str | None = None,
) -> dict:
    """Run the script, or a module, as the user, after this process's child entered the groups."""

    def enter() -> None:
        before()
        for group in groups:
            (group / "cgroup.procs").write_text("0")
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)

    chosen = interpreter()
    packages = [path for path in sys.path if path.endswith("-packages")]
    done = subprocess.run(
        [
            chosen,
            *(["-c", SCRIPT] if module is None else ["-m", module]),
            str(source / "state"),
            "unsafe" if unsafe else "safe",
        ],
        env={"PYTHONPATH": os.pathsep.join([str(source / "src"), str(source), *packages])},
        cwd=source,
        preexec_fn=enter,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said: dict = json.loads(done.stdout)
    return said


def interpreter() -> str:
    """This interpreter, or one of the same version that the other user may run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if candidate and _readable(Path(candidate).resolve()):
            return candidate
    pytest.skip(f"another user cannot run this interpreter; to run it: put {version} in /usr/bin")


def _readable(path: Path) -> bool:
    return all(each.stat().st_mode & 1 for each in (path, *path.parents))


@contextlib.contextmanager
def delegated(*names: str) -> Iterator[list[Path]]:
    """Groups of this machine's version 1 hierarchies that belong to the user."""
    groups = []
    for name in names:
        group = CGROUPS / name / f"delegated-{os.getpid()}"
        group.mkdir()
        groups.append(group)
        for path in (group, group / "cgroup.procs", group / "tasks"):
            if path.exists():
                os.chown(path, USER, USER)
    try:
        yield groups
    finally:
        for group in groups:
            for child in group.glob("remit-*"):
                child.rmdir()
            group.rmdir()


@pytest.mark.threat("T-17")
def test_without_limits_nothing_runs_and_the_hint_says_why(source: Path) -> None:
    said = as_user(source, [])
    assert (said["tier"], said["refused"]) == ("degraded", "runner_degraded")
    assert said["missing"] == ["memory_limit", "pids_limit"]
    assert said["hint"]


@pytest.mark.threat("T-17")
def test_the_unsafe_choice_runs_on_rlimits_alone(source: Path) -> None:
    said = as_user(source, [], unsafe=True)
    assert (said["tier"], said["code"], said["out"]) == ("degraded", 4, "1000\n")
    assert (said["file"], said["slow"], said["left"]) == ("out\n", "timed_out", 0)
    assert said["bomb"] != "out_of_memory"  # Python raises MemoryError under RLIMIT_AS
    assert said["stopped"] == 6


@pytest.mark.threat("T-17")
def test_a_delegated_user_has_the_whole_sandbox(source: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    with delegated("memory", "pids", "cpu", "unified") as groups:
        said = as_user(source, groups)
    assert (said["tier"], said["missing"], said["own_uid"]) == ("sandbox", [], False)
    assert (said["code"], said["complete"], said["file"]) == (4, True, "out\n")
    assert (said["bomb"], said["slow"]) == ("out_of_memory", "timed_out")
    assert (said["stopped"], said["left"]) == (6, 0)


@pytest.mark.threat("T-17")
def test_version_1_alone_is_enough(source: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    with delegated("memory", "pids", "cpu") as groups:
        said = as_user(source, groups)
    assert (said["tier"], said["mode"], said["complete"]) == ("sandbox", "v1", True)
    assert (said["bomb"], said["stopped"], said["left"]) == ("out_of_memory", 6, 0)


@pytest.mark.threat("T-16")
def test_the_way_out_handed_files_and_slots_need_no_root(source: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    with delegated("memory", "pids", "cpu", "unified") as groups:
        said = as_user(source, groups, module="tests.runners.wired_script")
    assert (said["uids"], said["images"], said["left"]) == ("one", False, 0)
    assert said["cold"] == "trust token served\n"
    assert said["shell"] == "given input 32\n"
    assert said["python"] == "1\n"
    assert (said["spoken"], said["heard_out"]) == ("word", True)
