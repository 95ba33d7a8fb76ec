"""Conversations with real servers: honest ones of each revision, and one for each lie."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remit.errors import Code, RemitError, UpstreamFault
from remit.upstreams.limits import Limits
from remit.upstreams.messages import Progress
from remit.upstreams.revisions import NEWEST_FIRST, Revision
from tests.upstreams.process_stream import HOSTILE, REFERENCE, conversing, open_to, started

pytestmark = pytest.mark.anyio

DECLARED = {
    "sampling": {},
    "roots": {"listChanged": True},
    "elicitation": {"form": {}},
    "experimental": {"dev.example": {"a": 1}},
}


def _reference(page: int = 10) -> tuple[str, ...]:
    return (*REFERENCE, str(page))


def _hostile(lie: str) -> tuple[str, ...]:
    return (*HOSTILE, lie)


async def _call_gives(lie: str, **how: Any) -> UpstreamFault:
    """The fault of a first call to a server that lies so; the conversation was opened."""
    async with conversing(*_hostile(lie), **how) as conversation:
        with pytest.raises(UpstreamFault) as caught:
            await conversation.call("any", {})
        return caught.value


# Honest servers


@pytest.mark.parametrize("revision", Revision)
async def test_a_server_of_each_revision_lists_calls_and_reports(revision):
    reports: list[Progress] = []
    async with conversing(
        *_reference(2), revisions=[revision], capabilities=DECLARED
    ) as conversation:
        assert conversation.opened.revision is revision
        tools = await conversation.list_tools()
        echo = await conversation.call("echo", {"a": [1, {"b": "ü\n"}]})
        await conversation.call("report", {}, progress=reports.append)
        told = await conversation.call("capabilities", {})
    names = ["echo", "report", "wait", "capabilities", "broken"]
    assert [tool["name"] for tool in tools] == names
    assert tools[0]["inputSchema"] == {"type": "object"}
    assert echo["structuredContent"] == {"a": [1, {"b": "ü\n"}]}
    # What an older server would use by asking back is refused, so it is not declared either.
    experimental = {"experimental": DECLARED["experimental"]}
    expected = DECLARED if revision.modern else experimental
    assert told["structuredContent"] == {"declared": expected}
    assert [(each.progress, each.total, each.message) for each in reports] == [
        (1, 3, "step 1"),
        (2, 3, "step 2"),
        (3, 3, "step 3"),
    ]


async def test_the_newest_revision_is_agreed_on_where_the_server_has_it():
    async with conversing(*_reference()) as conversation:
        assert conversation.opened.revision is NEWEST_FIRST[0]
        assert conversation.opened.info is not None
        assert conversation.opened.info["name"] == "reference"


@pytest.mark.parametrize("revision", Revision)
async def test_what_becomes_of_one_call_does_not_disturb_the_others(revision):
    waiting = asyncio.Event()
    async with conversing(*_reference(), revisions=[revision]) as conversation:
        slow = asyncio.create_task(
            conversation.call("wait", {}, progress=lambda _: waiting.set(), key="slow")
        )
        await waiting.wait()
        echo = await conversation.call("echo", {"n": 1})
        assert conversation.cancel("slow") is True
        assert conversation.cancel("slow") is False
        with pytest.raises(UpstreamFault) as cancelled:
            await slow
        with pytest.raises(UpstreamFault) as late:
            await conversation.call("wait", {}, within_s=0.05)
        with pytest.raises(UpstreamFault) as broken:
            await conversation.call("broken", {})
        after = await conversation.call("echo", {"n": 2})
    assert (cancelled.value.code, cancelled.value.sent) == (Code.CANCELLED, True)
    assert (late.value.code, late.value.sent) == (Code.UPSTREAM_TIMEOUT, True)
    assert (broken.value.code, broken.value.sent) == (Code.UPSTREAM_ERROR, True)
    assert broken.value.answer is not None
    assert broken.value.answer["message"] not in broken.value.message
    assert echo["structuredContent"] == {"n": 1}
    assert after["structuredContent"] == {"n": 2}


async def test_exactly_the_declared_capabilities_reach_a_modern_server():
    async with conversing(*_hostile("honest"), capabilities=DECLARED) as conversation:
        result = await conversation.call("any", {})
    meta = result["structuredContent"]["asked"]["params"]["_meta"]
    assert meta["io.modelcontextprotocol/clientCapabilities"] == DECLARED


# Agreeing


@pytest.mark.parametrize(
    "lie", ["honest in the handshake", "mute when discovered"], ids=["refuses", "ignores"]
)
async def test_a_server_that_only_shakes_hands_is_spoken_with(lie):
    async with conversing(*_hostile(lie)) as conversation:
        assert conversation.opened.revision is Revision.R2025_11_25
        result = await conversation.call("any", {"x": 1})
        assert result["structuredContent"]["asked"]["params"] == {
            "name": "any",
            "arguments": {"x": 1},
        }


async def test_a_modern_server_that_is_slow_to_wake_is_still_believed():
    async with conversing(*_hostile("slow to wake")) as conversation:
        assert conversation.opened.revision is Revision.R2026_07_28
        await conversation.call("any", {})


async def test_a_server_that_ends_at_the_first_question_is_started_again():
    lie = _hostile("ends when discovered")
    async with started(*lie) as first, started(*lie) as second:

        async def again():
            return second

        async with await open_to(first, again=again) as conversation:
            assert conversation.opened.revision is Revision.R2025_11_25
            await conversation.call("any", {})


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("ends when discovered", Code.UPSTREAM_GONE),
        ("speaks only the future", Code.UPSTREAM_INVALID),
        ("discovers nothing", Code.UPSTREAM_INVALID),
        ("id true when discovered", Code.UPSTREAM_INVALID),
        ("odd revision in the handshake", Code.UPSTREAM_INVALID),
    ],
)
async def test_without_agreement_nothing_is_said_to_have_been_sent(lie, code):
    async with started(*_hostile(lie)) as stream:
        with pytest.raises(UpstreamFault) as caught:
            await open_to(stream)
    assert (caught.value.code, caught.value.sent) == (code, False)


async def test_a_server_that_never_says_a_word_is_given_up():
    limits = Limits(open_s=0.2, unanswered_s=0.05)
    async with started("sleep", "60") as stream:
        with pytest.raises(UpstreamFault) as caught:
            await open_to(stream, limits=limits)
    assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_TIMEOUT, False)


# Lies


BREACHES = [
    "not json", "duplicate key", "nested", "not utf-8", "null", "batch", "no version",
    "unknown id", "no id", "id as text", "id true", "both", "neither",
    "result no object", "error no object", "method no text", "request id an object",
    "notes for ever", "pings for ever", "empty lines for ever",
]  # fmt: skip


@pytest.mark.parametrize("lie", BREACHES)
async def test_a_lie_ends_the_conversation_with_one_fault(lie):
    async with conversing(*_hostile(lie)) as conversation:
        with pytest.raises(UpstreamFault) as caught:
            await conversation.call("any", {})
        assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_INVALID, True)
        assert not conversation.live
        with pytest.raises(UpstreamFault) as after:
            await conversation.call("any", {})
        assert (after.value.code, after.value.sent) == (Code.UPSTREAM_INVALID, False)
        assert after.value.message == caught.value.message


async def test_a_line_of_very_many_values_is_not_read():
    async with conversing(*_hostile("many values"), limits=Limits(values=50_000)) as conversation:
        with pytest.raises(UpstreamFault, match="too_large") as caught:
            await conversation.call("any", {})
    assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_INVALID, True)


async def test_a_line_without_an_end_is_too_large():
    fault = await _call_gives("long line")
    assert (fault.code, fault.sent) == (Code.OUTPUT_TOO_LARGE, True)


@pytest.mark.parametrize(("lie", "where"), [("ends", "between"), ("ends inside", "in the middle")])
async def test_an_end_says_where_it_came(lie, where):
    fault = await _call_gives(lie)
    assert (fault.code, fault.sent) == (Code.UPSTREAM_GONE, True)
    assert where in fault.message


async def test_an_answer_given_twice_is_a_lie():
    async with conversing(*_hostile("twice")) as conversation:
        await conversation.call("any", {})
        with pytest.raises(UpstreamFault) as caught:
            await conversation.call("any", {})
    assert caught.value.code is Code.UPSTREAM_INVALID
    assert "twice" in caught.value.message


async def test_an_answer_that_comes_after_the_call_was_given_up_is_let_go_by():
    async with conversing(*_hostile("late")) as conversation:
        with pytest.raises(UpstreamFault):
            await conversation.call("slow", {}, within_s=0.05)
        result = await conversation.call("quick", {})
        assert result["structuredContent"]["name"] == "quick"


async def test_a_server_s_requests_are_refused_except_ping():
    async with conversing(*_hostile("asks back")) as conversation:
        result = await conversation.call("any", {})
    pong, *refused = result["structuredContent"]["answers"]
    assert pong == {"jsonrpc": "2.0", "id": "mine ping", "result": {}}
    assert [each["error"]["code"] for each in refused] == [-32601] * 4


async def test_many_requests_at_once_are_answered_as_fast_as_the_server_reads():
    limits = Limits(unwritten=2, in_flight=1)
    async with conversing(*_hostile("many pings"), limits=limits) as conversation:
        result = await conversation.call("any", {})
    assert result["structuredContent"]["answers"] == list(range(1000))


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        ("same cursor", "circle"),
        ("no end", "10 pages"),
        ("many", "100 tools"),
        ("heavy", "bytes"),
        ("cursor no text", "no proper cursor"),
        ("long cursor", "no proper cursor"),
        ("twice one name", "one name"),
        ("no name", "without a name"),
        ("no list", "no list"),
    ],
)
async def test_a_list_without_end_or_sense_is_refused(lie, word):
    async with conversing(*_hostile(lie)) as conversation:
        with pytest.raises(UpstreamFault) as caught:
            await conversation.list_tools()
    assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_INVALID, False)
    assert word in caught.value.message


async def test_an_array_of_messages_is_taken_in_the_one_revision_that_has_it():
    lie = _hostile("batch in the handshake")
    async with conversing(*lie, revisions=[Revision.R2025_03_26]) as conversation:
        assert await conversation.call("any", {}) == {}
    fault = await _call_gives("batch in the handshake", revisions=[Revision.R2025_06_18])
    assert fault.code is Code.UPSTREAM_INVALID


async def test_too_many_given_up_calls_end_the_conversation():
    limits = Limits(late=2)
    async with conversing(*_hostile("silent"), limits=limits) as conversation:
        for _ in range(3):
            with pytest.raises(UpstreamFault):
                await conversation.call("any", {}, within_s=0.02)
        assert not conversation.live


async def test_a_call_that_waits_for_room_was_not_sent():
    limits = Limits(in_flight=1)
    async with (
        conversing(*_hostile("silent"), limits=limits) as conversation,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_cancelled(conversation.call("any", {}, key="first"), sent=True))
        second = group.create_task(_times_out(conversation.call("any", {}, within_s=0.05)))
        second.add_done_callback(lambda _: conversation.cancel("first"))


async def _times_out(call: Any) -> None:
    with pytest.raises(UpstreamFault) as caught:
        await call
    assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_TIMEOUT, False)


async def _cancelled(call: Any, *, sent: bool) -> None:
    with pytest.raises(UpstreamFault) as caught:
        await call
    assert (caught.value.code, caught.value.sent) == (Code.CANCELLED, sent)


async def test_arguments_without_a_canonical_form_are_refused_unsent():
    async with conversing(*_hostile("honest")) as conversation:
        with pytest.raises(RemitError) as caught:
            await conversation.call("any", {"n": 2**60})
        assert caught.value.code is Code.PLAN_NOT_CANONICAL
        await conversation.call("any", {})
