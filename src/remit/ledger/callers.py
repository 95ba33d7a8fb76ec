"""A caller as one column: who asked, as verified then, kept with what was asked."""

from __future__ import annotations

import json
from typing import Any

from remit.canonical import encode
from remit.model import Actor, Caller, CallerKind


def caller_text(caller: Caller) -> str:
    """The caller with its whole chain, as canonical JSON."""
    document = {
        "tenant": caller.tenant,
        "subject": caller.subject,
        "kind": caller.kind.value,
        "groups": list(caller.groups),
        "chain": [[actor.subject, actor.kind.value] for actor in caller.chain],
        "issuer": caller.issuer,
        "key_id": caller.key_id,
        "expires_ms": caller.expires_ms,
        "acr": caller.acr,
        "amr": list(caller.amr),
        "auth_ms": caller.auth_ms,
    }
    return encode(document).decode()


def caller_of(text: str) -> Caller:
    """The caller that `caller_text` wrote, by this version or by an earlier one."""
    fields: dict[str, Any] = json.loads(text)
    fields["kind"] = CallerKind(fields["kind"])
    fields["groups"] = tuple(fields["groups"])
    fields["amr"] = tuple(fields.get("amr", ()))
    fields["chain"] = tuple(
        Actor(subject=subject, kind=CallerKind(kind)) for subject, kind in fields["chain"]
    )
    return Caller(**fields)
