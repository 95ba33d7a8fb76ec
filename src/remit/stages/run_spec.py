"""Step 8, what a runner is told: read from the stored plan's bytes and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from remit.canonical import digest, digest_of, encode
from remit.errors import Code, Refused
from remit.model import (
    SHOWN_AS,
    CredentialRule,
    Effect,
    EgressRule,
    Frozen,
    Limits,
    Method,
    Mount,
    Round,
    RunSpec,
    SessionMode,
    UpstreamCall,
)
from remit.stages.plan import PLAN


def run_spec(text: bytes, expected_hash: str, *, approved: bool = False) -> RunSpec:
    """What a runner is told, read from a plan's stored bytes and nothing else.

    Args:
        approved: people agreed to it; it then gets a fresh process, whatever the plan allows.

    Raises:
        Refused: `approval_mismatch` if the bytes are not those that the hash names.
    """
    if digest(PLAN, text) != expected_hash:
        raise Refused(Code.APPROVAL_MISMATCH, "the stored plan is not the plan that was authorized")
    facts = json.loads(text)
    command = facts["command"]
    return RunSpec(
        argv=tuple(command["argv"]),
        env=tuple(command["env"].items()),
        stdin=command["stdin"].encode(),
        files=tuple((path, content.encode()) for path, content in command["files"].items()),
        mounts=tuple(
            Mount(name=mount["name"], source=mount["source"], writable=mount["writable"])
            for mount in command["mounts"]
        ),
        collect=tuple(facts["collect"]),
        limits=Limits(**facts["limits"]),
        profile=facts["runner"]["profile"],
        fence_key="" if facts["effect"] == Effect.READ else facts["call_digest"],
        egress=tuple(_egress_rule(rule) for rule in facts["egress"]),
        credentials=tuple(_credential_rule(rule) for rule in facts["credentials"]),
        upstream=_upstream_call(facts, approved=approved) if "upstream" in facts else None,
    )


def _upstream_call(facts: Mapping[str, Any], *, approved: bool) -> UpstreamCall:
    """The call of an MCP server; one that people approved is never let into a session."""
    upstream = facts["upstream"]
    return UpstreamCall(
        server=upstream["server"],
        tool=upstream["tool"],
        definition=upstream["definition"],
        arguments=Frozen(encode(facts["arguments"])),
        caller=digest_of("remit.session/1", {"tenant": facts["tenant"], "caller": facts["caller"]}),
        url=upstream["url"],
        authorization=upstream["authorization"],
        header=upstream.get("header", SHOWN_AS),
        session=SessionMode.PER_CALL if approved else SessionMode(upstream["session"]),
        idle_s=upstream["idle_s"],
        age_s=upstream["age_s"],
        capabilities=Frozen(encode(upstream.get("capabilities", {}))),
        round=_round(upstream["round"]) if "round" in upstream else None,
        method=Method(upstream.get("method", Method.TOOLS_CALL)),
    )


def _round(facts: Mapping[str, Any]) -> Round:
    return Round(
        answers=Frozen(encode(facts["answers"])),
        number=facts["number"],
        run_id=facts["run"],
        state=facts["state"],
    )


def _egress_rule(facts: Mapping[str, Any]) -> EgressRule:
    methods = facts.get("methods")
    return EgressRule(
        host=facts["host"],
        port=facts["port"],
        methods=None if methods is None else tuple(methods),
        path_prefix=facts.get("path_prefix"),
    )


def _credential_rule(facts: Mapping[str, Any]) -> CredentialRule:
    return CredentialRule(
        ref=facts["ref"],
        scopes=tuple(facts["scopes"]),
        ttl_s=facts.get("ttl_s"),
        audience=facts.get("audience"),
    )
