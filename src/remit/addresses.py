"""Which addresses may be connected to, and connecting: the public ones, never a metadata service.

From the IANA registries of special-purpose addresses (RFC 6890 and its updates). What is not known
to be an ordinary public address is refused.
"""

from __future__ import annotations

import asyncio
import re
import socket
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit


class Reach(IntEnum):
    """How an address may be reached; of several, the least counts."""

    NEVER = 0
    """Metadata services, link-local, multicast, reserved: by no setting."""
    NAMED = 1
    """Private, loopback and the like: only where the operator names the destination."""
    PUBLIC = 2


_METADATA = {
    "169.254.169.254",  # most clouds
    "168.63.129.16",  # Azure's wire server, a public address
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",  # Google
    "fd00:c1::a9fe:a9fe",  # Oracle
    "fd00:42::42",  # Scaleway
    "fd00:a9fe:a9fe::1",  # Akamai
}
METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.azure.com",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
        "metadata.platformequinix.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
"""Names of metadata services, which no setting opens."""

_NEVER_4 = [IPv4Network(net) for net in ("169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")]
_NAMED_4 = [
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    )
]
_NAMED_6 = [IPv6Network(net) for net in ("::1/128", "fc00::/7", "2001:db8::/32", "3fff::/20")]
_GLOBAL_6 = IPv6Network("2000::/3")
_PROTOCOLS_6 = IPv6Network("2001::/23")  # Teredo, ORCHID and other protocols' own
_EMBEDDING = [
    (IPv6Network("::ffff:0:0/96"), 0),  # an IPv4 address as it is mapped
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (IPv6Network("2002::/16"), 80),  # 6to4
]
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - an address that is refused, not bound


def reach(address: str) -> Reach:
    """How this IP address may be reached; what is no IP address, never.

    A scoped address (`fe80::1%eth0`) is never reached.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return Reach.NEVER
    return _reach_4(found) if isinstance(found, IPv4Address) else _reach_6(found)


def _reach_4(address: IPv4Address) -> Reach:
    if str(address) in _METADATA or str(address) in _UNSPECIFIED:
        return Reach.NEVER
    if any(address in net for net in _NEVER_4):
        return Reach.NEVER
    return Reach.NAMED if any(address in net for net in _NAMED_4) else Reach.PUBLIC


def _reach_6(address: IPv6Address) -> Reach:
    if str(address) in _METADATA or address.scope_id is not None:
        return Reach.NEVER
    number = int(address)
    for net, shift in _EMBEDDING:
        if address in net:
            return _reach_4(IPv4Address((number >> shift) & 0xFFFF_FFFF))
    if any(address in net for net in _NAMED_6):
        return Reach.NAMED
    if address not in _GLOBAL_6 or address in _PROTOCOLS_6:
        return Reach.NEVER
    if (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        return _reach_4(IPv4Address(number & 0xFFFF_FFFF))
    return Reach.PUBLIC


_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def plain_host(host: str) -> bool:
    """Whether a host is one exact name in lower case, or an IP address in its usual spelling.

    The same question as `remit.reach.plain_host` answers, which is too much to import here; a
    test holds the two together.
    """
    if is_address(host):
        return str(ip_address(host)) == host
    labels = host.split(".")
    return (
        len(host) <= 253
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
        and re.fullmatch(r"0x[0-9a-f]*", labels[-1]) is None
    )


def is_address(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def authority(host: str, port: int, default: int | None = None) -> str:
    """host:port as URLs write it (RFC 3986 §3.2), without the port where it is the default."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == default else f"{shown}:{port}"


def split_authority(text: str, default: int | None = None) -> tuple[str, int] | None:
    """Host and port of `host:port`, the host in lower case; None if it is not plainly that.

    Without a default the port has to be there. User information is never accepted.
    """
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?", text)
    if found is None or (found[2] is None and default is None):
        return None
    host = found[1].lower()
    if host.startswith("["):
        host = host[1:-1]
        if ":" not in host:
            return None
    port = int(found[2]) if found[2] is not None else int(default or 0)
    return (host, port) if plain_host(host) and 1 <= port <= 65_535 else None


async def connected(address: str, port: int, seconds: float) -> socket.socket | None:
    """A TCP connection to an address that was checked, within so many seconds; None if there is none.

    Takes no name: what was looked up and checked is what is connected to.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    target: tuple[Any, ...] = (address, port)
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, target)
    except (OSError, TimeoutError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def covers(resource: str, url: str) -> bool:
    """Whether an address is a resource's, or below it by whole segments of its path."""
    mine, its = urlsplit(resource), urlsplit(url)
    ports = {"https": 443, "http": 80}
    ends = [
        (each.scheme, each.hostname, each.port or ports.get(each.scheme)) for each in (mine, its)
    ]
    path = mine.path.rstrip("/")
    return ends[0] == ends[1] and f"{its.path}/".startswith(f"{path}/")
