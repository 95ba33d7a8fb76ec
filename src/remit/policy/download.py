"""A bundle from an http(s) URL, asked for as OPA asks: with ETag and long polling.

No proxy, no redirect, no compression on top, nothing of the environment; https but on loopback.
The answer is bounded in size and time. The last bundle that was in force is kept on disk, so that
a start without the server is possible; its signature is verified again then.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from remit import __version__
from remit.errors import Code, ConfigError, PolicyFault
from remit.policy import kept
from remit.policy.archive import MAX_ARCHIVE_BYTES, check_size, read_archive
from remit.policy.bundle import PolicyBundle
from remit.policy.source import Origin, check_url
from remit.telemetry import logger

BUNDLE_TYPE = "application/vnd.openpolicyagent.bundles"
"""The content type of a server that holds a request until there is something new."""

WAIT_S = 60
"""How long such a server is asked to hold one."""

HELD_S = 1.0
"""An answer without news that comes sooner than this was not held."""

ANSWER_S = 60.0
CONNECT_S = 5.0
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0

_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,256}"|[\x21\x23-\x7e]{1,256}')
_TOKEN = re.compile(r"[!-~]{1,8192}")

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Got:
    """A bundle as it came; `longpoll`: the server can hold a request."""

    content: bytes
    etag: str
    longpoll: bool


class UrlSource:
    """Asks one URL. After a failure it waits longer each time, with jitter, up to a minute."""

    def __init__(self, origin: Origin) -> None:
        check_url(origin.place)
        self._origin = origin
        self._http = _client(origin)
        self._etag = ""
        self._digest = b""
        self._longpoll = False
        self._failures = 0
        self._last: bytes | None = None
        self._given = False
        self._kept = kept.Place.of(origin.keep_in, origin.layer, origin.place)

    async def load(self) -> PolicyBundle:
        try:
            got = await self._ask({})
        except PolicyFault as fault:
            if self._given:
                raise
            bundle = await self._from_disk(fault)
            self._given = True
            return bundle
        assert got is not None, "nothing was said that could have stayed the same"
        self._failures = 0
        return await self._taken(got)

    async def changed(self) -> PolicyBundle | None:
        if not self._origin.every_s:
            await asyncio.Event().wait()
        if self._failures:
            await asyncio.sleep(_backoff(self._failures))
        elif not self._longpoll:
            await asyncio.sleep(self._origin.every_s)
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        try:
            got = await self._ask({"if-none-match": self._etag} if self._etag else {})
        except (PolicyFault, ConfigError):
            self._failures += 1
            self._longpoll = False
            raise
        self._failures = 0
        if got is None:
            # A server that does not hold the request is asked like one that cannot.
            self._longpoll = self._longpoll and loop.time() - asked_s >= HELD_S
            return None
        if hashlib.sha256(got.content).digest() == self._digest:
            self._longpoll = False
            return None
        return await self._taken(got)

    async def keep(self) -> None:
        last, self._last = self._last, None
        if last is not None and self._kept is not None:
            await asyncio.to_thread(self._kept.write, last)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _taken(self, got: _Got) -> PolicyBundle:
        """The policy that came; whether it is one or not, it is not new from here on."""
        self._etag, self._longpoll = got.etag, got.longpoll
        self._digest = hashlib.sha256(got.content).digest()
        self._last = None
        bundle = await asyncio.to_thread(self._read, got.content, "the bundle")
        self._last = got.content
        self._given = True
        return bundle

    def _read(self, content: bytes, place: str) -> PolicyBundle:
        return read_archive(content, verification=self._origin.verification, place=place)

    async def _from_disk(self, fault: PolicyFault) -> PolicyBundle:
        """What was in force before, where the server cannot be asked.

        Raises:
            PolicyFault: the fault, if nothing is kept; ConfigError: what is kept is not good.
        """
        try:
            content = None if self._kept is None else await asyncio.to_thread(self._kept.read)
            if content is None:
                raise fault
            bundle = await asyncio.to_thread(self._read, content, "the kept bundle")
        except ConfigError as error:
            raise ConfigError(
                error.code,
                f"{fault.message}, and the bundle kept on disk is not good: {error.message}",
                place=error.place,
            ) from None
        self._failures = 1
        log.warning(
            "policy_from_disk",
            layer=self._origin.layer,
            revision=bundle.revision,
            label=bundle.label,
            why=fault.message,
        )
        return bundle

    async def _ask(self, headers: Mapping[str, str]) -> _Got | None:
        """One request; None if what is there is what was named.

        Raises:
            PolicyFault: `policy_unavailable`, or `policy_not_ready` if it answers wrongly.
            ConfigError: `policy_invalid` if the bundle is too large.
        """
        prefer = {"prefer": f"modes=snapshot;wait={WAIT_S}"}
        try:
            async with (
                asyncio.timeout(WAIT_S + ANSWER_S),
                self._http.stream(
                    "GET", self._origin.place, headers={**headers, **prefer}
                ) as answer,
            ):
                if answer.status_code == 304 and headers:
                    return None
                _check_answer(answer)
                return await _read(answer)
        except TimeoutError:
            raise _unavailable("the bundle server does not answer in time") from None
        except httpx2.HTTPError as error:
            raise _unavailable(f"the bundle server cannot be asked: {_why(error)}") from None


async def _read(answer: httpx2.Response) -> _Got:
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        check_size(len(content))
    etag = answer.headers.get("etag", "")
    return _Got(
        content=bytes(content),
        etag=etag if _ETAG.fullmatch(etag) else "",
        longpoll=answer.headers.get("content-type", "") == BUNDLE_TYPE,
    )


def _check_answer(answer: httpx2.Response) -> None:
    status = answer.status_code
    if status in (401, 403):
        raise _not_ready("the bundle server refuses the token", "see `token` of this layer")
    if 300 <= status < 400:
        raise _not_ready("the bundle server sends elsewhere", "give the URL that it names itself")
    if status != 200:
        raise _unavailable(f"the bundle server answers {status}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise _not_ready("the bundle server compresses the bundle", "serve the file as it is")
    declared = answer.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > MAX_ARCHIVE_BYTES:
        check_size(int(declared[:20]))


def _client(origin: Origin) -> httpx2.AsyncClient:
    headers = {"accept-encoding": "identity", "user-agent": f"remit/{__version__}"}
    if origin.token is not None:
        if not _TOKEN.fullmatch(origin.token):
            raise _invalid("the token has characters that a header may not", "see `token`")
        headers["authorization"] = f"Bearer {origin.token}"
    return httpx2.AsyncClient(
        headers=headers,
        verify=_tls(origin.ca_file),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S, read=WAIT_S + ANSWER_S),
        limits=httpx2.Limits(max_connections=1),
    )


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError):
        raise _invalid("ca_file cannot be read as certificates in PEM", None) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _backoff(failures: int) -> float:
    longest = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - it only spreads requests


def _why(error: httpx2.HTTPError) -> str:
    if isinstance(error.__context__, ssl.SSLError) or "CERTIFICATE" in str(error):
        return "its certificate is not trusted, or TLS failed"
    if isinstance(error, httpx2.TimeoutException):
        return "it does not answer in time"
    if isinstance(error, httpx2.ConnectError):
        return "it takes no connections"
    return "it broke off"


def _unavailable(message: str) -> PolicyFault:
    return PolicyFault(Code.POLICY_UNAVAILABLE, message, hint="see the URL, and the server's log")


def _not_ready(message: str, hint: str) -> PolicyFault:
    return PolicyFault(Code.POLICY_NOT_READY, message, hint=hint)


def _invalid(message: str, hint: str | None) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, hint=hint)
