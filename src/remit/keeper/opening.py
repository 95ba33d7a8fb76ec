"""Everything that the keeper opens before it gives up the right to: keys, secrets, its ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.keeper.configured import Credential, Opener
from remit.keeper.confine import become
from remit.keeper.lending import now_ms
from remit.keeper.loans import Journal
from remit.keeper.proxy import ProxyLine
from remit.keeper.sealed import SealedFiles
from remit.keeper.signing import CheckpointSigner
from remit.keeper.state import StateDirectory
from remit.ledger.lending import LendingReader
from remit.ledger.signer import FileSigner
from remit.runners.credentials.broker import KEEPS

if TYPE_CHECKING:
    from remit.runners.credentials.issuer import RunIssuer
    from remit.runners.credentials.keyring import KeyRing

RING = "issuer.keys"


class Opened:
    """What a keeper has once it was greeted; `uid` None: it stays who it is.

    Raises:
        ConfigError: a key, a secret, a section or the directory cannot be used.
    """

    def __init__(self, hello: Mapping[str, Any]) -> None:
        self._uid = None if hello["uid"] is None else int(hello["uid"])
        self._state = StateDirectory(Path(hello["state_dir"]))
        self.signer = CheckpointSigner(FileSigner.load(Path(hello["key_file"])), self._state)
        self.journal = Journal(self._state)
        self.proxy = ProxyLine()
        self._ring: KeyRing | None = None
        issuer = None if hello["issuer"] is None else self._issuer(hello["issuer"])
        self._sealed: SealedFiles | None = None
        opener = Opener(Path(hello["base"]), issuer, now_ms, self._consents)
        self.credentials: dict[str, Credential] = {
            ref: opener.open(ref, section) for ref, section in hello["credentials"].items()
        }

    @property
    def consented(self) -> list[str]:
        """The handles that are lent by people's consent."""
        return sorted(ref for ref, each in self.credentials.items() if each.kind in KEEPS)

    def _consents(self) -> SealedFiles:
        self._sealed = self._sealed or SealedFiles(self._state, "consents")
        return self._sealed

    def _issuer(self, section: Mapping[str, Any]) -> RunIssuer:
        from remit.runners.credentials.issuer import RunIssuer
        from remit.runners.credentials.keyring import KeyRing

        self._ring = KeyRing(
            self._state.read(RING),
            lambda data: self._state.write(RING, data),
            algorithm=str(section["algorithm"]),
            rotate_days=int(section["rotate_days"]),
            token_ms=1000 * int(section["ttl_s"]),
            now_ms=now_ms(),
        )
        return RunIssuer(section, self._ring, now_ms)

    def jwks(self) -> dict[str, Any]:
        """The issuer's public keys as they are to be published now; none without an issuer."""
        if self._ring is None:
            return {"keys": []}
        self._ring.turn(now_ms())
        return self._ring.jwks

    async def stock_key(self) -> None:
        """Make the issuer's next key, if there is none: too slow for the start."""
        if self._ring is not None and self._ring.wants_next:
            await asyncio.to_thread(self._ring.stock, now_ms())

    async def open_ledger(self, path: Path) -> LendingReader:
        """Open the ledger, then give up the user that could.

        Raises:
            sqlite3.Error, OSError: it cannot be opened, or the user not be given up.
        """
        reader = LendingReader(path)
        if self._uid is not None:
            await _load_clients({each.kind for each in self.credentials.values()})
            self.journal.give(self._uid)
            if self._sealed is not None:
                self._sealed.give(self._uid)
            self._state.give(self._uid)
            become(self._uid)
        return reader


async def _load_clients(kinds: set[str]) -> None:
    """Have imported what brokers import at their first use: later its files may be unreadable."""
    import concurrent.futures.thread  # noqa: F401 - each search of output runs in a thread

    if kinds - {"static"}:
        import encodings.idna  # noqa: F401

        import jwt  # noqa: F401
    if kinds - {"static", "oidc"}:
        import httpx2

        from remit.runners.lines import read_in_time

        read_in_time()
        with contextlib.suppress(httpx2.HTTPError):
            async with httpx2.AsyncClient(trust_env=False) as http:
                await http.get("https://127.0.0.1:1/")  # nobody listens there
