"""What a door is told: who may come in from where, and how much they may send."""

from __future__ import annotations

from dataclasses import dataclass

from remit import __version__

LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "[::1]:*")
LOOPBACK_ORIGINS = ("http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """One door's settings; what is left out is what fits a gateway on loopback.

    `allowed_hosts` and `allowed_origins` are compared whole; `:*` at the end stands for any port
    or none. `tracing` says whether anything records spans: without it the server span is not
    made. Times say their unit; `body_timeout_s` is how long a request's body may take to arrive,
    `keepalive_s` how long a stream may be silent before it is kept alive, `recheck_s` how often
    the credential of a stream on which nothing happens is looked at. Resources that are subscribed to:
    `reask_s` after which their calls are made again, `unheard_s` how long those of a session are
    kept on whose stream nobody listens, `told_apart_s` how far notices of them are apart at least.
    """

    name: str = "remit"
    version: str = __version__
    instructions: str | None = None
    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    allowed_origins: tuple[str, ...] = LOOPBACK_ORIGINS
    body_limit_bytes: int = 1024 * 1024
    body_timeout_s: float = 30.0
    page_size: int = 50
    list_ttl_ms: int = 5_000
    keepalive_s: float = 15.0
    max_sessions: int = 2_000
    max_sessions_per_caller: int = 64
    session_idle_s: float = 1_800.0
    max_subscriptions: int = 1_000
    max_subscriptions_per_caller: int = 16
    recheck_s: float = 5.0
    max_resources: int = 1_000
    max_resources_per_caller: int = 64
    reask_s: float = 600.0
    unheard_s: float = 60.0
    told_apart_s: float = 0.1
    tracing: bool = True
