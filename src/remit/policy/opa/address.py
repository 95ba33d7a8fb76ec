"""Where an OPA server listens, and how it is known to be the right one."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from remit.errors import Code, ConfigError
from remit.loopback import is_loopback

_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_OPEN = "http to another machine: whoever is in between decides, and reads every input"
_TOKEN = re.compile(r"[!-~]{1,8192}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One server.

    `unix` is the path of its socket, else `host` and `port` count, with `tls` for https.
    `prefix` stands before every path. `peers` are the OS users that may own a Unix socket.
    """

    unix: str | None = None
    host: str = "opa"
    port: int = 0
    tls: ssl.SSLContext | None = None
    prefix: str = ""
    token: str | None = field(default=None, repr=False)
    peers: frozenset[int] = frozenset()

    @property
    def authority(self) -> str:
        """The `Host` of its requests."""
        if self.unix is not None:
            return "opa"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Contradiction(NamedTuple):
    """Two settings of `policy.opa` that cannot both be meant, or one that is missing."""

    key: str
    message: str
    hint: str


def contradictions(
    *,
    binary: str | None = None,
    url: str | None = None,
    token: str | None = None,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    socket_uid: int | None = None,
    pin_revision: str | None = None,
    results: bool = False,
    package: str = "remit",
) -> Sequence[Contradiction]:
    """What does not fit together in `policy.opa`; reads no file and asks nobody.

    `token` and the files are looked at only for whether they are given.
    """
    if binary is None and url is None:
        return [Contradiction("binary", "neither binary nor url is given", "give one of them")]
    files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
    if binary is None:
        return list(_of_url(url or "", files, socket_uid))
    more = {"socket_uid": socket_uid, "pin_revision": pin_revision, "results": results or None}
    return list(_of_binary({"url": url, "token": token, **files, **more}, package))


def _of_binary(given: Mapping[str, object], package: str) -> Iterator[Contradiction]:
    for key, value in given.items():
        if value is not None:
            yield Contradiction(
                key,
                f"{key} is for a server of your own, and binary is given",
                "leave one of them out",
            )
    if package != "remit":
        yield Contradiction(
            "package",
            "another package is for a server of your own, and binary is given",
            "name the package remit",
        )


def _of_url(
    url: str, files: Mapping[str, str | None], socket_uid: int | None
) -> Iterator[Contradiction]:
    try:
        parts = _split(url)
    except ConfigError as error:
        yield Contradiction("url", error.message, error.hint or "see docs/opa.md")
        return
    if socket_uid is not None and parts.scheme != "unix":
        yield Contradiction("socket_uid", "socket_uid is for a Unix socket only", "leave it out")
    if parts.scheme != "https":
        for key, value in files.items():
            if value is not None:
                yield Contradiction(key, f"{key} is for https only", "use an https url")
    elif (files["cert_file"] is None) != (files["key_file"] is None):
        lacking = "key_file" if files["key_file"] is None else "cert_file"
        yield Contradiction(lacking, "a client certificate needs its key", f"give {lacking}")
    if parts.scheme == "http" and not is_loopback(parts.host):
        yield Contradiction(
            "url",
            _OPEN,
            "use https, with ca_file where its certificate is of your own authority",
        )


def address_of(
    url: str,
    *,
    token: str | None = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    socket_uids: Sequence[int] = (),
) -> Address:
    """The address in a URL: `unix:/path`, `http://host:port` or `https://host:port/prefix`.

    With `ca_file` nothing else is trusted. A Unix socket has to belong to root, to the user that
    this process runs as, or to one of `socket_uids`.

    Raises:
        ConfigError: `config_invalid`: the URL, the token or a file cannot be used.
    """
    parts = _split(url)
    if token is not None and not _TOKEN.fullmatch(token):
        raise _invalid("the OPA server's token is empty or has characters a header may not", None)
    if parts.scheme == "http" and not is_loopback(parts.host):
        raise _invalid(_OPEN, "use https")
    if parts.scheme == "unix":
        peers = frozenset({0, os.geteuid(), *socket_uids})
        return Address(unix=parts.prefix, token=token, peers=peers)
    tls = tls_context(ca_file, cert_file, key_file) if parts.scheme == "https" else None
    return Address(host=parts.host, port=parts.port, tls=tls, prefix=parts.prefix, token=token)


def tls_context(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> ssl.SSLContext:
    """TLS 1.2 or later, with the server's certificate and name checked; no key is ever logged.

    Raises:
        ConfigError: `config_invalid`: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca_file is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(cafile=ca_file)
    except (OSError, ValueError):
        raise _invalid("policy.opa.ca_file cannot be read as certificates in PEM", None) from None
    if cert_file is not None:
        try:
            context.load_cert_chain(cert_file, key_file, password="")
        except (OSError, ValueError):
            raise _invalid(
                "policy.opa.cert_file and key_file are no certificate with its key",
                "give both in PEM, the key without a passphrase",
            ) from None
    return context


class _Parts(NamedTuple):
    scheme: str
    host: str
    port: int
    prefix: str


def _split(url: str) -> _Parts:
    """The parts of a server's URL; of a Unix socket the prefix is the path.

    Raises:
        ConfigError: `config_invalid`.
    """
    if url.startswith("unix:/"):
        return _Parts("unix", "", 0, "/" + url.removeprefix("unix:").lstrip("/"))
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _invalid("policy.opa.url is not a URL", "https://opa.example:8181") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _invalid("policy.opa.url is no http, https or unix address", "unix:/run/opa/opa.sock")
    if parts.username is not None or parts.query or parts.fragment:
        raise _invalid(
            "policy.opa.url has a user, a query or a fragment", "give scheme, host and port only"
        )
    prefix = parts.path.rstrip("/")
    if not _PREFIX.fullmatch(prefix):
        raise _invalid("policy.opa.url has an odd path", "give scheme, host and port only")
    return _Parts(parts.scheme, host, port or (443 if parts.scheme == "https" else 8181), prefix)


def _invalid(message: str, hint: str | None) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, place="policy.opa", hint=hint)
