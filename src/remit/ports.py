"""Every Protocol a backend implements, and nothing else: the page to read before writing one.

A backend imports `model`, `errors`, `canonical` and this module. `remit.testing` has an in-memory
fake of each port, and the contract suite that every backend must pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from remit.model import (
    AccessRequest,
    Activation,
    Amount,
    Approval,
    ApprovalDraft,
    ApprovalState,
    Caller,
    Capabilities,
    Checkpoint,
    Consent,
    ConsentPage,
    ConsentState,
    Decision,
    Destruction,
    Entry,
    EntryDraft,
    Frame,
    Frozen,
    Grant,
    HandedFile,
    Intent,
    Lease,
    Lent,
    Loan,
    Operator,
    Outcome,
    PartDifference,
    Principal,
    Receipt,
    Repeat,
    RequestState,
    ResourceLists,
    Run,
    RunResult,
    RunSpec,
    RunState,
    ServedBundle,
    ServerStatus,
    Tool,
    ToolStatus,
    Touch,
    Traffic,
    Vote,
)


class Clock(Protocol):
    """Time and names, so that a recorded run can be replayed exactly."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""

    def new_id(self, prefix: str) -> str:
        """A name never given before: the prefix, an underscore, 26 lower-case characters."""


class Identity(Protocol):
    """Turns a credential into who presented it."""

    async def caller(self, bearer: str, now_ms: int) -> Caller:
        """The caller that holds this bearer token.

        Raises:
            Refused: `unauthenticated`, the same for unknown, expired and malformed tokens.
        """

    async def operator(self, bearer: str, now_ms: int) -> Operator:
        """The operator that holds this bearer token; a caller's token is never one.

        Raises:
            Refused: `unauthenticated`.
        """

    def key_ids(self) -> frozenset[str]:
        """The ids of all credentials that are valid now."""

    def known(self, subject: str) -> Sequence[Caller]:
        """The callers of that name in any tenant, one for each credential, expired ones too.

        For questions about them; a caller that acts comes from `caller` alone.
        """


class Catalog(Protocol):
    """The operator's tools."""

    def tool(self, name: str) -> Tool | None:
        """The tool of that name, whoever may see it."""

    def tools(self) -> Sequence[Tool]:
        """All tools, sorted by name; the same object as long as nothing changes."""

    def others(self) -> Sequence[Tool]:
        """What is asked for by another method than `tools/call`, sorted by name; `tool` finds it,
        and `tools` has none of it."""


class Servers(Protocol):
    """The MCP servers of the catalog, and what became of their tools; for operators."""

    def statuses(self) -> Sequence[ServerStatus]:
        """Every server with every tool of it that is known, by name. Asks nobody."""

    def differences(self, server: str, tool: str) -> Sequence[PartDifference]:
        """What differs between the accepted definition of a tool and the one last seen.

        Empty if they agree; every part is new if nothing was accepted yet.

        Raises:
            NotFound: there is no such server or tool.
        """

    async def look(self, server: str) -> ServerStatus:
        """Ask the server for its tools now; a server that fails is a status, no error.

        Raises:
            NotFound: there is no such server.
        """

    async def accept(self, server: str, tool: str, digest: str, *, operator: str) -> ToolStatus:
        """Let the definition that was last seen be offered from now on; durable on return.

        Raises:
            NotFound: there is no such server or tool.
            Conflict: `wrong_state` if what was last seen has another digest, or has none.
        """

    def on_change(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called after each change of what is offered; gives what ends that.

        It is called in the event loop, must return at once, and must not raise.
        """

    def resources(self) -> Sequence[ResourceLists]:
        """The resources of the servers that offer theirs, as they were listed last."""

    def reader(self, uri: str) -> str | None:
        """Under which name the catalog has the reading of this URI; None where no server, or more
        than one, listed it or a template that it matches."""

    def watcher(self, uri: str) -> str | None:
        """Under which name it has being told of changes of this URI; None where nobody may read
        it (`reader`), or its server tells of no changes."""


Told = Callable[[bool], None]


class Watches(Protocol):
    """What MCP servers tell by themselves, heard on connections that are the gateway's own.

    A server is watched as long as somebody waits for what it tells, and no longer.
    """

    async def subscribe(self, server: str, uri: str, *, within_s: float) -> None:
        """Have a server tell of changes of this resource; nobody is told of them by this alone.

        Whether the caller may is not looked at here. It is held for a moment, until `hear`.

        Args:
            within_s: seconds until it is given up.

        Raises:
            UpstreamFault: it cannot be, or the server does not want to.
            RunnerFault: no more servers can be watched.
        """

    def hear(self, server: str, uri: str, told: Told) -> Callable[[], None]:
        """Have `told` called with True whenever the server says that this resource changed, and
        with False when hearing it has begun anew; gives what ends that. It returns at once and
        does not raise."""

    def rounds(self, server: str) -> int:
        """How often hearing this server was lost and begun again: whoever subscribed under another
        number has to be asked about again."""

    def listen(self) -> Callable[[], None]:
        """Somebody waits for lists to change; gives what ends that."""


class ArgumentCheck(Protocol):
    """Checks arguments, and structured results, against a tool's schemas."""

    def normalise(self, tool: Tool, arguments: Mapping[str, Any]) -> Frozen:
        """The arguments in their one spelling, with the schema's defaults filled in.

        Raises:
            Refused: `invalid_arguments` with a place, and no value echoed.
        """

    def fits(self, tool: Tool, value: Any) -> bool:
        """Whether a structured result is what the tool's output schema says; true without one.

        The value is a tool's, so hostile: finding out takes bounded time, too much is false.
        """


class Policy(Protocol):
    """Answers plans; fails closed by giving a `Deny` with the code of the fault, never a raise."""

    async def decide(self, document: Mapping[str, Any], *, decision_id: str) -> Decision:
        """The decision on one `remit.input/1` document.

        Does not check that constraints narrow the plan: the authorize stage does.
        """

    async def visible(
        self, document: Mapping[str, Any], names: Sequence[str]
    ) -> frozenset[str] | None:
        """Which of these tools this caller may see, for a `list` document of at most 200 tools.

        None where policy gives no usable answer: then none of them is shown, and the answer must
        not be kept.
        """

    @property
    def visible_reads(self) -> frozenset[str] | None:
        """What that answer depends on besides the caller, the tools and the revision.

        Paths of the input, such as `context.time`; empty where the same question has the same
        answer for as long as the revision stays; None where nobody here can know.
        """

    @property
    def judges_results(self) -> bool:
        """Whether a policy in force is to be asked about results (phase `result`)."""

    @property
    def revision(self) -> str:
        """The revision that answers now; `none` before one is loaded."""

    async def ready(self) -> str | None:
        """None if the engine answers its probes, else why it does not."""


class Upkeep(Protocol):
    """Keeps policy as its sources have it."""

    @property
    def problem(self) -> str | None:
        """Why what a source has now is not in force; None if all is."""

    @property
    def layers(self) -> Sequence[tuple[str, str]]:
        """The name and the revision of each layer in force."""

    def look(self) -> None:
        """Have all sources looked at now."""


class Dialogue(Protocol):
    """The standard input and output of a run that is spoken with; its words are not trusted."""

    async def read(self) -> bytes:
        """The next bytes that it writes, at most 64 KiB; none once it has ended or closed it.

        Raises:
            OSError: the stream broke.
        """

    async def write(self, data: bytes, /) -> None:
        """Send all of `data`; returns when there is room for more.

        Raises:
            OSError: it does not take it any more.
        """

    def close_input(self) -> None:
        """End its standard input; what was written before is still read. Idempotent."""


class Runner(Protocol):
    """Makes one disposable environment per lease. Every method is idempotent on the lease id.

    Nothing is retried by a runner. `provision` makes the environment with its limits but starts
    nothing in it; `start` lets the command go, at most once for a lease, ever; after `destroy`
    nothing of the lease is left, and the evidence says how that was checked.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What probe jobs found to hold on this machine, in the default profile."""

    def profile(self, name: str) -> Capabilities | None:
        """What probe jobs found to hold in the profile of that name; None if there is none."""

    async def provision(self, lease: Lease, spec: RunSpec) -> None:
        """Make the environment.

        Raises:
            RunnerFault: `runner_unavailable` or `runner_degraded`; nothing was started.
        """

    async def start(self, lease: Lease, files: Sequence[HandedFile] = ()) -> None:
        """Let the command go, with these files below /run/remit/credentials.

        The descriptors are closed, whatever happens. A later call for the same lease changes
        nothing.

        Raises:
            RunnerFault: `started` says whether the command may have run.
        """

    def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        """Output as it comes, bounded by the limits; ends when both channels have ended."""

    def dialogue(self, lease: Lease) -> Dialogue:
        """The streams of a run that is spoken with (`RunSpec.dialogue`), from its provision on.

        The same object each time. What is read from it is not in the run's result.

        Raises:
            RunnerFault: `runner_lacks` if the run is not spoken with, or this runner has none
                that are.
        """

    async def stop(self, lease: Lease, *, grace_s: float) -> None:
        """TERM, wait for the grace, then KILL all of it. Returns once the processes are gone."""

    async def collect(self, lease: Lease) -> RunResult:
        """Wait for the end and say how it ended, without the destruction evidence."""

    async def destroy(self, lease: Lease) -> Destruction:
        """Remove everything that belongs to the lease and look that it is gone."""

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        """Destroy whatever is found on this machine of this gateway's that has no live lease."""


class KeepingRunner(Runner, Protocol):
    """A runner that also keeps environments for several runs, which have them one after another."""

    async def keep(self, lease: Lease, spec: RunSpec) -> None:
        """Make an environment as `provision` does, to be kept until it is destroyed.

        With `spec.egress` it gets a way out, which is closed but for the runs that are attached:
        what connects before, or between two of them, is refused.
        """

    async def attach(self, session: Lease, lease: Lease, spec: RunSpec) -> None:
        """Give the way out of a kept environment to one run, until `detach`.

        What connects from there meanwhile is that run's: by the rules of its spec, under its
        fence, with what it is lent for injection. A run whose spec has no egress takes its turn
        too, and reaches nothing. Idempotent.

        Args:
            session: of the environment.
            lease: of the run; nothing is made for it, and it has nothing to be destroyed.

        Raises:
            RunnerFault: `runner_unavailable`: another run has it, it ended, it has no way out or
                not any more, or the run's spec is of another profile or reaches further than it.
        """

    async def detach(self, lease: Lease) -> Traffic | None:
        """Take the way out back, and give the run's record.

        Every connection of the run is closed when this returns. None for a run without egress, or
        that is not attached. Destroying the environment closes them too.
        """


class Credentials(Protocol):
    """Lends a run the credentials of its plan, and takes them back.

    What is lent follows from the ledger's record of the run alone: whoever lends reads intent,
    plan and fence there, and believes nothing that it is told but the name of the run.
    """

    def digest(self, ref: str) -> str | None:
        """What a handle means: a digest over all that is configured for it, but for secrets.

        None if there is no credential of that handle.
        """

    async def lend(self, lease: Lease) -> Lent:
        """Lend the run all the credentials of its plan; it must be started, with this fence.

        Raises:
            RunnerFault: `credential_unavailable`; what was lent already is taken back.
        """

    async def take_back(self, lease: Lease) -> Sequence[Loan]:
        """End what was lent to the run, and say of each loan how it ended. Idempotent."""

    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]:
        """The data with every trace of the run's secrets blanked, and how many were found.

        Traces are a secret as it is, in base64, percent-encoded, in hex and as JSON writes it.
        """

    async def sweep(self, live: frozenset[str]) -> Sequence[Loan]:
        """End loans of runs that are not live, those of an earlier keeper among them."""

    async def keys(self) -> Mapping[str, Any]:
        """The issuer's public keys as a JWK Set (RFC 7517); without keys if there is no issuer."""


class Consents(Protocol):
    """What people gave, each at an MCP server's own authorization server, for Remit to act for them.

    The keeper holds it: codes, verifiers and tokens never reach whoever asks here. Whose consent a
    run is lent follows from the ledger alone; what is said here decides only who is asked for one.
    """

    def asks(self, ref: str) -> bool:
        """Whether this handle is lent by a person's consent; of any other nothing here speaks."""

    async def status(
        self, ref: str, principal: Principal, scopes: Sequence[str] = ()
    ) -> ConsentState:
        """Whether a call that names these scopes of the handle can be made for them.

        HELD is no promise: the authorization server may take back what it gave at any time.

        Raises:
            RunnerFault: `credential_unavailable`: nobody can tell.
        """

    async def begin(
        self,
        ref: str,
        principal: Principal,
        scopes: Sequence[str],
        redirect_uri: str,
        client_document: str | None,
    ) -> ConsentPage:
        """Begin to ask a person; what they answer comes to `redirect_uri`, within ten minutes, once.

        Args:
            scopes: of the plan; joined with what was given before and what the server then wanted.
            redirect_uri: compared letter by letter by the authorization server.
            client_document: https address of Remit's client metadata (CIMD); None if it has none.

        Raises:
            Refused: `consent_unavailable`: this server cannot be asked, and what to mend;
                `rate_limited`: too many are being asked.
        """

    async def finish(self, state: str, answer: Mapping[str, str]) -> Consent:
        """Take the answer: all parameters with which the person's browser came back, each once.

        Raises:
            Refused: `consent_state_invalid`: nothing was begun with this state, or it was used, or
                is too late; `consent_refused`: the person said no; `consent_failed`: another server
                answered, or what it gave cannot be used. In each case nothing new is held.
        """

    async def listed(self, tenant: str | None = None) -> Sequence[Consent]:
        """All that are held, of one tenant or of all, in the order of handle and principal."""

    async def revoke(self, ref: str, principal: Principal) -> bool:
        """Forget it, and have the authorization server end it (RFC 7009): whether that confirmed.

        Forgotten it is in any case, before the server is asked. False too where there was none.
        """

    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None:
        """A server did not accept what this run was lent.

        Without scopes: a new access token is got before the next loan. With scopes
        (`insufficient_scope`): the person is asked again, for these too, a few times at most.
        """


class Artifacts(Protocol):
    """Files that runs left as results, by what they hold."""

    async def put(self, data: bytes) -> str:
        """Keep the bytes; give their name, `sha256:` and hex. Durable when it returns."""

    async def get(self, digest: str) -> bytes | None:
        """The bytes of that name, checked against it; None if they are not kept (any more)."""

    async def prune(self, now_ms: int) -> int:
        """Remove what is older than is kept, or more than is kept; give how many."""


class Signer(Protocol):
    """Signs checkpoints. The key is held elsewhere than the log (design: the keeper)."""

    @property
    def verifier_key(self) -> str:
        """The C2SP signed-note verifier key, `name+hash+base64`."""

    @property
    def signed(self) -> int:
        """The size of the largest tree that it signed, where it keeps account of that; else 0."""

    def sign(self, text: bytes, proof: Sequence[bytes] = ()) -> str:
        """The signature line of a signed note over `text`.

        `proof` is that the tree begins with that of `signed` leaves (RFC 9162 §2.1.4); a signer
        that keeps account signs nothing without it.
        """


class Ledger(Protocol):
    """The durable store: intents, approvals, outcomes and the log in one transaction domain.

    Each method that writes is one transaction that is durable when it returns, or did not happen.

    Raises:
        LedgerFault: from any method, `ledger_unavailable` or `ledger_full`.
    """

    # The log

    async def append(self, drafts: Sequence[EntryDraft]) -> Sequence[int]:
        """Append entries, in this order; give their indices."""

    async def count_refusal(self, source: str, code: str, now_ms: int) -> None:
        """Count a refusal that gets no entry of its own: one entry per source, code and minute.

        The entry is written once its minute is over; a crash loses at most that minute's counts.
        """

    async def entries(self, start: int, end: int) -> Sequence[Entry]:
        """Entries start <= index < end, as far as they exist."""

    async def search(self, match: Mapping[str, str], *, limit: int) -> Sequence[Entry]:
        """The newest entries whose public fields equal all of `match`, newest first."""

    async def value(self, commitment: str) -> bytes | None:
        """The value behind a commitment; None if it was erased or never was."""

    async def opening(self, commitment: str) -> tuple[bytes, bytes] | None:
        """The salt and the value behind a commitment, for an export."""

    async def checkpoint(self) -> Checkpoint:
        """A signed checkpoint over all that is durable now."""

    async def checkpoints(self) -> Sequence[Checkpoint]:
        """All checkpoints ever signed and kept, smallest first."""

    async def receipt(self, index: int) -> Receipt:
        """Inclusion proof for one entry under a checkpoint made now or before."""

    @property
    def verifier_key(self) -> str:
        """The key that checkpoints verify with; whoever verifies gets it from elsewhere."""

    def export(self) -> AsyncIterator[bytes]:
        """The log as `remit.export/1`, one JSON line at a time, for `remit audit verify`."""

    async def plan_text(self, plan_hash: str) -> bytes | None:
        """The stored bytes of a plan."""

    # Runs

    async def repeat(
        self, caller: Caller, tool_name: str, call_digest: str, idempotency_key: str | None
    ) -> Repeat | None:
        """The latest main run of this call digest, or of this key in the caller's scope.

        With a key, a run of that key comes first; its call digest may differ, which the caller of
        this method must treat as `idempotency_mismatch`.
        """

    async def commit_intent(self, intent: Intent, drafts: Sequence[EntryDraft]) -> Grant:
        """One transaction: check, spend the approval, write the intent, append the entries.

        Checks: not frozen; the decision's revision is the active one and was given less than
        30 s before `now_ms`; the tool's digest and the caller's key are active; the approval, if
        one is named, is approved for this plan hash, unexpired and unspent; no open or unresolved
        run of the same call digest for a write or destructive tool.

        `drafts` go in before the intent's own entry. The fence of the grant is greater than any
        given before. With `intent.starts` the run is written as started, under the checks of
        `start`: it was never only intended, so a crash leaves it as one that may have run.

        Raises:
            Refused: `frozen`, `decision_stale`, `tool_changed`, `caller_revoked`,
                `approval_mismatch`, `approval_expired`, `grant_spent`, `outcome_unknown`,
                `deadline_passed`.
        """

    async def start(self, grant: Grant, now_ms: int) -> None:
        """Compare-and-set from intended to started.

        Where the intent wrote the start (`Grant.started`), this hands that start over: once, to
        whoever has the grant that `commit_intent` gave in this process, after another look at
        freeze and deadline. Nothing is written then.

        Raises:
            Refused: `frozen`, `deadline_passed`, or `grant_spent` if it is not intended with
                this fence.
        """

    async def settle(
        self, outcome: Outcome, draft: EntryDraft, drafts: Sequence[EntryDraft] = ()
    ) -> int:
        """Write the outcome of an open run with this fence, append its entry, give its index.

        `drafts` go in before the outcome's own entry, in the same transaction.

        Raises:
            Conflict: `wrong_state` if the run is not open or has another fence.
        """

    async def run(self, run_id: str) -> Run | None: ...

    async def runs(
        self, *, states: frozenset[RunState] | None = None, limit: int = 100
    ) -> Sequence[Run]:
        """Runs, newest first."""

    async def resolve(
        self, run_id: str, *, operator: str, succeeded: bool, note: str, now_ms: int
    ) -> Run:
        """A person says what became of a run whose outcome is unknown.

        Raises:
            NotFound; Conflict: `wrong_state` if its outcome is not unknown, or already resolved.
        """

    async def touches(self, tenant: str, subject: str, *, since_ms: int) -> Sequence[Touch]:
        """What runs of this subject (whoever it acted for) touched since then, newest first.

        Counted from intents on, previews included: what was let go may have been seen. At most
        1,000 are given; a subject with more has its oldest folded into one touch whose session is
        empty, whose system is `*` and whose flags are those of all that it stands for.
        """

    # Requests for access

    async def file_request(
        self, request: AccessRequest, drafts: Sequence[EntryDraft]
    ) -> AccessRequest:
        """File a request, or give the pending one of the same caller, tool and arguments.

        Raises:
            Refused: `rate_limited` if 50 requests of this caller are pending.
        """

    async def access_requests(
        self, *, states: frozenset[RequestState] | None = None, limit: int = 100
    ) -> Sequence[AccessRequest]:
        """Requests for access, newest first."""

    async def close_request(
        self, request_id: str, *, operator: str, note: str, now_ms: int
    ) -> AccessRequest:
        """A person has dealt with a request.

        Raises:
            NotFound; Conflict: `wrong_state` if it is closed.
        """

    # Approvals

    async def open_approval(self, draft: ApprovalDraft, drafts: Sequence[EntryDraft]) -> Approval:
        """Open an approval, or give the pending or approved one of the same plan hash and call.

        A pending or approved one of the same call digest with another plan hash is superseded and
        named by the new one. `drafts` are appended in either case, before the opening's entry.
        """

    async def approval(self, approval_id: str) -> Approval | None: ...

    async def approvals(
        self, *, states: frozenset[ApprovalState] | None = None, limit: int = 100
    ) -> Sequence[Approval]:
        """Approvals, newest first."""

    async def approval_for(self, call_digest: str, plan_hash: str) -> Approval | None:
        """The newest approval of this plan for this call, in any state."""

    async def approvals_of(self, call_digest: str) -> Sequence[Approval]:
        """The approvals of this call, newest first, at most 20, whatever plan they are for."""

    async def vote(self, approval_id: str, plan_hash: str, vote: Vote) -> Approval:
        """Record one person's vote; the last one needed approves, any denial denies.

        Eligibility is checked by the approve stage, not here.

        Raises:
            NotFound; Conflict: `wrong_state` if it is not pending, or the person has voted;
            Refused: `approval_mismatch` if the plan hash is not the approval's,
                `approval_expired`.
        """

    async def revoke_approval(self, approval_id: str, *, operator: str, now_ms: int) -> Approval:
        """Withdraw a pending or approved approval that is not spent.

        Raises:
            NotFound; Conflict: `wrong_state`.
        """

    async def expire_approvals(self, now_ms: int) -> Sequence[str]:
        """Expire what is past its time; give the ids."""

    # What is in force

    async def activate(self, activation: Activation, now_ms: int) -> None:
        """Put a policy revision, tools and keys in force, with an entry."""

    async def freeze(self, frozen: bool, *, operator: str, reason: str, now_ms: int) -> None:
        """Stop all new effects, or let them go on; with an entry."""

    async def frozen(self) -> str | None:
        """Why everything is frozen, or None."""

    async def ready(self) -> str | None:
        """None if it can be written to, else why not."""


class Bundles(Protocol):
    """The policy in force as OPA bundles, for enforcement points that take it from here."""

    async def bundle(self, layer: str, *, known: frozenset[str], wait_s: float) -> ServedBundle:
        """The bundle of a layer.

        While its revision is one of `known`, waits for another, for so many seconds at most.

        Raises:
            NotFound: there is no such layer, or its policy does not come from here.
        """

    def close(self) -> None:
        """End all waits; nobody waits from here on."""


class Notifier(Protocol):
    """Tells people outside Remit what policy obliges it to tell."""

    @property
    def channels(self) -> frozenset[str]:
        """The names that a message can go to."""

    async def notify(self, channel: str, message: Frozen) -> str | None:
        """Send one message; None once it was taken, else why not. Never raises, ends in bounded time."""


class Rates(Protocol):
    """Rate limits; protection, not money: may be lost at restart."""

    def hit(self, scope: str, key: str) -> int | None:
        """Count one; None if it is within the limit, else milliseconds until it would be."""


class Progress(Protocol):
    """Where a waiting caller hears how its call goes on."""

    @property
    def wanted(self) -> bool:
        """Whether the caller asked to hear; what it did not ask for is not gathered."""

    async def report(self, message: str, amount: Amount | None = None) -> None:
        """Send a progress message if the caller asked for them; never raises.

        Args:
            message: for people; empty if there are numbers alone.
            amount: how far an MCP server says that the call has come; its numbers are not trusted.
        """


Now = Callable[[], int]
"""Milliseconds since the epoch."""
