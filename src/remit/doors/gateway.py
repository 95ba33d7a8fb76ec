"""What a door needs from the gateway behind it, and nothing more.

`Gateway` is the callers' side, `AdminGateway` the operators'. A door translates between the wire
and these methods; it decides nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from remit.errors import Code
from remit.model import (
    AccessRequest,
    Approval,
    ApprovalState,
    Asserted,
    Call,
    Caller,
    Claims,
    Consent,
    Decided,
    Entry,
    Frame,
    Method,
    Operator,
    PartDifference,
    Principal,
    Reply,
    RequestState,
    ResourceLists,
    Run,
    RunState,
    ServedBundle,
    ServerStatus,
    Tool,
    ToolStatus,
    Verdict,
)
from remit.ports import Progress, Told


class Offers(Protocol):
    """What MCP servers offer beside tools, as one caller may have it."""

    def methods(self) -> frozenset[Method]:
        """By which methods anything is offered to anyone."""

    async def prompts(self, caller: Caller, source_ip: str) -> Sequence[Tool]:
        """The prompts that this caller may see, sorted by name."""

    async def resources(self, caller: Caller, source_ip: str) -> Sequence[ResourceLists]:
        """The resources of the servers whose reading this caller may see."""

    def reader(self, uri: str) -> str | None:
        """Under which name a call reads this URI, if exactly one server has it."""

    async def completer(
        self, caller: Caller, source_ip: str, ref: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]] | None:
        """Under which name an argument is completed, and the reference as its server knows it."""

    def watcher(self, uri: str) -> str | None:
        """Under which name a call subscribes to this URI, if one server has it and tells of it."""

    def standing(self, uri: str) -> object:
        """What a call that subscribed to this URI rests on: as long as this is equal, policy, what
        is frozen, and what the catalog has of it are as they were."""

    def rounds(self, uri: str) -> int:
        """Another number whenever hearing the server of this URI has begun anew."""

    def hear(self, uri: str, told: Told) -> Callable[[], None]:
        """Have `told` called when this URI changes, or when hearing of it has begun anew; gives
        what ends that. Whether anybody may be told is not looked at."""

    def listen(self) -> Callable[[], None]:
        """Have servers heard that tell of changes of their lists; gives what ends that."""


class Gateway(Protocol):
    """The callers' side: who asks, what may be seen, and the call."""

    @property
    def offers(self) -> Offers:
        """What there is beside tools."""

    async def authenticate(self, authorization: str | None, source_ip: str) -> Caller:
        """The caller behind an `Authorization` header; counts its own refusals.

        Raises:
            Refused: `unauthenticated`, or `rate_limited` with `retry_after_ms`.
        """

    async def visible(
        self,
        caller: Caller,
        *,
        source_ip: str | None = None,
        after: str = "",
        enough: int | None = None,
    ) -> Sequence[Tool]:
        """The tools this caller may see, sorted by name: all of them, or at least so many of
        those after a name, as far as there are so many."""

    async def call(self, call: Call, progress: Progress) -> Reply:
        """The reply to a call; raises nothing but cancellation.

        A cancel may be delivered at each await until this returns: what must go on has to be in
        a task of its own.
        """

    def on_change(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called whenever callers may see other tools than before; gives what ends
        that. It must return at once."""

    def still_valid(self, caller: Caller) -> bool:
        """Whether the credential that this caller came with would still be taken."""

    async def refuse_at_door(self, code: Code, source: str) -> None:
        """Count a request that a door turned away."""

    def new_call_id(self) -> str:
        """A name for one call, never given before."""


class AdminGateway(Protocol):
    """The operators' side; every method but the last three takes an `Operator`.

    Raises:
        Refused: from any method, when the operator may not do this.
    """

    async def operator(self, authorization: str | None, source_ip: str) -> Operator:
        """The operator behind an `Authorization` header; a caller's key is never one.

        Raises:
            Refused: `unauthenticated`, or `rate_limited` with `retry_after_ms`.
        """

    async def refuse_at_door(self, code: Code, source: str) -> None: ...

    async def approvals(
        self, operator: Operator, state: ApprovalState | None, limit: int
    ) -> Sequence[Approval]:
        """Approvals, newest first."""

    async def approval(self, operator: Operator, approval_id: str) -> Approval: ...

    async def vote(
        self,
        operator: Operator,
        approval_id: str,
        plan_hash: str,
        verdict: Verdict,
        reason: str | None,
    ) -> Approval:
        """Decide on an approval, naming the plan hash that was looked at."""

    async def revoke_approval(self, operator: Operator, approval_id: str) -> Approval: ...

    async def access_requests(
        self, operator: Operator, state: RequestState | None, limit: int
    ) -> Sequence[AccessRequest]:
        """Requests for access, newest first."""

    async def close_request(self, operator: Operator, request_id: str, note: str) -> AccessRequest:
        """Say that a request for access was dealt with."""

    async def runs(self, operator: Operator, state: RunState | None, limit: int) -> Sequence[Run]:
        """Runs, newest first."""

    async def run(self, operator: Operator, run_id: str) -> Run: ...

    async def run_output(self, operator: Operator, run_id: str) -> Mapping[str, bytes]:
        """What a run printed, as far as it is kept: `stdout` and `stderr`."""

    async def run_end(self, operator: Operator, run_id: str) -> Mapping[str, Any]:
        """What the log says openly of how a run ended; empty while it has not."""

    async def run_stream(
        self, operator: Operator, run_id: str, start: int
    ) -> AsyncIterator[Frame | str | None]:
        """What a run writes, from frame `start` on, as it comes; a text says why it is not shown,
        None that there is nothing yet. Ends when the outcome of the run is known."""

    async def run_file(self, operator: Operator, run_id: str, path: str) -> bytes:
        """A file that a run left.

        Raises:
            NotFound: it left none there, or it is not kept any more.
        """

    async def resolve(self, operator: Operator, run_id: str, succeeded: bool, note: str) -> Run:
        """Say what became of a run whose outcome is unknown."""

    async def entries(
        self, operator: Operator, match: Mapping[str, str], limit: int
    ) -> Sequence[Entry]:
        """Entries of the log, newest first."""

    async def entry(self, operator: Operator, index: int) -> Entry: ...

    async def export(self, operator: Operator) -> AsyncIterator[bytes]:
        """The log as it is handed to a verifier, one line at a time."""

    async def tools(self, operator: Operator) -> Sequence[Tool]:
        """All tools of the catalog."""

    async def servers(self, operator: Operator) -> Sequence[ServerStatus]:
        """The MCP servers of the catalog, with their health and their tools."""

    async def look(self, operator: Operator, server: str) -> ServerStatus:
        """Ask a server for its tools now; one that fails is a status, no error.

        Raises:
            NotFound.
        """

    async def differences(
        self, operator: Operator, server: str, tool: str
    ) -> tuple[ToolStatus, Sequence[PartDifference]]:
        """A tool, and what of its definition is not as it was accepted.

        Raises:
            NotFound.
        """

    async def pin(self, operator: Operator, server: str, tool: str, digest: str) -> ToolStatus:
        """Accept the definition of a tool, naming the digest that was looked at.

        Raises:
            NotFound; Conflict: another definition was seen last.
        """

    async def consents(self, operator: Operator) -> Sequence[Consent]:
        """What people consented to at MCP servers' authorization servers, as far as it is held."""

    async def ask_consent(
        self, operator: Operator, ref: str, principal: Principal
    ) -> Mapping[str, Any]:
        """A page on which this person, and nobody else, can consent; nothing is given by it.

        Raises:
            NotFound: no such credential is lent by consent.
        """

    async def revoke_consent(self, operator: Operator, ref: str, principal: Principal) -> bool:
        """End a consent: whether the authorization server confirmed that it is over there too.

        Raises:
            NotFound: there is none.
        """

    async def freeze(self, operator: Operator, frozen: bool, reason: str) -> None:
        """Stop all new effects, or let them go on."""

    async def status(self, operator: Operator) -> Mapping[str, Any]:
        """How this gateway runs: mode, frozen, unsafe settings, policy revision, version."""

    async def evaluate(
        self,
        operator: Operator,
        who: Asserted,
        *,
        tool_name: str,
        arguments: Mapping[str, Any],
        claims: Claims,
    ) -> Decided:
        """What policy says of a call that an enforcement point outside asks about; nothing runs.

        Raises:
            Refused: as the call itself would be, or `rate_limited`; InputError: `who` fits several
                credentials that differ.
        """

    async def bundle(
        self, operator: Operator, layer: str, known: frozenset[str], wait_s: float
    ) -> ServedBundle:
        """The policy of a layer as an OPA bundle; waits while its revision is one of `known`.

        Raises:
            NotFound: there is no such layer, or its policy does not come from here.
        """

    async def ready(self) -> Sequence[str]:
        """Why it cannot take calls; empty when it can."""

    def metrics(self) -> bytes:
        """All metrics in the Prometheus text format."""
