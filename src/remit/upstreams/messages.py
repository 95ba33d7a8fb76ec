"""What JSON-RPC messages of an untrusted server are read as, whatever they came over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeGuard

from remit.errors import Code, UpstreamFault
from remit.upstreams.limits import Limits

_TOKEN_BYTES = 4096
_STATUS_CHARS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a server says of how far a request has come; its words are not trusted."""

    progress: float
    total: float | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A result, as the server gave it, and the length of its line in bytes."""

    result: dict[str, Any]
    size: int


class Allowance:
    """How much a server may still send that nobody asked for; see `Limits`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tokens = float(limits.burst)
        self._counted = asyncio.get_running_loop().time()

    def spend(self, size: int) -> None:
        """Count one message of that many bytes.

        Raises:
            UpstreamFault: `upstream_invalid`: it is more than is borne.
        """
        now = asyncio.get_running_loop().time()
        gained = (now - self._counted) * self._limits.per_s
        self._counted = now
        self._tokens = min(float(self._limits.burst), self._tokens + gained)
        self._tokens -= 1 + size // _TOKEN_BYTES
        if self._tokens < 0:
            raise invalid("the server sends more that nobody asked for than is borne")


def progress_of(params: dict[str, Any]) -> Progress | None:
    """The report in a progress notification, bounded; None if there is none in it."""
    progress, total, message = (params.get(key) for key in ("progress", "total", "message"))
    if not _number(progress):
        return None
    return Progress(
        progress=progress,
        total=total if _number(total) else None,
        message=message[:_STATUS_CHARS] if isinstance(message, str) else None,
    )


def outcome_of(value: dict[str, Any], size: int) -> Reply | UpstreamFault:
    """What an answer holds.

    Raises:
        UpstreamFault: it holds neither one result nor one error.
    """
    result, error = value.get("result"), value.get("error")
    if isinstance(result, dict) and "error" not in value:
        return Reply(result=result, size=size)
    if (
        isinstance(error, dict)
        and "result" not in value
        and type(error.get("code")) is int
        and isinstance(error.get("message"), str)
    ):
        message = f"the server answered with the JSON-RPC error {error['code']}"
        return UpstreamFault(Code.UPSTREAM_ERROR, message, sent=True, answer=error)
    raise invalid("the server sent an answer with neither one result nor one error")


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def invalid(message: str) -> UpstreamFault:
    """The fault of a server that broke the protocol or a limit."""
    return UpstreamFault(Code.UPSTREAM_INVALID, message)
