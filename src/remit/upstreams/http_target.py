"""Where an MCP server listens, read from the url that an operator wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from remit.addresses import METADATA_NAMES, authority, plain_host
from remit.errors import Code, ConfigError
from remit.loopback import is_loopback

_PATH = re.compile(r"/[!-~]*")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One address of HTTP; `path` has the query in it."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The `Host` of its requests (RFC 9110 §7.2)."""
        return authority(self.host, self.port, 443 if self.secure else 80)

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What has to be the same for a connection, and for an address that a server names."""
        return self.secure, self.host, self.port


def target_of(url: str) -> Target:
    """The address in a url.

    Args:
        url: https, or http to this machine itself; the host is one exact name or address.

    Raises:
        ConfigError: `config_invalid`. What resolves from the name is not looked at here.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise _invalid("it is no address") from None
    if parts.scheme not in _PORTS:
        raise _invalid("it is neither https nor http")
    port = _PORTS[parts.scheme] if port is None else port
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not plain_host(host) or "%" in host or not port:
        raise _invalid("its host is not one exact name or address")
    if host in METADATA_NAMES:
        raise _invalid("metadata services are never asked")
    if "@" in parts.netloc or "#" in url or not url.isprintable() or not _PATH.fullmatch(path):
        raise _invalid("it has a user, a fragment, or a path that is not plain")
    if parts.scheme == "http" and not is_loopback(host):
        raise _invalid("without TLS only this machine itself is asked")
    return Target(secure=parts.scheme == "https", host=host, port=port, path=path)


def _invalid(why: str) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        f"the url of an MCP server cannot be used: {why}",
        hint="write https://host/path, or http://127.0.0.1:port/path",
    )
