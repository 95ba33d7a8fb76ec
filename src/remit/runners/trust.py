"""The certificate authorities that a run with egress trusts: the system's, and one of its own."""

from __future__ import annotations

import ssl
from pathlib import Path

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Fedora, older Red Hat, openSUSE and Alpine have all of them in one file."""


class TrustStore:
    """Makes the file `/run/remit/ca.pem` of each run.

    Args:
        also: authorities (PEM) that the operator names beside the system's.
        bundles: files to take the system's from; the first one that can be read counts.
    """

    def __init__(self, also: bytes = b"", bundles: tuple[str, ...] = _BUNDLES) -> None:
        self._also = also
        named = ssl.get_default_verify_paths().cafile
        self._bundles = (*bundles, *([named] if named else []))
        self._kept: tuple[str, int, bytes] | None = None

    def file(self, own: bytes) -> bytes:
        """All of them with a run's own authority, which may be empty.

        A machine without authorities gives a run its own alone. Does not check what the files
        hold: they are the operator's.
        """
        parts = (own, self._also, self._system())
        return b"".join(part.rstrip() + b"\n" for part in parts if part.strip())

    def _system(self) -> bytes:
        """The system's bundle, read again only when it has changed."""
        for name in self._bundles:
            path = Path(name)
            try:
                changed = path.stat().st_mtime_ns
                if self._kept is None or self._kept[:2] != (name, changed):
                    self._kept = (name, changed, path.read_bytes())
            except OSError:
                continue
            return self._kept[2]
        return b""
