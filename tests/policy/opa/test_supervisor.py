"""The `opa` that Remit runs: what it is given, that it comes back, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remit.errors import ConfigError, PolicyFault
from remit.policy.bundle import PolicyBundle, bundle_of, load_bundle
from remit.policy.opa import probing, supervisor, workspace
from remit.policy.opa.supervisor import SupervisedOpa
from tests.policy.opa.world import DECIDE, fault_of, opa, pointing, supervised
from tests.policy.world import STARTER, ask, code_of, policy, question, when

pytestmark = [pytest.mark.anyio, pytest.mark.needs("opa"), pytest.mark.slow]

ALLOWING = when("allowed", 'answer("allow", {})')


def _stopped(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def _gone(pid: int) -> bool:
    """Whether the process is no more; a zombie that its parent has not reaped yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def _until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while not _gone(pid):
            await asyncio.sleep(0.01)


async def test_starter_policy_is_answered_by_a_supervised_opa(tmp_path: Path) -> None:
    bundle = load_bundle(STARTER)
    async with supervised(bundle, tmp_path) as engine, pointing(engine) as point:
        decision = await point.decide(question(), decision_id="dec_1")
        assert code_of(decision) == "none"
        assert decision.evaluation.engine == "opa 1.22.2"
        assert decision.evaluation.revision == bundle.revision
        assert await point.ready() is None
        await engine.probe()


async def test_opa_gets_nothing_of_ours_and_only_we_reach_its_socket(tmp_path: Path) -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    os.environ["REMIT_TEST_SECRET"] = "hunter2"
    try:
        async with supervised(policy(ALLOWING), tmp_path) as engine:
            process = Path(f"/proc/{engine.pid}")
            environment = (process / "environ").read_bytes().rstrip(b"\0").split(b"\0")
            assert [pair.partition(b"=")[0] for pair in environment] == [b"GOMEMLIMIT"]
            held = {os.readlink(fd) for fd in (process / "fd").iterdir()}
            assert not {each for each in held if each.startswith(str(tmp_path))}
            assert os.getsid(engine.pid or 0) == engine.pid
            status = (process / "status").read_text()
            assert "NoNewPrivs:\t1" in status
            limits = (process / "limits").read_text()
            assert "Max core file size        0 " in limits
            assert f"Max data size             {1024 * 1024 * 1024} " in limits
            for path in [tmp_path, *tmp_path.rglob("*")]:
                assert path.stat().st_mode & 0o077 == 0 or path == tmp_path, path
    finally:
        del os.environ["REMIT_TEST_SECRET"]
        os.close(secret)


@pytest.mark.threat("T-26")
async def test_opa_prints_nothing_of_the_questions_it_is_asked(tmp_path: Path) -> None:
    async with supervised(policy(ALLOWING), tmp_path) as engine:
        assert engine._process is not None
        before = bytes(engine._process._said)
        for _ in range(20):
            await engine.evaluate([DECIDE], b'{"request_id": "hunter2"}')
        await engine.aclose()
        assert bytes(engine._process._said) == before


async def test_data_directory_with_a_long_name_is_no_hindrance(tmp_path: Path) -> None:
    state_dir = tmp_path / ("long" * 40)
    async with supervised(policy(ALLOWING), state_dir) as engine, pointing(engine) as point:
        assert code_of(await ask(point, "allowed")) == "none"


@pytest.mark.threat("T-12", "T-27")
async def test_killed_opa_denies_until_it_is_back(tmp_path: Path) -> None:
    async with supervised(policy(ALLOWING), tmp_path) as engine, pointing(engine) as point:
        before = engine.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await _until_gone(before)
        seen = set()
        async with asyncio.timeout(20):
            while (code := code_of(await ask(point, "allowed"))) != "none":
                seen.add(code)
                await asyncio.sleep(0.001)
        assert seen <= {"policy_unavailable"}
        assert engine.pid not in (None, before)
        assert await point.ready() is None


@pytest.mark.threat("T-12")
async def test_question_under_way_when_opa_is_killed_is_denied(tmp_path: Path) -> None:
    spin = when(
        "spin",
        "count([1 | some a in numbers.range(1, 50000); some b in numbers.range(1, 50000); a + b < 0])",
    )
    async with (
        supervised(policy(spin), tmp_path, deadline_ms=60_000) as engine,
        pointing(engine) as point,
    ):
        asked = asyncio.create_task(ask(point, "spin"))
        assert code_of(await ask(point, "other")) == "policy_denied"
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        assert code_of(await asked) == "policy_unavailable"


@pytest.mark.threat("T-27")
async def test_opa_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("remit.policy.opa.client.HEALTH_S", 0.2)
    async with (
        supervised(policy(ALLOWING), tmp_path, deadline_ms=200) as engine,
        pointing(engine) as point,
    ):
        before = engine.pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        while not _stopped(before):  # each thread stops when the kernel comes by
            await asyncio.sleep(0.001)
        assert code_of(await ask(point, "allowed")) == "policy_unavailable"
        async with asyncio.timeout(20):
            while code_of(await ask(point, "allowed")) != "none":
                await asyncio.sleep(0.01)
        assert engine.pid != before
        assert _gone(before)


async def test_new_bundle_is_a_new_process_and_the_old_one_ends(tmp_path: Path) -> None:
    async with (
        supervised(policy(ALLOWING), tmp_path) as old,
        supervised(policy(""), tmp_path) as new,
    ):
        assert old.pid != new.pid
        assert old.revision != new.revision
        assert (await old.evaluate([DECIDE], b"{}")).revision == old.revision
        pid = old.pid
        await old.aclose()
        assert pid is not None
        assert _gone(pid)
        assert (await new.evaluate([DECIDE], b"{}")).revision == new.revision
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


async def test_closed_engine_is_not_ready_and_leaves_nothing(tmp_path: Path) -> None:
    async with supervised(policy(ALLOWING), tmp_path) as engine:
        pid = engine.pid
        assert pid is not None
        await engine.aclose()
        await engine.aclose()
        assert (await fault_of(engine.evaluate([DECIDE], b"{}"))).code == "policy_not_ready"
        assert (await fault_of(engine.probe())).code == "policy_not_ready"
        assert _gone(pid)
    assert list(tmp_path.iterdir()) == []


async def test_question_under_way_is_answered_before_opa_ends(tmp_path: Path) -> None:
    loop = "[1 | some a in numbers.range(1, 500); some b in numbers.range(1, 500); a + b < 0]"
    body = (
        'decision := answer("allow", {}) if {\n    input.request_id == "slow"\n'
        f"    count({loop}) == 0\n}}\n"
    )
    async with supervised(policy(body), tmp_path) as engine:
        asked = asyncio.create_task(engine.evaluate([DECIDE], b'{"request_id": "slow"}'))
        await asyncio.sleep(0)
        await engine.aclose()
        assert b'"allow"' in (await asked).values[0]


ORPHANING = """
import asyncio, os, pathlib, sys
from remit.policy.bundle import bundle_of
from remit.policy.opa.supervisor import SupervisedOpa
async def main():
    bundle = bundle_of({"p.rego": "package remit\\nimport rego.v1\\ndefault decision := 1\\n"}, {})
    engine = await SupervisedOpa.start(
        bundle, binary=pathlib.Path(sys.argv[1]), state_dir=pathlib.Path(sys.argv[2])
    )
    print(engine.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.threat("T-18", "T-29")
async def test_opa_does_not_outlive_a_gateway_that_is_killed(tmp_path: Path) -> None:
    gateway = subprocess.Popen(
        [sys.executable, "-c", ORPHANING, str(opa()), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert gateway.stdout is not None
    with gateway.stdout:
        pid = int(gateway.stdout.readline())
        assert not _gone(pid)
        gateway.kill()
        gateway.wait()
    await _until_gone(pid)
    assert len(list(tmp_path.iterdir())) == 1
    # The next gateway removes what the killed one could not.
    async with supervised(policy(ALLOWING), tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


async def test_directory_that_another_gateway_holds_is_left_alone(tmp_path: Path) -> None:
    async with supervised(policy(ALLOWING), tmp_path) as engine:
        before = sorted(tmp_path.rglob("*"))
        workspace.sweep(tmp_path)
        assert sorted(tmp_path.rglob("*")) == before
        assert (await engine.evaluate([DECIDE], b"{}")).revision == engine.revision


# What may not be started


@pytest.mark.parametrize("kind", ["missing", "directory", "not_executable", "writable_by_all"])
async def test_binary_that_cannot_be_meant_is_a_fault_of_the_configuration(
    kind: str, tmp_path: Path
) -> None:
    binary = tmp_path / "opa"
    if kind == "directory":
        binary.mkdir()
    elif kind != "missing":
        binary.write_text("#!/bin/sh\n")
        binary.chmod(0o644 if kind == "not_executable" else 0o777)
    with pytest.raises(ConfigError) as raised:
        await SupervisedOpa.start(policy(""), binary=binary, state_dir=tmp_path / "state")
    assert raised.value.place == "policy.opa.binary"
    assert not (tmp_path / "state").exists()


@pytest.mark.threat("T-29")
@pytest.mark.parametrize("script", ["exit 0", "exit 1", "echo no.such >&2; exit 2"])
async def test_program_that_is_no_opa_is_not_ready(script: str, tmp_path: Path) -> None:
    binary = tmp_path / "opa"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    state_dir = tmp_path / "state"
    starting = SupervisedOpa.start(policy(""), binary=binary, state_dir=state_dir)
    assert (await fault_of(starting)).code == "policy_not_ready"
    assert list(state_dir.iterdir()) == []


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(("check", "told"), [("exit 0", "`unknown`"), ("exit 3", "`opa check`")])
async def test_opa_that_compiles_what_it_must_refuse_is_not_ready(
    check: str, told: str, tmp_path: Path
) -> None:
    binary = tmp_path / "opa"
    binary.write_text(f'#!/bin/sh\n[ "$1" = check ] && {check}\nexec {opa()} "$@"\n')
    binary.chmod(0o755)
    starting = SupervisedOpa.start(policy(""), binary=binary, state_dir=tmp_path / "state")
    fault = await fault_of(starting)
    assert (fault.code, told in fault.message) == ("policy_not_ready", True)


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("root", ["remit_probe", ""])
async def test_policy_that_would_take_the_probes_place_does_not_start(
    root: str, tmp_path: Path
) -> None:
    name = root or "remit"
    text = f"package {name}\nimport rego.v1\ndefault decision := 1\n"
    data = {} if root else {"remit_probe": {"smallest": 60}}
    bundle = bundle_of({"p.rego": text}, data)
    fault = await fault_of(SupervisedOpa.start(bundle, binary=opa(), state_dir=tmp_path))
    assert fault.code == "policy_not_ready"
    assert list(tmp_path.iterdir()) == []


async def test_module_whose_name_leads_elsewhere_is_not_written(tmp_path: Path) -> None:
    bundle = PolicyBundle(modules={"../p.rego": "package remit\n"}, data={}, revision="r1")
    with pytest.raises(PolicyFault):
        workspace.Workspace.make(tmp_path / "state", bundle)
    assert not (tmp_path / "state" / "p.rego").exists()
    assert list((tmp_path / "state").iterdir()) == []


# The probes


@pytest.mark.threat("T-12")
async def test_every_probe_can_be_put_to_opa_or_is_refused_when_it_compiles(
    tmp_path: Path,
) -> None:
    for name, rego in probing.refused_modules().items():
        path = tmp_path / f"{name}.rego"
        path.write_text(rego)
        done = subprocess.run([opa(), "check", path], capture_output=True)
        assert done.returncode != 0, name
    async with supervised(policy(ALLOWING), tmp_path / "state") as engine:
        assert engine._engine is not None
        assert engine._engine.probes_installed is True


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("probe", [probe.name for probe in probing.ASKED])
async def test_opa_that_fails_a_probe_is_not_ready(
    probe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe is made to answer otherwise, as an OPA that differs would."""
    original = probing.module()
    rego = next(each.rego for each in probing.ASKED if each.name == probe)
    monkeypatch.setattr(
        probing, "module", lambda: original.replace(rego, f'{probe} := "otherwise"')
    )
    starting = SupervisedOpa.start(policy(""), binary=opa(), state_dir=tmp_path)
    fault = await fault_of(starting)
    assert fault.code == "policy_not_ready"
    assert f"`{probe}`" in fault.message
    assert list(tmp_path.iterdir()) == []


async def test_directories_made_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    def made_and_removed() -> None:
        for _ in range(30):
            workspace.Workspace.make(
                tmp_path, bundle_of({"remit.rego": "package remit\n"}, {})
            ).remove()

    await asyncio.gather(*(asyncio.to_thread(made_and_removed) for _ in range(4)))
    assert list(tmp_path.iterdir()) == []
