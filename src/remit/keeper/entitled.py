"""Whether a run is to be lent what its plan names: decided on what the ledger says, and only that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remit.keeper.configured import Credential
from remit.ledger.lending import Standing
from remit.model import Actor, CallerKind
from remit.runners.credentials.broker import Order

GRACE_MS = 60_000
"""How much longer than its run's deadline a loan may live."""

START_MS = 60_000
"""How much longer than its own wall time a run's deadline may be: the start takes some."""


LOOK_MS = 120_000
"""How long looking at a server may take."""

LOOK = re.compile(r"look_[0-9a-f]{8,64}")


class Unentitled(Exception):
    """Nothing is lent; the message says why, in words fit for the run's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """One credential that the run is to have: the order, and where it may be put."""

    credential: Credential
    order: Order
    inject: tuple[Mapping[str, Any], ...]


def check_run(standing: Standing | None, fence: int, now_ms: int) -> Standing:
    """The run, if it is one to which something may be lent now.

    Raises:
        Unentitled: it is not there, is not started or over, has another fence, gave way to a newer
            run of the same call, or its time is over.
    """
    if standing is None:
        raise Unentitled("the ledger has no such run")
    if standing.fence != fence:
        raise Unentitled("the fence is not the run's")
    if not standing.started:
        raise Unentitled("the run is not started, or is over")
    if standing.frozen:
        raise Unentitled("everything is frozen")
    # Reads may run side by side, and a preview is one; of anything else only the newest is alive.
    if standing.newest_fence > fence and standing.effect != "read":
        raise Unentitled("a newer run of the same call took its place")
    if standing.deadline_ms <= now_ms:
        raise Unentitled("the run's deadline passed")
    longest = 1000 * int(standing.plan["limits"]["wall_s"]) + START_MS
    if standing.intended_ms > now_ms + START_MS or standing.deadline_ms > now_ms + longest:
        raise Unentitled("the run's deadline is not that of its plan")
    return standing


def rules_of(standing: Standing) -> list[Mapping[str, Any]]:
    """The credentials that the run's plan names.

    Raises:
        Unentitled: one of them twice.
    """
    rules = standing.plan["credentials"]
    if len({rule["ref"] for rule in rules}) != len(rules):
        raise Unentitled("the plan names a credential twice")
    return list(rules)


def entitlements(
    standing: Standing,
    credentials: Mapping[str, Credential],
    loan_ids: Mapping[str, str],
    now_ms: int,
) -> list[Entitlement]:
    """What the run's plan names, as orders.

    Args:
        credentials: what is configured.
        loan_ids: the name that the loan of each handle gets.

    Raises:
        Unentitled: the plan means something else than what is configured, or names nothing.
    """
    rules = standing.plan["credentials"]
    if not rules:
        raise Unentitled("the plan names no credential")
    return [
        _entitlement(standing, rule, credentials.get(rule["ref"]), loan_ids[rule["ref"]], now_ms)
        for rule in rules
    ]


def look_entitlement(credential: Credential | None, look: str, now_ms: int) -> Entitlement:
    """A credential for looking at a server, which is no run: only where its section says so.

    Raises:
        Unentitled: it does not, or the name could be a run's.
    """
    if not LOOK.fullmatch(look):
        raise Unentitled("that is no name of a look")
    if credential is None or not credential.looks or credential.file is None:
        raise Unentitled("the credential is lent to runs alone")
    order = Order(
        loan_id=look,
        ref=credential.ref,
        scopes=(),
        audience=None,
        ends_ms=now_ms + LOOK_MS,
        run_id=look,
        fence=0,
        kind="look",
        plan_hash="",
        call_digest="",
        tenant="",
        subject="",
        caller_kind="",
        groups=(),
        chain=(),
        tool="",
        tool_digest="",
        effect="read",
        environment="",
    )
    return Entitlement(credential=credential, order=order, inject=())


def _entitlement(
    standing: Standing,
    rule: Mapping[str, Any],
    credential: Credential | None,
    loan_id: str,
    now_ms: int,
) -> Entitlement:
    ref = str(rule["ref"])
    if credential is None:
        raise Unentitled(f"there is no credential {ref}")
    if rule.get("digest") != credential.digest:
        raise Unentitled(f"{ref} means something else than when the plan was made")
    if rule["scopes"] and not credential.broker.narrows:
        raise Unentitled(f"{ref} cannot be narrowed to scopes")
    return Entitlement(
        credential=credential,
        order=_order(standing, rule, loan_id, credential, now_ms),
        inject=_reachable(standing, credential),
    )


def _ends_ms(
    standing: Standing, rule: Mapping[str, Any], credential: Credential, now_ms: int
) -> int:
    lives = [ttl for ttl in (rule.get("ttl_s"), credential.ttl_s) if ttl is not None]
    return min([standing.deadline_ms + GRACE_MS, *(now_ms + 1000 * int(ttl) for ttl in lives)])


def _shortened(rule: Mapping[str, Any], credential: Credential) -> bool:
    return rule.get("ttl_s") is not None or credential.ttl_s is not None


def _reachable(standing: Standing, credential: Credential) -> tuple[Mapping[str, Any], ...]:
    """The section's destinations that the plan lets the run reach.

    Raises:
        Unentitled: none of them; the run could not use it.
    """
    rules = {(rule["host"], rule["port"]) for rule in standing.plan["egress"]}
    inject = tuple(each for each in credential.inject if (each["host"], each["port"]) in rules)
    if credential.inject and not inject:
        raise Unentitled(f"the plan has no way to where {credential.ref} goes")
    return inject


def _order(
    standing: Standing, rule: Mapping[str, Any], loan_id: str, credential: Credential, now_ms: int
) -> Order:
    plan, caller = standing.plan, standing.plan["caller"]
    return Order(
        loan_id=loan_id,
        ref=str(rule["ref"]),
        scopes=tuple(rule["scopes"]),
        audience=rule.get("audience"),
        ends_ms=_ends_ms(standing, rule, credential, now_ms),
        shortened=_shortened(rule, credential),
        run_id=standing.run_id,
        fence=standing.fence,
        kind=standing.kind,
        plan_hash=standing.plan_hash,
        call_digest=standing.call_digest,
        tenant=plan["tenant"],
        subject=caller["subject"],
        caller_kind=caller["kind"],
        groups=tuple(standing.intent["caller"].get("groups", ())),
        chain=tuple(
            Actor(subject=actor["subject"], kind=CallerKind(actor["kind"]))
            for actor in caller["chain"]
        ),
        tool=plan["tool"]["name"],
        tool_digest=plan["tool"]["digest"],
        effect=plan["effect"],
        environment=plan["environment"],
        approval_id=standing.approval_id,
        approvers=standing.approvers,
    )
