"""Whether a host is this machine: where plain HTTP, and no TLS, may carry what must stay secret."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by that name or address.

    Of names only `localhost` counts: what another one resolves to may change.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
