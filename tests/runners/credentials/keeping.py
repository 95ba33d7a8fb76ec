"""A keeper with all that is real: its process, a ledger on disk, runs in it, a lending system."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from remit.canonical import digest, digest_of, encode
from remit.clock import SystemClock
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.model import (
    Actor,
    Allow,
    Caller,
    CallerKind,
    Claims,
    Effect,
    Evaluation,
    Frozen,
    Grant,
    Intent,
    Lease,
    Limits,
    Plan,
    PlanKind,
)
from remit.runners.credentials.client import KeeperClient, KeeperSettings
from remit.testing import ledger_samples as sample
from tests.runners.credentials.world import section

SECRET = "correct-horse-battery-staple-4711"
ORIGIN = "gateway.example/log"
APP_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
FILE = {"name": "token", "content": "{token}"}
ISSUER = {"url": "https://remit.example", "algorithm": "ES256", "rotate_days": 30, "ttl_s": 300}

clock = SystemClock()


def static(**written: Any) -> dict[str, Any]:
    words = {"broker": "static", "secret": "env:STATIC_SECRET", "file": FILE}
    return plain(**(words | written))


def oidc(**written: Any) -> dict[str, Any]:
    return plain(
        **({"broker": "oidc", "audience": "https://there.example", "file": FILE} | written)
    )


def github(api: str, key: Path, **written: Any) -> dict[str, Any]:
    words: dict[str, Any] = {
        "broker": "github",
        "app_id": "4711",
        "installation_id": "77",
        "private_key": f"file:{key}",
        "api": api,
        "repositories": ["site"],
        "permissions": {"contents": "read"},
        "file": FILE,
    }
    return plain(**(words | written))


def plain(**written: Any) -> dict[str, Any]:
    found = section(**written)
    return {**found, **{k: v for k, v in written.items() if k in ("secret", "private_key")}}


def app_key(directory: Path) -> Path:
    path = directory / "app.pem"
    path.write_bytes(
        APP_KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@dataclasses.dataclass(slots=True)
class World:
    """A gateway's half: the keeper's client and the ledger."""

    directory: Path
    keeper: KeeperClient
    store: SqliteLedger

    async def granted(
        self,
        *refs: str,
        service: str = "web",
        effect: Effect = Effect.WRITE,
        wall_s: int = 30,
        **facts: Any,
    ) -> Grant:
        """A run that was let go, with these credentials in its plan."""
        grant = await self.intended(*refs, service=service, effect=effect, wall_s=wall_s, **facts)
        await self.store.start(grant, clock.now_ms())
        return grant

    async def intended(
        self,
        *refs: str,
        service: str = "web",
        effect: Effect = Effect.WRITE,
        wall_s: int = 30,
        deadline_ms: int | None = None,
        **facts: Any,
    ) -> Grant:
        plan = self.plan(*refs, service=service, effect=effect, wall_s=wall_s, **facts)
        now = clock.now_ms()
        allow = Allow(
            evaluation=Evaluation(
                decision_id=clock.new_id("dec"),
                revision=sample.REVISION,
                engine="sample",
                input=Frozen(b"{}"),
                input_digest=digest("remit.input/1", b"{}"),
                decided_ms=now,
            ),
            reasons=(),
        )
        intent = Intent(
            run_id=clock.new_id("run"),
            plan=plan,
            call_id=clock.new_id("call"),
            call_digest=plan.call_digest,
            caller=CALLER,
            tool_name=sample.TOOL,
            tool_digest=sample.TOOL_DIGEST,
            effect=effect,
            idempotent=False,
            environment="staging",
            decision=allow,
            approval_id=None,
            idempotency_key=None,
            now_ms=now,
            deadline_ms=deadline_ms or now + 1000 * wall_s + 10_000,
            claims=Claims(),
        )
        return await self.store.commit_intent(intent, [sample.decision_entry(plan, allow)])

    def plan(self, *refs: str, service: str, effect: Effect, wall_s: int, **facts: Any) -> Plan:
        call_digest = digest_of("remit.call/1", service)
        rules: list[dict[str, Any]] = [
            {"ref": ref, "scopes": [], "digest": self.keeper.digest(ref)} for ref in refs
        ]
        text = encode(
            {
                "schema": "remit.plan/1",
                "call_digest": call_digest,
                "tenant": "acme",
                "caller": {
                    "subject": CALLER.subject,
                    "kind": "agent",
                    "chain": [{"subject": "ada", "kind": "human"}],
                },
                "tool": {"name": sample.TOOL, "digest": sample.TOOL_DIGEST},
                "effect": effect.value,
                "environment": "staging",
                "limits": {"wall_s": wall_s},
                "egress": [{"host": "127.0.0.1", "port": 8443}],
                "credentials": rules,
                **facts,
            }
        )
        return Plan(
            kind=PlanKind.MAIN,
            text=text,
            hash=digest("remit.plan/1", text),
            call_digest=call_digest,
            limits=Limits(wall_s=wall_s),
        )


CALLER = Caller(
    tenant="acme",
    subject="agent-7",
    kind=CallerKind.AGENT,
    groups=("deployers",),
    chain=(Actor(subject="ada", kind=CallerKind.HUMAN),),
    key_id=sample.KEY,
)


def lease(grant: Grant, *, fence: int | None = None) -> Lease:
    return Lease(
        id=grant.run_id,
        gateway="gw-1",
        fence=grant.fence if fence is None else fence,
        deadline_ms=grant.deadline_ms,
    )


def settings(
    directory: Path,
    credentials: Mapping[str, Mapping[str, Any]],
    *,
    issuer: Mapping[str, Any] | None = None,
    uid: int | None = None,
) -> KeeperSettings:
    key_file = directory / "log.key"
    if not key_file.exists():
        FileSigner.create(key_file, ORIGIN)
    return KeeperSettings(
        key_file=key_file,
        state_dir=directory / "keeper",
        base=directory,
        credentials=credentials,
        issuer=issuer,
        environ={"STATIC_SECRET": SECRET},
        uid=uid,
    )


@contextlib.asynccontextmanager
async def keeping(
    directory: Path, credentials: Mapping[str, Mapping[str, Any]] | None = None, **more: Any
) -> AsyncIterator[World]:
    """A keeper and a ledger, started in the gateway's order and closed in its order."""
    chosen = {"static": static()} if credentials is None else credentials
    keeper = await KeeperClient.open(settings(directory, chosen, **more))
    try:
        path = directory / "ledger.db"
        store = SqliteLedger.open(
            path, signer=keeper.signer, gateway="gw-1", clock=clock, reserve_bytes=65_536
        )
        try:
            await store.activate(sample.activation(), clock.now_ms())
            await keeper.ledger(path, store)
            yield World(directory, keeper, store)
        finally:
            await store.aclose()
    finally:
        await keeper.aclose()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


PYTHON = sys.executable
