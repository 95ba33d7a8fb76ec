"""What operators do: see, decide on approvals, resolve unknown outcomes, freeze.

Each method takes an `Operator`, which only an operator's credential makes, and checks what that
operator may do. Being on the same machine, or owning the files, is no authority (promise 11).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from remit.errors import Code, NotFound, Refused
from remit.model import (
    AccessRequest,
    Approval,
    ApprovalState,
    Entry,
    Frame,
    Operator,
    PartDifference,
    Permission,
    RequestState,
    Run,
    RunState,
    ServerStatus,
    Tool,
    ToolStatus,
    Verdict,
)
from remit.pipeline import Pipeline
from remit.stages.approve import check_vote
from remit.stages.authenticate import authenticate_operator
from remit.stages.quarantine import Quarantine, find, listed
from remit.telemetry import APPROVALS, logger

log = logger()


class Administration:
    """The operators' side of a pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._backends = pipeline.backends
        self.quarantine = Quarantine(pipeline.backends.servers, pipeline.backends.ledger)

    async def operator(self, authorization: str | None, source_ip: str) -> Operator:
        """The operator behind an `Authorization` header; a caller's key is never one.

        Raises:
            Refused: `unauthenticated` or `rate_limited`.
        """
        b = self._backends
        try:
            return await authenticate_operator(
                b.identity, b.rates, b.clock, authorization, source_ip
            )
        except Refused as refused:
            await self._pipeline.refuse_at_door(refused.code, source_ip)
            raise

    # Approvals

    async def approvals(
        self, operator: Operator, state: ApprovalState | None, limit: int
    ) -> Sequence[Approval]:
        require(operator, Permission.READ)
        await self.expire()
        states = None if state is None else frozenset({state})
        return await self._backends.ledger.approvals(states=states, limit=limit)

    async def approval(self, operator: Operator, approval_id: str) -> Approval:
        require(operator, Permission.READ)
        await self.expire()
        found = await self._backends.ledger.approval(approval_id)
        if found is None:
            raise _not_found("approval", approval_id)
        return found

    async def vote(
        self,
        operator: Operator,
        approval_id: str,
        plan_hash: str,
        verdict: Verdict,
        reason: str | None,
    ) -> Approval:
        """Decide on an approval, naming the plan hash that was looked at.

        Raises:
            NotFound; Conflict; Refused: `approval_not_eligible`, `approval_mismatch`,
                `approval_expired`.
        """
        require(operator, Permission.APPROVE)
        ledger, now = self._backends.ledger, self._backends.clock.now_ms()
        approval = await ledger.approval(approval_id)
        if approval is None:
            raise _not_found("approval", approval_id)
        vote = check_vote(approval, operator, verdict, reason, now)
        after = await ledger.vote(approval_id, plan_hash, vote)
        self._changed(after, operator)
        return after

    async def revoke_approval(self, operator: Operator, approval_id: str) -> Approval:
        require(operator, Permission.APPROVE)
        after = await self._backends.ledger.revoke_approval(
            approval_id, operator=operator.subject, now_ms=self._backends.clock.now_ms()
        )
        self._changed(after, operator)
        return after

    def _changed(self, approval: Approval, operator: Operator) -> None:
        log.info("approval", approval=approval.id, state=approval.state.value, by=operator.subject)
        if approval.state is not ApprovalState.PENDING:
            APPROVALS.labels(approval.state.value).inc()
            self._pipeline.bell.ring(approval.id)

    async def expire(self) -> None:
        """Expire the approvals that are past their time, and tell those who wait for them."""
        for approval_id in await self._backends.ledger.expire_approvals(
            self._backends.clock.now_ms()
        ):
            APPROVALS.labels(ApprovalState.EXPIRED.value).inc()
            self._pipeline.bell.ring(approval_id)

    # Requests for access

    async def access_requests(
        self, operator: Operator, state: RequestState | None, limit: int
    ) -> Sequence[AccessRequest]:
        require(operator, Permission.READ)
        states = None if state is None else frozenset({state})
        return await self._backends.ledger.access_requests(states=states, limit=limit)

    async def close_request(self, operator: Operator, request_id: str, note: str) -> AccessRequest:
        """Say that a request for access was dealt with. This grants nothing; policy does."""
        require(operator, Permission.APPROVE)
        closed = await self._backends.ledger.close_request(
            request_id,
            operator=operator.subject,
            note=note[:1000],
            now_ms=self._backends.clock.now_ms(),
        )
        log.info("access_request_closed", request=request_id, by=operator.subject)
        return closed

    # Runs

    async def runs(self, operator: Operator, state: RunState | None, limit: int) -> Sequence[Run]:
        require(operator, Permission.READ)
        states = None if state is None else frozenset({state})
        return await self._backends.ledger.runs(states=states, limit=limit)

    async def run(self, operator: Operator, run_id: str) -> Run:
        require(operator, Permission.READ)
        found = await self._backends.ledger.run(run_id)
        if found is None:
            raise _not_found("run", run_id)
        return found

    async def run_output(self, operator: Operator, run_id: str) -> Mapping[str, bytes]:
        """What a run printed, as far as it is kept: `stdout` and `stderr`."""
        run = await self.run(operator, run_id)
        output: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        if run.outcome_index is None:
            return output
        for entry in await self._backends.ledger.entries(run.outcome_index, run.outcome_index + 1):
            for name, commitment in commitments(entry).items():
                if name in output:
                    output[name] = await self._backends.ledger.value(commitment) or b""
        return output

    async def run_end(self, operator: Operator, run_id: str) -> Mapping[str, Any]:
        """What the log says openly of how a run ended; empty while it has not."""
        run = await self.run(operator, run_id)
        if run.outcome_index is None:
            return {}
        (entry,) = await self._backends.ledger.entries(run.outcome_index, run.outcome_index + 1)
        found: Mapping[str, Any] = json.loads(entry.text)
        return found

    async def run_stream(
        self, operator: Operator, run_id: str, start: int
    ) -> AsyncIterator[Frame | str | None]:
        """What a run under way writes, from frame `start` on; nothing for one that is over."""
        await self.run(operator, run_id)
        return self._pipeline.live.follow(run_id, start)

    async def run_file(self, operator: Operator, run_id: str, path: str) -> bytes:
        """A file that a run left, as far as it is kept.

        Raises:
            NotFound.
        """
        for file in (await self.run_end(operator, run_id)).get("files", []):
            if file["path"] == path:
                found = await self._backends.artifacts.get(file["digest"])
                if found is None:
                    raise NotFound(Code.NOT_FOUND, "this file is not kept any more")
                return found
        raise NotFound(
            Code.NOT_FOUND,
            "the run left no file of that name",
            hint=f"list them: `remit runs files {run_id}`",
        )

    async def resolve(self, operator: Operator, run_id: str, succeeded: bool, note: str) -> Run:
        """Say what became of a run whose outcome is unknown, so that the call may go on."""
        require(operator, Permission.RESOLVE)
        run = await self._backends.ledger.resolve(
            run_id,
            operator=operator.subject,
            succeeded=succeeded,
            note=note[:1000],
            now_ms=self._backends.clock.now_ms(),
        )
        log.info("run_resolved", run=run_id, by=operator.subject, succeeded=succeeded)
        return run

    # The log, the catalog, the switch

    async def entries(
        self, operator: Operator, match: Mapping[str, str], limit: int
    ) -> Sequence[Entry]:
        require(operator, Permission.READ)
        return await self._backends.ledger.search(match, limit=limit)

    async def entry(self, operator: Operator, index: int) -> Entry:
        require(operator, Permission.READ)
        for found in await self._backends.ledger.entries(index, index + 1):
            return found
        raise _not_found("entry", str(index))

    async def tools(self, operator: Operator) -> Sequence[Tool]:
        require(operator, Permission.READ)
        return self._backends.catalog.tools()

    async def servers(self, operator: Operator) -> Sequence[ServerStatus]:
        """The MCP servers of the catalog, with their health and their tools."""
        require(operator, Permission.READ)
        return self._backends.servers.statuses()

    async def look(self, operator: Operator, server: str) -> ServerStatus:
        """Ask a server for its tools now; one that fails is a status, no error."""
        require(operator, Permission.PIN)
        status = await self._backends.servers.look(server)
        self.quarantine.changed()
        return status

    async def differences(
        self, operator: Operator, server: str, tool: str
    ) -> tuple[ToolStatus, Sequence[PartDifference]]:
        """A tool, and what of its definition is not as it was accepted."""
        require(operator, Permission.READ)
        status = find(self._backends.servers, server, tool)
        return status, self._backends.servers.differences(server, listed(status.name))

    async def pin(self, operator: Operator, server: str, tool: str, digest: str) -> ToolStatus:
        """Accept the definition of a tool that was looked at; written down before it is done.

        Raises:
            NotFound; Conflict: `wrong_state`: another definition was seen last.
        """
        require(operator, Permission.PIN)
        return await self.quarantine.pin(operator, server, tool, digest)

    async def freeze(self, operator: Operator, frozen: bool, reason: str) -> None:
        """Stop all new effects, or let them go on."""
        require(operator, Permission.FREEZE)
        await self._backends.ledger.freeze(
            frozen,
            operator=operator.subject,
            reason=reason[:1000],
            now_ms=self._backends.clock.now_ms(),
        )
        self._pipeline.visibility.freeze_changed()
        log.warning("frozen" if frozen else "thawed", by=operator.subject)


def require(operator: Operator, permission: Permission) -> None:
    """Refuse an operator who may not do this.

    Raises:
        Refused: `approval_not_eligible`.
    """
    if permission not in operator.may:
        raise Refused(
            Code.APPROVAL_NOT_ELIGIBLE,
            f"this credential may not {permission.value}",
            hint="`may:` of the operator in remit.yaml says what it may do",
        )


def commitments(entry: Entry) -> Mapping[str, str]:
    """The commitments that an entry holds, by name."""
    found = json.loads(entry.text).get("commitments", {})
    return found if isinstance(found, dict) else {}


def _not_found(kind: str, name: str) -> NotFound:
    return NotFound(
        Code.NOT_FOUND, f"there is no {kind} of that id", hint=f"list them: `remit {kind}s list`"
    )
