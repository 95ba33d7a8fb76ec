"""How much of an HTTP server is borne, beside what holds for every conversation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds on one server that is asked over HTTP; times in seconds, sizes in bytes."""

    head_bytes: int = 64 * 1024
    refusal_bytes: int = 64 * 1024
    """Most of an answer's body that is read where its status is no success."""
    connections: int = 64
    """Connections of one server that are in use at once; who finds none waits."""
    idle: int = 16
    """Unused connections of one server and authorization that are kept."""
    idle_s: float = 20.0
    authorizations: int = 256
    """How many authorizations something is remembered of, for one server."""
    resolve_s: float = 5.0
    connect_s: float = 10.0
    tls_s: float = 10.0
    drain_s: float = 1.0
    """How long an answered stream may take to end before its connection is cut."""
    agreed_s: float = 300.0
    """How long an agreed revision is believed."""
    fresh_s: float = 30.0
    """How long a list of tools is believed."""
    probe_s: float = 5.0
    close_s: float = 5.0
    """How long the end of a session may take."""
    sessions: int = 64
    """Kept sessions of one server and authorization."""
    failures: int = 5
    """Failures in a row after which a server is only probed."""
    pause_s: float = 1.0
