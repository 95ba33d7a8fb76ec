"""The words of Remit as frozen values; every stage, backend, log line and page uses these.

Nothing here decides or does anything. JSON that must not change after it was checked travels as
`Frozen`: its canonical bytes, from which each reader gets a copy of its own.

Times are whole milliseconds since the Unix epoch, UTC (`…_ms`); durations say their unit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from remit.errors import Code


@dataclass(frozen=True, slots=True)
class Frozen:
    """One JSON value held as its canonical bytes; `value()` gives a fresh copy each time."""

    text: bytes

    def value(self) -> Any:
        return json.loads(self.text)


# ---------------------------------------------------------------------------------------- who


class CallerKind(StrEnum):
    HUMAN = "human"
    AGENT = "agent"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Someone in a delegation chain."""

    subject: str
    kind: CallerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, as verified. Made only by the authenticate stage.

    `chain` names those on whose behalf the caller acts, the one with the original authority
    first; it is empty when the caller acts for itself. `acr`, `amr` and `auth_ms` say how strongly,
    by what and when a person behind the caller was authenticated, as far as its issuer vouches.
    """

    tenant: str
    subject: str
    kind: CallerKind
    groups: tuple[str, ...] = ()
    chain: tuple[Actor, ...] = ()
    issuer: str = "remit:keys"
    key_id: str = ""
    expires_ms: int | None = None
    acr: str = ""
    amr: tuple[str, ...] = ()
    auth_ms: int | None = None

    @property
    def id(self) -> str:
        """The caller with its whole chain, as one string; two different chains never share one."""
        names = [self.tenant, self.subject, self.kind.value]
        names += [f"{actor.kind.value}:{actor.subject}" for actor in self.chain]
        return json.dumps(names, separators=(",", ":"))

    def involves(self, subject: str) -> bool:
        """Whether `subject` is the caller or anyone it acts for."""
        return subject == self.subject or any(subject == actor.subject for actor in self.chain)


class Permission(StrEnum):
    """What an operator may do through the admin API."""

    READ = "read"
    APPROVE = "approve"
    RESOLVE = "resolve"
    FREEZE = "freeze"
    EVALUATE = "evaluate"
    PIN = "pin"
    """Accept what an MCP server says its tools are, and have a server asked again."""
    CONSENT = "consent"
    """Have people asked for their consent at MCP servers, and end what they gave; give none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A person (or service) with a credential for the admin API; never a caller of tools."""

    subject: str
    groups: tuple[str, ...] = ()
    may: frozenset[Permission] = frozenset()
    key_id: str = ""
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asserted:
    """Whom an enforcement point outside asks about, in its own words.

    Where Remit knows a caller of this name, what it knows itself goes before all of this; `key_id`
    then tells several credentials of one name apart.
    """

    subject: str
    kind: CallerKind
    tenant: str | None = None
    groups: tuple[str, ...] = ()
    key_id: str | None = None


# ------------------------------------------------------------------------------------- catalog


class Effect(StrEnum):
    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


RISK_OF = {Effect.READ: Risk.LOW, Effect.WRITE: Risk.MEDIUM, Effect.DESTRUCTIVE: Risk.HIGH}
"""The risk of a tool of which nothing else is said."""


class Taint(StrEnum):
    """What reading a tool's result does to the caller: it may now follow others' words, or leak."""

    UNTRUSTED = "untrusted"
    SENSITIVE = "sensitive"


class OnCancel(StrEnum):
    """What a cancel does to a run that has started."""

    FINISH = "finish"
    STOP = "stop"


class ResultKind(StrEnum):
    """What a command's standard output is."""

    TEXT = "text"
    JSON = "json"
    MCP = "mcp"


class InputMode(StrEnum):
    """How the arguments reach the command, beside placeholders in its argv."""

    ARGV = "argv"
    STDIN_JSON = "stdin_json"
    ENV = "env"
    FILE = "file"


class PreviewDigest(StrEnum):
    """What of a preview's run is digested into the plan."""

    OUTPUT = "output"
    FILE = "file"
    NORMALISED = "normalised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most a run may use; policy may lower each, never raise it."""

    wall_s: int = 30
    memory_mb: int = 256
    pids: int = 64
    cpu_percent: int = 100
    tmp_mb: int = 64
    output_bytes: int = 65_536
    open_files: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory of the operator's, seen by the command at `/mnt/<name>`."""

    name: str
    source: str
    writable: bool = False

    @property
    def target(self) -> str:
        return f"/mnt/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingFile:
    """A file put into the job directory before the command starts.

    `content` is the operator's text; `arguments` true means the normalised arguments as
    canonical JSON instead.
    """

    path: str
    content: str = ""
    arguments: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the operator wrote to be run: an argv with typed placeholders, never a shell.

    `env` values may hold placeholders too. A placeholder `{name}` stands for one scalar argument
    of the tool's schema.
    """

    argv: tuple[str, ...]
    input: InputMode = InputMode.ARGV
    env: tuple[tuple[str, str], ...] = ()
    files: tuple[WorkingFile, ...] = ()
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The optional first step of a tool, which shows what would happen without doing it.

    `digest` says what binds the later run to what was shown: the output, a file in the job
    directory (`digest_file`), or the output passed on stdin through `normaliser`.
    """

    command: Command
    digest: PreviewDigest = PreviewDigest.OUTPUT
    digest_file: str | None = None
    normaliser: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRule:
    """Where a tool acts: one fixed environment, or the one that an enum argument names."""

    fixed: str | None = None
    argument: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRule:
    """One destination. Methods or path None: any. Hosts are exact, in lower case."""

    host: str
    port: int
    methods: tuple[str, ...] | None = None
    path_prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRule:
    """A credential by its handle; never the secret itself."""

    ref: str
    scopes: tuple[str, ...] = ()
    ttl_s: int | None = None
    audience: str | None = None


class SessionMode(StrEnum):
    """How long a process of an MCP server lives: for one call, or for several reads."""

    PER_CALL = "per_call"
    PER_CALLER = "per_caller"
    SHARED = "shared"


class Method(StrEnum):
    """The MCP methods that are calls: each is planned, decided on, run and recorded."""

    TOOLS_CALL = "tools/call"
    RESOURCES_READ = "resources/read"
    RESOURCES_SUBSCRIBE = "resources/subscribe"
    PROMPTS_GET = "prompts/get"
    COMPLETE = "completion/complete"


PROMPT = f"{Method.PROMPTS_GET}:"
"""What the name of a prompt begins with among the names of tools, of which none can."""


SHOWN_AS = "Authorization: Bearer {token}"
"""How a server over HTTP is shown a credential if nothing else is said (RFC 6750 §2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Which tool of which MCP server a tool is: the server's name in the catalog, the tool's name
    there, and the digest of its pinned definition.

    A server with a `url` is asked over HTTP; any other is the tool's command, spoken with over its
    standard input and output. `authorization` is the handle of the credential that an HTTP server
    is shown, in the `header`. `idle_s` and `age_s` bound a session. `shadow`: policy decides on
    its calls and is recorded, and they go on whatever it says.

    Where `method` is not `tools/call`, what is asked for is no tool of the server: a prompt, its
    resources, or completion; `tool` then begins with the method.
    """

    server: str
    tool: str
    definition: str
    url: str | None = None
    authorization: str | None = None
    header: str = SHOWN_AS
    session: SessionMode = SessionMode.PER_CALL
    idle_s: int = 300
    age_s: int = 3_600
    unsafe_session_writes: bool = False
    shadow: bool = False
    method: Method = Method.TOOLS_CALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What can be asked for; from the operator's catalog. `digest` covers every other field.

    `system` names what it acts on, for policies over several calls; `open_world` says that it
    reaches people or systems outside, `returns` what its results are. `egress` and `credentials`
    are the most that a run of it may ever get.
    """

    name: str
    description: str
    input_schema: Frozen
    command: Command
    effect: Effect
    title: str | None = None
    output_schema: Frozen | None = None
    risk: Risk = Risk.MEDIUM
    idempotent: bool = False
    on_cancel: OnCancel = OnCancel.FINISH
    environment: EnvironmentRule = field(default_factory=EnvironmentRule)
    result: ResultKind = ResultKind.TEXT
    preview: Preview | None = None
    consequence: str = ""
    runner: str = "sandbox"
    limits: Limits = field(default_factory=Limits)
    tags: tuple[str, ...] = ()
    system: str = "command"
    open_world: bool = False
    returns: tuple[Taint, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    credentials: tuple[CredentialRule, ...] = ()
    result_files: tuple[str, ...] = ()
    upstream: Upstream | None = None
    digest: str = ""

    @property
    def shadow(self) -> bool:
        """Whether its calls go on whatever policy says, which is only recorded."""
        return self.upstream is not None and self.upstream.shadow

    @property
    def method(self) -> Method:
        """The MCP method by which it is asked for; by no other one."""
        return Method.TOOLS_CALL if self.upstream is None else self.upstream.method


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLists:
    """The resources that an MCP server listed last, and their templates, as they are passed on.

    `reader` is the name under which the catalog has the reading of them. `resources` are sorted by
    URI; `refused` are the URIs that are not passed on because another server has them too.
    """

    server: str
    reader: str
    seen_ms: int
    resources: tuple[tuple[str, Frozen], ...] = ()
    templates: tuple[tuple[str, Frozen], ...] = ()
    refused: tuple[str, ...] = ()


class Health(StrEnum):
    """How an MCP server was when it was last asked."""

    UNSEEN = "unseen"
    """Not asked yet in the life of this gateway; its pinned tools are offered all the same."""
    READY = "ready"
    UNREACHABLE = "unreachable"
    """It could not be started or reached, or gave no answer."""
    BROKEN = "broken"
    """It answered what the protocol does not allow."""


class ToolState(StrEnum):
    """Whether a tool of an MCP server is offered, and why not."""

    OFFERED = "offered"
    NEW = "new"
    """Seen, looked suspicious, and accepted by nobody yet."""
    CHANGED = "changed"
    """Not what was accepted: in quarantine until someone accepts it."""
    REPEATED = "repeated"
    """The server lists several tools of this name."""
    COLLIDES = "collides"
    """Its name is another tool's, or would be taken for it."""
    UNUSABLE = "unusable"
    """Its definition cannot be used, such as a schema that cannot be checked."""
    HIDDEN = "hidden"
    """The operator does not want it offered."""
    GONE = "gone"
    """Accepted once, and no longer listed."""


class Noticed(StrEnum):
    """How it came to be known what a server lists."""

    DISCOVERY = "discovery"
    """The server was asked for it."""
    CALL = "call"
    """A call of one of its tools has read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSign:
    """Something in a server's words about its tool that should make a person look twice.

    Place and excerpt are safe to show: what cannot be seen is written as an escape.
    """

    sign: str
    place: str
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStatus:
    """One tool of an MCP server, as operators see it.

    `digest` is that of the definition last seen, or of the accepted one where none was seen yet;
    None where what the server lists has none. `accepted` is the digest of the accepted one.
    `name` is the server's own word, made safe to show; `offered_as` what agents call it by.
    `noticed` is how the last change of it came to be known, where that was in this life of the gateway.
    """

    server: str
    name: str
    offered_as: str
    state: ToolState
    digest: str | None = None
    accepted: str | None = None
    suspicions: tuple[ToolSign, ...] = ()
    why: str | None = None
    noticed: Noticed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """An MCP server of the catalog, as operators see it.

    `address` is its URL, or the program that is started. `claimed_name` and `claimed_version` are
    the server's own words, made safe to show. `seen_ms` is when it last answered. `calls` says of a
    server at a URL how calls of it go: `up`, `failing` or `down` (none is let through for a while),
    and `fault` is the code of the last that failed; None where nobody has called it.
    """

    name: str
    transport: str
    address: str
    mode: str
    session: SessionMode
    health: Health = Health.UNSEEN
    why: str | None = None
    seen_ms: int | None = None
    revision: str | None = None
    claimed_name: str | None = None
    claimed_version: str | None = None
    calls: str | None = None
    fault: str | None = None
    tools: tuple[ToolStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDifference:
    """One part of a tool's definition that changed: a unified diff that is safe to show."""

    part: str
    diff: str


# ---------------------------------------------------------------------------------------- call


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What the caller says of itself and its purpose: recorded as claimed, never as fact."""

    purpose: str | None = None
    ticket: str | None = None
    client_name: str | None = None
    client_version: str | None = None
    session_id: str | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as it came in, from a verified caller; `method` is what MCP calls it.

    `capabilities` are those of the caller's client that are passed on to MCP servers; `answers` and
    `request_state` are what it brings of a question that was asked while this call was made before.
    """

    id: str
    caller: Caller
    tool_name: str
    arguments: Mapping[str, Any]
    received_ms: int
    claims: Claims = field(default_factory=Claims)
    idempotency_key: str | None = None
    source_ip: str | None = None
    capabilities: Frozen = Frozen(b"{}")
    answers: Mapping[str, Any] | None = None
    request_state: str | None = None
    method: Method = Method.TOOLS_CALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a caller answers to the questions of an MCP server, by the names it gave them.

    `run_id` is the run that asked, `state` what the server said along with it, for itself, and
    `number` counts how often it asked. Answers to what nobody asked have none of these.
    """

    answers: Frozen
    number: int = 0
    run_id: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a caller before its call goes on, and the state to bring back with it.

    An MCP server asks, unless `page` names the page of Remit's own to which a person is asked to go.
    """

    requests: Frozen
    state: str
    page: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalCall:
    """A call in its one spelling: the tool found, arguments validated and frozen, digested.

    `consenting`: the person was asked for a consent and said that they go to give it.
    """

    call: Call
    tool: Tool
    arguments: Frozen
    environment: str
    digest: str
    round: Round | None = None
    consenting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedCall:
    """A normal call that passed freeze, rate and size limits; made only by the admit stage."""

    normal: NormalCall
    limits: Limits


# ---------------------------------------------------------------------------------------- plan


class PlanKind(StrEnum):
    MAIN = "main"
    PREVIEW = "preview"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The frozen statement of exactly what would run; `text` is what is stored and executed.

    `hash` is SHA-256 over the tag `remit.plan/1` and `text`. The other fields repeat what the
    text holds, for reading only: the runner is given what the stored text says.
    """

    kind: PlanKind
    text: bytes
    hash: str
    call_digest: str
    limits: Limits
    preview_digest: str | None = None
    narrowed_from: str | None = None
    profile: str = "sandbox"
    egress: tuple[EgressRule, ...] = ()
    credentials: tuple[CredentialRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewResult:
    """What a preview's run gave: the digest that goes into the plan, and text to show people."""

    digest: str
    text: str
    bytes: int
    exit: int
    run_id: str
    data: Frozen | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A call together with its final plan."""

    admitted: AdmittedCall
    plan: Plan
    arguments: Frozen
    preview: PreviewResult | None = None


# ------------------------------------------------------------------------------------ decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why policy answered as it did; only those for `user` are shown to the caller.

    `layer` is the layer that gave it, put there by the gateway where there is more than one.
    """

    code: str
    message: str
    audience: str = "admin"
    path: str | None = None
    rule: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What an argument's value may be: a number within, or one of a set."""

    minimum: float | None = None
    maximum: float | None = None
    one_of: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """How policy narrows a plan. None means no opinion; nothing here can widen."""

    bounds: Mapping[str, Bound] = field(default_factory=dict)
    force: Mapping[str, Frozen] = field(default_factory=dict)
    redact: tuple[str, ...] = ()
    profile: str | None = None
    min_tier: str | None = None
    wall_s: int | None = None
    cpu_ms: int | None = None
    memory_mb: int | None = None
    egress: tuple[EgressRule, ...] | None = None
    credentials: tuple[CredentialRule, ...] | None = None
    output_max_bytes: int | None = None
    output_redact: tuple[str, ...] = ()
    output_content_types: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Rates and budgets that policy sets on a call."""

    calls_per_minute: int | None = None
    concurrent: int | None = None
    budget: Mapping[str, int] = field(default_factory=dict)
    cache_ttl_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """Something that must be done with the decision; one that is not understood denies."""

    id: str
    type: str
    properties: Frozen = field(default_factory=lambda: Frozen(b"{}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum:
    """How many people of which groups; no groups: of any."""

    required: int = 1
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRule:
    """Who has to agree, how many, and for how long that holds (`ttl_s` None: the gateway's).

    `also` holds further quorums, one for each layer that asked otherwise: the same people may
    count for several, and every one has to be met.
    """

    required: int = 1
    groups: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    separation_of_duties: bool = True
    ttl_s: int | None = None
    reason_required: bool = False
    also: tuple[Quorum, ...] = ()

    @property
    def quorums(self) -> tuple[Quorum, ...]:
        """Every quorum that has to be met."""
        return (Quorum(required=self.required, groups=self.groups), *self.also)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The circumstances of one answer: which policy, on which input, by which engine, when.

    `revision` stands for all of it; `layers` holds the name and the revision of each layer, and
    `engine_ids` the engines' own names for their answers, where they have any.
    """

    decision_id: str
    revision: str
    engine: str
    input: Frozen
    input_digest: str
    decided_ms: int
    duration_us: int = 0
    layers: tuple[tuple[str, str], ...] = ()
    engine_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    verdict: ClassVar[str] = "allow"

    evaluation: Evaluation
    reasons: tuple[Reason, ...]
    constraints: Constraints = field(default_factory=Constraints)
    limits: CallLimits = field(default_factory=CallLimits)
    obligations: tuple[Obligation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequireApproval:
    verdict: ClassVar[str] = "require_approval"

    evaluation: Evaluation
    reasons: tuple[Reason, ...]
    approvals: ApprovalRule
    constraints: Constraints = field(default_factory=Constraints)
    limits: CallLimits = field(default_factory=CallLimits)
    obligations: tuple[Obligation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """`code` is `policy_denied` when policy said so, else the fault that made it a denial."""

    verdict: ClassVar[str] = "deny"

    evaluation: Evaluation
    reasons: tuple[Reason, ...]
    code: Code = Code.POLICY_DENIED
    obligations: tuple[Obligation, ...] = ()
    retriable: bool = False


Decision = Allow | RequireApproval | Deny
"""Policy's answer to a plan: closed, matched with `assert_never`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unenforced:
    """Policy's answer to a plan in shadow mode: it is recorded, and nothing follows from it.

    Neither constraints nor limits nor obligations of the answer apply.
    """

    answer: Decision

    @property
    def verdict(self) -> str:
        return self.answer.verdict

    @property
    def evaluation(self) -> Evaluation:
        return self.answer.evaluation

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return self.answer.reasons

    @property
    def constraints(self) -> Constraints:
        return Constraints()

    @property
    def limits(self) -> CallLimits:
        return CallLimits()

    @property
    def obligations(self) -> tuple[Obligation, ...]:
        return ()


Permitted = Allow | RequireApproval | Unenforced
"""An answer with which a plan may go on; a denial leaves the authorize stage only as one that is
not enforced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A plan that policy did not deny, or whose denial is not enforced; the constraints that apply
    are already in the plan."""

    planned: Planned
    decision: Permitted


# ------------------------------------------------------------------------------------ approval


@dataclass(frozen=True, slots=True, kw_only=True)
class Consented:
    """A decided plan whose person lets Remit act for them at each server that wants to know it."""

    decided: Decided


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    SPENT = "spent"


class Verdict(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    subject: str
    verdict: Verdict
    voted_ms: int
    groups: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalDraft:
    """What is needed to open an approval; `shown` is the JSON that approvers are shown."""

    id: str
    plan: Plan
    call_digest: str
    caller: Caller
    tool_name: str
    environment: str
    rule: ApprovalRule
    decision_id: str
    revision: str
    opened_ms: int
    expires_ms: int
    shown: Frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request for people to agree to one plan hash. Single use; only that plan, only in time."""

    id: str
    state: ApprovalState
    plan_hash: str
    call_digest: str
    caller: Caller
    tool_name: str
    environment: str
    rule: ApprovalRule
    opened_ms: int
    expires_ms: int
    shown: Frozen
    votes: tuple[Vote, ...] = ()
    supersedes: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """A decided plan with the approval that policy asked for, or none where it asked for none."""

    decided: Decided
    approval: Approval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obliged:
    """An approved plan for which all was done that policy wants done first; made only by the
    oblige stage, and the only thing that an intent is committed for."""

    approved: Approved


# ----------------------------------------------------------------------------------- grant, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What the commit stage asks the ledger to write, all or nothing, before any effect.

    `starts` asks for the start in the same transaction: for a run that nothing is made for first.
    """

    run_id: str
    plan: Plan
    call_id: str
    call_digest: str
    caller: Caller
    tool_name: str
    tool_digest: str
    effect: Effect
    idempotent: bool
    environment: str
    decision: Permitted
    approval_id: str | None
    idempotency_key: str | None
    now_ms: int
    deadline_ms: int
    claims: Claims
    parent_run_id: str | None = None
    system: str = ""
    taints: tuple[Taint, ...] = ()
    starts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The single-use permission to run one plan. Made only by the commit stage, after its
    intent is durable; only a grant can be executed. `started` says that the transaction of the
    intent wrote the start too."""

    run_id: str
    plan: Plan
    fence: int
    deadline_ms: int
    intent_index: int
    approval_id: str | None = None
    started: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A runner's name and term, written before any resource of it exists.

    The id is part of every resource's name, so that what is found without a live lease can be
    removed by whoever finds it.
    """

    id: str
    gateway: str
    fence: int
    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamCall:
    """The call that a run makes of an MCP server, read from the stored plan's bytes.

    `caller` is a digest of who asks, with tenant and chain: a session of one caller is never
    another's. `capabilities` is what the server is told that its client can do. For the other
    fields see `Upstream`.
    """

    server: str
    tool: str
    definition: str
    arguments: Frozen
    caller: str
    url: str | None = None
    authorization: str | None = None
    header: str = SHOWN_AS
    session: SessionMode = SessionMode.PER_CALL
    idle_s: int = 300
    age_s: int = 3_600
    capabilities: Frozen = Frozen(b"{}")
    round: Round | None = None
    method: Method = Method.TOOLS_CALL


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What a runner is told to run: read from the stored plan's bytes and nothing else.

    `files` are put into the job directory (`/job`, the command's working directory), `collect`
    are read back from it. `env` is the whole environment. Of two runs of one `fence_key` the one
    with the later fence shuts the other out; reads have none, since they may run side by side.

    With `upstream` the command is an MCP server and the run is one call of it. With `dialogue`
    the command is spoken with while it runs: its standard input is a pipe, and its standard output
    is read by whoever asked for it (`Runner.dialogue`), not kept as a result.
    """

    argv: tuple[str, ...]
    limits: Limits
    profile: str = "sandbox"
    env: tuple[tuple[str, str], ...] = ()
    stdin: bytes = b""
    files: tuple[tuple[str, bytes], ...] = ()
    mounts: tuple[Mount, ...] = ()
    collect: tuple[str, ...] = ()
    fence_key: str = ""
    egress: tuple[EgressRule, ...] = ()
    credentials: tuple[CredentialRule, ...] = ()
    upstream: UpstreamCall | None = None
    dialogue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedFile:
    """A file that goes into a run by its descriptor: who hands it on need not read it.

    `name` is one plain component below /run/remit/credentials. Whoever is given it closes `fd`.
    """

    name: str
    fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """A credential that a run had, by its handle: what the record says of it, never a secret.

    `lease` is the lending system's own name for it, where it has one. `delivered` is `proxy` or
    `file`. `returned_ms` is when it was given up; `revoked` whether the lending system confirmed
    that it is dead, else it ends at `expires_ms` (None: it does not end by itself).
    """

    ref: str
    broker: str
    delivered: str
    lent_ms: int
    expires_ms: int | None = None
    lease: str | None = None
    returned_ms: int | None = None
    revoked: bool = False
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """What a run was lent: the loans, and the files that have to be put into it."""

    loans: tuple[Loan, ...] = ()
    files: tuple[HandedFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whose consent it is: of a caller's chain the one with the original authority, else the caller."""

    tenant: str
    subject: str


class ConsentState(StrEnum):
    """Whether a call that needs a person's consent may be made with what was given so far."""

    HELD = "held"
    NEEDED = "needed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a person gave, at an MCP server's authorization server, for Remit to act for them there.

    `scopes` are those that were given. `expires_ms` is when what is held ends by itself (None: the
    server does not say); `renewable` whether more is got then without asking the person. No secret.
    """

    ref: str
    principal: Principal
    scopes: tuple[str, ...]
    given_ms: int
    expires_ms: int | None = None
    renewable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentPage:
    """Where a person is sent to consent: a page of the authorization server, for once.

    `host` is the authorization server's, to be shown before anybody goes there; `scopes` what it is
    asked for (empty: it decides). `url` holds `state`, which the answer brings back by `ends_ms`.
    """

    ref: str
    principal: Principal
    url: str = field(repr=False)
    host: str
    scopes: tuple[str, ...]
    state: str = field(repr=False)
    ends_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection that a run made or tried to make through the egress proxy.

    `kind` is `tunnel`, `https` or `http`; `address` is what was connected to; bytes are those of
    the run's side (`sent` by it, `received` by it). `refused` is why not, where it was refused.
    `injected` are handles; `echoed` says that the other side sent an injected value back, which
    was blanked.
    """

    host: str
    port: int
    kind: str
    opened_ms: int
    closed_ms: int
    address: str | None = None
    refused: str | None = None
    requests: int = 0
    sent: int = 0
    received: int = 0
    injected: tuple[str, ...] = ()
    echoed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What went through the egress proxy for one run; `more` connections are only counted."""

    connections: tuple[Connection, ...] = ()
    more: int = 0
    refused: int = 0
    sent: int = 0
    received: int = 0
    echoed: bool = False
    closed_ms: int = 0


class Tier(StrEnum):
    """How strongly a runner isolates, weakest first."""

    NONE = "none"
    DEGRADED = "degraded"
    SANDBOX = "sandbox"
    GVISOR = "gvisor"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a runner was found, by running probe jobs, to enforce on this machine.

    `digest` covers all that identifies the runner (binary, base, profile) and goes into each
    plan. `missing` says what does not hold, `hint` the one thing that mends it, `fault` what the
    runner said where it could not even try. `profile` is the profile that all of this is about.
    """

    name: str
    tier: Tier
    digest: str
    version: str
    holds: Mapping[str, bool] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    hint: str | None = None
    profile: str = "sandbox"
    fault: str | None = None


class Channel(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How far an MCP server says that a call has come, and of how much if it says so."""

    progress: float
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A report of an MCP server on a call: its words, which are not trusted, and its numbers."""

    words: str
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A piece of output as it came; `told` is the report that a server's line was made of."""

    seq: int
    channel: Channel
    data: bytes
    told: Told | None = None


class RunState(StrEnum):
    INTENDED = "intended"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NEVER_STARTED = "never_started"
    UNKNOWN = "unknown"

    @property
    def open(self) -> bool:
        return self in (RunState.INTENDED, RunState.STARTED)


class Ending(StrEnum):
    """How a run's command ended, as seen from outside it.

    A call of an MCP server ends `answered`, with its answer as standard output; `unanswered` if it
    was asked and gave no answer that can be used; `unasked` if the question was never sent.
    """

    EXIT = "exit"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    OUTPUT_LIMIT = "output_limit"
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"
    LOST = "lost"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    UNASKED = "unasked"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """A process of an MCP server that is kept for several calls, by the name of its own lease.

    `calls` were made of it so far. `ended` says why it was ended; None: it goes on.
    """

    id: str
    server: str
    opened_ms: int
    calls: int
    ended: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destruction:
    """The evidence that a runner is gone: what was looked at, and what was found.

    `seen_ms` has the time at which each was seen gone, by its name: processes, cgroup, mounts,
    directory, proxy, credentials. What the run never had is not in it. `credentials_left` counts
    loans that were neither revoked nor given up.

    A call that was made in a session had nothing of its own: `session` then says of which process,
    and whether that goes on. The session's own evidence names it too.
    """

    lease_id: str
    processes_left: int
    cgroup_removed: bool
    directory_removed: bool
    mounts_left: int
    destroyed_ms: int
    took_us: int
    note: str | None = None
    proxy_closed: bool = True
    credentials_left: int = 0
    seen_ms: Mapping[str, int] = field(default_factory=dict)
    session: SessionFacts | None = None

    @property
    def complete(self) -> bool:
        return (
            self.processes_left == 0
            and self.mounts_left == 0
            and self.cgroup_removed
            and self.directory_removed
            and self.proxy_closed
            and self.credentials_left == 0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """A file that a run left and its tool declares: where it was, and what it holds, by digest.

    `kept` says whether its bytes were put among the artifacts.
    """

    path: str
    digest: str
    bytes: int
    kept: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a runner saw of one command, with the evidence of its own destruction.

    `blanked` counts the traces of lent secrets that were taken out of what it printed and left.
    """

    ending: Ending
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    wall_ms: int = 0
    cpu_ms: int | None = None
    peak_memory_bytes: int | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    limits_hit: tuple[str, ...] = ()
    runner: Mapping[str, str] = field(default_factory=dict)
    destruction: Destruction | None = None
    traffic: Traffic | None = None
    loans: tuple[Loan, ...] = ()
    blanked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the settle stage writes: the state, why, and what came out.

    `review` is policy's answer about the result, where it was asked about it.
    """

    run_id: str
    fence: int
    state: RunState
    code: Code | None
    result: RunResult | None
    reply: Frozen | None
    settled_ms: int
    files: tuple[ResultFile, ...] = ()
    review: Decision | Unenforced | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of one grant, as the ledger knows it."""

    id: str
    kind: PlanKind
    state: RunState
    plan_hash: str
    call_digest: str
    caller_id: str
    subject: str
    tool_name: str
    effect: Effect
    idempotent: bool
    environment: str
    fence: int
    intent_index: int
    outcome_index: int | None
    approval_id: str | None
    intended_ms: int
    started_ms: int | None
    settled_ms: int | None
    deadline_ms: int
    code: Code | None = None
    resolved_by: str | None = None
    resolved_as: str | None = None
    ending: Ending | None = None
    exit_code: int | None = None
    wall_ms: int | None = None
    parent_run_id: str | None = None


# ------------------------------------------------------------------------------- log and reply


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryDraft:
    """An entry before the log gives it its number.

    `public` goes into the entry as it is. Each of `sealed` goes in as a salted commitment
    `SHA-256(salt || value)`; the value and its salt are kept in a side table, from which they
    can be erased without changing the log.
    """

    event: str
    public: Mapping[str, Any]
    sealed: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the log: `text` is its canonical JSON, the leaf of the Merkle tree."""

    index: int
    text: bytes
    leaf_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """What a caller's runs did to one system in one session, since some time: kept to be counted.

    `session` is the client's own word, so it can split what is known of a caller, never hide it.
    """

    session: str
    system: str
    effect: Effect
    untrusted: bool
    sensitive: bool
    calls: int
    last_ms: int


class RequestState(StrEnum):
    PENDING = "pending"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """A refused caller asks people for access. It grants nothing: a person changes policy, or not.

    `reason` and all of the arguments are the caller's own words.
    """

    id: str
    caller: Caller
    tool_name: str
    environment: str
    arguments: Frozen
    reason: str
    decision_id: str
    codes: tuple[str, ...]
    filed_ms: int
    state: RequestState = RequestState.PENDING
    closed_ms: int | None = None
    closed_by: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed statement of the log's size and root (C2SP tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The proof handed back: this entry is at this index of the log with this checkpoint."""

    index: int
    leaf_hash: bytes
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What the ledger knows of earlier runs of the same call, before anything is planned.

    `by_key` says that the run was found by the call's idempotency key, not by its digest.
    """

    run: Run
    reply: Frozen | None
    by_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What is in force from now on: commit refuses an intent that was decided under anything else.

    `tools` maps names to digests, `keys` lists the ids of credentials that are still valid.
    """

    revision: str
    tools: Mapping[str, str]
    keys: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBundle:
    """The policy of a layer as an OPA bundle (.tar.gz), named by its revision."""

    revision: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the caller gets: MCP content and structured content, and the machine part of it.

    `jsonrpc_error` is set where the protocol wants an error instead of a result (-32602 for a
    tool that is not there, -32603 where Remit itself could not go on); the text is then `content`.
    `unsafe` names the unsafe settings in force, which each receipt carries. With `question` the
    call is not over: an MCP server asks something first.
    """

    content: Frozen
    structured: Frozen | None
    is_error: bool
    decision: Mapping[str, Any]
    receipt: Receipt | None = None
    replayed: bool = False
    unsafe: tuple[str, ...] = ()
    jsonrpc_error: int | None = None
    question: Question | None = None
