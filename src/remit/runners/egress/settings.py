"""What the operator sets for every run's way out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remit.addresses import (
    METADATA_NAMES,
    Reach,
    is_address,
    plain_host,
    reach,
    split_authority,
)
from remit.canonical import digest_of
from remit.errors import Code, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """How an egress proxy is set; one that is wrong cannot be made.

    Args:
        internal: exact `host:port` that may be reached though their address is not public.
        unsafe_plain: exact `host:port` to which credentials may be sent without TLS.
        ca_pem: authorities (PEM) of destinations' certificates, beside the system's.
        connections: open connections of one run at once.
        bytes_mb: MiB that one run may send and receive.
        uid: the user that the proxy becomes where the gateway is root; None to stay who it is.

    Raises:
        ConfigError: a destination is not exact, or is one that is never opened.
    """

    internal: tuple[str, ...] = ()
    unsafe_plain: tuple[str, ...] = ()
    ca_pem: str = ""
    connections: int = 64
    bytes_mb: int = 1_024
    uid: int | None = None

    def __post_init__(self) -> None:
        for place, listed in (("internal", self.internal), ("unsafe_plain", self.unsafe_plain)):
            for number, text in enumerate(listed):
                _check(text, f"runners.egress.{place}[{number}]")

    @property
    def digest(self) -> str:
        """Over all that decides what a run can reach; not the user."""
        return digest_of(
            "remit.egress/1",
            {
                "internal": sorted(self.internal),
                "unsafe_plain": sorted(self.unsafe_plain),
                "ca": hashlib.sha256(self.ca_pem.encode()).hexdigest(),
                "connections": self.connections,
                "bytes_mb": self.bytes_mb,
            },
        )

    def facts(self) -> dict[str, Any]:
        """As the proxy is told."""
        return {
            "internal": _pairs(self.internal),
            "unsafe_plain": _pairs(self.unsafe_plain),
            "ca_pem": self.ca_pem,
            "connections": self.connections,
            "bytes_mb": self.bytes_mb,
        }


def _pairs(listed: Sequence[str]) -> list[tuple[str, int]]:
    return [found for text in listed if (found := split_authority(text)) is not None]


def _check(text: str, place: str) -> None:
    found = split_authority(text)
    if found is None or not plain_host(found[0]):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "this is not one exact host:port",
            place=place,
            hint="write the host in lower case with its port, such as registry.corp:443; no"
            " wildcard and no network",
        )
    host = found[0]
    never = is_address(host) and reach(host) is Reach.NEVER
    if never or host in METADATA_NAMES:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "metadata services, link-local, multicast and unspecified addresses are never opened",
            place=place,
            hint="take it out; to give runs a cloud identity, lend them a credential",
        )
