"""THE REQUEST PATH. `Pipeline._path` reads top to bottom; nothing that decides is elsewhere.

Each stage takes the value that the stage before it made and gives the next, so that skipping one
does not type-check. A refusal is an exception with a code; it ends the path before any effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from remit.backends import Backends, PathSettings
from remit.errors import Code, LedgerFault, Refused
from remit.model import (
    AdmittedCall,
    Approval,
    ApprovalState,
    Approved,
    Call,
    Caller,
    Effect,
    Ending,
    Grant,
    NormalCall,
    Obliged,
    OnCancel,
    Outcome,
    PlanKind,
    Planned,
    Preview,
    PreviewDigest,
    PreviewResult,
    Repeat,
    Reply,
    RunResult,
    RunState,
)
from remit.ports import Progress
from remit.stages import plan as planning
from remit.stages.admit import admit
from remit.stages.answer import Answers, Finished
from remit.stages.approve import Bell, approve, not_approved, wait
from remit.stages.authenticate import authenticate
from remit.stages.authorize import Authorize, Replan
from remit.stages.commit import commit
from remit.stages.consent import Consenting, Wanted
from remit.stages.execute import execute
from remit.stages.history import Histories
from remit.stages.live import Live
from remit.stages.means import Means
from remit.stages.narrow import Terms
from remit.stages.normalise import answered, normalise
from remit.stages.oblige import Oblige
from remit.stages.record import Record
from remit.stages.repeat import Flight, Flights, Fresh, find_repeat, withdrawn
from remit.stages.review import Review
from remit.stages.settle import settle, unrecorded
from remit.stages.visibility import Visibility
from remit.telemetry import REFUSALS, RUN_SECONDS, RUNS, RUNS_IN_FLIGHT, logger, stage

MAX_ROUNDS = 3
"""How often one call may start again from its plan: after a wait, or when policy changed."""

MAX_SWITCHES = 50
"""How often it may where another policy came into force meanwhile, which is not the call's fault."""

log = logger()


class DecisionStale(Exception):
    """Policy changed, or took too long, between decision and intent; the plan is put to it again."""


class Pipeline:
    """Carries calls from a caller to a reply."""

    def __init__(self, backends: Backends, settings: PathSettings) -> None:
        self.backends = backends
        self.settings = settings
        self.bell = Bell()
        self.histories = Histories(backends.ledger, backends.clock, window_s=settings.history_s)
        self.visibility = Visibility(
            backends.catalog,
            backends.policy,
            backends.clock,
            ttl_s=settings.visible_ttl_s,
            batches=settings.list_batches,
        )
        self.means = Means.of(backends, settings)
        self.live = Live(backends.runner)
        self._oblige = Oblige(backends.notifier, backends.clock)
        self._authorize = Authorize(
            backends.policy,
            backends.arguments,
            self.means,
            backends.clock,
            histories=self.histories,
            oblige=self._oblige,
        )
        self._review = Review(backends.policy, self.means, backends.clock, self.histories)
        self._answers = Answers(backends, settings, self._review)
        self.consenting = Consenting(backends, settings, self._answers.rounds)
        self._flights = Flights()
        self._slots = asyncio.Semaphore(settings.concurrent_runs)

    # ------------------------------------------------------------------------------ who, and what

    async def authenticate(self, authorization: str | None, source_ip: str) -> Caller:
        """Step 1. The caller behind an `Authorization` header.

        Raises:
            Refused: `unauthenticated` or `rate_limited`; counted in the log by source and minute.
        """
        b = self.backends
        try:
            with stage("authenticate"):
                return await authenticate(b.identity, b.rates, b.clock, authorization, source_ip)
        except Refused as refused:
            await self.refuse_at_door(refused.code, source_ip)
            raise

    async def refuse_at_door(self, code: Code, source: str) -> None:
        """Count a request that was refused before anyone was authenticated."""
        REFUSALS.labels(code.value).inc()
        try:
            await self.backends.ledger.count_refusal(
                source, code.value, self.backends.clock.now_ms()
            )
        except LedgerFault as fault:
            log.warning("refusal_not_counted", code=code.value, error=str(fault))

    async def call(self, call: Call, progress: Progress) -> Reply:
        """Steps 2 to 10. The reply to a call: its result, or why there is none.

        Raises nothing but cancellation: whatever goes wrong is a reply that says so.
        """
        normal: NormalCall | None = None
        try:
            with stage("normalise"):
                normal = await normalise(self.visibility, self.backends.arguments, call)
                normal = answered(normal, self._answers.rounds, self.backends.clock.now_ms())
            found = normal

            async def path(flight: Flight) -> Reply:
                return await self._path(found, flight)

            reply = await self._flights.fly(normal, progress, path)
        except Exception as exc:  # noqa: BLE001 - the last line: anything else is a refusal too
            reply = await self._answers.refused(call, normal, Record(), exc)
        self._answers.tell(call, normal, reply)
        return self._answers.fit(call, reply)

    # ----------------------------------------------------------------------------------- the path

    async def _path(self, normal: NormalCall, flight: Flight) -> Reply:
        """The path of one call. `flight` is the call under way as those see it who wait for it:
        it says what a cancel may still end, and carries progress to them."""
        record = Record()
        try:
            # (2) a repeat of an earlier call?
            repeat = await self._find_repeat(normal)
            if isinstance(repeat, Repeat):
                await self.histories.returned(normal)
                return await self._answers.replayed(normal, repeat)
            # (3) is everything frozen? what may this tool use at most?
            with stage("admit"):
                admitted = await admit(self.backends.ledger, normal)
            for again in self._rounds():
                try:
                    if again:  # what policy hides by now is refused as if it did not exist
                        call = normal.call
                        await self.visibility.find(
                            call.caller, call.tool_name, call.source_ip, call.method
                        )
                    # (4) what would run, exactly: previewed, frozen, hashed
                    with stage("plan"):
                        planned = await self._plan(admitted, record, flight)
                    # (5) to (9) may it, did a person agree, intent, run, outcome
                    finished = await self._carry_out(planned, record, flight, repeat.parent_run_id)
                except DecisionStale:
                    continue
                if isinstance(finished, Finished):
                    # (10) say so, with the receipt
                    return await self._answers.finished(finished)
                await self._held(finished, flight)
            raise Refused(
                Code.DECISION_STALE,
                "policy or target kept changing, or every runner was busy, under this call",
                hint="call again",
            )
        except asyncio.CancelledError:
            if not flight.withdrawn:
                raise  # the process is ending
            return await self._answers.refused(normal.call, normal, record, withdrawn())
        except Exception as exc:  # noqa: BLE001 - whatever it is, nothing may run because of it
            flight.guarded = True  # a cancel must not take the refusal out of the log
            return await self._answers.refused(normal.call, normal, record, exc)

    def _rounds(self) -> Iterator[int]:
        """The rounds that a call has; one during which policy was switched is not counted."""
        policy = self.backends.policy
        counted = 0
        for number in range(MAX_SWITCHES):
            revision = policy.revision
            yield number
            counted += revision == policy.revision
            if counted == MAX_ROUNDS:
                return

    async def _carry_out(
        self, planned: Planned, record: Record, flight: Flight, parent: str | None = None
    ) -> Finished | Approval | Wanted:
        """Steps 5 to 9, the same for a preview's plan and for the call's own.

        Gives the approval or the consent that is waited for, if there is one; nothing ran then.
        """
        b = self.backends
        # (5) may it? policy answers this plan, or one narrowed from it
        with stage("authorize"):
            decided = await self._authorize(planned, record, self._replan(planned, record, flight))
            flight.decision = decided.decision
        # does whom it is for let Remit act for them, at each server that wants to know?
        with stage("consent"):
            consented = await self.consenting(decided)
        if isinstance(consented, Wanted):
            return consented
        # (6) did enough people agree to this plan hash?
        with stage("approve"):
            approved = await approve(
                self._authorize, b.ledger, b.clock, consented, record, settings=self.settings
            )
        if isinstance(approved, Approval):
            return approved
        # What policy obliges to be done first: done, or nothing runs
        obliged = await self._oblige.perform(approved, record)
        async with self._slots:
            # From here a cancel no longer ends this task: it stops the run, where that may be.
            flight.guarded, flight.stoppable = True, _stoppable(planned)
            try:
                finished = await self._commit_and_run(obliged, record, flight, parent)
            except Refused as refused:
                if refused.code is not Code.DECISION_STALE:
                    raise
                flight.release()  # nothing was committed: evaluate again
                raise DecisionStale from None
            if planned.plan.kind is PlanKind.PREVIEW:
                flight.release()
            return finished

    async def _commit_and_run(
        self, obliged: Obliged, record: Record, flight: Flight, parent: str | None
    ) -> Finished:
        b = self.backends
        approved = obliged.approved
        planned = approved.decided.planned
        # (7) the intent, durable before any effect; gives the single-use grant
        with stage("commit"):
            grant = await commit(
                b.ledger, b.clock, obliged, record, self.histories, parent_run_id=parent
            )
        # (8) one runner, made for this grant and destroyed after it
        try:
            with stage("execute"):
                result = await self._execute(grant, approved, flight)
            # (9) what came of it, durable
            with stage("settle"):
                outcome, index = await self._settle(approved, grant, result)
        finally:
            self.live.ended(grant.run_id)
        tool = planned.admitted.normal.tool.name
        RUNS.labels(tool, result.ending.value).inc()
        RUN_SECONDS.labels(tool).observe(result.wall_ms / 1000)
        return Finished(approved=approved, outcome=outcome, result=result, index=index)

    async def _execute(self, grant: Grant, approved: Approved, flight: Flight) -> RunResult:
        decided = approved.decided
        RUNS_IN_FLIGHT.inc()
        try:
            return await execute(
                self.backends,
                grant,
                gateway=self.settings.gateway,
                constraints=decided.decision.constraints,
                held_back=self._review.holds_back(decided),
                progress=flight,
                stop=flight.stop,
                live=self.live,
            )
        finally:
            RUNS_IN_FLIGHT.dec()

    async def _settle(
        self, approved: Approved, grant: Grant, result: RunResult
    ) -> tuple[Outcome, int]:
        b, review = self.backends, self._review
        try:
            return await settle(b, approved=approved, grant=grant, result=result, review=review)
        except Exception as fault:
            log.critical("outcome_not_recorded", run=grant.run_id, ending=result.ending.value,
                         exc_info=fault)  # fmt: skip
            if result.ending is Ending.NOT_STARTED:
                raise
            raise unrecorded(approved.decided.planned, grant) from fault

    # -------------------------------------------------------------------------- planning, preview

    async def _plan(self, admitted: AdmittedCall, record: Record, flight: Flight) -> Planned:
        """Step 4 as the call was made: its own arguments, all that the tool declares."""
        return await self._plan_with(admitted, record, flight, terms=self.means.declared(admitted))

    async def _plan_with(
        self,
        admitted: AdmittedCall,
        record: Record,
        flight: Flight,
        *,
        terms: Terms,
        narrowed_from: str | None = None,
    ) -> Planned:
        means, preview = self.means, admitted.normal.tool.preview
        shown: PreviewResult | None = None
        if preview is not None:
            planned = planning.preview_plan(admitted, means, preview, arguments=terms.arguments)
            shown = await self._preview(preview, planned, record, flight)
        return planning.main_plan(
            admitted, means, terms=terms, preview=shown, narrowed_from=narrowed_from
        )

    def _replan(self, planned: Planned, record: Record, flight: Flight) -> Replan:
        """How policy's narrowing makes a new plan of this one."""

        async def again(terms: Terms) -> Planned:
            if planned.plan.kind is PlanKind.PREVIEW:
                return planning.narrowed_preview(planned, self.means, terms)
            return await self._plan_with(
                planned.admitted, record, flight, terms=terms, narrowed_from=planned.plan.hash
            )

        return again

    async def _preview(
        self, preview: Preview, planned: Planned, record: Record, flight: Flight
    ) -> PreviewResult:
        """Run a preview by the same steps as anything else, and digest what it showed."""
        finished = await self._previewed(planned, record, flight)
        subject = planning.preview_subject(preview, finished.result.stdout, finished.result.files)
        if preview.digest is PreviewDigest.NORMALISED:
            normalising = planning.normaliser_plan(planned, preview, text=subject)
            subject = (await self._previewed(normalising, record, flight)).result.stdout
        return planning.preview_result(finished.outcome.run_id, finished.result, subject)

    async def _previewed(self, planned: Planned, record: Record, flight: Flight) -> Finished:
        for _ in self._rounds():
            finished = await self._carry_out(planned, record, flight)
            if not isinstance(finished, Finished):
                await self._held(finished, flight)
                continue
            # Output that was cut binds only a part of what was shown.
            if finished.outcome.state is not RunState.SUCCEEDED or finished.result.stdout_truncated:
                shown = self._review.of_preview(finished.result)
                raise planning.preview_failed(finished.outcome, shown)
            return finished
        raise Refused(Code.DECISION_STALE, "what this call would do kept changing")

    # ------------------------------------------------------------------------ waiting, and replies

    async def _held(self, waited: Approval | Wanted, flight: Flight) -> None:
        """Wait while a person decides or consents, for as long as a call may be held.

        Returns when they did: the call then starts again from its plan, so that the preview runs
        again and policy answers again.

        Raises:
            Refused: `approval_required`, `consent_required`, `approval_denied` and the like.
        """
        if isinstance(waited, Wanted):
            await self.consenting.held(waited, flight)
            return
        ledger, hold_s = self.backends.ledger, self.settings.hold_s
        current = await wait(ledger, self.bell, waited, hold_s=hold_s, progress=flight)
        if current.state is not ApprovalState.APPROVED:
            raise not_approved(current, flight.decision)

    async def _find_repeat(self, normal: NormalCall) -> Fresh | Repeat:
        b, ttl_s = self.backends, self.settings.result_ttl_s
        return await find_repeat(b.ledger, normal, now_ms=b.clock.now_ms(), result_ttl_s=ttl_s)

    async def drain(self, seconds: float) -> None:
        """Withdraw calls without an intent and wait for runs to end, for at most so long."""
        await self._flights.drain(seconds)
        await self._oblige.drain(seconds)
        await self.visibility.aclose()


def _stoppable(planned: Planned) -> bool:
    """Whether a cancel stops the run once it has started."""
    tool = planned.admitted.normal.tool
    reads = planned.plan.kind is PlanKind.PREVIEW or tool.effect is Effect.READ
    return reads or tool.on_cancel is OnCancel.STOP
