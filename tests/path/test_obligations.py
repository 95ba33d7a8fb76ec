"""What policy obliges to is done before anything runs, or nothing runs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from remit.model import RunResult, RunSpec
from remit.stages.oblige import MAX_BACKGROUND
from remit.telemetry import NOTICES
from remit.testing.notify import KeptNotices
from remit.testing.scripted import ends
from tests.path.conftest import AGENT, HEAD, MakePath
from tests.path.test_path import approve, code, text

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-12")]

TELL = {"id": "tell", "type": "notify", "properties": {"channel": "oncall", "message": "look"}}
SIGNED_IN = replace(AGENT, acr="high", amr=("hwk", "pin"))


def policy(*obligations: dict[str, Any], verdict: str = "allow", phase: str = "") -> str:
    more: dict[str, Any] = {"obligations": list(obligations)}
    if verdict == "require_approval":
        more["approvals"] = {"required": 1}
    return HEAD + f'decision := answer("{verdict}", {json.dumps(more)}) {phase}\n'


def step_up(**properties: Any) -> dict[str, Any]:
    return {"id": "s", "type": "step_up", "properties": properties}


def taken(result: str) -> float:
    return float(NOTICES.labels(result)._value.get())


# ----------------------------------------------------------------------------------------- notify


async def test_message_is_taken_before_the_intent_and_says_who_and_what(
    make_path: MakePath,
) -> None:
    notices = KeptNotices()
    path = await make_path(policy(TELL), notifier=notices)
    seen: list[int] = []

    async def behave(_: RunSpec) -> RunResult:
        seen.append(len(notices.told))
        return await ends(b"done")(_)

    path.runner.behave = behave
    reply = await path.call("act", service="a-name-the-caller-chose", count=77)
    assert code(reply) == "ok"
    assert seen == [1]
    ((channel, told),) = notices.told
    assert channel == "oncall"
    assert told["schema"] == "remit.notice/1"
    assert (told["message"], told["obligation"], told["verdict"]) == ("look", "tell", "allow")
    assert (told["caller"]["subject"], told["tool"]) == ("bot", "act")
    assert told["plan_hash"] == reply.decision["plan_hash"]
    assert told["decision"] == reply.decision["decision_id"]
    assert [each["code"] for each in told["reasons"]] == ["rule"]
    assert "a-name-the-caller-chose" not in json.dumps(told)
    assert "77" not in json.dumps({k: v for k, v in told.items() if k not in _HEX})
    events = await path.events()
    assert events.index("call.notified") < events.index("call.intent")


_HEX = {"plan_hash", "decision", "call", "revision", "sent_ms"}


async def test_message_that_is_not_taken_refuses_the_call_and_nothing_runs(
    make_path: MakePath,
) -> None:
    notices = KeptNotices(failure="HTTP 503")
    path = await make_path(policy(TELL), notifier=notices)
    reply = await path.call("act")
    assert code(reply) == "notice_not_taken"
    assert "503" not in text(reply)
    assert path.runner.told == []
    assert "call.intent" not in await path.events()
    notices.failure = None
    assert code(await path.call("act")) == "ok"


async def test_channel_that_is_not_configured_refuses_before_anybody_is_asked(
    make_path: MakePath,
) -> None:
    other = TELL | {"properties": {"channel": "elsewhere"}}
    for verdict in ("allow", "require_approval"):
        path = await make_path(policy(other, verdict=verdict), notifier=KeptNotices())
        assert code(await path.call("act")) == "policy_unsupported"
        assert path.runner.told == []
        assert "approval.opened" not in await path.events()


async def test_gateway_without_channels_refuses_what_wants_one(make_path: MakePath) -> None:
    path = await make_path(policy(TELL))
    assert code(await path.call("act")) == "policy_unsupported"


async def test_message_waits_for_the_approval_and_goes_once(make_path: MakePath) -> None:
    notices = KeptNotices()
    path = await make_path(policy(TELL, verdict="require_approval"), notifier=notices)
    waiting = await path.call("act")
    assert notices.told == []
    await approve(path, waiting.decision["approval_id"])
    assert code(await path.call("act")) == "ok"
    assert [told["verdict"] for _, told in notices.told] == ["require_approval"]


async def test_call_that_is_put_to_policy_again_tells_nobody_twice(make_path: MakePath) -> None:
    class Slow(KeptNotices):
        """Another policy comes into force while the message is on its way."""

        async def notify(self, channel: str, message: Any) -> str | None:
            if not self.told:
                await path.load(policy(TELL) + "# changed\n")
            return await KeptNotices.notify(self, channel, message)

    notices = Slow()
    path = await make_path(policy(TELL), notifier=notices)
    assert code(await path.call("act")) == "ok"
    events = await path.events()
    assert events.count("decision") == 2
    assert len(notices.told) == 1


async def test_each_message_of_a_decision_goes_out(make_path: MakePath) -> None:
    notices = KeptNotices(channels=frozenset({"oncall", "audit"}))
    second = {"id": "b", "type": "notify", "properties": {"channel": "audit"}}
    path = await make_path(policy(TELL, second), notifier=notices)
    assert code(await path.call("act")) == "ok"
    assert [channel for channel, _ in notices.told] == ["oncall", "audit"]


async def test_preview_tells_where_policy_says_so_of_the_preview(make_path: MakePath) -> None:
    notices = KeptNotices()
    rego = policy(TELL, phase='if input.phase == "preview"')
    rego += 'decision := answer("allow", {}) if input.phase == "call"\n'
    path = await make_path(rego, notifier=notices)
    assert code(await path.call("previewed")) == "ok"
    assert [told["kind"] for _, told in notices.told] == ["preview"]


# -------------------------------------------------------------------------------- beside a denial


async def test_denial_is_told_in_the_background_and_waits_for_nobody(
    make_path: MakePath,
) -> None:
    notices = KeptNotices(held=asyncio.Event())
    path = await make_path(policy(TELL, verdict="deny"), notifier=notices)
    reply = await path.call("act", service="a-name-the-caller-chose")
    assert code(reply) == "policy_denied"
    assert notices.told == []
    assert notices.held is not None
    notices.held.set()
    await path.pipeline.drain(5)
    ((_, told),) = notices.told
    assert (told["verdict"], told["code"]) == ("deny", "policy_denied")
    assert "a-name-the-caller-chose" not in json.dumps(told)


@pytest.mark.threat("T-05")
async def test_flood_of_denials_keeps_a_bounded_number_of_messages(make_path: MakePath) -> None:
    notices = KeptNotices(held=asyncio.Event())
    path = await make_path(policy(TELL, verdict="deny"), notifier=notices)
    dropped = taken("dropped")
    for _ in range(MAX_BACKGROUND + 5):
        assert code(await path.call("look")) == "policy_denied"
    assert taken("dropped") - dropped == 5
    assert notices.held is not None
    notices.held.set()
    await path.pipeline.drain(5)
    assert len(notices.told) == MAX_BACKGROUND


async def test_denial_stays_what_it_is_whatever_becomes_of_its_message(
    make_path: MakePath,
) -> None:
    other = {"id": "b", "type": "notify", "properties": {"channel": "elsewhere"}}
    notices = KeptNotices(failure="HTTP 500")
    path = await make_path(policy(TELL, other, verdict="deny"), notifier=notices)
    assert code(await path.call("act")) == "policy_denied"
    await path.pipeline.drain(5)


async def test_messages_that_do_not_end_do_not_hold_the_end_up(make_path: MakePath) -> None:
    notices = KeptNotices(held=asyncio.Event())
    path = await make_path(policy(TELL, verdict="deny"), notifier=notices)
    await path.call("act")
    await path.pipeline.drain(0)
    assert notices.told == []


# ---------------------------------------------------------------------------------------- step up


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({"acr": "high"}, True),
        ({"acr": "higher"}, False),
        ({"amr": ["hwk"]}, True),
        ({"amr": ["pin", "hwk"]}, True),
        ({"amr": ["hwk", "face"]}, False),
        ({"max_age_s": 300}, True),
        ({"max_age_s": 60}, False),
        ({"acr": "high", "amr": ["hwk"], "max_age_s": 300}, True),
        ({"acr": "high", "amr": ["hwk"], "max_age_s": 60}, False),
    ],
    ids=str,
)
async def test_caller_steps_up_or_nothing_runs(
    make_path: MakePath, wanted: dict[str, Any], passes: bool
) -> None:
    path = await make_path(policy(step_up(**wanted)))
    caller = replace(SIGNED_IN, auth_ms=path.clock.now_ms() - 200_000)
    reply = await path.call("act", caller)
    assert code(reply) == ("ok" if passes else "step_up_required")
    assert bool(path.runner.told) == passes


@pytest.mark.parametrize("wanted", [{"acr": "high"}, {"amr": ["hwk"]}, {"max_age_s": 86_400}])
async def test_caller_with_a_plain_key_cannot_step_up(
    make_path: MakePath, wanted: dict[str, Any]
) -> None:
    path = await make_path(policy(step_up(**wanted), verdict="require_approval"))
    reply = await path.call("act")
    assert code(reply) == "step_up_required"
    assert str(next(iter(wanted.values()))).strip("[]'") in text(reply)
    assert "approval.opened" not in await path.events()


async def test_authentication_in_the_future_is_none(make_path: MakePath) -> None:
    path = await make_path(policy(step_up(max_age_s=300)))
    caller = replace(SIGNED_IN, auth_ms=path.clock.now_ms() + 60_000)
    assert code(await path.call("act", caller)) == "step_up_required"


async def test_every_layers_step_up_has_to_be_met(make_path: MakePath) -> None:
    path = await make_path(policy(step_up(acr="high"), step_up(amr=["face"]) | {"id": "t"}))
    caller = replace(SIGNED_IN, auth_ms=path.clock.now_ms())
    assert code(await path.call("act", caller)) == "step_up_required"


async def test_authentication_too_old_by_the_time_people_agreed_runs_nothing(
    make_path: MakePath,
) -> None:
    path = await make_path(policy(step_up(max_age_s=300), verdict="require_approval"))
    fresh = replace(SIGNED_IN, auth_ms=path.clock.now_ms())
    waiting = await path.call("act", fresh)
    await approve(path, waiting.decision["approval_id"])
    old = replace(fresh, auth_ms=path.clock.now_ms() - 301_000)
    assert code(await path.call("act", old)) == "step_up_required"
    assert path.runner.told == []
    assert code(await path.call("act", fresh)) == "ok"
