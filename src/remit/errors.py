"""Every error Remit raises on purpose, in one tree.

    RemitError                 code, message, place, hint
    ├── Refused                a call is refused; nothing ran because of it
    ├── InputError             bytes that came in are not what they must be
    ├── ConfigError            remit.yaml, or a file it names, is wrong
    ├── PolicyFault            the policy engine gave no usable answer
    ├── RunnerFault            a runner could not be made, held or destroyed
    ├── UpstreamFault          an MCP server behind the gateway failed, lied or was silent
    ├── LedgerFault            the ledger could not be read or written
    ├── NotFound               a run, approval or entry that was named does not exist
    ├── Conflict               the thing named is not in a state that allows this
    └── Unverified             a log, export, checkpoint or proof does not hold

A class says where a fault belongs; a `Code` says what it is. Each code has its line in
docs/errors.md, which a test checks in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """One word per way of failing; the value is what callers, logs and policies see."""

    # Who asks
    UNAUTHENTICATED = "unauthenticated"
    ORIGIN_REFUSED = "origin_refused"
    BODY_TOO_LARGE = "body_too_large"
    NOT_SERVED = "not_served"
    RATE_LIMITED = "rate_limited"
    # What is asked
    MALFORMED_JSON = "malformed_json"
    DUPLICATE_KEY = "duplicate_key"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    INVALID_UNICODE = "invalid_unicode"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    INVALID_CLAIM = "invalid_claim"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    PLAN_NOT_CANONICAL = "plan_not_canonical"
    # An answer to what a server asked
    INPUT_STATE_INVALID = "input_state_invalid"
    INPUT_STATE_FOREIGN = "input_state_foreign"
    INPUT_STATE_EXPIRED = "input_state_expired"
    INPUT_STATE_MISMATCH = "input_state_mismatch"
    INPUT_STATE_SPENT = "input_state_spent"
    INPUT_NOT_GIVEN = "input_not_given"
    # A person's consent at an MCP server's authorization server
    CONSENT_REQUIRED = "consent_required"
    CONSENT_UNAVAILABLE = "consent_unavailable"
    CONSENT_STATE_INVALID = "consent_state_invalid"
    CONSENT_DECLINED = "consent_declined"
    CONSENT_REFUSED = "consent_refused"
    CONSENT_FAILED = "consent_failed"
    # May it
    POLICY_DENIED = "policy_denied"
    POLICY_UNDEFINED = "policy_undefined"
    POLICY_BAD_DECISION = "policy_bad_decision"
    POLICY_ERROR = "policy_error"
    POLICY_UNAVAILABLE = "policy_unavailable"
    POLICY_NOT_READY = "policy_not_ready"
    POLICY_INCONSISTENT = "policy_inconsistent"
    POLICY_UNSUPPORTED = "policy_unsupported"
    STEP_UP_REQUIRED = "step_up_required"
    NOTICE_NOT_TAKEN = "notice_not_taken"
    CONSTRAINT_WIDENS = "constraint_widens"
    ARGUMENT_OUT_OF_BOUNDS = "argument_out_of_bounds"
    FROZEN = "frozen"
    # Did a person agree
    APPROVAL_REQUIRED = "approval_required"
    APPROVAL_DENIED = "approval_denied"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_SUPERSEDED = "approval_superseded"
    APPROVAL_WITHDRAWN = "approval_withdrawn"
    APPROVAL_NOT_ELIGIBLE = "approval_not_eligible"
    APPROVAL_MISMATCH = "approval_mismatch"
    # Between decision and effect
    DECISION_STALE = "decision_stale"
    TOOL_CHANGED = "tool_changed"
    CALLER_REVOKED = "caller_revoked"
    GRANT_SPENT = "grant_spent"
    DEADLINE_PASSED = "deadline_passed"
    # The run
    PREVIEW_FAILED = "preview_failed"
    RUNNER_UNAVAILABLE = "runner_unavailable"
    RUNNER_DEGRADED = "runner_degraded"
    RUNNER_LACKS = "runner_lacks"
    CREDENTIAL_UNAVAILABLE = "credential_unavailable"
    RUN_FAILED = "run_failed"
    RUN_TIMED_OUT = "run_timed_out"
    RUN_OUT_OF_MEMORY = "run_out_of_memory"
    RUN_KILLED = "run_killed"
    OUTPUT_TOO_LARGE = "output_too_large"
    OUTPUT_INVALID = "output_invalid"
    OUTPUT_WITHHELD = "output_withheld"
    OUTCOME_UNKNOWN = "outcome_unknown"
    CANCELLED = "cancelled"
    # The MCP server behind it
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_INVALID = "upstream_invalid"
    UPSTREAM_GONE = "upstream_gone"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_UNAUTHORIZED = "upstream_unauthorized"
    # The ledger and the log
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    LEDGER_FULL = "ledger_full"
    LOG_MALFORMED = "log_malformed"
    LOG_TAMPERED = "log_tampered"
    LOG_TRUNCATED = "log_truncated"
    LOG_INCONSISTENT = "log_inconsistent"
    SIGNATURE_INVALID = "signature_invalid"
    # The operator's side
    CONFIG_INVALID = "config_invalid"
    CONFIG_NOT_FOUND = "config_not_found"
    CATALOG_INVALID = "catalog_invalid"
    POLICY_INVALID = "policy_invalid"
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105 - a code, not a secret
    ADDRESS_REFUSED = "address_refused"
    NOT_FOUND = "not_found"
    WRONG_STATE = "wrong_state"
    SERVER_UNREACHABLE = "server_unreachable"
    INTERNAL = "internal"


class RemitError(Exception):
    """The base of everything Remit raises on purpose.

    `message` is safe to show to whoever made the request: it never echoes a value they sent and
    never names a path or a secret of the host. `place` says where (a JSON pointer, a file and
    line, an entry). `hint` is the next thing to do.
    """

    def __init__(
        self, code: Code, message: str, *, place: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.place = place
        self.hint = hint

    def __str__(self) -> str:
        where = f" at {self.place}" if self.place else ""
        return f"{self.message}{where} [{self.code}]"


class Refused(RemitError):
    """A call was refused; because of it nothing ran.

    `decision_id`, `approval_id` and `retry_after_ms` travel to the caller in
    `_meta["dev.remit/decision"]`. `detail` is for the operator's record only.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        place: str | None = None,
        hint: str | None = None,
        decision_id: str | None = None,
        policy_revision: str | None = None,
        approval_id: str | None = None,
        expires_at: str | None = None,
        plan_hash: str | None = None,
        run_id: str | None = None,
        retry_after_ms: int | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(code, message, place=place, hint=hint)
        self.decision_id = decision_id
        self.policy_revision = policy_revision
        self.approval_id = approval_id
        self.expires_at = expires_at
        self.plan_hash = plan_hash
        self.run_id = run_id
        self.retry_after_ms = retry_after_ms
        self.detail = detail


class InputError(RemitError):
    """Bytes that came in are not what they must be; nothing was done with them."""


class ConfigError(RemitError):
    """The configuration, or a file it names, is wrong; Remit did not start."""


class PolicyFault(RemitError):
    """The policy engine gave no usable answer; whoever asked must deny."""


class RunnerFault(RemitError):
    """A runner could not be made, held or destroyed; `started` says whether its command may run."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        started: bool = False,
        place: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(code, message, place=place, hint=hint)
        self.started = started


class UpstreamFault(RemitError):
    """An MCP server behind the gateway failed, lied or was silent.

    `sent` says whether any byte of the call had gone out, so that it may have run. `answer` is
    the JSON-RPC error object, where the server gave one: text of an untrusted server, which is
    never part of `message`. `challenged` says that what it was shown did not do: empty where it is not
    accepted any more (HTTP 401), else with the scopes that it wants (403 `insufficient_scope`).
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        sent: bool = False,
        answer: Mapping[str, Any] | None = None,
        challenged: tuple[str, ...] | None = None,
        place: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(code, message, place=place, hint=hint)
        self.sent = sent
        self.answer = answer
        self.challenged = challenged


class LedgerFault(RemitError):
    """The ledger could not be read or written; no new effect may begin."""


class NotFound(RemitError):
    """A run, approval, tool or entry that was named does not exist."""


class Conflict(RemitError):
    """The thing named exists but is not in a state that allows this."""


class Unverified(RemitError):
    """A log, export, checkpoint or proof does not hold; `index` is the first bad entry if known."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        index: int | None = None,
        place: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(code, message, place=place, hint=hint)
        self.index = index
