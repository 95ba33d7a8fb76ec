"""The contract of environments that are kept for several runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.errors import Code, RunnerFault
from remit.model import Ending, Lease, RunSpec
from remit.ports import KeepingRunner
from remit.testing.dialogue_contract import SPOKEN, heard
from remit.testing.runner import lease

CALL = replace(SPOKEN, argv=("call",))


async def refused(runner: KeepingRunner, session: Lease, own: Lease, spec: RunSpec = CALL) -> None:
    """See that it is not attached, and that nothing of it was started."""
    with pytest.raises(RunnerFault) as fault:
        await runner.attach(session, own, spec)
    assert fault.value.code is Code.RUNNER_UNAVAILABLE
    assert fault.value.started is False


class KeepingContract:
    """What a `KeepingRunner` must do, without a way out: override the `keeper` fixture."""

    @pytest.fixture
    def keeper(self) -> KeepingRunner:
        raise NotImplementedError

    async def test_runs_have_a_kept_environment_one_after_another(
        self, keeper: KeepingRunner
    ) -> None:
        session = lease("kept-turns")
        await keeper.keep(session, SPOKEN)
        await keeper.start(session)
        for number in range(3):
            own = lease(f"kept-turn-{number}")
            await keeper.attach(session, own, CALL)
            await keeper.attach(session, own, CALL)
            await refused(keeper, session, lease("kept-other"))
            word = b"%d\n" % number
            await keeper.dialogue(session).write(word)
            assert await heard(keeper.dialogue(session), len(word)) == word
            assert await keeper.detach(own) is None
            assert await keeper.detach(own) is None
        keeper.dialogue(session).close_input()
        assert (await keeper.collect(session)).ending is Ending.EXIT
        assert (await keeper.destroy(session)).complete

    async def test_a_run_has_one_environment_at_a_time(self, keeper: KeepingRunner) -> None:
        first, second, own = lease("kept-first"), lease("kept-second"), lease("kept-torn")
        for session in (first, second):
            await keeper.keep(session, SPOKEN)
        await keeper.attach(first, own, CALL)
        await refused(keeper, second, own)
        await keeper.detach(own)
        await keeper.attach(second, own, CALL)
        for session in (first, second):
            assert (await keeper.destroy(session)).complete
        await keeper.detach(own)

    async def test_what_is_not_kept_has_no_turns(self, keeper: KeepingRunner) -> None:
        session = lease("kept-not")
        await keeper.provision(session, SPOKEN)
        await refused(keeper, session, lease("kept-in-vain"))
        await refused(keeper, lease("kept-absent"), lease("kept-in-vain"))
        await keeper.destroy(session)

    async def test_what_is_destroyed_has_no_more_turns(self, keeper: KeepingRunner) -> None:
        session, own = lease("kept-gone"), lease("kept-last")
        await keeper.keep(session, SPOKEN)
        await keeper.attach(session, own, CALL)
        assert (await keeper.destroy(session)).complete
        await refused(keeper, session, lease("kept-late"))
        assert await keeper.detach(own) is None

    async def test_a_run_of_another_profile_has_no_turn(self, keeper: KeepingRunner) -> None:
        session = lease("kept-profile")
        await keeper.keep(session, SPOKEN)
        other = replace(CALL, profile="contract-no-such-profile")
        await refused(keeper, session, lease("kept-stranger"), other)
        await keeper.destroy(session)

    async def test_whoever_is_not_attached_is_not_detached(self, keeper: KeepingRunner) -> None:
        assert await keeper.detach(lease("kept-nobody")) is None
