"""A runner that runs nothing, and the contract that every `Runner` must keep.

    from remit.testing.runner import NoopRunner

    runner = NoopRunner()                          # every command "succeeds" and echoes its stdin
    runner = NoopRunner(lambda spec: RunResult(ending=Ending.TIMED_OUT))
    runner = NoopRunner(speaker=cat)               # runs with `dialogue` too (remit.testing.spoken)

It is for tests and benchmarks of what lies before the runner. Its name is `noop` wherever a
runner's name is recorded, so that no record of it can be taken for a sandbox's.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from remit.errors import Code, RunnerFault
from remit.model import (
    Capabilities,
    Channel,
    CredentialRule,
    Destruction,
    Ending,
    Frame,
    HandedFile,
    Lease,
    Limits,
    RunResult,
    RunSpec,
    Tier,
    Traffic,
)
from remit.ports import Dialogue, Runner
from remit.testing.spoken import Speaker, Spoken
from remit.testing.turns import Turns

Outcome = Callable[[RunSpec], RunResult]


def echo(spec: RunSpec) -> RunResult:
    """What `cat` would give: standard input on standard output, and the files asked for."""
    given = dict(spec.files)
    files = {name: given[name] for name in spec.collect if name in given}
    return RunResult(ending=Ending.EXIT, exit_code=0, stdout=spec.stdin, files=files)


class NoopRunner:
    """A `KeepingRunner` whose results a function gives. `ran` lists what was started, in order;
    `turns.taken` which run had which kept environment.

    Args:
        outcome: the result for a spec; what it says of `runner` is replaced.
        tier: the tier it claims, for tests of policies that ask for one.
        wait: if given, a run ends only once it is set (or the run is stopped).
        speaker: plays the runs that are spoken with; `outcome` and `wait` are not asked for them.
    """

    def __init__(
        self,
        outcome: Outcome = echo,
        *,
        tier: Tier = Tier.SANDBOX,
        wait: asyncio.Event | None = None,
        speaker: Speaker | None = None,
    ) -> None:
        self._outcome = outcome
        self._wait = wait
        self._speaker = speaker
        self._spoken: dict[str, Spoken] = {}
        self._held: dict[str, RunSpec] = {}
        self._started: dict[str, RunResult] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._gone: set[str] = set()
        self.ran: list[RunSpec] = []
        self.turns = Turns()
        self.capabilities = Capabilities(
            name="noop", tier=tier, digest="sha256:" + "0" * 64, version="noop"
        )

    async def provision(self, lease: Lease, spec: RunSpec) -> None:
        if lease.id in self._gone:
            raise _unavailable("this lease cannot be used again")
        if spec.dialogue and spec.stdin:
            raise _unavailable("a run that is spoken with has no other standard input")
        if spec.dialogue and self._speaker is not None and lease.id not in self._held:
            self._spoken[lease.id] = Spoken(self._speaker, spec)
        self._held.setdefault(lease.id, spec)
        self._ended.setdefault(lease.id, asyncio.Event())

    async def keep(self, lease: Lease, spec: RunSpec) -> None:
        await self.provision(lease, spec)
        self.turns.keep(lease.id, spec)

    async def attach(self, session: Lease, lease: Lease, spec: RunSpec) -> None:
        self.turns.attach(session, lease, spec)

    async def detach(self, lease: Lease) -> Traffic | None:
        return self.turns.detach(lease)

    def profile(self, name: str) -> Capabilities | None:
        return self.capabilities if name == self.capabilities.profile else None

    async def start(self, lease: Lease, files: Sequence[HandedFile] = ()) -> None:
        for file in files:
            os.close(file.fd)
        spec = self._known(lease)
        if lease.id in self._started:
            return
        if self._ended[lease.id].is_set():
            raise _unavailable("the sandbox ended before its start")
        self.ran.append(spec)
        if (spoken := self._spoken.get(lease.id)) is not None:
            self._started[lease.id] = RunResult(ending=Ending.LOST)
            spoken.start()
            return
        self._started[lease.id] = replace(self._outcome(spec), runner=self._about)
        if self._wait is None:
            self._ended[lease.id].set()

    @property
    def _about(self) -> Mapping[str, str]:
        return {"name": "noop", "tier": self.capabilities.tier.value}

    async def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        self._known(lease)
        await self._end(lease)
        result = self._started.get(lease.id)
        pieces = (
            ((Channel.STDOUT, result.stdout), (Channel.STDERR, result.stderr)) if result else ()
        )
        for seq, (channel, data) in enumerate((c, d) for c, d in pieces if d):
            yield Frame(seq=seq, channel=channel, data=data)

    def dialogue(self, lease: Lease) -> Dialogue:
        self._known(lease)
        if (spoken := self._spoken.get(lease.id)) is None:
            raise RunnerFault(Code.RUNNER_LACKS, "this run is not spoken with")
        return spoken.dialogue

    async def stop(self, lease: Lease, *, grace_s: float) -> None:
        if (ended := self._ended.get(lease.id)) is None or ended.is_set():
            return
        if (spoken := self._spoken.get(lease.id)) is not None:
            await spoken.stop()
        elif lease.id in self._started:
            stopped = replace(self._started[lease.id], ending=Ending.CANCELLED, exit_code=None)
            self._started[lease.id] = stopped
        ended.set()

    async def collect(self, lease: Lease) -> RunResult:
        self._known(lease)
        await self._end(lease)
        return self._started.get(lease.id, RunResult(ending=Ending.NOT_STARTED))

    async def _end(self, lease: Lease) -> None:
        ended = self._ended[lease.id]
        if (spoken := self._spoken.get(lease.id)) is not None:
            result = replace(await spoken.result(), runner=self._about)
            if lease.id in self._started:
                self._started[lease.id] = result
            ended.set()
        elif self._wait is None or ended.is_set():
            await ended.wait()
        else:
            await self._end_of_wait(ended, self._wait)

    async def _end_of_wait(self, ended: asyncio.Event, wait: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(each.wait()) for each in (ended, wait)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        ended.set()

    async def destroy(self, lease: Lease) -> Destruction:
        self._held.pop(lease.id, None)
        self.turns.destroy(lease.id)
        if (spoken := self._spoken.pop(lease.id, None)) is not None:
            await spoken.destroy()
        if (ended := self._ended.pop(lease.id, None)) is not None:
            ended.set()
        self._gone.add(lease.id)
        return _nothing_left(lease.id)

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        return ()

    def _known(self, lease: Lease) -> RunSpec:
        if lease.id not in self._held:
            raise _unavailable("this lease has no sandbox")
        return self._held[lease.id]


def _unavailable(message: str) -> RunnerFault:
    return RunnerFault(Code.RUNNER_UNAVAILABLE, message)


def _nothing_left(lease_id: str) -> Destruction:
    return Destruction(
        lease_id=lease_id,
        processes_left=0,
        cgroup_removed=True,
        directory_removed=True,
        mounts_left=0,
        destroyed_ms=time.time_ns() // 1_000_000,
        took_us=0,
        note="nothing was made",
    )


CAT = RunSpec(argv=("/bin/cat",), limits=Limits(wall_s=20), stdin=b"hello\n")


def lease(lease_id: str, *, seconds: int = 30) -> Lease:
    """A lease that ends in so many seconds."""
    deadline_ms = time.time_ns() // 1_000_000 + seconds * 1000
    return Lease(id=lease_id, gateway="contract", fence=1, deadline_ms=deadline_ms)


class RunnerContract:
    """What every `Runner` must do: subclass, and override the `runner` fixture."""

    @pytest.fixture
    def runner(self) -> Runner:
        raise NotImplementedError

    async def test_a_run_goes_from_provision_to_evidence(self, runner: Runner) -> None:
        own = lease("contract-whole")
        await runner.provision(own, CAT)
        await runner.start(own)
        result = await runner.collect(own)
        assert (result.ending, result.exit_code, result.stdout) == (Ending.EXIT, 0, b"hello\n")
        assert result.runner["name"] == runner.capabilities.name
        assert (await runner.destroy(own)).complete

    async def test_a_repeated_provision_and_start_change_nothing(self, runner: Runner) -> None:
        own = lease("contract-twice")
        for _ in range(2):
            await runner.provision(own, CAT)
        for _ in range(2):
            await runner.start(own)
        assert (await runner.collect(own)).stdout == b"hello\n"
        await runner.start(own)
        assert (await runner.collect(own)).stdout == b"hello\n"
        await runner.destroy(own)

    async def test_what_was_not_provisioned_cannot_start(self, runner: Runner) -> None:
        with pytest.raises(RunnerFault) as refused:
            await runner.start(lease("contract-absent"))
        assert refused.value.started is False

    async def test_a_destroyed_lease_is_spent_for_ever(self, runner: Runner) -> None:
        own = lease("contract-spent")
        await runner.provision(own, CAT)
        assert (await runner.destroy(own)).complete
        with pytest.raises(RunnerFault) as refused:
            await runner.start(own)
        assert refused.value.started is False
        with pytest.raises(RunnerFault):
            await runner.provision(own, CAT)

    async def test_a_second_destroy_finds_nothing_left(self, runner: Runner) -> None:
        own = lease("contract-again")
        await runner.provision(own, CAT)
        assert [(await runner.destroy(own)).complete for _ in range(2)] == [True, True]

    async def test_a_lease_that_never_was_leaves_nothing(self, runner: Runner) -> None:
        assert (await runner.destroy(lease("contract-never"))).complete

    async def test_a_run_stopped_before_its_start_never_started(self, runner: Runner) -> None:
        own = lease("contract-stopped")
        await runner.provision(own, CAT)
        await runner.stop(own, grace_s=1)
        assert (await runner.collect(own)).ending is Ending.NOT_STARTED
        with pytest.raises(RunnerFault):
            await runner.start(own)
        await runner.destroy(own)

    async def test_the_stream_is_the_output_and_ends(self, runner: Runner) -> None:
        own = lease("contract-stream")
        await runner.provision(own, CAT)
        await runner.start(own)
        frames = [frame async for frame in runner.stream(own)]
        assert b"".join(f.data for f in frames if f.channel is Channel.STDOUT) == b"hello\n"
        assert [frame.seq for frame in frames] == list(range(len(frames)))
        await runner.destroy(own)

    async def test_any_number_may_follow_a_run_whenever_they_come(self, runner: Runner) -> None:
        async def whole() -> bytes:
            return b"".join([frame.data async for frame in runner.stream(own)])

        own = lease("contract-followed")
        await runner.provision(own, CAT)
        early = [asyncio.ensure_future(whole()) for _ in range(5)]
        await runner.start(own)
        await runner.collect(own)
        assert {*await asyncio.gather(*early), await whole()} == {b"hello\n"}
        await runner.destroy(own)

    async def test_a_descriptor_that_is_handed_over_is_closed_whatever_happens(
        self, runner: Runner
    ) -> None:
        own = lease("contract-handed")
        spec = replace(CAT, credentials=(CredentialRule(ref="contract"),))
        await runner.provision(own, spec)
        for target in (lease("contract-handed-nobody"), own, own):
            fd = os.memfd_create("contract")
            try:
                await runner.start(target, (HandedFile(name="token", fd=fd),))
            except RunnerFault:
                assert target is not own
            with pytest.raises(OSError, match="descriptor"):
                os.fstat(fd)
        assert (await runner.collect(own)).stdout == b"hello\n"
        assert (await runner.destroy(own)).complete

    async def test_a_run_that_is_not_spoken_with_has_no_dialogue(self, runner: Runner) -> None:
        own = lease("contract-silent")
        await runner.provision(own, CAT)
        with pytest.raises(RunnerFault) as refused:
            runner.dialogue(own)
        assert refused.value.code is Code.RUNNER_LACKS
        await runner.destroy(own)

    async def test_only_profiles_that_are_there_are_known(self, runner: Runner) -> None:
        default = runner.capabilities
        assert runner.profile(default.profile) == default
        assert runner.profile("contract-no-such-profile") is None

    async def test_files_go_in_and_come_back(self, runner: Runner) -> None:
        own = lease("contract-files")
        spec = replace(CAT, files=(("a/b.txt", b"in"),), collect=("a/b.txt", "absent"))
        await runner.provision(own, spec)
        await runner.start(own)
        assert dict((await runner.collect(own)).files) == {"a/b.txt": b"in"}
        await runner.destroy(own)

    async def test_a_sweep_spares_what_is_in_use(self, runner: Runner) -> None:
        own = lease("contract-live")
        await runner.provision(own, CAT)
        found = await runner.sweep(frozenset())
        assert own.id not in {each.lease_id for each in found}
        await runner.start(own)
        assert (await runner.collect(own)).ending is Ending.EXIT
        await runner.destroy(own)
