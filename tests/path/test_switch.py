"""Policy is changed while a thousand calls are under way: no record mixes two, and no call pays."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from remit.errors import Code, LedgerFault
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.records import read_store
from remit.ledger.verify import verify
from remit.model import Activation, Call, Reply
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.embedded import EmbeddedEngine
from remit.policy.layers import Layer, layer
from remit.policy.switch import Part, Switch, stop
from tests.path.conftest import AGENT, HEAD, MakePath, Path_

pytestmark = pytest.mark.anyio

CALLS = 1_000
SWITCHES = 6

MARKED = HEAD.replace(
    'reason := [{"code": "rule", "message": "a rule of the test", "audience": "user"}]',
    'reason := [{"code": sprintf("%s%d", [data.mark, data.number]), "message": "marked"}]',
)
ALLOWING = MARKED + 'decision := answer("allow", {})\n'
HIDING = HEAD.replace('name != "hidden"', "input.absent") + ('decision := answer("allow", {})\n')


def marked(mark: str, number: int) -> PolicyBundle:
    """A policy whose reasons say which one of many it is."""
    return bundle_of({"test.rego": ALLOWING}, {"mark": mark, "number": number})


class Handed:
    """A source that is handed its policies, and faults, one after the other."""

    def __init__(self, first: PolicyBundle) -> None:
        self.now: PolicyBundle | Exception = first
        self._next: asyncio.Queue[PolicyBundle | Exception] = asyncio.Queue()

    def hand(self, given: PolicyBundle | Exception) -> None:
        self.now = given
        self._next.put_nowait(given)

    async def load(self) -> PolicyBundle:
        return self._given(self.now)

    async def changed(self) -> PolicyBundle | None:
        return self._given(await self._next.get())

    async def keep(self) -> None:
        return None

    async def aclose(self) -> None:
        return None

    def _given(self, given: PolicyBundle | Exception) -> PolicyBundle:
        if isinstance(given, Exception):
            raise given
        return given


async def make(bundle: PolicyBundle, name: str) -> Layer:
    return layer(await EmbeddedEngine.start(bundle, deadline_ms=30_000), bundle, name=name)


def part(name: str, source: Handed) -> Part:
    return Part(
        name=name, source=source, prepare=lambda each: each, make=lambda each: make(each, name)
    )


def switch_of(path: Path_, sources: dict[str, Handed]) -> Switch:
    async def activate(revision: str) -> None:
        tools = {one.name: one.digest for one in path.tools}
        activation = Activation(revision=revision, tools=tools, keys=frozenset({"k1", "k2"}))
        await path.ledger.activate(activation, path.clock.now_ms())

    return Switch(path.policy, [part(*each) for each in sources.items()], activate)


@contextlib.asynccontextmanager
async def following(switch: Switch) -> AsyncIterator[None]:
    running = asyncio.create_task(switch.run())
    try:
        yield
    finally:
        await stop(running)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def _all_entries(path: Path_) -> Sequence[dict[str, Any]]:
    return [json.loads(entry.text) for entry in await path.ledger.entries(0, 100_000)]


def _assert_each_record_is_of_one_revision(
    entries: Sequence[dict[str, Any]], known: dict[str, str]
) -> set[str]:
    """Every decision gives the reasons of just the policies it names; every intent is in force."""
    active: str | None = None
    decided: dict[str, str] = {}
    seen: set[str] = set()
    for entry in entries:
        match entry["event"]:
            case "gateway.activated":
                active = entry["revision"]
            case "decision":
                policy = entry["policy"]
                named = policy.get("layers") or [{"revision": policy["revision"]}]
                expected = sorted(known[each["revision"]] for each in named)
                assert sorted(entry["reasons"]) == expected
                decided[entry["decision"]] = policy["revision"]
                seen.add(policy["revision"])
            case "call.intent":
                assert entry["revision"] == decided[entry["decision"]] == active
    return seen


@pytest.mark.slow
@pytest.mark.threat("T-10")
@pytest.mark.parametrize("names", [("policy",), ("org", "team", "policy")])
async def test_policy_switched_under_a_thousand_calls_mixes_nothing_and_fails_none(
    make_path: MakePath, names: tuple[str, ...]
) -> None:
    known: dict[str, str] = {}

    def one(name: str, number: int) -> PolicyBundle:
        bundle = marked(name, number)
        known[bundle.revision] = f"{name}{number}"
        return bundle

    sources = {name: Handed(one(name, 0)) for name in names}
    path = await make_path(
        layers={name: await source.load() for name, source in sources.items()},
        deadline_ms=30_000,
        concurrent_runs=64,
    )
    switch = switch_of(path, sources)
    async with following(switch):
        calls = asyncio.gather(
            *(path.call("act", service=f"s{number}", count=number) for number in range(CALLS))
        )
        for number in range(1, SWITCHES + 1):
            before = path.policy.revision
            name = names[number % len(names)]
            sources[name].hand(one(name, number))
            await until(lambda before=before: path.policy.revision != before)
            if number == 1:
                assert not calls.done()
        replies: list[Reply] = await calls
    assert [reply.decision["code"] for reply in replies if reply.is_error] == []
    seen = _assert_each_record_is_of_one_revision(await _all_entries(path), known)
    assert len(seen) >= 2, "no call was under way while policy was switched"
    key = VerifierKey.parse(path.ledger.verifier_key)
    report = await asyncio.to_thread(lambda: verify(read_store(path.store), key))
    assert report.problem is None


class Commits:
    """Has something happen between the decision and the commit of the first intents."""

    def __init__(self, path: Path_, patch: pytest.MonkeyPatch, *first: Any) -> None:
        self._first = list(first)
        self._commit = path.ledger.commit_intent
        patch.setattr(path.ledger, "commit_intent", self)

    async def __call__(self, *given: Any) -> Any:
        if self._first:
            await self._first.pop(0)()
        return await self._commit(*given)


@pytest.mark.threat("T-10")
async def test_call_is_decided_again_as_often_as_policy_is_switched_under_it(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await make_path(layers={"policy": marked("a", 0)})
    switch = switch_of(path, {})
    numbers = iter(range(1, 6))

    async def switched() -> None:
        path.policy.put(await make(marked("a", next(numbers)), "policy"))
        await switch.activate()

    Commits(path, monkeypatch, *[switched] * 5)
    assert not (await path.call("act", service="web")).is_error
    reasons = [entry["reasons"] for entry in await path.entries() if entry["event"] == "decision"]
    assert reasons == [["a0"], ["a1"], ["a2"], ["a3"], ["a4"], ["a5"]]


@pytest.mark.threat("T-03")
async def test_tool_that_the_new_policy_hides_is_refused_to_a_call_under_way(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await make_path(layers={"policy": marked("a", 0)})
    switch = switch_of(path, {})

    async def hidden() -> None:
        path.policy.put(await make(bundle_of({"test.rego": HIDING}, {}), "policy"))
        await switch.activate()

    Commits(path, monkeypatch, hidden)
    reply = await path.call("act", service="web")
    assert reply.decision["code"] == Code.UNKNOWN_TOOL.value
    assert path.runner.times("start") == 0


@pytest.mark.threat("T-03")
async def test_new_policy_is_shown_from_where_a_call_under_way_came(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await make_path(layers={"policy": marked("a", 0)})
    switch = switch_of(path, {})
    from_there = ALLOWING.replace('name != "hidden"', 'input.context.source_ip == "192.0.2.7"')

    async def switched() -> None:
        bundle = bundle_of({"test.rego": from_there}, {"mark": "b", "number": 0})
        path.policy.put(await make(bundle, "policy"))
        await switch.activate()

    Commits(path, monkeypatch, switched)
    call = Call(
        id="call_1",
        caller=AGENT,
        tool_name="act",
        arguments={"service": "web"},
        received_ms=path.clock.now_ms(),
        source_ip="192.0.2.7",
    )
    reply = await path.pipeline.call(call, path.heard)
    assert reply.decision["code"] == "ok"


@pytest.mark.threat("T-10")
async def test_nothing_runs_under_a_policy_that_the_ledger_does_not_know_yet(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = marked("a", 0)
    path = await make_path(layers={"policy": first})
    sources = {"policy": Handed(first)}
    activate, broken = path.ledger.activate, True

    async def sometimes(*given: Any) -> None:
        if broken:
            raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the disk is gone")
        await activate(*given)

    monkeypatch.setattr(path.ledger, "activate", sometimes)
    switch = switch_of(path, sources)
    async with following(switch):
        second = marked("a", 1)
        sources["policy"].hand(second)
        await until(lambda: path.policy.revision == second.revision)
        refused = await path.call("act", service="web")
        assert refused.decision["code"] == Code.DECISION_STALE.value
        broken = False
        async with asyncio.timeout(20):
            while (await path.call("act", service="web")).is_error:
                await asyncio.sleep(0.05)
