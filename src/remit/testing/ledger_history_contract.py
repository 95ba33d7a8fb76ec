"""The part of the ledger's contract that is about what callers touched, and what they ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Code, Conflict, NotFound, Refused
from remit.model import (
    AccessRequest,
    Actor,
    CallerKind,
    Claims,
    Effect,
    EntryDraft,
    Frozen,
    PlanKind,
    RequestState,
    Taint,
    Touch,
)
from remit.ports import Ledger
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import NOTHING, SetClock, document, events, granted

MANY = 1_001


class TouchContract:
    """What a subject's runs touched is counted from their intents on."""

    async def test_alike_runs_are_one_touch_with_their_count_and_latest_time(
        self, active: Ledger, clock: SetClock
    ) -> None:
        for number in range(3):
            clock.move(1_000)
            await _touch(active, clock, f"s{number}", taints=(Taint.UNTRUSTED,))
        assert await _touches(active) == [
            Touch(
                session="one",
                system="tickets",
                effect=Effect.READ,
                untrusted=True,
                sensitive=False,
                calls=3,
                last_ms=clock.now_ms(),
            )
        ]

    async def test_what_differs_is_told_apart_newest_first(
        self, active: Ledger, clock: SetClock
    ) -> None:
        differing: list[dict[str, Any]] = [
            {},
            {"claims": Claims(session_id="two")},
            {"claims": Claims()},
            {"system": "ci"},
            {"effect": Effect.WRITE},
            {"taints": (Taint.SENSITIVE,)},
        ]
        for number, changes in enumerate(differing):
            clock.move(1_000)
            await _touch(active, clock, f"s{number}", **changes)
        found = [(t.session, t.system, t.effect, t.sensitive) for t in await _touches(active)]
        assert found == [
            ("one", "tickets", Effect.READ, True),
            ("one", "tickets", Effect.WRITE, False),
            ("one", "ci", Effect.READ, False),
            ("", "tickets", Effect.READ, False),
            ("two", "tickets", Effect.READ, False),
            ("one", "tickets", Effect.READ, False),
        ]

    async def test_only_what_was_let_go_since_then_counts(
        self, active: Ledger, clock: SetClock
    ) -> None:
        await _touch(active, clock, "old")
        clock.move(1)
        since = clock.now_ms()
        assert await active.touches("acme", "agent-7", since_ms=since) == []
        await _touch(active, clock, "new")
        assert [t.calls for t in await active.touches("acme", "agent-7", since_ms=since)] == [1]

    @pytest.mark.threat("T-30")
    async def test_a_touch_is_the_subjects_whatever_its_key_and_whoever_it_acts_for(
        self, active: Ledger, clock: SetClock
    ) -> None:
        acting = replace(
            sample.caller(), chain=(Actor(subject="hal", kind=CallerKind.HUMAN),), groups=("x",)
        )
        await _touch(active, clock, "a", caller=acting)
        await active.activate(
            replace(sample.activation(), keys=frozenset({"key-2"})), clock.now_ms()
        )
        await _touch(active, clock, "b", caller=sample.caller(key_id="key-2"))
        assert [touch.calls for touch in await _touches(active)] == [2]

    async def test_other_subjects_and_tenants_have_their_own(
        self, active: Ledger, clock: SetClock
    ) -> None:
        await _touch(active, clock, "a")
        await _touch(active, clock, "b", caller=sample.caller("agent-8"))
        await _touch(active, clock, "c", caller=replace(sample.caller(), tenant="else"))
        assert [touch.calls for touch in await _touches(active)] == [1]
        assert len(await active.touches("else", "agent-7", since_ms=0)) == 1

    @pytest.mark.threat("T-30")
    async def test_a_preview_counts_and_so_does_a_run_that_failed(
        self, active: Ledger, clock: SetClock
    ) -> None:
        await _touch(active, clock, plan=sample.plan("a", kind=PlanKind.PREVIEW))
        await _touch(active, clock, plan=sample.plan("b"))
        assert [touch.calls for touch in await _touches(active)] == [2]

    async def test_a_refused_intent_touched_nothing(self, active: Ledger, clock: SetClock) -> None:
        stale = sample.allow(clock, revision="rev-0")
        with pytest.raises(Refused):
            await _touch(active, clock, "a", decision=stale)
        assert await _touches(active) == []

    @pytest.mark.threat("T-30")
    async def test_past_a_thousand_the_oldest_fold_into_one_that_forgets_no_flag(
        self, active: Ledger, clock: SetClock
    ) -> None:
        first = {"system": "vault", "taints": tuple(Taint), "effect": Effect.DESTRUCTIVE}
        await _touch(active, clock, "first", **first)
        for number in range(MANY - 1):
            clock.move(1)
            await _touch(active, clock, f"s{number}", claims=Claims(session_id=f"n{number}"))
        found = await _touches(active)
        assert len(found) == 1_000
        assert found[0].session == f"n{MANY - 2}"
        assert found[-1] == Touch(
            session="",
            system="*",
            effect=Effect.DESTRUCTIVE,
            untrusted=True,
            sensitive=True,
            calls=2,
            last_ms=sample.START_MS + 1,
        )
        assert sum(touch.calls for touch in found) == MANY


class RequestContract:
    """A request for access waits for a person, and grants nothing."""

    async def test_a_request_is_filed_with_its_entry_and_the_callers_words_sealed(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        asked = _request(clock)
        filed = await ledger.file_request(asked, [EntryDraft(event="decision", public={})])
        assert filed == asked
        assert list(await ledger.access_requests()) == [asked]
        assert await events(ledger) == ["decision", "access.requested"]
        entry = await document(ledger, 1)
        text = json.dumps(entry)
        assert (entry["request"], entry["tool"], entry["codes"]) == (
            asked.id,
            {"name": "restart_service"},
            ["not_yours"],
        )
        assert "please" not in text
        assert "db-1" not in text
        assert await ledger.value(entry["commitments"]["reason"]) == b"please"
        assert await ledger.value(entry["commitments"]["arguments"]) == b'{"service":"db-1"}'

    async def test_the_same_request_gives_the_pending_one(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        first = await ledger.file_request(_request(clock), NOTHING)
        again = await ledger.file_request(
            _request(clock, reason="pretty please"), [EntryDraft(event="decision", public={})]
        )
        assert again == first
        assert await events(ledger) == ["access.requested", "decision"]
        await ledger.close_request(first.id, operator="olga", note="no", now_ms=clock.now_ms())
        anew = await ledger.file_request(_request(clock), NOTHING)
        assert anew.id != first.id

    async def test_another_caller_tool_or_argument_makes_another_request(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        others: list[dict[str, Any]] = [
            {},
            {"caller": sample.caller("agent-8")},
            {"tool_name": "other"},
            {"arguments": Frozen(b"{}")},
        ]
        for changes in others:
            await ledger.file_request(_request(clock, **changes), NOTHING)
        assert len(await ledger.access_requests()) == len(others)

    async def test_a_caller_has_at_most_fifty_requests_waiting(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        for number in range(50):
            await ledger.file_request(_request(clock, tool_name=f"t{number}"), NOTHING)
        with pytest.raises(Refused) as caught:
            await ledger.file_request(_request(clock), NOTHING)
        assert caught.value.code is Code.RATE_LIMITED
        await ledger.file_request(_request(clock, tool_name="t7"), NOTHING)
        other = _request(clock, caller=sample.caller("agent-8"))
        await ledger.file_request(other, NOTHING)
        newest = (await ledger.access_requests(limit=2))[1]
        await ledger.close_request(newest.id, operator="olga", note="", now_ms=clock.now_ms())
        await ledger.file_request(_request(clock), NOTHING)

    async def test_a_request_too_large_to_read_is_not_filed(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        for changes in ({"reason": "x" * 1001}, {"arguments": Frozen(b'"' + b"x" * 65_535 + b'"')}):
            with pytest.raises(Refused) as caught:
                await ledger.file_request(_request(clock, **changes), NOTHING)
            assert caught.value.code is Code.INVALID_ARGUMENTS
        assert await events(ledger) == []

    async def test_a_closed_request_says_who_closed_it_and_why(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        filed = await ledger.file_request(_request(clock), NOTHING)
        clock.move(5_000)
        closed = await ledger.close_request(
            filed.id, operator="olga", note="ask the owner", now_ms=clock.now_ms()
        )
        assert closed == replace(
            filed,
            state=RequestState.CLOSED,
            closed_ms=clock.now_ms(),
            closed_by="olga",
            note="ask the owner",
        )
        entry = await document(ledger, 1)
        assert (entry["event"], entry["operator"]) == ("access.closed", "olga")
        assert "owner" not in json.dumps(entry)
        assert await ledger.access_requests(states=frozenset({RequestState.PENDING})) == []
        assert list(await ledger.access_requests()) == [closed]

    async def test_only_a_pending_request_can_be_closed(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        filed = await ledger.file_request(_request(clock), NOTHING)
        await ledger.close_request(filed.id, operator="olga", note="", now_ms=clock.now_ms())
        with pytest.raises(Conflict) as caught:
            await ledger.close_request(filed.id, operator="olga", note="", now_ms=clock.now_ms())
        assert caught.value.code is Code.WRONG_STATE
        with pytest.raises(NotFound):
            await ledger.close_request("req_none", operator="olga", note="", now_ms=0)
        assert await events(ledger) == ["access.requested", "access.closed"]


async def _touch(ledger: Ledger, clock: SetClock, service: str = "web", **changes: Any) -> None:
    fields: dict[str, Any] = {
        "plan": sample.plan(service),
        "effect": Effect.READ,
        "system": "tickets",
        "claims": Claims(session_id="one"),
    }
    await granted(ledger, clock, **(fields | changes))


async def _touches(ledger: Ledger) -> list[Touch]:
    return list(await ledger.touches("acme", "agent-7", since_ms=0))


def _request(clock: SetClock, **changes: Any) -> AccessRequest:
    fields: dict[str, Any] = {
        "id": clock.new_id("req"),
        "caller": replace(sample.caller(), acr="high", amr=("otp",), auth_ms=7),
        "tool_name": sample.TOOL,
        "environment": "production",
        "arguments": Frozen(b'{"service":"db-1"}'),
        "reason": "please",
        "decision_id": clock.new_id("dec"),
        "codes": ("not_yours",),
        "filed_ms": clock.now_ms(),
    }
    return AccessRequest(**(fields | changes))
