"""The operators' side of a gateway in memory, with one approval, one run and one entry."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from remit.errors import Code, Conflict, NotFound, Refused
from remit.model import (
    AccessRequest,
    Approval,
    ApprovalRule,
    ApprovalState,
    Asserted,
    Caller,
    CallerKind,
    Channel,
    Claims,
    Consent,
    Decided,
    Effect,
    Entry,
    Frame,
    Frozen,
    Operator,
    PartDifference,
    Permission,
    PlanKind,
    Principal,
    RequestState,
    Run,
    RunState,
    ServedBundle,
    ServerStatus,
    Tool,
    ToolStatus,
    Verdict,
    Vote,
)
from remit.stages.quarantine import find
from remit.testing.consents import REDIRECT, MemoryConsents
from remit.testing.servers import MemoryServers
from tests.doors.fake import tool

PLAN = "sha256:" + "a" * 64

APPROVAL = Approval(
    id="apr_1",
    state=ApprovalState.PENDING,
    plan_hash=PLAN,
    call_digest="sha256:" + "b" * 64,
    caller=Caller(tenant="t", subject="ann", kind=CallerKind.AGENT),
    tool_name="apply",
    environment="production",
    rule=ApprovalRule(required=1, groups=("ops",)),
    opened_ms=1_000,
    expires_ms=901_000,
    shown=Frozen(b'{"claimed":{"purpose":"trust me"},"consequence":"Changes two services."}'),
)

REQUEST = AccessRequest(
    id="req_1",
    caller=APPROVAL.caller,
    tool_name="apply",
    environment="production",
    arguments=Frozen(b'{"service":"db"}'),
    reason="trust me",
    decision_id="dec_1",
    codes=("not_yours",),
    filed_ms=1_000,
)

RUN = Run(
    id="run_1",
    kind=PlanKind.MAIN,
    state=RunState.UNKNOWN,
    plan_hash=PLAN,
    call_digest=APPROVAL.call_digest,
    caller_id="ann",
    subject="ann",
    tool_name="apply",
    effect=Effect.WRITE,
    idempotent=False,
    environment="production",
    fence=1,
    intent_index=3,
    outcome_index=None,
    approval_id=None,
    intended_ms=1_000,
    started_ms=1_001,
    settled_ms=None,
    deadline_ms=31_000,
)

ENTRY = Entry(index=0, text=b'{"event":"start","seq":0}', leaf_hash=b"\x01" * 32)


FRAMES = [
    Frame(seq=0, channel=Channel.STDOUT, data=b"begun\n"),
    Frame(seq=1, channel=Channel.STDERR, data=b"\xff warned\n"),
]


class FakeAdmin:
    """Operator `olga` may do everything, `ray` may only read."""

    def __init__(self) -> None:
        self.approval_now = APPROVAL
        self.request_now = REQUEST
        self.frozen: str | None = None
        self.not_ready: list[str] = []
        self.refusals: list[Code] = []
        self.asked: list[Any] = []
        self.behind = MemoryServers()
        self.consents_held = MemoryConsents(["crm"])

    async def operator(self, authorization: str | None, source_ip: str) -> Operator:
        match authorization:
            case "Bearer op-olga":
                return Operator(subject="olga", groups=("ops",), may=frozenset(Permission))
            case "Bearer op-ray":
                return Operator(subject="ray", may=frozenset({Permission.READ}))
        raise Refused(Code.UNAUTHENTICATED, "no credential that is known", hint="send one")

    async def refuse_at_door(self, code: Code, source: str) -> None:
        self.refusals.append(code)

    async def approvals(
        self, operator: Operator, state: ApprovalState | None, limit: int
    ) -> Sequence[Approval]:
        self.asked.append((state, limit))
        return [self.approval_now] if state in (None, self.approval_now.state) else []

    async def approval(self, operator: Operator, approval_id: str) -> Approval:
        if approval_id != "apr_1":
            raise NotFound(Code.NOT_FOUND, "there is no approval of that id")
        return self.approval_now

    async def vote(
        self,
        operator: Operator,
        approval_id: str,
        plan_hash: str,
        verdict: Verdict,
        reason: str | None,
    ) -> Approval:
        if Permission.APPROVE not in operator.may:
            raise Refused(Code.APPROVAL_NOT_ELIGIBLE, "this credential may not approve")
        if plan_hash != PLAN:
            raise Refused(Code.APPROVAL_MISMATCH, "this approval is for another plan")
        if self.approval_now.state is not ApprovalState.PENDING:
            raise Conflict(Code.WRONG_STATE, "this approval is not pending")
        vote = Vote(subject=operator.subject, verdict=verdict, voted_ms=2_000, reason=reason)
        state = ApprovalState.APPROVED if verdict is Verdict.APPROVE else ApprovalState.DENIED
        self.approval_now = replace(self.approval_now, state=state, votes=(vote,))
        return self.approval_now

    async def revoke_approval(self, operator: Operator, approval_id: str) -> Approval:
        self.approval_now = replace(self.approval_now, state=ApprovalState.WITHDRAWN)
        return self.approval_now

    async def access_requests(
        self, operator: Operator, state: RequestState | None, limit: int
    ) -> Sequence[AccessRequest]:
        self.asked.append((state, limit))
        return [self.request_now] if state in (None, self.request_now.state) else []

    async def close_request(self, operator: Operator, request_id: str, note: str) -> AccessRequest:
        if Permission.APPROVE not in operator.may:
            raise Refused(Code.APPROVAL_NOT_ELIGIBLE, "this credential may not approve")
        if request_id != REQUEST.id:
            raise NotFound(Code.NOT_FOUND, "there is no request for access of that id")
        if self.request_now.state is not RequestState.PENDING:
            raise Conflict(Code.WRONG_STATE, "the request for access is closed already")
        self.request_now = replace(
            REQUEST,
            state=RequestState.CLOSED,
            closed_ms=2_000,
            closed_by=operator.subject,
            note=note,
        )
        return self.request_now

    async def runs(self, operator: Operator, state: RunState | None, limit: int) -> Sequence[Run]:
        return [RUN] if state in (None, RUN.state) else []

    async def run(self, operator: Operator, run_id: str) -> Run:
        if run_id != RUN.id:
            raise NotFound(Code.NOT_FOUND, "there is no run of that id")
        return RUN

    async def run_output(self, operator: Operator, run_id: str) -> Mapping[str, bytes]:
        return {"stdout": "done ✓\n".encode(), "stderr": b"\xff\x00"}

    async def run_end(self, operator: Operator, run_id: str) -> Mapping[str, Any]:
        await self.run(operator, run_id)
        file = {"path": "out/plan.json", "digest": "sha256:" + "c" * 64, "bytes": 3, "kept": True}
        return {"truncated": True, "limits_hit": ["redacted"], "files": [file]}

    async def run_stream(
        self, operator: Operator, run_id: str, start: int
    ) -> AsyncIterator[Frame | str | None]:
        await self.run(operator, run_id)
        return self._frames(start)

    async def _frames(self, start: int) -> AsyncIterator[Frame | str | None]:
        yield None
        for frame in FRAMES[start:]:
            yield frame

    async def run_file(self, operator: Operator, run_id: str, path: str) -> bytes:
        if path != "out/plan.json":
            raise NotFound(Code.NOT_FOUND, "the run left no file of that name")
        return b"\x00\x01\x02"

    async def resolve(self, operator: Operator, run_id: str, succeeded: bool, note: str) -> Run:
        said = "succeeded" if succeeded else "failed"
        return replace(RUN, resolved_by=operator.subject, resolved_as=said)

    async def entries(
        self, operator: Operator, match: Mapping[str, str], limit: int
    ) -> Sequence[Entry]:
        self.asked.append((dict(match), limit))
        return [ENTRY]

    async def entry(self, operator: Operator, index: int) -> Entry:
        if index != 0:
            raise NotFound(Code.NOT_FOUND, "there is no entry of that id")
        return ENTRY

    async def export(self, operator: Operator) -> AsyncIterator[bytes]:
        async def lines() -> AsyncIterator[bytes]:
            for n in range(3):
                yield json.dumps({"seq": n}).encode() + b"\n"

        return lines()

    async def tools(self, operator: Operator) -> Sequence[Tool]:
        return [tool("apply", effect=Effect.DESTRUCTIVE)]

    async def servers(self, operator: Operator) -> Sequence[ServerStatus]:
        return self.behind.statuses()

    async def look(self, operator: Operator, server: str) -> ServerStatus:
        if Permission.PIN not in operator.may:
            raise Refused(Code.APPROVAL_NOT_ELIGIBLE, "this credential may not pin")
        return await self.behind.look(server)

    async def differences(
        self, operator: Operator, server: str, tool: str
    ) -> tuple[ToolStatus, Sequence[PartDifference]]:
        return find(self.behind, server, tool), self.behind.differences(server, tool)

    async def pin(self, operator: Operator, server: str, tool: str, digest: str) -> ToolStatus:
        if Permission.PIN not in operator.may:
            raise Refused(Code.APPROVAL_NOT_ELIGIBLE, "this credential may not pin")
        return await self.behind.accept(server, tool, digest, operator=operator.subject)

    async def consents(self, operator: Operator) -> Sequence[Consent]:
        return await self.consents_held.listed()

    async def ask_consent(
        self, operator: Operator, ref: str, principal: Principal
    ) -> Mapping[str, Any]:
        if Permission.CONSENT not in operator.may:
            raise Refused(Code.APPROVAL_NOT_ELIGIBLE, "this credential may not consent")
        page = await self.consents_held.begin(ref, principal, (), REDIRECT, None)
        return {
            "url": "http://127.0.0.1:8700/consents/x",
            "subject": principal.subject,
            "authorization_server": page.host,
            "scopes": list(page.scopes),
            "ends_ms": page.ends_ms,
        }

    async def revoke_consent(self, operator: Operator, ref: str, principal: Principal) -> bool:
        if Permission.CONSENT not in operator.may:
            raise Refused(Code.APPROVAL_NOT_ELIGIBLE, "this credential may not consent")
        if (ref, principal) not in self.consents_held.held:
            raise NotFound(Code.NOT_FOUND, "there is no such consent")
        return await self.consents_held.revoke(ref, principal)

    async def freeze(self, operator: Operator, frozen: bool, reason: str) -> None:
        self.frozen = reason if frozen else None

    async def status(self, operator: Operator) -> Mapping[str, Any]:
        return {"version": "0", "frozen": self.frozen, "unsafe": ("unsafe_same_user",)}

    async def evaluate(
        self,
        operator: Operator,
        who: Asserted,
        *,
        tool_name: str,
        arguments: Mapping[str, Any],
        claims: Claims,
    ) -> Decided:
        raise Refused(Code.UNKNOWN_TOOL, f"Unknown tool: {tool_name}")

    async def bundle(
        self, operator: Operator, layer: str, known: frozenset[str], wait_s: float
    ) -> ServedBundle:
        self.asked.append((layer, known, wait_s))
        if layer != "policy":
            raise NotFound(Code.NOT_FOUND, "there is no such layer")
        return ServedBundle(revision="sha256:r1", content=b"packed")

    async def ready(self) -> Sequence[str]:
        return self.not_ready

    def metrics(self) -> bytes:
        return b"# HELP remit_calls Calls answered.\n"
