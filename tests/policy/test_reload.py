"""A layer follows its source: what is good comes into force at once, what is bad never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from remit.errors import Code, LedgerFault, PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.embedded import EmbeddedEngine
from remit.policy.engine import Answer
from remit.policy.layers import Layer, Tenure, layer
from remit.policy.lint import lint
from remit.policy.point import PolicyPoint
from remit.policy.source import PathSource
from remit.policy.switch import Part, Switch, stop
from remit.telemetry import REGISTRY
from tests.policy.world import HEAD, ask, code_of, policy, when

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

SHOWS = HEAD + "visible[name] := true if { some tool in input.tools; name := tool.name }\n"
ALLOWS = SHOWS + when("one", 'answer("allow", {})')
DENIES = SHOWS + when("one", 'answer("deny", {})')


def checked(bundle: PolicyBundle) -> PolicyBundle:
    findings = lint(bundle)
    if findings:
        raise findings[0].error(of=len(findings))
    return bundle


async def made(bundle: PolicyBundle) -> Layer:
    return layer(await EmbeddedEngine.start(bundle, deadline_ms=10_000), bundle)


class World:
    """A policy in a real directory, followed; and what the ledger was told."""

    def __init__(self, folder: Path, source: PathSource, every_s: float) -> None:
        self.folder = folder
        self.part = Part(name="policy", source=source, prepare=checked, make=made)
        self.every_s = every_s
        self.activated: list[str] = []
        self.told: list[Layer] = []
        self.fails = False
        self.point: PolicyPoint
        self.switch: Switch

    def write(self, rego: str) -> None:
        new = self.folder / ".new"
        new.write_text(rego)
        new.rename(self.folder / "policy.rego")

    async def activate(self, revision: str) -> None:
        if self.fails:
            raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the disk is gone")
        self.activated.append(revision)

    async def code(self) -> str:
        return code_of(await ask(self.point, "one"))


@asynccontextmanager
async def following(folder: Path, every_s: float = 0.05) -> AsyncIterator[World]:
    folder.mkdir()
    (folder / "policy.rego").write_text(ALLOWS)
    world = World(folder, PathSource(folder, every_s=every_s, settle_s=0.01), every_s)
    world.point = PolicyPoint([await world.part.first()])
    world.switch = Switch(world.point, [world.part], world.activate, told=world.told.append)
    running = asyncio.create_task(world.switch.run())
    try:
        yield world
    finally:
        await stop(running)
        await world.point.aclose()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def count(result: str) -> float:
    return REGISTRY.get_sample_value("remit_policy_reloads_total", {"result": result}) or 0


def logged(printed: str) -> Sequence[str]:
    return [line for line in printed.splitlines() if "policy_refused" in line]


@pytest.mark.threat("T-10")
async def test_changed_directory_comes_into_force_and_the_ledger_is_told(tmp_path: Path) -> None:
    async with following(tmp_path / "policy") as world:
        before, switched = world.point.revision, count("switched")
        world.write(DENIES)
        await until(lambda: world.point.revision != before)
        assert await world.code() == "policy_denied"
        await until(lambda: world.told)
        assert world.activated == [world.point.revision]
        assert count("switched") == switched + 1
        assert world.switch.layers == (("policy", world.point.revision),)


@pytest.mark.threat("T-28")
@pytest.mark.parametrize(
    "bad",
    [
        "package remit\nnot rego",
        ALLOWS.replace('"decision": "deny"', '"decision": "allow"'),
        ALLOWS + 'x := http.send({"url": "http://x"})\n',
        ALLOWS + "x if { y }\n",
        "",
    ],
    ids=["syntax", "default", "builtin", "unsafe variable", "empty"],
)
async def test_bad_policy_keeps_the_one_in_force_and_is_loud(
    tmp_path: Path, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with following(tmp_path / "policy") as world:
        before, refused = world.point.revision, count("refused")
        world.write(bad)
        await until(lambda: world.switch.problem)
        assert "the new policy of layer policy is not in force: " in str(world.switch.problem)
        assert count("refused") == refused + 1
        assert world.point.revision == before
        assert await world.point.ready() is None
        assert await world.code() == "none"
        assert world.activated == []
        world.switch.look()  # a person looks again, and is told again
        await until(lambda: count("refused") == refused + 2)
        world.write(DENIES)
        await until(lambda: world.switch.problem is None)
        assert await world.code() == "policy_denied"
    assert len(logged(capsys.readouterr().out)) == 2


async def test_bad_policy_that_is_taken_back_is_no_problem_any_more_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with following(tmp_path / "policy") as world:
        before = world.point.standing
        world.write("package remit\nnot rego")
        await until(lambda: world.switch.problem)
        world.write(ALLOWS)
        await until(lambda: world.switch.problem is None)
        assert world.point.standing is before
    said = [line for line in capsys.readouterr().out.splitlines() if "policy_mended" in line]
    assert len(said) == 1


async def test_directory_that_is_gone_keeps_the_policy_in_force(tmp_path: Path) -> None:
    async with following(tmp_path / "policy") as world:
        (world.folder / "policy.rego").unlink()
        await until(lambda: world.switch.problem)
        assert await world.code() == "none"


async def test_look_finds_a_change_at_once_where_nothing_else_looks(tmp_path: Path) -> None:
    async with following(tmp_path / "policy", every_s=0) as world:
        before = world.point.revision
        world.write(DENIES)
        world.switch.look()
        await until(lambda: world.point.revision != before)
        assert world.activated == [world.point.revision]


@pytest.mark.threat("T-10")
async def test_ledger_that_could_not_be_told_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remit.policy.switch.RETRY_S", 0.01)
    async with following(tmp_path / "policy") as world:
        world.fails = True
        before = world.point.revision
        world.write(DENIES)
        await until(lambda: world.point.revision != before)
        await asyncio.sleep(0.05)
        assert world.activated == []
        world.fails = False
        await until(lambda: world.activated)
        assert set(world.activated) == {world.point.revision}


class Moving:
    """A server whose policy is changed by others: it says under which revision it answers."""

    def __init__(self, *engines: EmbeddedEngine) -> None:
        self.engines = list(engines)
        self.name = "moving"

    @property
    def revision(self) -> str:
        return self.engines[0].revision

    async def evaluate(self, rules: Sequence[str], document: bytes) -> Answer:
        return await self.engines[0].evaluate(rules, document)

    async def probe(self) -> None:
        await self.engines[0].probe()

    async def aclose(self) -> None:
        for each in self.engines:
            await each.aclose()


@pytest.mark.threat("T-29")
async def test_server_that_moved_to_another_revision_is_put_in_force_before_its_answer_counts() -> (
    None
):
    bundles = [policy(when("one", 'answer("allow", {})'), {"n": number}) for number in (1, 2)]
    moving = Moving(*[await EmbeddedEngine.start(each, deadline_ms=10_000) for each in bundles])
    first, second = (each.revision for each in bundles)
    at = Layer(name="policy", entries=("remit",), tenure=Tenure(moving), revision=first)
    point = PolicyPoint([at])
    activated: list[str] = []

    async def activate(revision: str) -> None:
        activated.append(revision)

    Switch(point, [], activate)
    try:
        assert (await ask(point, "one")).evaluation.revision == first
        moving.engines.reverse()
        told = await asyncio.gather(*(ask(point, "one") for _ in range(20)))
        assert {each.evaluation.revision for each in told} == {second}
        assert {each.evaluation.layers for each in told} == {(("policy", second),)}
        assert activated == [second]
        assert point.revision == second
    finally:
        await point.aclose()


@pytest.mark.threat("T-12")
async def test_source_that_cannot_be_asked_is_a_problem_only_until_it_can(tmp_path: Path) -> None:
    class Flaky(PathSource):
        down = False

        async def changed(self) -> PolicyBundle | None:
            found = await super().changed()
            if self.down:
                raise PolicyFault(Code.POLICY_UNAVAILABLE, "the server is away")
            return found

    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "policy.rego").write_text(ALLOWS)
    source = Flaky(folder, every_s=0.02, settle_s=0.01)
    world = World(folder, source, 0.02)
    world.point = PolicyPoint([await world.part.first()])
    world.switch = Switch(world.point, [world.part], world.activate)
    running = asyncio.create_task(world.switch.run())
    try:
        source.down = True
        await until(lambda: world.switch.problem)
        problem = str(world.switch.problem)
        assert problem == "layer policy cannot follow its source: the server is away"
        source.down = False
        await until(lambda: world.switch.problem is None)
        assert await world.code() == "none"
    finally:
        await stop(running)
        await world.point.aclose()
