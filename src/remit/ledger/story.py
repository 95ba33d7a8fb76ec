"""Whether the entries, in their order, tell a story that Remit's rules allow.

Each outcome has one intent before it; each intent an allowing decision for the same plan, under
the revision that was active (or one that was not enforced, of which both say so), and where one is named, an approval for the same plan that enough
people gave before, in time, and that no other run used; fences grow; nothing is granted while
everything is frozen; a tool in quarantine is let go by an operator for the definition that was seen.

This reads only what the entries say. Whether they say the truth is another matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remit.ledger.consent_story import ConsentStory
from remit.ledger.fields import lacks as _lacks
from remit.ledger.fields import number as _number
from remit.ledger.fields import text as _text
from remit.ledger.fields import wrong as _wrong
from remit.ledger.tool_story import ToolStory
from remit.model import ApprovalRule, Quorum, Verdict, Vote
from remit.quorum import met

Document = Mapping[str, Any]

VERDICTS = frozenset({"allow", "require_approval", "deny"})
ENDINGS = frozenset({"succeeded", "failed", "never_started", "unknown"})


@dataclass(frozen=True, slots=True)
class _Decision:
    plan_hash: str
    verdict: str
    revision: str
    enforced: bool
    about: str | None = None


@dataclass(slots=True)
class _Approval:
    plan_hash: str
    call_digest: str
    quorums: tuple[Quorum, ...]
    expires: str
    requesters: frozenset[str]
    separate: bool
    votes: dict[str, Vote] = field(default_factory=dict)
    over: str | None = None

    @property
    def agreed(self) -> bool:
        first, *others = self.quorums
        rule = ApprovalRule(required=first.required, groups=first.groups, also=tuple(others))
        return met(rule, self.votes.values())

    @property
    def approvers(self) -> list[str]:
        return sorted(v.subject for v in self.votes.values() if v.verdict is Verdict.APPROVE)


@dataclass(slots=True)
class _OpenRun:
    index: int
    fence: int
    plan_hash: str
    review: str | None = None


class Story:
    """Takes entries in order; stops at the first that cannot follow those before it."""

    def __init__(self) -> None:
        self._decisions: dict[str, _Decision] = {}
        self._approvals: dict[str, _Approval] = {}
        self._open: dict[str, _OpenRun] = {}
        self._ended: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._fence = 0
        self._frozen = False
        self._revision: str | None = None
        self.plans: set[str] = set()
        self.intents = 0
        self.unenforced: dict[str, list[int]] = {}
        self.outcomes = 0
        self._steps: dict[str, Callable[[int, Document], None]] = {
            "decision": self._decision,
            "call.intent": self._intent,
            "call.outcome": self._outcome,
            "run.resolved": self._resolved,
            "runner.swept": self._swept,
            "approval.opened": self._opened,
            "approval.voted": self._voted,
            "approval.expired": self._ended_approval,
            "approval.superseded": self._ended_approval,
            "approval.withdrawn": self._ended_approval,
            "gateway.activated": self._activated,
            "gateway.frozen": self._froze,
            "gateway.thawed": self._thawed,
            **ToolStory().steps,
            **ConsentStory().steps,
        }

    def observe(self, index: int, entry: Document) -> None:
        """Take the next entry.

        Raises:
            Unverified: `log_inconsistent` if it cannot follow, `log_malformed` if it lacks a
                field that its event has.
        """
        step = self._steps.get(_text(index, entry, "event"))
        if step is not None:
            step(index, entry)

    def open_runs(self) -> list[tuple[str, int]]:
        """Runs with an intent and no outcome, with the index of the intent."""
        return [(run, each.index) for run, each in self._open.items()]

    def unresolved(self) -> list[str]:
        """Runs whose outcome is unknown and that nobody has resolved."""
        return sorted(self._unknown)

    # What is in force

    def _activated(self, index: int, entry: Document) -> None:
        self._revision = _text(index, entry, "revision")

    def _froze(self, index: int, entry: Document) -> None:
        self._frozen = True

    def _thawed(self, index: int, entry: Document) -> None:
        self._frozen = False

    # Decisions and runs

    def _decision(self, index: int, entry: Document) -> None:
        name = _text(index, entry, "decision")
        if name in self._decisions:
            raise _wrong(index, "the decision was recorded before")
        policy = entry.get("policy")
        if not isinstance(policy, Mapping):
            raise _lacks(index, "policy")
        plan_hash = _text(index, entry, "plan_hash")
        self.plans.add(plan_hash)
        if not _enforced(index, entry):
            self.unenforced.setdefault(plan_hash, [])
        self._decisions[name] = _Decision(
            plan_hash=plan_hash,
            verdict=_text(index, entry, "verdict"),
            revision=_text(index, policy, "revision"),
            enforced=_enforced(index, entry),
            about=self._about(index, entry, plan_hash),
        )

    def _about(self, index: int, entry: Document, plan_hash: str) -> str | None:
        """The run whose result the decision is about; it has to be open, and of this plan, or,
        where its stored result was asked for again, to have ended."""
        if entry.get("phase") != "result":
            return None
        run = _text(index, entry, "run")
        if entry.get("again", False) is True:
            if self._ended.get(run) != plan_hash:
                raise _wrong(index, "the decision is about the stored result of no run that ended")
            return run
        opened = self._open.get(run)
        if opened is None or opened.plan_hash != plan_hash or opened.review is not None:
            raise _wrong(index, "the decision is about the result of no run that waits for one")
        opened.review = _text(index, entry, "decision")
        return run

    def _intent(self, index: int, entry: Document) -> None:
        run, plan_hash = _text(index, entry, "run"), _text(index, entry, "plan_hash")
        fence = _number(index, entry, "fence")
        if run in self._open or run in self._ended:
            raise _wrong(index, "the run has an intent already")
        if fence <= self._fence:
            raise _wrong(index, "the fence is not greater than the one before")
        if self._frozen:
            raise _wrong(index, "the intent was written while everything was frozen")
        enforced = self._check_decision(index, entry, plan_hash)
        if not enforced:
            self._leave_aside(index, entry, plan_hash)
        elif "approval" in entry:
            self._spend(index, entry, plan_hash)
        elif entry["verdict"] == "require_approval":
            raise _wrong(index, "policy required an approval and the intent names none")
        elif "approvers" in entry:
            raise _wrong(index, "the intent names approvers and no approval")
        self._fence = fence
        self._open[run] = _OpenRun(index, fence, plan_hash)
        self.plans.add(plan_hash)
        self.intents += 1

    def _leave_aside(self, index: int, entry: Document, plan_hash: str) -> None:
        """Note an intent on whose decision nothing depended; its plan has to say so."""
        if "approval" in entry or "approvers" in entry:
            raise _wrong(index, "the intent names an approval, and policy was not enforced")
        if _text(index, entry, "kind") != "main":
            raise _wrong(index, "policy was not enforced on a preview")
        self.unenforced[plan_hash].append(index)

    def _check_decision(self, index: int, entry: Document, plan_hash: str) -> bool:
        """Whether the decision was enforced; it is then one that allows."""
        decision = self._decisions.get(_text(index, entry, "decision"))
        if decision is None:
            raise _wrong(index, "the intent names a decision that is not before it")
        if decision.about is not None:
            raise _wrong(index, "the intent's decision is about a result")
        if decision.plan_hash != plan_hash:
            raise _wrong(index, "the intent's plan is not the one that was decided on")
        verdict = _text(index, entry, "verdict")
        enforced = _enforced(index, entry)
        if enforced != decision.enforced:
            raise _wrong(index, "the decision says otherwise of whether it was enforced")
        allows = {"allow", "require_approval"} if enforced else VERDICTS
        if verdict not in allows or verdict != decision.verdict:
            raise _wrong(index, "the decision does not allow the intent")
        revision = _text(index, entry, "revision")
        if revision != decision.revision or revision != self._revision:
            raise _wrong(index, "the decision is not of the revision that was active")
        return enforced

    def _spend(self, index: int, entry: Document, plan_hash: str) -> None:
        approval = self._approval(index, entry)
        if approval.over is not None:
            raise _wrong(index, f"the intent uses an approval that was {approval.over}")
        if approval.plan_hash != plan_hash or approval.call_digest != entry.get("call_digest"):
            raise _wrong(index, "the approval is for another plan")
        if not approval.agreed:
            raise _wrong(index, "not enough people had approved before the intent")
        if approval.expires <= _text(index, entry, "checked"):
            raise _wrong(index, "the approval had expired before the intent")
        if entry.get("approvers", approval.approvers) != approval.approvers:
            raise _wrong(index, "the approvers of the intent are not those who approved")
        approval.over = "spent"

    def _outcome(self, index: int, entry: Document) -> None:
        run = _text(index, entry, "run")
        opened = self._open.pop(run, None)
        if opened is None:
            raise _wrong(
                index,
                "the run has an outcome already"
                if run in self._ended
                else "the outcome has no intent before it",
            )
        if opened.fence != _number(index, entry, "fence"):
            raise _wrong(index, "the outcome has another fence than its intent")
        if opened.plan_hash != _text(index, entry, "plan_hash"):
            raise _wrong(index, "the outcome is of another plan than its intent")
        state = _text(index, entry, "state")
        if state not in ENDINGS:
            raise _wrong(index, "the outcome has a state that a run cannot end in")
        self._check_review(index, entry, opened)
        self._ended[run] = opened.plan_hash
        if state == "unknown":
            self._unknown.add(run)
        self.outcomes += 1

    def _check_review(self, index: int, entry: Document, opened: _OpenRun) -> None:
        """What policy said of the result is what the outcome names, and what was done."""
        review = entry.get("review", {})
        if not isinstance(review, Mapping):
            raise _lacks(index, "review")
        if review.get("decision") != opened.review:
            raise _wrong(index, "the outcome names another decision about its result")
        if opened.review is None:
            return
        decision = self._decisions[opened.review]
        if review.get("verdict") != decision.verdict:
            raise _wrong(index, "the outcome has another verdict about its result")
        given = entry["state"] == "succeeded" and entry.get("code") is None
        if given and decision.enforced and decision.verdict != "allow":
            raise _wrong(index, "policy withheld the result, and it was given")

    def _resolved(self, index: int, entry: Document) -> None:
        run = _text(index, entry, "run")
        if run not in self._unknown:
            raise _wrong(index, "the run that is resolved has no unknown outcome")
        self._unknown.remove(run)

    def _swept(self, index: int, entry: Document) -> None:
        """What is swept has no live run; an entry of loans alone, or of a count, names none."""
        run = entry.get("run")
        if run is not None and not isinstance(run, str):
            raise _lacks(index, "run")
        if run in self._open:
            raise _wrong(index, "a runner was swept while its run was open")

    # Approvals

    def _opened(self, index: int, entry: Document) -> None:
        name, plan_hash = _text(index, entry, "approval"), _text(index, entry, "plan_hash")
        if name in self._approvals:
            raise _wrong(index, "the approval was opened before")
        decision = self._decisions.get(_text(index, entry, "decision"))
        if decision is None or decision.plan_hash != plan_hash or decision.about is not None:
            raise _wrong(index, "the approval's decision is not before it, or of another plan")
        if decision.verdict != "require_approval" or not decision.enforced:
            raise _wrong(index, "the approval's decision did not ask for one")
        self.plans.add(plan_hash)
        self._approvals[name] = _Approval(
            plan_hash=plan_hash,
            call_digest=_text(index, entry, "call_digest"),
            quorums=_quorums(index, entry),
            expires=_text(index, entry, "expires"),
            requesters=_requesters(index, entry),
            separate=entry.get("separation_of_duties") is not False,
        )

    def _voted(self, index: int, entry: Document) -> None:
        approval = self._approval(index, entry)
        voter = _text(index, entry, "voter")
        if approval.over is not None or approval.agreed:
            raise _wrong(index, "the vote is on an approval that is not pending")
        if approval.plan_hash != _text(index, entry, "plan_hash"):
            raise _wrong(index, "the vote is on another plan than the approval's")
        if voter.casefold() in approval.votes:
            raise _wrong(index, "the person had voted before")
        agrees = _text(index, entry, "vote") == "approve"
        if not agrees:
            approval.over = "denied"
        elif approval.separate and voter in approval.requesters:
            raise _wrong(index, "the request was approved by one who made it")
        approval.votes[voter.casefold()] = Vote(
            subject=voter,
            verdict=Verdict.APPROVE if agrees else Verdict.DENY,
            voted_ms=0,
            groups=_groups(index, entry),
        )

    def _ended_approval(self, index: int, entry: Document) -> None:
        approval = self._approval(index, entry)
        if approval.over is not None:
            raise _wrong(index, f"the approval was {approval.over} before")
        approval.over = _text(index, entry, "event").removeprefix("approval.")

    def _approval(self, index: int, entry: Document) -> _Approval:
        approval = self._approvals.get(_text(index, entry, "approval"))
        if approval is None:
            raise _wrong(index, "the approval was not opened before")
        return approval


def _enforced(index: int, entry: Document) -> bool:
    """Whether policy's answer held; the entry says it only where it did not."""
    value = entry.get("enforced", True)
    if type(value) is not bool:
        raise _lacks(index, "enforced")
    return value


def _requesters(index: int, entry: Document) -> frozenset[str]:
    caller = entry.get("caller")
    if not isinstance(caller, Mapping) or not isinstance(caller.get("chain"), list):
        raise _lacks(index, "caller")
    actors = [caller, *caller["chain"]]
    if not all(isinstance(actor, Mapping) for actor in actors):
        raise _lacks(index, "caller")
    return frozenset(_text(index, actor, "subject") for actor in actors)


def _quorums(index: int, entry: Document) -> tuple[Quorum, ...]:
    """Who had to agree. Entries from before there could be several quorums give a number alone."""
    required, found = _number(index, entry, "required"), entry.get("quorums")
    if found is None:
        return (Quorum(required=required),)
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise _lacks(index, "quorums")
    quorums = tuple(
        Quorum(required=_number(index, each, "required"), groups=_groups(index, each))
        for each in found
    )
    if not quorums or quorums[0].required != required or any(q.required < 1 for q in quorums):
        raise _wrong(index, "the quorums of the approval are not those that it counts by")
    return quorums


def _groups(index: int, entry: Document) -> tuple[str, ...]:
    groups = entry.get("groups", [])
    if not isinstance(groups, list) or not all(isinstance(each, str) for each in groups):
        raise _lacks(index, "groups")
    return tuple(groups)
