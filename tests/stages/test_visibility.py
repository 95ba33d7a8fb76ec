"""A call asks policy about its one tool, a list is made once in parts, and no answer outlives its
reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Code, PolicyFault, Refused
from remit.model import Caller, CallerKind, Tool
from remit.stages.visibility import Visibility
from remit.testing.catalog import MemoryCatalog, make_tool
from remit.testing.ledger_samples import SetClock
from remit.testing.policy import ScriptedPolicy

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-03")]

CALLER = Caller(tenant="t", subject="bot", kind=CallerKind.AGENT, key_id="k1")
MANY = [make_tool(f"t{number:04d}") for number in range(450)]


class Gate(ScriptedPolicy):
    """A policy that answers when it is let, and knows how many questions were with it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self.now = 0
        self.most = 0
        self.questions = 0

    async def visible(self, document: Mapping[str, Any], names: Sequence[str]) -> frozenset[str]:
        self.now += 1
        self.questions += 1
        self.most = max(self.most, self.now)
        self.reached.set()
        await self.open.wait()
        await asyncio.sleep(0)  # others may come in between
        self.now -= 1
        return frozenset(names)


class World:
    """A catalog, a policy that hides what a test names, a clock, and how it was asked."""

    def __init__(
        self, tools: Sequence[Tool] = MANY, *, policy: ScriptedPolicy | None = None, **more: Any
    ) -> None:
        self.hidden: set[str] = set()
        self.failing: set[str] = set()
        self.catalog = MemoryCatalog(tools)
        self.policy = ScriptedPolicy(visible=self._shows) if policy is None else policy
        self.clock = SetClock()
        self.visibility = Visibility(self.catalog, self.policy, self.clock, **more)

    def _shows(self, document: Mapping[str, Any], name: str) -> bool:
        if name in self.failing:
            raise PolicyFault(Code.POLICY_ERROR, "as the test wants it")
        return name not in self.hidden

    @property
    def asked(self) -> list[int]:
        """How many tools each question was about."""
        return [len(document["tools"]) for document in self.policy.listed]

    async def finds(self, name: str, caller: Caller = CALLER, source_ip: str = "::1") -> bool:
        try:
            await self.visibility.find(caller, name, source_ip)
        except Refused as refused:
            return refused.code is not Code.UNKNOWN_TOOL
        return True

    async def names(self, caller: Caller = CALLER, **more: Any) -> list[str]:
        return [tool.name for tool in await self.visibility.tools(caller, **more)]


# ------------------------------------------------------------------------------------- one tool


async def test_call_asks_about_its_one_tool_whatever_the_catalog_holds() -> None:
    world = World()
    assert await world.finds("t0007")
    assert world.asked == [1]
    assert world.policy.listed[0]["tools"][0]["name"] == "t0007"


async def test_answer_is_used_again_until_it_is_too_old() -> None:
    world = World(ttl_s=10)
    assert await world.finds("t0001")
    world.clock.move(9_999)
    assert await world.finds("t0001")
    assert world.asked == [1]
    world.clock.move(1)
    world.hidden.add("t0001")
    assert not await world.finds("t0001")


async def test_nothing_is_used_again_where_the_operator_wants_that() -> None:
    world = World(ttl_s=0)
    for _ in range(3):
        assert await world.finds("t0001")
    assert world.asked == [1, 1, 1]


async def _revision(world: World) -> None:
    world.policy.revision = "another"


async def _frozen(world: World) -> None:
    world.visibility.freeze_changed()


async def _tool(world: World) -> None:
    world.catalog.put(make_tool("t0001", description="Other words."))


@pytest.mark.parametrize("change", [_revision, _frozen, _tool])
async def test_answer_does_not_outlive_what_it_rests_on(change: Any) -> None:
    world = World()
    assert await world.finds("t0001")
    assert "t0001" in await world.names()
    world.hidden.add("t0001")
    assert await world.finds("t0001")
    await change(world)
    assert not await world.finds("t0001")
    assert "t0001" not in await world.names()


@pytest.mark.parametrize("change", [_revision, _frozen, _tool])
@pytest.mark.parametrize("whole", [True, False])
async def test_answer_to_a_question_that_was_out_during_a_change_is_not_kept(
    change: Any, whole: bool
) -> None:
    gate = Gate()
    world = World(policy=gate)

    async def ask() -> object:
        return await (world.names() if whole else world.finds("t0001"))

    first = asyncio.ensure_future(ask())
    await gate.reached.wait()
    await change(world)
    later = asyncio.ensure_future(world.finds("t0002"))  # what is kept from here on is for the new
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(first, later)
    before = gate.questions
    await ask()
    assert gate.questions > before


async def test_callers_share_an_answer_only_where_policy_cannot_tell_them_apart() -> None:
    world = World()
    await world.finds("t0001")
    assert await world.finds("t0001", replace(CALLER, key_id="k2", expires_ms=1))
    assert world.asked == [1]
    assert await world.finds("t0001", replace(CALLER, groups=("sre",)))
    assert world.asked == [1, 1]


async def test_fault_of_policy_hides_the_tool_and_is_not_kept() -> None:
    world = World()
    world.failing.add("t0001")
    assert not await world.finds("t0001")
    world.failing.clear()
    assert await world.finds("t0001")


# ------------------------------------------------------------------------ hidden is not there


async def test_hidden_and_missing_tools_are_refused_alike_and_cost_policy_the_same() -> None:
    refusals, questions = [], []
    for name in ("hidden", "missing"):
        world = World([make_tool("a"), make_tool("hidden")])
        world.hidden.add("hidden")
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                await world.visibility.find(CALLER, name)
            said = refused.value
            refusals.append((said.code, said.message.replace(name, "…"), said.place, said.hint,
                             said.decision_id, said.policy_revision))  # fmt: skip
        questions.append(world.asked)
    assert len(set(refusals)) == 1
    assert questions == [[1], [1]]


async def test_name_that_is_not_there_never_reaches_policy() -> None:
    world = World([make_tool("a")])
    assert not await world.finds("missing")
    assert "missing" not in str(world.policy.listed)


async def test_empty_catalog_shows_nothing_and_asks_nothing() -> None:
    world = World([])
    assert not await world.finds("missing")
    assert await world.names() == []
    assert world.asked == []


# ---------------------------------------------------------------------------------- whole lists


async def test_list_is_asked_in_parts_of_two_hundred_and_comes_sorted() -> None:
    world = World()
    world.hidden |= {"t0000", "t0200"}
    assert await world.names() == [t.name for t in MANY if t.name not in world.hidden]
    assert world.asked == [200, 200, 50]


async def test_tools_that_say_much_are_asked_in_smaller_parts() -> None:
    tags = [f"{number:02d}" + "x" * 38 for number in range(32)]
    world = World([make_tool(f"t{number:03d}", tags=tags) for number in range(200)])
    assert len(await world.names()) == 200
    assert len(world.asked) > 1
    assert sum(world.asked) == 200


async def test_list_is_made_once_and_given_as_the_same_sequence() -> None:
    world = World()
    first = await world.visibility.tools(CALLER)
    assert await world.visibility.tools(replace(CALLER, key_id="k2")) is first
    assert world.asked == [200, 200, 50]
    # Who is another to policy has a list of its own making; an equal one is the same sequence.
    assert await world.visibility.tools(replace(CALLER, subject="cat")) is first
    assert len(world.asked) == 6


async def test_part_without_an_answer_hides_its_tools_and_the_list_is_not_kept() -> None:
    world = World()
    world.failing.add("t0300")
    assert await world.names() == [t.name for t in (*MANY[:200], *MANY[400:])]
    world.failing.clear()
    assert len(await world.names()) == 450
    assert len(world.asked) == 6


async def test_those_who_ask_the_same_at_the_same_time_share_one_making() -> None:
    gate = Gate()
    world = World(policy=gate)
    waiting = [asyncio.ensure_future(world.names()) for _ in range(20)]
    await gate.reached.wait()
    waiting[0].cancel()  # who asked first goes away; the others get their list
    gate.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [[t.name for t in MANY]] * 19
    assert gate.questions == 3


@pytest.mark.parametrize("batches", [1, 2])
async def test_lists_of_many_callers_have_so_many_parts_with_policy_at_once(batches: int) -> None:
    gate = Gate()
    world = World(policy=gate, batches=batches)
    gate.open.set()
    callers = [replace(CALLER, subject=f"bot-{number}") for number in range(5)]
    await asyncio.gather(*(world.names(one) for one in callers))
    assert gate.questions == 15
    assert gate.most <= batches


async def test_making_under_way_ends_with_the_gateway() -> None:
    gate = Gate()
    world = World(policy=gate)
    waiting = asyncio.ensure_future(world.names())
    await gate.reached.wait()
    await world.visibility.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# --------------------------------------------------------------------------- rules that read more


async def test_rule_that_reads_what_passes_is_asked_each_time_and_shown_the_address() -> None:
    world = World(ttl_s=10)
    world.policy.visible_reads = frozenset({"context.source_ip"})
    for address in ("::1", "::2"):
        assert await world.finds("t0001", source_ip=address)
        await world.names(source_ip=address)
    shown = [document["context"]["source_ip"] for document in world.policy.listed]
    assert shown == ["::1"] * 4 + ["::2"] * 4


async def test_page_of_a_list_that_is_never_kept_asks_only_about_what_comes_there() -> None:
    world = World()
    world.policy.visible_reads = frozenset({"context.time"})
    found = await world.names(after="t0009", enough=51)
    assert found[:51] == [t.name for t in MANY[10:61]]
    assert world.asked == [200]
    world.hidden |= {t.name for t in MANY[:400]}
    assert await world.names(after="t0009", enough=51) == [t.name for t in MANY[400:]]


async def test_address_is_not_shown_to_a_rule_known_not_to_look() -> None:
    world = World()
    await world.finds("t0001")
    assert world.policy.listed[0]["context"]["source_ip"] == ""


async def test_answer_of_a_policy_nobody_here_has_read_holds_for_one_address_only() -> None:
    world = World()
    world.policy.visible_reads = None
    for address in ("::1", "::2", "::1"):
        assert await world.finds("t0001", source_ip=address)
        await world.names(source_ip=address)
    shown = [document["context"]["source_ip"] for document in world.policy.listed]
    assert shown == ["::1"] * 4 + ["::2"] * 4
