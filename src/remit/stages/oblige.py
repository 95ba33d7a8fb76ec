"""What policy obliges Remit to do besides: it is done before anything runs, or nothing runs.

`log` is the recorded decision itself. `step_up` wants a person behind the caller who proved
themselves well or lately enough. `notify` is a message that has to have been taken. Beside a
denial, messages are sent in the background as well as can be: a denial waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from remit.canonical import encode
from remit.errors import Code, Refused
from remit.model import (
    Approved,
    Caller,
    Decision,
    Deny,
    EntryDraft,
    Frozen,
    Obligation,
    Obliged,
    Permitted,
    Planned,
)
from remit.ports import Clock, Notifier
from remit.stages.record import Record, caller_public
from remit.telemetry import NOTICES, logger

NOTICE = "remit.notice/1"

MAX_BACKGROUND = 32
"""Messages about denials under way at once; more are dropped, and counted."""

MAX_REASONS = 16

log = logger()


class Oblige:
    """Performs obligations, and refuses what they forbid."""

    def __init__(self, notifier: Notifier, clock: Clock) -> None:
        self._notifier = notifier
        self._clock = clock
        self._background: set[asyncio.Task[None]] = set()

    def check(self, planned: Planned, decision: Permitted) -> None:
        """Refuse what these obligations forbid already, so that no person is asked in vain.

        Raises:
            Refused: `step_up_required`; `policy_unsupported` for a channel that is not configured.
        """
        caller = planned.admitted.normal.call.caller
        for obligation in decision.obligations:
            properties = obligation.properties.value()
            if obligation.type == "step_up":
                lacks = lacking(properties, caller, self._clock.now_ms())
                if lacks is not None:
                    raise _refused(Code.STEP_UP_REQUIRED, lacks, decision, planned)
            if obligation.type == "notify" and properties["channel"] not in self._notifier.channels:
                message = "policy wants a channel told that the configuration does not have"
                raise _refused(Code.POLICY_UNSUPPORTED, message, decision, planned)

    async def perform(self, approved: Approved, record: Record) -> Obliged:
        """The plan once all is done that has to be before it is carried out. Once per call, plan
        and message, even where the plan is put to policy again.

        Raises:
            Refused: as `check`; `notice_not_taken` if a message was not.
        """
        planned, decision = approved.decided.planned, approved.decided.decision
        if not decision.obligations:
            return Obliged(approved=approved)
        self.check(planned, decision)
        for obligation in _notices(decision):
            once = (planned.plan.hash, obligation)
            if once in record.told:
                continue
            channel = obligation.properties.value()["channel"]
            failure = await self._notifier.notify(
                channel, self._notice(planned, decision, obligation)
            )
            NOTICES.labels("failed" if failure else "taken").inc()
            if failure is not None:
                log.warning("notice_not_taken", channel=channel, why=failure)
                message = "policy wants somebody told first, and the message was not taken"
                raise _refused(Code.NOTICE_NOT_TAKEN, message, decision, planned)
            record.told.add(once)
            record.add(_entry(planned, decision, obligation, channel))
        return Obliged(approved=approved)

    def denied(self, planned: Planned, decision: Deny) -> None:
        """Send what can be sent about a denial, in the background; nothing depends on it."""
        for obligation in _notices(decision):
            channel = obligation.properties.value().get("channel")
            if channel not in self._notifier.channels or len(self._background) >= MAX_BACKGROUND:
                NOTICES.labels("dropped").inc()
                continue
            notice = self._notice(planned, decision, obligation)
            task = asyncio.ensure_future(self._send(channel, notice))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def drain(self, seconds: float) -> None:
        """Let messages that are under way end, for at most so long; drop the rest."""
        tasks = set(self._background)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send(self, channel: str, notice: Frozen) -> None:
        failure = await self._notifier.notify(channel, notice)
        NOTICES.labels("failed" if failure else "taken").inc()
        if failure is not None:
            log.warning("notice_not_taken", channel=channel, why=failure)

    def _notice(
        self, planned: Planned, decision: Decision | Permitted, obligation: Obligation
    ) -> Frozen:
        """What the channel is told: who, what and why; never an argument."""
        normal = planned.admitted.normal
        code = decision.code.value if isinstance(decision, Deny) else None
        fields: dict[str, Any] = {
            "schema": NOTICE,
            "obligation": obligation.id,
            "message": obligation.properties.value().get("message", ""),
            "verdict": decision.verdict,
            "code": code,
            "call": normal.call.id,
            "kind": planned.plan.kind.value,
            "tenant": normal.call.caller.tenant,
            "caller": caller_public(normal.call.caller),
            "tool": normal.tool.name,
            "effect": normal.tool.effect.value,
            "environment": normal.environment,
            "plan_hash": planned.plan.hash,
            "decision": decision.evaluation.decision_id,
            "revision": decision.evaluation.revision,
            "reasons": [
                {"code": each.code, "message": each.message}
                for each in decision.reasons[:MAX_REASONS]
            ],
            "sent_ms": self._clock.now_ms(),
        }
        return Frozen(encode(fields))


def lacking(wanted: dict[str, Any], caller: Caller, now_ms: int) -> str | None:
    """What a caller's authentication lacks of a `step_up`, in words; None if nothing.

    An authentication time in the future is none.
    """
    if "acr" in wanted and caller.acr != wanted["acr"]:
        return f"policy wants a person authenticated as {wanted['acr']}"
    missing = [each for each in wanted.get("amr", ()) if each not in caller.amr]
    if missing:
        return f"policy wants a person authenticated by {', '.join(missing)}"
    if "max_age_s" in wanted:
        at = caller.auth_ms
        if at is None or not 0 <= now_ms - at <= 1000 * wanted["max_age_s"]:
            return f"policy wants a person authenticated in the last {wanted['max_age_s']} s"
    return None


def _notices(decision: Decision | Permitted) -> Iterator[Obligation]:
    return (each for each in decision.obligations if each.type == "notify")


def _entry(
    planned: Planned, decision: Decision | Permitted, obligation: Obligation, channel: str
) -> EntryDraft:
    normal = planned.admitted.normal
    public = {
        "call": normal.call.id,
        "tenant": normal.call.caller.tenant,
        "caller": caller_public(normal.call.caller),
        "tool": {"name": normal.tool.name, "digest": normal.tool.digest},
        "plan_hash": planned.plan.hash,
        "decision": decision.evaluation.decision_id,
        "obligation": obligation.id,
        "channel": channel,
    }
    return EntryDraft(event="call.notified", public=public)


def _refused(code: Code, message: str, decision: Permitted, planned: Planned) -> Refused:
    hints = {
        Code.STEP_UP_REQUIRED: "the person signs in anew as policy wants, then the call is repeated",
        Code.NOTICE_NOT_TAKEN: "call again later",
    }
    return Refused(
        code,
        message,
        hint=hints.get(code),
        decision_id=decision.evaluation.decision_id,
        policy_revision=decision.evaluation.revision,
        plan_hash=planned.plan.hash,
    )
