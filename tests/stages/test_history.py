"""Nothing that a caller chooses resets what policy is told of its subject."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.errors import Code, LedgerFault
from remit.history import MAX_TOUCHES, History
from remit.ledger.signer import FileSigner
from remit.model import Actor, CallerKind, Claims, Effect, Intent, PlanKind, Taint, Touch
from remit.stages import history as stage
from remit.stages.history import Histories
from remit.testing import ledger_samples as sample
from remit.testing.ledger import MemoryLedger
from remit.testing.ledger_samples import NOTHING, SetClock

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-30")]

WINDOW_S = 3_600
BOT = sample.caller()


class CountedLedger(MemoryLedger):
    """The ledger in memory, which says how often it was asked, and can hold its answer back."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.asked = 0
        self.reading = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.broken = False

    async def touches(self, tenant: str, subject: str, *, since_ms: int) -> Sequence[Touch]:
        self.asked += 1
        found = await super().touches(tenant, subject, since_ms=since_ms)
        self.reading.set()
        await self.go_on.wait()
        if self.broken:
            raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the ledger could not be read")
        return found


class World:
    """A ledger with a history stage over it, and intents in a line."""

    def __init__(self, ledger: CountedLedger, clock: SetClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.histories = Histories(ledger, clock, window_s=WINDOW_S)
        self._made = 0

    async def commit(self, **changes: Any) -> Intent:
        self._made += 1
        fields: dict[str, Any] = {
            "plan": sample.plan(f"s{self._made}"),
            "effect": Effect.READ,
            "system": "tickets",
            "taints": (Taint.UNTRUSTED,),
            "claims": Claims(session_id="one"),
        }
        intent = sample.intent(self.clock, **(fields | changes))
        await self.ledger.commit_intent(intent, NOTHING)
        self.histories.committed(intent)
        return intent

    async def told(self, session: str | None = "one", **changes: Any) -> History:
        return await self.histories.of(replace(BOT, **changes), Claims(session_id=session))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    clock = SetClock()
    signer = FileSigner.create(tmp_path / "log.key", "gateway.example/log")
    ledger = CountedLedger(signer=signer, gateway="gw-1", clock=clock)
    active = replace(sample.activation(), keys=frozenset({"key-1", "key-2"}))
    await ledger.activate(active, clock.now_ms())
    return World(ledger, clock)


async def test_a_subject_that_did_nothing_has_no_history(world: World) -> None:
    told = await world.told()
    assert told.all == told.session == History().all
    assert told.since_ms == world.clock.now_ms() - 1_000 * WINDOW_S


async def test_a_committed_intent_is_told_at_once_and_from_memory(world: World) -> None:
    await world.told()
    await world.commit()
    told = await world.told()
    assert (told.all.calls, told.all.untrusted_from) == (1, ("tickets",))
    assert told.session == told.all
    await world.commit(system="ci", taints=(Taint.SENSITIVE,), effect=Effect.WRITE)
    told = await world.told()
    assert told.all.systems == ("ci", "tickets")
    assert told.all.effects == ("read", "write")
    assert (told.all.untrusted_from, told.all.sensitive_from) == (("tickets",), ("ci",))
    for _ in range(3):
        await world.commit()
    assert (await world.told()).all.calls == 5
    assert world.ledger.asked == 1


async def test_a_new_session_id_splits_the_history_and_resets_nothing(world: World) -> None:
    await world.commit()
    told = await world.told(session="two")
    assert told.all.untrusted_from == ("tickets",)
    assert told.session == History().session
    told = await world.told(session=None)
    assert told.all.untrusted_from == ("tickets",)
    assert told.session.calls == 0
    await world.commit(claims=Claims(session_id="two"), system="ci")
    assert (await world.told(session="two")).session.systems == ("ci",)
    assert (await world.told(session="one")).session.systems == ("tickets",)


async def test_a_restart_forgets_nothing(world: World) -> None:
    await world.commit()
    await world.commit(system="ci", taints=())
    before = await world.told()
    world.histories = Histories(world.ledger, world.clock, window_s=WINDOW_S)
    assert await world.told() == before
    assert before.all.calls == 2


async def test_what_fell_out_of_memory_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MAX_KEPT", 4)
    await world.told()
    await world.commit()
    for number in range(4):
        await world.told(subject=f"other-{number}")
    asked = world.ledger.asked
    told = await world.told()
    assert world.ledger.asked == asked + 1
    assert told.all.untrusted_from == ("tickets",)


async def test_another_delegation_chain_or_kind_is_the_same_subject(world: World) -> None:
    await world.commit()
    chain = (Actor(subject="hal", kind=CallerKind.HUMAN),)
    for changes in ({"chain": chain}, {"kind": CallerKind.SERVICE}, {"groups": ("x",)}):
        assert (await world.told(**changes)).all.calls == 1


async def test_another_key_of_the_same_subject_tells_the_same(world: World) -> None:
    await world.commit()
    assert (await world.told(key_id="key-2")).all.untrusted_from == ("tickets",)
    await world.commit(caller=replace(BOT, key_id="key-2"))
    assert (await world.told()).all.calls == 2


async def test_another_subject_or_tenant_has_a_history_of_its_own(world: World) -> None:
    await world.commit()
    assert (await world.told(subject="agent-8")).all.calls == 0
    assert (await world.told(tenant="else")).all.calls == 0


async def test_a_preview_that_read_counts_like_a_call(world: World) -> None:
    await world.commit(plan=sample.plan("p", kind=PlanKind.PREVIEW))
    assert (await world.told()).all.untrusted_from == ("tickets",)


async def test_the_thousand_and_first_touch_hides_no_flag(world: World) -> None:
    await world.told()
    await world.commit(system="vault", taints=(Taint.SENSITIVE,), effect=Effect.DESTRUCTIVE)
    for number in range(MAX_TOUCHES + stage.SLACK + 1):
        world.clock.move(1)
        await world.commit(claims=Claims(session_id=f"s{number}"))
    told = await world.told()
    assert told.all.calls == MAX_TOUCHES + stage.SLACK + 2
    assert "*" in told.all.sensitive_from
    assert "destructive" in told.all.effects
    world.histories = Histories(world.ledger, world.clock, window_s=WINDOW_S)
    anew = await world.told()
    assert anew.all == told.all


async def test_what_is_older_than_the_window_is_let_go(world: World) -> None:
    await world.told()
    await world.commit()
    world.clock.move(1_000 * WINDOW_S - 1)
    await world.commit(system="ci", taints=())
    assert (await world.told()).all.systems == ("ci", "tickets")
    world.clock.move(2)
    told = await world.told()
    assert (told.all.systems, told.all.untrusted_from) == (("ci",), ())


async def test_calls_that_left_the_window_are_counted_out_at_the_next_refill(world: World) -> None:
    await world.commit()
    world.clock.move(1_000 * WINDOW_S - 100)
    await world.commit()
    assert (await world.told()).all.calls == 2
    world.clock.move(1_000 * WINDOW_S // 24)
    assert (await world.told()).all.calls == 1


async def test_an_intent_committed_while_the_ledger_is_read_is_not_lost(world: World) -> None:
    world.ledger.go_on.clear()
    first = asyncio.ensure_future(world.told())
    await world.ledger.reading.wait()  # the ledger has looked, and has not answered
    await world.commit()
    second = asyncio.ensure_future(world.told())
    world.ledger.go_on.set()
    await first
    assert (await second).all.untrusted_from == ("tickets",)
    assert (await world.told()).all.calls == 1
    assert world.ledger.asked == 1


async def test_whoever_waits_for_a_reading_that_is_called_off_reads_anew(world: World) -> None:
    await world.commit()
    world.ledger.go_on.clear()
    first = asyncio.ensure_future(world.told())
    await world.ledger.reading.wait()
    second = asyncio.ensure_future(world.told())
    first.cancel()
    world.ledger.go_on.set()
    assert (await second).all.calls == 1


async def test_a_history_that_cannot_be_read_is_never_taken_for_an_empty_one(world: World) -> None:
    await world.commit()
    world.ledger.broken = True
    for _ in range(2):
        with pytest.raises(LedgerFault):
            await world.told()
    world.ledger.broken = False
    assert (await world.told()).all.calls == 1


async def test_many_sessions_keep_their_parts_apart(world: World) -> None:
    for number in range(stage.MAX_VIEWS + 2):
        await world.commit(claims=Claims(session_id=f"s{number}"), system=f"x{number}")
    for number in range(stage.MAX_VIEWS + 2):
        assert (await world.told(session=f"s{number}")).session.systems == (f"x{number}",)
