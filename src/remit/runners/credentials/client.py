"""The gateway's end of the keeper: starts it, asks it, and signs through it.

Signatures only for now are final here; see `KeeperClient`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remit.model import Lease, Lent, Loan
from remit.ports import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """How a keeper is set.

    Args:
        key_file: the log's signing key.
        state_dir: `<data_dir>/keeper`; made, of mode 0700.
        base: directory of remit.yaml; relative references are read from it.
        credentials: `runners.credentials` as plain JSON, references as written.
        issuer: `runners.issuer` as plain JSON, or None.
        environ: exactly the variables that `env:` references name.
        uid: the user it becomes where the gateway is root; None to stay who it is.
    """

    key_file: Path
    state_dir: Path
    base: Path
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    issuer: Mapping[str, Any] | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    uid: int | None = None


class KeeperClient:
    """The `Credentials` port, and the log's `Signer`, over one keeper process."""

    @classmethod
    async def open(cls, settings: KeeperSettings) -> KeeperClient:
        """Start a keeper: before this process holds secrets or threads.

        Raises:
            ConfigError: a reference leads nowhere, a key cannot be used, a template is wrong.
        """
        raise NotImplementedError

    @property
    def signer(self) -> Signer:
        """Signs checkpoints in the keeper; blocking, for any thread."""
        raise NotImplementedError

    async def proxy_socket(self) -> socket.socket:
        """The egress proxy's end of a new socket to the keeper; an earlier one is dropped."""
        raise NotImplementedError

    async def ledger(self, path: Path) -> None:
        """Tell the keeper where the ledger is, once it is open; from here on it can lend."""
        raise NotImplementedError

    def digest(self, ref: str) -> str | None:
        raise NotImplementedError

    async def lend(self, lease: Lease) -> Lent:
        raise NotImplementedError

    async def take_back(self, lease: Lease) -> Sequence[Loan]:
        raise NotImplementedError

    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]:
        raise NotImplementedError

    async def sweep(self, live: frozenset[str]) -> Sequence[Loan]:
        raise NotImplementedError

    async def keys(self) -> Mapping[str, Any]:
        raise NotImplementedError

    async def aclose(self) -> None:
        """End the keeper, which first ends every loan; after the ledger was closed."""
        raise NotImplementedError
