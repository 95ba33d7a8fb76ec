"""Every row of the table of failures, against a real `opa`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.errors import PolicyFault
from remit.model import Allow, Deny, RequireApproval
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.opa.client import OpaEngine
from remit.policy.point import PolicyPoint
from tests.policy.opa.world import (
    DECIDE,
    code_of_probe,
    fault_of,
    http,
    misbehaving,
    pointing,
    request_of,
    serving,
    supervised,
    write,
    written,
)
from tests.policy.test_fail_closed import ROWS, SPINNING
from tests.policy.world import HEAD, ask, code_of, policy, when

pytestmark = [pytest.mark.anyio, pytest.mark.needs("opa"), pytest.mark.slow]

# What OPA finds when it compiles is no answer to one question: such a policy does not start.
COMPILE_TIME = {"unknown_builtin"}
OTHERWISE = {
    # The embedded engine's own spelling of undefined; to OPA it is a text.
    "says_undefined": "policy_bad_decision",
    # OPA makes one key of 1 and "1" without a word, and keeps one of the values.
    "same_key_twice": "none",
}

BODY = "".join(when(case, rego) for case, (_, rego) in ROWS.items() if case not in COMPILE_TIME)
BODY += when("conflict", "1") + when("conflict", "2")
BODY += when("spin", SPINNING.replace("5000", "50000"))
BODY += 'slow_only := 1 if input.request_id == "nothing"\n'

SOCKET = "unix://opa.sock"


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def point(
    anyio_backend: object, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[PolicyPoint]:
    """One real OPA that holds the policy of all rows."""
    async with (
        supervised(policy(BODY), tmp_path_factory.mktemp("opa")) as engine,
        pointing(engine) as made,
    ):
        yield made


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("case", [case for case in ROWS if case not in COMPILE_TIME])
async def test_answer_is_denied_with_its_code_or_is_a_decision(
    case: str, point: PolicyPoint
) -> None:
    expected = OTHERWISE.get(case, ROWS[case][0])
    decision = await ask(point, case, zero=0, words="1é")
    assert code_of(decision) == expected
    assert decision.evaluation.engine == "opa 1.22.2"
    assert decision.evaluation.revision == policy(BODY).revision
    if expected == "none":
        assert isinstance(decision, Allow | RequireApproval)
    else:
        assert isinstance(decision, Deny)
        assert not decision.retriable


@pytest.mark.threat("T-12")
async def test_rule_that_gives_two_answers_is_denied_with_its_place(point: PolicyPoint) -> None:
    decision = await ask(point, "conflict")
    assert code_of(decision) == "policy_error"
    assert "eval_conflict_error at policy/policy.rego:" in decision.reasons[1].message


@pytest.mark.threat("T-26")
async def test_error_of_a_builtin_does_not_carry_the_value(tmp_path: Path) -> None:
    body = when("secret", 'answer("allow", {"x": to_number(input.secret)})')
    async with supervised(policy(body), tmp_path) as engine, pointing(engine) as point:
        decision = await ask(point, "secret", secret="hunter2")
        assert code_of(decision) == "policy_error"
        assert "hunter" not in str(decision.reasons)


@pytest.mark.threat("T-12")
async def test_rule_without_a_value_is_undefined(tmp_path: Path) -> None:
    text = HEAD.replace("default decision", "default verdict") + "decision := input.absent\n"
    bundle = bundle_of({"policy.rego": text}, {})
    async with supervised(bundle, tmp_path) as engine, pointing(engine) as point:
        assert code_of(await ask(point, "any")) == "policy_undefined"


@pytest.mark.threat("T-12")
async def test_package_that_is_not_there_is_undefined(tmp_path: Path) -> None:
    async with (
        supervised(policy(""), tmp_path) as engine,
        pointing(engine, "remit.elsewhere") as point,
    ):
        assert code_of(await ask(point, "any")) == "policy_undefined"


REFUSED = {
    "unknown_builtin": ("decision := no.such_thing(1)\n", "no.such_thing"),
    "recursion": ("deep(n) := deep(n + 1)\ndecision := deep(1)\n", "recursive"),
    "syntax": ("decision := := 1\n", "policy.rego"),
    "unsafe_variable": ("decision := x\n", "unsafe"),
}


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("case", list(REFUSED))
async def test_policy_that_opa_refuses_never_comes_into_force(case: str, tmp_path: Path) -> None:
    body, told = REFUSED[case]
    with pytest.raises(PolicyFault) as raised:
        async with supervised(policy(body), tmp_path):
            pass
    assert raised.value.code == "policy_not_ready"
    assert told in (raised.value.place or "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.threat("T-12", "T-27")
async def test_runaway_is_given_up_at_its_deadline_and_opa_stops_evaluating_it(
    tmp_path: Path,
) -> None:
    async with (
        supervised(policy(BODY), tmp_path, deadline_ms=1_000) as engine,
        pointing(engine) as point,
    ):
        runaway = asyncio.create_task(ask(point, "spin"))
        await asyncio.sleep(0)
        others = await asyncio.gather(*(ask(point, "allowed") for _ in range(20)))
        assert {code_of(other) for other in others} == {"none"}
        assert not runaway.done()
        decision = await runaway
        assert code_of(decision) == "policy_unavailable"
        assert isinstance(decision, Deny)
        assert decision.retriable
        pid = engine.pid
        assert pid is not None
        await _rests(pid)
        assert code_of(await ask(point, "allowed")) == "none"
        assert engine.pid == pid


async def _rests(pid: int) -> None:
    """Until a process uses no CPU for a while; the runaway alone would use it for an hour."""

    def used() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    async with asyncio.timeout(20):
        before = -10
        while (now := used()) - before > 2:
            before = now
            await asyncio.sleep(0.2)


@pytest.mark.threat("T-27")
async def test_policy_that_devours_memory_ends_opa_only_and_it_is_started_again(
    tmp_path: Path,
) -> None:
    bomb = 'count({[a, b, s] | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); s := concat("", [input.block, sprintf("%d-%d", [a, b])])})'
    body = when("bomb", bomb) + when("allowed", 'answer("allow", {})')
    async with (
        supervised(policy(body), tmp_path, memory_mb=256, deadline_ms=60_000) as engine,
        pointing(engine) as point,
    ):
        assert code_of(await ask(point, "bomb", block="x" * 10_000)) == "policy_unavailable"
        async with asyncio.timeout(30):
            while code_of(await ask(point, "allowed")) != "none":
                await asyncio.sleep(0.01)


# Servers of others


async def _foreign(tmp_path: Path, **more: object) -> OpaEngine:
    more = {"deadline_ms": 10_000, **more}
    return await OpaEngine.connect(f"unix:{tmp_path}/opa.sock", **more)  # type: ignore[arg-type] # plain values


ALLOWING = when("allowed", 'answer("allow", {})')


@pytest.mark.threat("T-12")
async def test_nobody_at_the_socket_denies(tmp_path: Path) -> None:
    async with pointing(await _foreign(tmp_path)) as point:
        decision = await ask(point, "any")
        assert code_of(decision) == "policy_unavailable"
        assert isinstance(decision, Deny)
        assert decision.retriable


@pytest.mark.threat("T-12")
async def test_killed_server_denies_and_its_successor_is_asked(tmp_path: Path) -> None:
    written(tmp_path / "policy", policy(ALLOWING))
    engine = await _foreign(tmp_path)
    async with pointing(engine) as point:
        async with serving("--bundle", "policy", cwd=tmp_path, address=SOCKET) as process:
            assert code_of(await ask(point, "allowed")) == "none"
            process.kill()
            process.wait()
            for _ in range(8):  # the breaker opens on the way
                assert code_of(await ask(point, "allowed")) == "policy_unavailable"
        async with serving("--bundle", "policy", cwd=tmp_path, address=SOCKET):
            async with asyncio.timeout(20):
                while code_of(await ask(point, "allowed")) != "none":
                    await asyncio.sleep(0.05)


@pytest.mark.threat("T-12", "T-29")
async def test_server_with_another_revision_than_the_pinned_is_not_ready(tmp_path: Path) -> None:
    bundle = policy(ALLOWING)
    written(tmp_path / "policy", bundle)
    async with serving("--bundle", "policy", cwd=tmp_path, address=SOCKET):
        async with pointing(await _foreign(tmp_path, pin_revision=bundle.revision)) as point:
            assert code_of(await ask(point, "allowed")) == "none"
        engine = await _foreign(tmp_path, pin_revision="sha256:" + "0" * 64)
        async with pointing(engine) as point:
            assert code_of(await ask(point, "allowed")) == "policy_not_ready"
            assert await code_of_probe(engine) == "policy_not_ready"


SIGNED = """
bundles:
  policy:
    resource: file://{path}
    signing: {{keyid: remit, scope: write}}
keys:
  remit: {{algorithm: HS256, key: hunter2hunter2hunter2hunter2hunter2}}
"""

UNREACHABLE = """
services:
  remit: {url: "http://127.0.0.1:1"}
bundles:
  policy: {service: remit, resource: bundle.tar.gz}
"""


@pytest.mark.threat("T-12", "T-28")
@pytest.mark.parametrize("why", ["unsigned", "unreachable"])
async def test_server_whose_bundle_is_not_in_force_is_not_ready_and_denies(
    why: str, tmp_path: Path
) -> None:
    archive = tmp_path / "policy.tar.gz"
    archive.write_bytes(_tar(policy(ALLOWING)))
    config = SIGNED.format(path=archive) if why == "unsigned" else UNREACHABLE
    (tmp_path / "opa.yaml").write_text(config)
    engine = await _foreign(tmp_path)
    async with (
        serving("--config-file=opa.yaml", cwd=tmp_path, address=SOCKET),
        pointing(engine) as point,
    ):
        fault = await fault_of(engine.probe())
        assert fault.code == "policy_not_ready"
        assert "bundles or plugins are not ready" in fault.message
        assert code_of(await ask(point, "allowed")) == "policy_not_ready"


def _tar(bundle: PolicyBundle) -> bytes:
    from remit.policy.archive import write_archive

    return write_archive(bundle)


@pytest.mark.threat("T-12")
async def test_server_with_loose_files_instead_of_a_bundle_is_not_ready(tmp_path: Path) -> None:
    write(tmp_path, {"policy.rego": policy(ALLOWING).modules["policy.rego"].encode()})
    engine = await _foreign(tmp_path)
    async with (
        serving("policy.rego", cwd=tmp_path, address=SOCKET),
        pointing(engine) as point,
    ):
        assert code_of(await ask(point, "allowed")) == "policy_not_ready"
        fault = await fault_of(engine.probe())
        assert (fault.code, "bundle with a revision" in fault.message) == ("policy_not_ready", True)


LAX = {
    "permits": 'default decision := {"schema": "remit.decision/1", "decision": "allow", "reasons": [{"code": "a", "message": "a"}]}',
    "boolean": "default decision := false",
    "undefined": "decision := 1 if input.x",
    "fails": 'decision := {"a": to_number("x")}',
}


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("case", list(LAX))
async def test_server_that_does_not_deny_an_empty_input_is_not_ready(
    case: str, tmp_path: Path
) -> None:
    text = f"package remit\nimport rego.v1\n{LAX[case]}\n"
    written(tmp_path / "policy", bundle_of({"policy.rego": text}, {}))
    engine = await _foreign(tmp_path)
    async with serving("--bundle", "policy", cwd=tmp_path, address=SOCKET):
        assert await code_of_probe(engine) in ("policy_not_ready", "policy_error")
    await engine.aclose()


@pytest.mark.threat("T-12")
async def test_server_takes_up_a_new_revision_and_each_answer_names_its_own(
    tmp_path: Path,
) -> None:
    before, after = policy(ALLOWING), policy("")
    offered = [_tar(before)]

    async def bundles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(http(offered[0], fields=("Content-Type: application/gzip",)))

    engine = await _foreign(tmp_path)
    async with misbehaving(bundles) as url:
        (tmp_path / "opa.yaml").write_text(
            f"services:\n  remit: {{url: '{url}'}}\n"
            "bundles:\n  policy:\n    {service: remit, resource: policy.tar.gz,"
            " polling: {min_delay_seconds: 1, max_delay_seconds: 1}}\n"
        )
        async with (
            serving("--config-file=opa.yaml", cwd=tmp_path, address=SOCKET),
            pointing(engine) as point,
        ):
            await _loaded(engine)
            assert (await ask(point, "allowed")).evaluation.revision == before.revision
            offered[0] = _tar(after)
            async with asyncio.timeout(20):
                while True:
                    decision = await ask(point, "allowed")
                    if decision.evaluation.revision != before.revision:
                        break
                    assert code_of(decision) == "none"
                    await asyncio.sleep(0.02)
            assert decision.evaluation.revision == after.revision
            assert code_of(decision) == "policy_denied"


async def _loaded(engine: OpaEngine) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await engine.probe()
                return
            except PolicyFault:
                await asyncio.sleep(0.02)


async def test_two_rules_are_answered_by_one_revision(tmp_path: Path) -> None:
    async with supervised(policy(ALLOWING + "visible := {}\n"), tmp_path) as engine:
        answer = await engine.evaluate([DECIDE, "remit.visible"], b'{"request_id": "allowed"}')
        assert len(answer.values) == 2
        assert answer.values[1] == b"{}"
        assert answer.revision == engine.revision
