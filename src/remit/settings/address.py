"""Addresses to listen on, and whether they stay on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from remit.loopback import is_loopback

_FORM = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; port 0 asks the system for a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port` or `[v6]:port`; raises ValueError."""
        match = _FORM.fullmatch(text)
        if match is None or int(match.group(3)) > 65_535:
            raise ValueError("an address is host:port, such as 127.0.0.1:8700 or [::1]:8700")
        host = match.group(1) or match.group(2)
        if match.group(1) and not _ip(host):
            raise ValueError("what stands in brackets must be an IPv6 address")
        return cls(host, int(match.group(3)))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it; a name other than localhost counts as not."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
