"""Whether a host is this machine: where plain HTTP, and no TLS, may carry what must stay secret."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by that name or address.

    Of names only `localhost` counts: what another one resolves to may change.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_fault(url: str) -> str | None:
    """Why secrets may not cross to this address, as the end of a sentence about it; None if they may.

    It has to be https, or http to this machine itself, and name a host and perhaps a path: nothing
    of a user, a query or a fragment. What answers there is not looked at.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is no address"
    if "://" not in url:
        return "does not begin with https://"
    if not host or parts.username is not None or parts.password is not None:
        return "has to have a host, and no user in it"
    if parts.query or parts.fragment or "?" in url or "#" in url:
        return "may have no query and no fragment"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        return "is neither https, nor http to this machine itself"
    return None
