"""A policy in Python for tests, and the contract that every `Policy` must keep.

    from remit.testing.policy import ScriptedPolicy, allow, deny

    policy = ScriptedPolicy(lambda question: deny("not_today"))

What the function gives is a `remit.decision/1` document, read exactly as an engine's answer is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from remit import canonical
from remit.errors import Code, PolicyFault
from remit.model import Allow, Decision, Deny, Evaluation, Frozen, RequireApproval
from remit.policy.verdict import denial, judge, judge_result
from remit.ports import Policy

Question = Mapping[str, Any]
Document = dict[str, Any]


def allow(**more: Any) -> Document:
    """A `remit.decision/1` that allows; keywords add fields, such as `constraints`."""
    return _document("allow", "allowed", "The script allows this.", more)


def deny(code: str = "denied", message: str = "The script denies this.", **more: Any) -> Document:
    """A `remit.decision/1` that denies, with one reason shown to the caller."""
    return _document("deny", code, message, more)


def require_approval(required: int = 1, **rule: Any) -> Document:
    """A `remit.decision/1` that asks for people; keywords go into the approval rule."""
    approvals = {"required": required, **rule}
    message = "The script wants a person to agree."
    return _document("require_approval", "approval", message, {"approvals": approvals})


def _document(decision: str, code: str, message: str, more: Mapping[str, Any]) -> Document:
    reason = {"code": code, "message": message, "audience": "user"}
    return {"schema": "remit.decision/1", "decision": decision, "reasons": [reason], **more}


class ScriptedPolicy:
    """A `Policy` whose answers a function gives; a `PolicyFault` it raises becomes a denial.

    `asked` keeps every question about a call and `listed` every one about what is visible;
    `revision`, `visible_reads`, `judges_results` and `not_ready` may be set at any time.
    """

    def __init__(
        self,
        answer: Callable[[Question], Any] | None = None,
        *,
        visible: Callable[[Question, str], bool] | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._answer = (lambda _: allow()) if answer is None else answer
        self._visible = (lambda _, __: True) if visible is None else visible
        self._now = now
        self.asked: list[Question] = []
        self.listed: list[Question] = []
        self.visible_reads: frozenset[str] | None = frozenset()
        self.judges_results = False
        self.revision = "scripted"
        self.not_ready: str | None = None

    async def decide(self, document: Mapping[str, Any], *, decision_id: str) -> Decision:
        self.asked.append(document)
        text = canonical.encode(dict(document))
        evaluation = Evaluation(
            decision_id=decision_id,
            revision=self.revision,
            engine="scripted",
            input=Frozen(text),
            input_digest=canonical.digest("remit.input/1", text),
            decided_ms=self._now(),
        )
        try:
            judging = judge_result if document.get("phase") == "result" else judge
            return judging(self._answer(document), evaluation)
        except PolicyFault as fault:
            return denial(fault, evaluation)

    async def visible(
        self, document: Mapping[str, Any], names: Sequence[str]
    ) -> frozenset[str] | None:
        self.listed.append(document)
        try:
            return frozenset(name for name in names if self._visible(document, name))
        except PolicyFault:
            return None

    async def ready(self) -> str | None:
        return self.not_ready


class PolicyContract:
    """What every `Policy` must keep. Derive from it, and give `make`.

    The policy under test must allow a question whose `request_id` is `allow`, ask for approval by
    one person where it is `approve`, deny anything else, and show the tools named `seen…` only.
    """

    async def make(self) -> Policy:
        raise NotImplementedError

    async def end(self, policy: Policy) -> None:
        """Whatever ends what `make` made."""

    async def test_question_is_answered_as_the_policy_says(self) -> None:
        policy = await self.make()
        try:
            expected = {"allow": Allow, "approve": RequireApproval, "else": Deny}
            for request_id, kind in expected.items():
                question = {"request_id": request_id}
                decision = await policy.decide(question, decision_id="dec_1")
                assert isinstance(decision, kind), (request_id, decision)
        finally:
            await self.end(policy)

    async def test_evaluation_says_what_was_asked_of_which_policy(self) -> None:
        policy = await self.make()
        try:
            question = {"request_id": "allow", "arguments": {"b": 1, "a": "é"}}
            decision = await policy.decide(question, decision_id="dec_2")
            told = decision.evaluation
            assert told.decision_id == "dec_2"
            assert told.revision == policy.revision
            assert told.input.text == canonical.encode(question)
            assert told.input_digest == canonical.digest("remit.input/1", told.input.text)
            assert told.engine
            assert told.decided_ms > 0
        finally:
            await self.end(policy)

    async def test_question_without_anything_in_it_is_denied_and_not_raised(self) -> None:
        policy = await self.make()
        try:
            decision = await policy.decide({}, decision_id="dec_3")
            assert isinstance(decision, Deny)
            assert decision.reasons
            assert isinstance(decision.code, Code)
        finally:
            await self.end(policy)

    async def test_only_tools_that_were_asked_for_and_are_shown_are_visible(self) -> None:
        policy = await self.make()
        try:
            names = ["seen_a", "seen_b", "hidden"]
            question = {"tools": [{"name": name} for name in names]}
            assert await policy.visible(question, names) == frozenset({"seen_a", "seen_b"})
            fewer = await policy.visible(question, ["seen_a", "other"])
            assert fewer is not None
            assert fewer <= {"seen_a"}
        finally:
            await self.end(policy)

    async def test_what_visible_reads_is_said_without_asking(self) -> None:
        policy = await self.make()
        try:
            assert all(isinstance(path, str) for path in policy.visible_reads or ())
        finally:
            await self.end(policy)

    async def test_policy_in_force_is_ready(self) -> None:
        policy = await self.make()
        try:
            assert await policy.ready() is None
        finally:
            await self.end(policy)
