"""Where the policy of a layer comes from: a directory, a bundle file, or the URL of a bundle."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from remit.errors import Code, ConfigError
from remit.loopback import is_loopback
from remit.policy.archive import read_archive, read_file
from remit.policy.bundle import PolicyBundle, directory_files, directory_mark, invalid, mark_of
from remit.policy.content import assemble
from remit.policy.signature import Verification

SETTLE_S = 0.25
"""How long files have to have been left alone before they are read."""

_LOOKS = 20


class Source(Protocol):
    """Where the policy of a layer comes from. Of its calls one is made at a time.

    What it gives was read, and its signature verified where one is asked for. It is not linted,
    and says nothing of whether an engine will take it.
    """

    async def load(self) -> PolicyBundle:
        """The policy as it is now.

        Raises:
            ConfigError, PolicyFault: it cannot be had, or is not a policy.
        """

    async def changed(self) -> PolicyBundle | None:
        """Wait until there is something new; None after a while without.

        Content that was given or refused once is not new. May be cancelled.

        Raises:
            ConfigError, PolicyFault: what is new cannot be had, or is not a policy.
        """

    async def keep(self) -> None:
        """What was given last is in force: it may be kept for a start without its server."""

    async def aclose(self) -> None:
        """Let go of whatever it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the configuration says of where a layer's policy is.

    `place` is a directory, a bundle file, or an http(s) URL. `token` and `ca_file` are for a URL,
    as is `keep_in`, the directory for the last bundle that was in force. `every_s` is how often to
    look for something new, in seconds; 0: only when told to.
    """

    layer: str
    place: str
    verification: Verification | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    keep_in: Path | None = None
    every_s: float = 5.0


def is_url(place: str) -> bool:
    """Whether a place is a URL, not a path."""
    return place.startswith(("http://", "https://"))


def check_url(url: str) -> None:
    """Refuse a URL that would be asked in the open, or that holds a credential.

    Raises:
        ConfigError: `config_invalid`.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _no_url("the bundle's URL is not a URL", "https://host/path/bundle.tar.gz") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _no_url("the bundle's URL is not a URL", "https://host/path/bundle.tar.gz")
    if parts.username is not None or parts.fragment:
        raise _no_url("the bundle's URL has a user or a fragment", "a credential is `token`")
    if parts.scheme == "http" and not is_loopback(host):
        raise _no_url(
            "the bundle would come over http from another machine",
            "use https, with ca_file where the certificate is of your own authority",
        )


def _no_url(message: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, hint=hint)


def open_source(origin: Origin) -> Source:
    """The source of a layer; nothing is read yet.

    Raises:
        ConfigError: `config_invalid`: the URL, the token or a file it needs cannot be used.
    """
    if not is_url(origin.place):
        return PathSource(
            Path(origin.place), verification=origin.verification, every_s=origin.every_s
        )
    from remit.policy.download import UrlSource  # an HTTP client is loaded where there is a URL

    return UrlSource(origin)


class PathSource:
    """A directory, or a bundle file. What is being written is not read until it is left alone."""

    def __init__(
        self,
        path: Path,
        *,
        verification: Verification | None = None,
        every_s: float = 5.0,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._path = path
        self._verification = verification
        self._every_s = every_s
        self._settle_s = settle_s
        self._mark: object = None
        self._digest = b""

    async def load(self) -> PolicyBundle:
        return await asyncio.to_thread(self._load)

    async def changed(self) -> PolicyBundle | None:
        if not self._every_s:
            await asyncio.Event().wait()
        await asyncio.sleep(self._every_s)
        mark = await asyncio.to_thread(self._look)
        if mark == self._mark:
            return None
        await asyncio.sleep(self._settle_s)
        return await asyncio.to_thread(self._read_settled, mark)

    async def keep(self) -> None:
        """Nothing: the files are here."""

    async def aclose(self) -> None:
        """Nothing is held."""

    def _load(self) -> PolicyBundle:
        for _ in range(_LOOKS):
            mark = self._look()
            files = self._files()
            if self._look() == mark and self._files() == files:
                self._seen(mark, files)
                return self._bundle(files)
        raise invalid(
            "is being written all the time", str(self._path), "replace it whole, with a rename"
        )

    def _read_settled(self, mark: object) -> PolicyBundle | None:
        """What is there, if nobody wrote meanwhile and it is not what was seen before."""
        if self._look() != mark:
            return None
        try:
            files = self._files()
        except ConfigError:
            self._mark, self._digest = mark, b""
            raise
        if self._look() != mark:
            return None
        if not self._seen(mark, files):
            return None
        return self._bundle(files)

    def _seen(self, mark: object, files: dict[str, bytes] | bytes) -> bool:
        """Remember this; whether it is another content than the last."""
        before, self._digest, self._mark = self._digest, _digest(files), mark
        return self._digest != before

    def _look(self) -> object:
        """Something that changes when the files do."""
        return mark_of(self._path) if self._path.is_file() else directory_mark(self._path)

    def _files(self) -> dict[str, bytes] | bytes:
        if self._path.is_dir():
            return directory_files(self._path)
        return read_file(self._path)

    def _bundle(self, files: dict[str, bytes] | bytes) -> PolicyBundle:
        place = str(self._path)
        if isinstance(files, bytes):
            return read_archive(files, verification=self._verification, place=place)
        if self._verification is not None:
            raise ConfigError(
                Code.SIGNATURE_INVALID,
                "a directory is not signed",
                place=place,
                hint="`remit policy build` and `remit policy sign` make a signed bundle of it",
            )
        return assemble(files, place=place, directory=True)


def _digest(files: dict[str, bytes] | bytes) -> bytes:
    if isinstance(files, bytes):
        return hashlib.sha256(files).digest()
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
        whole.update(hashlib.sha256(content).digest())
    return whole.digest()
