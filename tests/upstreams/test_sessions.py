"""Processes that are kept: for whom, how long, and what ends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.canonical import encode
from remit.clock import SystemClock
from remit.errors import Code, RunnerFault
from remit.model import (
    CredentialRule,
    Destruction,
    EgressRule,
    Ending,
    Frozen,
    Lease,
    Limits,
    Mount,
    RunResult,
    RunSpec,
    SessionMode,
)
from remit.upstreams.runner import SessionSettings, UpstreamRunner
from remit.upstreams.session import FRESH_S
from remit.upstreams.sessions import session_key
from tests.upstreams.played import (
    ECHO,
    LOOK,
    Message,
    Program,
    Server,
    World,
    call_spec,
    echoes,
    in_session,
    reports_once,
    world,
)
from tests.upstreams.test_runner import FAILURES

pytestmark = pytest.mark.anyio

READ = in_session(call_spec())


class Kept(World):
    """A world with a runner that keeps processes, whose time the test says."""

    seconds: float = 0.0

    @property
    def sandbox(self) -> set[str]:
        """The leases that the inner runner holds."""
        return set(self.inner._held)

    async def call(self, spec: RunSpec = READ, lease: Lease | None = None) -> RunResult:
        own = lease or self.lease()
        await self.runner.provision(own, spec)
        await self.runner.start(own)
        result = await self.runner.collect(own)
        self.gone = await self.runner.destroy(own)
        return result

    async def ended(self) -> list[Destruction]:
        """What a sweep tells, once all that was to end has ended."""
        found = list(await self.runner.sweep(frozenset()))
        sessions = self.runner._sessions
        assert sessions is not None
        if sessions._ending:
            await asyncio.wait(list(sessions._ending.values()))
        return [*found, *await self.runner.sweep(frozenset())]

    gone: Destruction


def kept(
    program: Program, most: int = 8, *, out: bool = False, of: Mapping[str, int] | None = None
) -> Kept:
    """`out`: processes that may reach out can be kept too."""
    made: list[Kept] = []

    def runner(inner: Any, seen: Any) -> UpstreamRunner:
        settings = SessionSettings(
            clock=SystemClock(),
            gateway="gw",
            keeper=inner if out else None,
            most=most,
            most_of=of or {},
            now=lambda: made[0].seconds,
        )
        return UpstreamRunner(inner, asked=None, seen=seen, sessions=settings)

    it = world(program, runner)
    made.append(Kept(program=it.program, runner=it.runner, inner=it.inner, seen=it.seen))
    return made[0]


# One process for several calls


async def test_calls_of_one_kind_are_made_of_one_process_and_say_so() -> None:
    program = Program()
    it = kept(program)
    first = await it.call(in_session(call_spec(arguments={"n": 1})))
    it.seconds = 12.5
    second = await it.call(in_session(call_spec(LOOK, arguments={"n": 2})))
    assert [first.ending, second.ending] == [Ending.ANSWERED] * 2
    [server] = program.servers
    methods = [each["method"] for each in server.heard]
    assert methods == ["server/discover", "tools/list", "tools/call", "tools/call"]
    assert it.seen == [("files", ["echo", "look"])]
    assert first.runner["session"] == second.runner["session"]
    assert (first.runner["session_age_ms"], second.runner["session_age_ms"]) == ("0", "12500")
    assert second.runner["server"] == "files"
    assert second.runner["revision"] == "2026-07-28"
    assert second.runner["tier"] == "sandbox"
    await it.runner.aclose()


async def test_the_evidence_of_a_call_says_that_the_process_goes_on() -> None:
    it = kept(Program())
    result = await it.call()
    facts = it.gone.session
    assert facts is not None
    assert (facts.id, facts.server, facts.calls) == (result.runner["session"], "files", 1)
    assert facts.ended is None
    assert it.sandbox == {facts.id}
    await it.runner.aclose()


async def test_calls_overlap_and_a_stop_of_one_leaves_the_others_alone() -> None:
    both, told = asyncio.Event(), asyncio.Event()

    async def plays(server: Server, message: Message) -> None:
        if len(program.calls) == 1:
            return  # it hears the next one before it answers any
        both.set()
        cancelled = await server.hear()
        assert cancelled is not None
        assert cancelled["method"] == "notifications/cancelled"
        assert cancelled["params"]["requestId"] == program.calls[0]["id"]
        told.set()
        await echoes(server, message)

    program = Program(plays)
    it = kept(program)
    first, second = it.lease(), it.lease()
    for own, n in ((first, 1), (second, 2)):
        await it.runner.provision(own, in_session(call_spec(arguments={"n": n})))
        await it.runner.start(own)
        while len(program.calls) < n:
            await asyncio.sleep(0)
    await both.wait()
    await it.runner.stop(first, grace_s=1)
    await told.wait()
    cancelled, answered = await it.runner.collect(first), await it.runner.collect(second)
    assert (cancelled.ending, cancelled.limits_hit) == (Ending.UNANSWERED, ("cancelled",))
    assert answered.ending is Ending.ANSWERED
    assert b'"n":2' in answered.stdout
    assert len(program.servers) == 1
    await it.runner.aclose()


async def test_reports_of_a_call_are_that_calls() -> None:
    it = kept(Program(reports_once))
    own = await it.begin(READ)
    assert [f.data async for f in it.runner.stream(own)] == [b"half (1 of 2)\n"]
    await it.runner.aclose()


# For whom


@pytest.mark.threat("T-39")
async def test_callers_never_share_a_process_of_their_own() -> None:
    program = Program()
    it = kept(program)
    for caller in ("a", "b", "a", "b"):
        await it.call(in_session(call_spec(arguments={"from": caller}), caller))
    assert len(program.servers) == 2
    for server in program.servers:
        said = {
            m["params"]["arguments"]["from"] for m in server.heard if m["method"] == "tools/call"
        }
        assert len(said) == 1
    await it.runner.aclose()


async def test_callers_share_a_process_that_is_shared() -> None:
    program = Program()
    it = kept(program)
    for caller in ("a", "b"):
        await it.call(in_session(call_spec(), caller, SessionMode.SHARED))
    assert len(program.servers) == 1
    await it.runner.aclose()


BASE = replace(in_session(call_spec()), mounts=(Mount(name="m", source="/srv", writable=False),))
TEXT = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=8)
OTHER: dict[str, st.SearchStrategy[Any]] = {
    "argv": st.lists(TEXT, min_size=1).map(tuple),
    "env": st.lists(st.tuples(TEXT, TEXT)).map(tuple),
    "profile": TEXT,
    "mounts": st.lists(
        st.builds(Mount, name=TEXT, source=TEXT, writable=st.booleans()), max_size=2
    ).map(tuple),
    "egress": st.lists(
        st.builds(EgressRule, host=TEXT, port=st.integers(1, 65_535)), min_size=1, max_size=2
    ).map(tuple),
    "credentials": st.lists(st.builds(CredentialRule, ref=TEXT), min_size=1).map(tuple),
    "limits": st.builds(
        Limits, wall_s=st.integers(1, 99), memory_mb=st.integers(16, 99), pids=st.integers(1, 99)
    ),
    "files": st.lists(st.tuples(TEXT, st.binary()), min_size=1).map(tuple),
    "collect": st.lists(TEXT, min_size=1).map(tuple),
    "stdin": st.binary(min_size=1),
}
OTHER_CALL: dict[str, st.SearchStrategy[Any]] = {
    "server": TEXT,
    "caller": TEXT,
    "session": st.just(SessionMode.SHARED),
    "idle_s": st.integers(1, 3_600),
    "age_s": st.integers(1, 3_599),
    "url": TEXT,
    "authorization": TEXT,
    "header": TEXT,
}


@pytest.mark.threat("T-39")
@given(st.data())
def test_a_call_that_differs_in_anything_of_its_process_has_another_session(data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(OTHER | OTHER_CALL)))
    value = data.draw((OTHER | OTHER_CALL)[name])
    assert BASE.upstream is not None
    if name in OTHER:
        other = replace(BASE, **{name: value})
    else:
        other = replace(BASE, upstream=replace(BASE.upstream, **{name: value}))
    assert (session_key(other) == session_key(BASE)) is (other == BASE)


@given(TEXT, TEXT, TEXT, TEXT)
def test_calls_of_other_tools_and_arguments_have_the_same_session(
    tool: str, definition: str, word: str, fence: str
) -> None:
    assert BASE.upstream is not None
    call = replace(
        BASE.upstream, tool=tool, definition=definition, arguments=Frozen(encode({"w": word}))
    )
    assert session_key(replace(BASE, upstream=call, fence_key=fence)) == session_key(BASE)


def test_every_field_of_a_call_either_tells_sessions_apart_or_is_left_out_on_purpose() -> None:
    assert BASE.upstream is not None
    left_out = {"fence_key", "upstream", "dialogue"}
    assert set(OTHER) | left_out == set(RunSpec.__slots__)
    of_the_call = {"tool", "definition", "arguments", "capabilities", "round", "method"}
    assert set(OTHER_CALL) | of_the_call == set(type(BASE.upstream).__slots__)


@pytest.mark.threat("T-39")
@pytest.mark.parametrize(
    "more",
    [
        {"egress": (EgressRule(host="api.example", port=443),)},
        {"credentials": (CredentialRule(ref="token"),)},
        {"files": (("a", b"b"),)},
    ],
)
async def test_what_reaches_out_or_holds_something_is_not_made_in_a_session(more: Any) -> None:
    program = Program()
    it = kept(program)
    with pytest.raises(RunnerFault) as refused:
        await it.runner.provision(it.lease(), replace(READ, **more))
    assert (refused.value.code, refused.value.started) == (Code.RUNNER_LACKS, False)
    assert program.servers == []


async def test_a_runner_without_sessions_keeps_none() -> None:
    it = world(Program(), lambda inner, seen: UpstreamRunner(inner, asked=None, seen=seen))
    with pytest.raises(RunnerFault) as refused:
        await it.runner.provision(it.lease(), READ)
    assert refused.value.code is Code.RUNNER_LACKS


# How long


@pytest.mark.parametrize(
    ("seconds", "why"),
    [([300.0], "nobody used it for 300 s"), ([299.0] * 12 + [20.0], "it was 3600 s old")],
    ids=["idle", "old"],
)
async def test_a_session_that_is_idle_or_old_is_ended_and_not_used_again(
    seconds: list[float], why: str
) -> None:
    program = Program()
    it = kept(program)
    await it.call()
    for each in seconds[:-1]:
        it.seconds += each
        await it.call()
    assert len(program.servers) == 1
    it.seconds += seconds[-1]
    await it.call()
    assert len(program.servers) == 2
    [evidence] = await it.ended()
    assert evidence.complete
    assert evidence.session is not None
    assert (evidence.session.ended, evidence.session.calls) == (why, len(seconds))
    assert evidence.lease_id == evidence.session.id
    assert evidence.lease_id not in it.sandbox
    await it.runner.aclose()


async def test_a_sweep_ends_what_nobody_used_and_spares_what_is_in_use() -> None:
    go_on = asyncio.Event()

    async def slow(server: Server, message: Message) -> None:
        await go_on.wait()
        await echoes(server, message)

    it = kept(Program(slow))
    own = await it.begin(READ)
    it.seconds = 299.0
    assert await it.ended() == []
    it.seconds = 4_000.0
    assert await it.ended() == []  # too old, but its call is not over
    go_on.set()
    assert (await it.runner.collect(own)).ending is Ending.ANSWERED
    [evidence] = await it.ended()
    assert evidence.session is not None
    assert evidence.session.ended == "it was 3600 s old"


async def test_the_process_may_live_as_long_as_its_session_and_no_longer() -> None:
    it = kept(Program())
    await it.call()
    [spec] = it.inner.ran
    assert spec.limits.wall_s == 3_600 + READ.limits.wall_s + 30
    assert replace(spec.limits, wall_s=READ.limits.wall_s) == READ.limits
    await it.runner.aclose()


# What ends it


@pytest.mark.threat("T-40")
@pytest.mark.parametrize("name", FAILURES)
async def test_a_session_that_failed_a_call_is_not_used_again_and_nothing_is_tried_twice(
    name: str,
) -> None:
    on_call, code = FAILURES[name]

    async def only_once(server: Server, message: Message) -> int | None:
        first = server is program.servers[0]
        return await (on_call if first else echoes)(server, message)

    program = Program(only_once)
    it = kept(program)
    failed = await it.call()
    assert (failed.ending, failed.limits_hit) == (Ending.UNANSWERED, (code.value,))
    assert len(program.calls) == 1
    assert (await it.call()).ending is Ending.ANSWERED
    assert len(program.servers) == 2
    [evidence] = await it.ended()
    assert evidence.session is not None
    assert code.value in str(evidence.session.ended)
    await it.runner.aclose()


async def test_a_call_that_gets_no_answer_in_time_costs_the_session() -> None:
    async def hangs(server: Server, message: Message) -> None:
        await asyncio.Event().wait()

    program = Program(hangs)
    it = kept(program)
    soon = Lease(id="soon", gateway="gw", fence=1, deadline_ms=time.time_ns() // 10**6 + 200)
    late = await it.call(lease=soon)
    assert (late.ending, late.limits_hit) == (Ending.UNANSWERED, ("upstream_timeout",))
    [evidence] = await it.ended()
    assert evidence.complete
    assert it.sandbox == set()


async def test_a_session_that_dies_while_nobody_uses_it_is_not_used() -> None:
    async def answers_and_dies(server: Server, message: Message) -> int:
        await echoes(server, message)
        return 7

    program = Program(answers_and_dies)
    it = kept(program)
    assert (await it.call()).ending is Ending.ANSWERED
    [lease_id] = it.sandbox
    await it.inner.collect(Lease(id=lease_id, gateway="gw", fence=0, deadline_ms=0))
    sessions = it.runner._sessions
    assert sessions is not None
    [session] = sessions._kept.values()
    while session.unfit() is None:
        await asyncio.sleep(0)
    assert (await it.call()).ending is Ending.ANSWERED
    assert len(program.servers) == 2
    await it.runner.aclose()


async def test_a_session_that_does_not_open_fails_who_waited_and_the_next_tries_anew() -> None:
    async def only_the_second(server: Server, message: Message) -> int | None:
        if server is program.servers[0]:
            return 1
        offered = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
        await server.say(id=message["id"], result=offered)
        return None

    program = Program(on_open=only_the_second, modern=True)
    it = kept(program)
    two = await asyncio.gather(it.call(), it.call())
    assert [(r.ending, r.limits_hit) for r in two] == [(Ending.UNASKED, ("upstream_gone",))] * 2
    assert len(program.servers) == 1


async def test_tools_are_listed_again_when_the_server_says_that_they_changed() -> None:
    async def changes(server: Server, message: Message) -> None:
        program.tools = [ECHO | {"description": "Now it sends."}, LOOK]
        await server.say(method="notifications/tools/list_changed")
        await echoes(server, message)

    program = Program(changes)
    it = kept(program)
    assert (await it.call()).ending is Ending.ANSWERED
    changed = await it.call()
    assert (changed.ending, changed.limits_hit) == (Ending.UNASKED, ("tool_changed",))
    assert len(it.seen) == 2
    assert len(program.calls) == 1
    assert (await it.call(in_session(call_spec(LOOK)))).ending is Ending.ANSWERED
    await it.runner.aclose()


@pytest.mark.threat("T-43")
async def test_a_process_older_than_what_was_accepted_since_is_not_asked_again() -> None:
    program = Program()
    it = kept(program)
    assert (await it.call()).ending is Ending.ANSWERED
    accepted = ECHO | {"description": "Says it, as the new program does."}
    program.tools = [ECHO, LOOK]
    old = await it.call(in_session(call_spec(accepted)))
    assert (old.ending, old.limits_hit) == (Ending.UNASKED, ("tool_changed",))
    program.tools = [accepted, LOOK]
    assert (await it.call(in_session(call_spec(accepted)))).ending is Ending.ANSWERED
    assert len(program.servers) == 2
    await it.runner.aclose()


@pytest.mark.threat("T-43")
async def test_a_server_that_says_nothing_of_a_change_is_asked_for_its_tools_anew() -> None:
    program = Program()
    it = kept(program)
    assert (await it.call()).ending is Ending.ANSWERED
    program.tools = [ECHO | {"description": "Now it sends."}, LOOK]
    it.seconds += FRESH_S - 1
    assert (await it.call()).ending is Ending.ANSWERED
    it.seconds += 1
    changed = await it.call()
    assert (changed.ending, changed.limits_hit) == (Ending.UNASKED, ("tool_changed",))
    assert (len(program.servers), len(program.calls)) == (1, 2)
    await it.runner.aclose()


@pytest.mark.threat("T-43")
async def test_a_call_that_changes_something_is_compared_with_a_list_of_its_own() -> None:
    program = Program()
    it = kept(program)
    spec = in_session(call_spec(write=True))
    assert (await it.call(spec)).ending is Ending.ANSWERED
    [server] = program.servers
    assert [each["method"] for each in server.heard].count("tools/list") == 1
    program.tools = [ECHO | {"description": "Now it sends."}, LOOK]
    it.seconds += 0.001
    changed = await it.call(spec)
    assert (changed.ending, changed.limits_hit) == (Ending.UNASKED, ("tool_changed",))
    await it.runner.aclose()


@pytest.mark.threat("T-43")
async def test_a_change_that_a_kept_server_tells_is_looked_at_though_nobody_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("remit.upstreams.session.PACE_S", 0)
    program = Program()
    it = kept(program)
    await it.call()
    looked, seen = asyncio.Event(), it.runner._means.seen

    def see(server: str, items: Any) -> None:
        seen(server, items)
        looked.set()

    object.__setattr__(it.runner._means, "seen", see)
    program.tools = [LOOK]
    await program.servers[0].say(method="notifications/tools/list_changed")
    await looked.wait()
    assert it.seen[-1] == ("files", ["look"])
    await it.runner.aclose()


# How many


async def test_the_session_that_was_used_longest_ago_makes_room() -> None:
    program = Program()
    it = kept(program, most=2)
    for caller in ("a", "b", "a", "c"):
        await it.call(in_session(call_spec(), caller))
    [evidence] = await it.ended()
    assert evidence.session is not None
    assert (evidence.session.ended, evidence.session.calls) == (
        "another session needed its place",
        1,
    )
    await it.call(in_session(call_spec(), "a"))
    assert len(program.servers) == 3
    await it.runner.aclose()


async def test_a_server_has_no_more_sessions_than_it_may_and_takes_no_place_of_anothers() -> None:
    program = Program()
    it = kept(program, most=3, of={"files": 1})
    await it.call(in_session(call_spec(server="notes"), "a"))
    for caller in ("a", "b"):
        await it.call(in_session(call_spec(), caller))
    [evidence] = await it.ended()
    assert evidence.session is not None
    assert (evidence.session.server, evidence.session.ended) == (
        "files",
        "another session needed its place",
    )
    await it.call(in_session(call_spec(server="notes"), "a"))
    assert len(program.servers) == 3
    await it.runner.aclose()


async def test_sessions_in_use_are_not_ended_for_another() -> None:
    async def hangs(server: Server, message: Message) -> None:
        await asyncio.Event().wait()

    it = kept(Program(hangs), most=1)
    own = await it.begin(READ)
    other = it.lease()
    await it.runner.provision(other, in_session(call_spec(), "b"))
    with pytest.raises(RunnerFault) as refused:
        await it.runner.start(other)
    assert (refused.value.code, refused.value.started) == (Code.RUNNER_UNAVAILABLE, False)
    await it.runner.destroy(other)
    await it.runner.destroy(own)  # nobody waits for its call any more
    again = it.lease()
    await it.runner.provision(again, in_session(call_spec(), "b"))
    await it.runner.start(again)
    await it.runner.aclose()
    assert it.sandbox == set()


async def test_what_ends_the_gateway_ends_every_session_and_lets_none_begin() -> None:
    it = kept(Program())
    for caller in ("a", "b"):
        await it.call(in_session(call_spec(), caller))
    await it.runner.aclose()
    await it.runner.aclose()
    assert it.sandbox == set()
    ended = [each.session for each in await it.ended()]
    assert [each.ended for each in ended if each is not None] == ["the gateway ends"] * 2
    own = it.lease()
    await it.runner.provision(own, READ)
    with pytest.raises(RunnerFault):
        await it.runner.start(own)


async def test_a_drain_ends_each_session_when_its_calls_are_over() -> None:
    go_on = asyncio.Event()

    async def slow(server: Server, message: Message) -> None:
        await go_on.wait()
        await echoes(server, message)

    program = Program(slow)
    it = kept(program)
    own = await it.begin(READ)
    await it.runner.drain("policy")
    go_on.set()
    assert (await it.runner.collect(own)).ending is Ending.ANSWERED
    [evidence] = await it.ended()
    assert evidence.session is not None
    assert evidence.session.ended == "policy"
    await it.call()
    assert len(program.servers) == 2
    await it.runner.aclose()
