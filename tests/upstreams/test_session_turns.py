"""Processes that are kept and may reach out: one call at a time has their way out."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Code, RunnerFault
from remit.model import (
    CredentialRule,
    EgressRule,
    Ending,
    HandedFile,
    Lease,
    RunSpec,
    SessionMode,
    Traffic,
)
from tests.upstreams.played import Message, Program, Server, call_spec, echoes, in_session
from tests.upstreams.test_sessions import Kept, kept

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-39")]

API = (EgressRule(host="api.example", port=443),)
TOKEN = (CredentialRule(ref="token"),)
OUT = replace(in_session(call_spec()), egress=API, credentials=TOKEN)


class Told:
    """What the inner runner was told of turns, in order; it gives a record for each."""

    def __init__(self, it: Kept) -> None:
        self.events: list[str] = []
        self._attach, self._detach = it.inner.attach, it.inner.detach
        it.inner.attach = self.attach  # type: ignore[method-assign]  # it goes on to the real one
        it.inner.detach = self.detach  # type: ignore[method-assign]
        self.broken: list[str] = []

    async def attach(self, session: Lease, lease: Lease, spec: RunSpec) -> None:
        if "attach" in self.broken:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "the environment has no way out any more")
        assert (spec.egress, spec.credentials, spec.upstream) == (API, TOKEN, None)
        await self._attach(session, lease, spec)
        self.events.append(f"{lease.id} has it")

    async def detach(self, lease: Lease) -> Traffic | None:
        if "detach" in self.broken:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "the proxy does not answer")
        await self._detach(lease)
        self.events.append(f"{lease.id} gave it back")
        return Traffic(sent=len(self.events))


async def test_a_call_has_the_way_out_from_before_it_is_lent_anything_until_it_is_over() -> None:
    it = kept(Program(), out=True)
    told = Told(it)
    for n in (1, 2):
        own = it.lease()
        await it.runner.provision(own, OUT)
        assert told.events[-1] == f"run_{n} has it"
        await it.runner.start(own)
        result = await it.runner.collect(own)
        assert told.events[-1] == f"run_{n} gave it back"
        assert result.ending is Ending.ANSWERED
        assert result.traffic == Traffic(sent=2 * n)
        gone = await it.runner.destroy(own)
        assert gone.complete
    assert len(it.program.servers) == 1
    assert len(told.events) == 4
    await it.runner.aclose()


async def test_the_next_call_waits_until_the_one_before_has_given_it_back() -> None:
    go_on = asyncio.Event()

    async def slow(server: Server, message: Message) -> None:
        await go_on.wait()
        await echoes(server, message)

    it = kept(Program(slow), out=True)
    told = Told(it)
    first, second = it.lease(), it.lease()
    await it.runner.provision(first, OUT)
    await it.runner.start(first)
    waiting = asyncio.ensure_future(it.runner.provision(second, OUT))
    while not it.program.calls:
        await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    await it.runner.collect(first)
    await waiting
    assert told.events == ["run_1 has it", "run_1 gave it back", "run_2 has it"]
    await it.runner.destroy(second)  # without ever being started
    assert told.events[-1] == "run_2 gave it back"
    await it.runner.aclose()


async def test_a_turn_that_does_not_come_in_time_leaves_nothing_behind() -> None:
    it = kept(Program(), out=True)
    told = Told(it)
    first = it.lease()
    await it.runner.provision(first, OUT)
    soon = Lease(id="soon", gateway="gw", fence=1, deadline_ms=time.time_ns() // 10**6 + 50)
    with pytest.raises(RunnerFault) as late:
        await it.runner.provision(soon, OUT)
    assert (late.value.code, late.value.started) == (Code.RUNNER_UNAVAILABLE, False)
    await it.runner.start(first)
    assert (await it.runner.collect(first)).ending is Ending.ANSWERED
    third = it.lease()
    await it.runner.provision(third, OUT)
    assert told.events[-1] == "run_2 has it"
    await it.runner.destroy(third)
    await it.runner.aclose()


async def test_a_call_that_waited_for_a_session_that_failed_gets_another() -> None:
    async def dies_first(server: Server, message: Message) -> int | None:
        if server is it.program.servers[0]:
            return 3
        await echoes(server, message)
        return None

    it = kept(Program(dies_first), out=True)
    first, second = it.lease(), it.lease()
    await it.runner.provision(first, OUT)
    waiting = asyncio.ensure_future(it.runner.provision(second, OUT))
    await it.runner.start(first)
    assert (await it.runner.collect(first)).ending is Ending.UNANSWERED
    await waiting
    await it.runner.start(second)
    assert (await it.runner.collect(second)).ending is Ending.ANSWERED
    assert len(it.program.servers) == 2
    await it.runner.aclose()


async def test_a_call_that_was_cancelled_costs_the_process() -> None:
    """What the server still does of it must not be the next call's."""
    called = asyncio.Event()

    async def hangs_first(server: Server, message: Message) -> None:
        if server is it.program.servers[0]:
            called.set()
            await asyncio.Event().wait()
        await echoes(server, message)

    it = kept(Program(hangs_first), out=True)
    told = Told(it)
    own = it.lease()
    await it.runner.provision(own, OUT)
    await it.runner.start(own)
    await called.wait()
    await it.runner.stop(own, grace_s=0)
    assert told.events[-1] == "run_1 gave it back"
    assert (await it.call(OUT)).ending is Ending.ANSWERED
    assert len(it.program.servers) == 2
    await it.runner.aclose()


async def test_an_environment_without_its_way_out_is_not_used_again() -> None:
    it = kept(Program(), out=True)
    told = Told(it)
    await it.call(OUT)
    told.broken = ["attach"]
    with pytest.raises(RunnerFault):
        await it.runner.provision(it.lease(), OUT)
    told.broken = []
    assert (await it.call(OUT)).ending is Ending.ANSWERED
    assert len(it.program.servers) == 2
    await it.runner.aclose()


async def test_a_way_out_that_was_not_closed_is_said_and_costs_the_process_not_the_answer() -> None:
    it = kept(Program(), out=True)
    told = Told(it)
    told.broken = ["detach"]
    result = await it.call(OUT)
    assert (result.ending, result.traffic) == (Ending.ANSWERED, None)
    assert not it.gone.complete
    assert not it.gone.proxy_closed
    told.broken = []
    assert (await it.call(OUT)).ending is Ending.ANSWERED
    assert len(it.program.servers) == 2
    await it.runner.aclose()


@pytest.mark.threat("T-33")
async def test_a_credential_in_a_file_is_never_given_to_a_process_that_is_kept() -> None:
    it = kept(Program(), out=True)
    told = Told(it)
    own = it.lease()
    await it.runner.provision(own, OUT)
    fd = os.memfd_create("token")
    with pytest.raises(RunnerFault) as refused:
        await it.runner.start(own, (HandedFile(name="token", fd=fd),))
    assert (refused.value.code, refused.value.started) == (Code.CREDENTIAL_UNAVAILABLE, False)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    await it.runner.destroy(own)
    assert told.events == ["run_1 has it", "run_1 gave it back"]
    assert it.program.servers == []
    await it.runner.aclose()


@pytest.mark.threat("T-33")
async def test_a_process_of_several_callers_is_lent_nothing() -> None:
    it = kept(Program(), out=True)
    spec: Any = in_session(OUT, "a", SessionMode.SHARED)
    with pytest.raises(RunnerFault) as refused:
        await it.runner.provision(it.lease(), spec)
    assert refused.value.code is Code.RUNNER_LACKS


async def test_what_ends_the_gateway_ends_a_process_whose_turn_is_taken() -> None:
    it = kept(Program(), out=True)
    own = it.lease()
    await it.runner.provision(own, OUT)
    await it.runner.aclose()
    assert it.sandbox == set()
    await it.runner.destroy(own)
