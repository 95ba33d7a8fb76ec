"""Requests of a broker to one lending system: a fixed address, verified TLS, bounded in all ways.

No redirect is followed, no proxy or other setting of the environment is used, an answer has to be
short and uncompressed. A request is sent again only where that cannot do a thing twice.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from remit import __version__
from remit.addresses import authority
from remit.canonical import encode, parse
from remit.errors import Code, ConfigError, InputError
from remit.loopback import address_fault
from remit.runners.credentials.broker import BrokerFault, Issuer

if TYPE_CHECKING:
    import httpx2

TOTAL_S = 8.0
"""Longest time that lending or revoking takes, with every request and wait in it."""

TRY_S = 4.0
CONNECT_S = 2.0
TRIES = 3
LONGEST_WAIT_S = 2.0
MAX_ANSWER = 256 * 1024
LONGEST_LIFE_S = 100 * 366 * 86_400

_PLAIN = re.compile(r"[!-~]+").fullmatch

Look = Callable[[str, int], Awaitable[str]]
"""Gives the address that a connection to a name goes to.

Raises:
    BrokerFault: none that may be reached.
"""

_PORTS = {"https": 443, "http": 80}

BUSY = frozenset({429, 503})
"""Answers that say: not done, come again."""

BROKEN = frozenset({500, 502, 504})
"""Answers after which nobody knows whether it was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status, a body and `WWW-Authenticate`, none of them trusted."""

    name: str
    status: int
    content: bytes = field(repr=False)
    wait_s: float | None = None
    challenge: str = field(default="", repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def facts(self) -> Mapping[str, Any]:
        """The body as one JSON object.

        Raises:
            BrokerFault: it is none.
        """
        try:
            found = parse(self.content, max_depth=16, max_bytes=MAX_ANSWER)
        except InputError:
            found = None
        if not isinstance(found, dict):
            raise BrokerFault(f"{self.name} answered {self.status} with no JSON object")
        return found

    def text(self, facts: Mapping[str, Any], key: str) -> str:
        """A member that has to be a string of printable ASCII, as tokens and names are.

        Raises:
            BrokerFault: it is not.
        """
        found = facts.get(key)
        if not isinstance(found, str) or not 0 < len(found) <= 65_536 or not _PLAIN(found):
            raise BrokerFault(f"{self.name} answered without a usable {key}")
        return found

    def seconds(self, facts: Mapping[str, Any], key: str) -> int:
        """A member that has to be a whole number of seconds, none of them negative; of a life that
        no calendar has, `LONGEST_LIFE_S`.

        Raises:
            BrokerFault: it is not.
        """
        found = facts.get(key)
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise BrokerFault(f"{self.name} answered without a usable {key}")
        return min(found, LONGEST_LIFE_S)


def seconds_left(ends_ms: int, now_ms: int) -> int:
    """Whole seconds until then.

    Raises:
        BrokerFault: there is none left.
    """
    left = (ends_ms - now_ms) // 1000
    if left < 1:
        raise BrokerFault("the run's time is over")
    return left


def required_issuer(issuer: Issuer | None) -> Issuer:
    """The issuer, for brokers that log in with its tokens.

    Raises:
        ConfigError: there is none.
    """
    if issuer is None:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "this broker logs in with a token of Remit's own issuer, and there is none",
            hint="write the section runners.issuer",
        )
    return issuer


@asynccontextmanager
async def bounded(name: str, turns: asyncio.Semaphore | None = None) -> AsyncIterator[None]:
    """All that is asked inside is over within `TOTAL_S`, or fails.

    Args:
        turns: who asks at once; waiting for a turn counts as time too.

    Raises:
        BrokerFault: it was not.
    """
    try:
        async with asyncio.timeout(TOTAL_S), turns or nullcontext():
            yield
    except TimeoutError:
        raise BrokerFault(f"{name} did not answer within {TOTAL_S:.0f} s") from None


class Service:
    """One lending system at one address.

    Args:
        url: its address, with the path that every request's path is appended to.
        name: what messages call it.
        ca: PEM of the only authorities that its certificate may be of; None: the system's.
        place: the section's key that holds the address, for errors.
        look: decides where connections go; None: wherever the system finds the name. Needed where
            somebody else than the operator said what the address is.

    Raises:
        ConfigError: the address is not https (http only to loopback) or is not plain, or `ca` holds
            no certificates.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        ca: bytes | None = None,
        place: str,
        look: Look | None = None,
    ) -> None:
        self._url = _checked(url, place)
        self._look = look
        self._name = name
        self._ca = ca
        self._http: httpx2.AsyncClient | None = None
        if ca is not None:
            _tls(ca)

    @property
    def url(self) -> str:
        """Its address."""
        return self._url

    async def ask(
        self,
        method: str,
        path: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> Answer:
        """One request, with the answer whatever its status.

        Args:
            again: whether doing it twice is the same as doing it once. Without it, it is only
                sent again after a refused connection or an answer that says it was not done.

        Raises:
            BrokerFault: there is no answer that could be read.
        """
        sent = {**(headers or {})}
        content = None
        if json is not None:
            content = encode(dict(json))
            sent["content-type"] = "application/json"
        elif form is not None:
            content = urlencode(form).encode("ascii")
            sent["content-type"] = "application/x-www-form-urlencoded"
        for tries_left in reversed(range(TRIES)):
            wait_s = 0.1 * 2.0 ** (TRIES - 1 - tries_left)
            try:
                answer = await self._once(method, self._url + path, sent, content)
            except _Broken as broken:
                if not tries_left or not (broken.unsent or again):
                    raise BrokerFault(f"{self._name} {broken.why}") from None
            else:
                if not tries_left or not _worth(answer, again):
                    return answer
                wait_s = max(wait_s, answer.wait_s or 0.0)
            await asyncio.sleep(random.uniform(wait_s / 2, wait_s))  # noqa: S311 - spreads requests
        raise AssertionError("the last try answers or raises")

    async def aclose(self) -> None:
        """Let its connections go."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> Answer:
        import httpx2

        self._http = self._http or _client(self._ca)
        self._http.cookies.clear()  # nothing of one loan goes along with the next
        try:
            async with asyncio.timeout(TRY_S), self._sent(method, url, headers, content) as answer:
                return Answer(
                    name=self._name,
                    status=answer.status_code,
                    content=await _body(answer),
                    wait_s=_retry_after(answer),
                    challenge=answer.headers.get("www-authenticate", ""),
                )
        except TimeoutError:
            raise _Broken("does not answer in time") from None
        except httpx2.HTTPError as error:
            raise _broken(error) from None

    @asynccontextmanager
    async def _sent(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> AsyncIterator[httpx2.Response]:
        """The answer's head; the connection goes to the address that was looked at."""
        assert self._http is not None
        sent, extensions = dict(headers), {}
        if self._look is not None:
            parts = urlsplit(url)
            host, default = parts.hostname or "", _PORTS[parts.scheme]
            port = parts.port or default
            address = await self._look(host, port)
            sent["host"] = authority(host, port, default)
            url = parts._replace(netloc=authority(address, port)).geturl()
            if address != host:
                extensions["sni_hostname"] = host
        request = self._http.build_request(
            method, url, headers=sent, content=content, extensions=extensions
        )
        answer = await self._http.send(request, stream=True)
        try:
            yield answer
        finally:
            await answer.aclose()


class _Broken(Exception):
    """No answer came; `unsent` says that the request cannot have been read."""

    def __init__(self, why: str, *, unsent: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.unsent = unsent


def _broken(error: httpx2.HTTPError) -> _Broken:
    import httpx2

    if isinstance(error.__context__, ssl.SSLError) or "CERTIFICATE" in str(error):
        # Asking again does not make it trusted.
        return _Broken("is not trusted: its certificate is not accepted, or TLS failed")
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return _Broken("takes no connections", unsent=True)
    if isinstance(error, httpx2.TimeoutException):
        return _Broken("does not answer in time")
    return _Broken("broke off")


async def _body(answer: httpx2.Response) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise _Broken("compresses its answer, which was not asked for")
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        if len(content) > MAX_ANSWER:
            raise _Broken(f"answers with more than {MAX_ANSWER} bytes")
    return bytes(content)


def _retry_after(answer: httpx2.Response) -> float | None:
    """Seconds (RFC 9110 §10.2.3); a date is taken for too long."""
    value = answer.headers.get("retry-after")
    if value is None:
        return None
    return float(value) if value.isdecimal() and len(value) < 6 else float("inf")


def _worth(answer: Answer, again: bool) -> bool:
    if answer.wait_s is not None and answer.wait_s > LONGEST_WAIT_S:
        return False
    return answer.status in BUSY or (again and answer.status in BROKEN)


def _client(ca: bytes | None) -> httpx2.AsyncClient:
    import httpx2

    from remit.runners.lines import read_in_time

    read_in_time()  # so that no answer keeps the keeper from the others
    return httpx2.AsyncClient(
        headers={"accept-encoding": "identity", "user-agent": f"remit/{__version__}"},
        verify=_tls(ca),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(TRY_S, connect=CONNECT_S),
        # Kept only from one request of a loan to the next: an older one may be dead already.
        limits=httpx2.Limits(max_connections=64, keepalive_expiry=2.0),
    )


@lru_cache(maxsize=64)
def _tls(ca: bytes | None) -> ssl.SSLContext:
    """One for each set of authorities: it takes long to make."""
    try:
        context = ssl.create_default_context(cadata=None if ca is None else ca.decode("ascii"))
    except (OSError, ValueError):
        raise ConfigError(
            Code.CONFIG_INVALID, "the file holds no certificates in PEM", place="ca_file"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _checked(url: str, place: str) -> str:
    """The address without a slash at its end."""
    if (fault := address_fault(url)) is not None:
        raise ConfigError(
            Code.CONFIG_INVALID, f"the address {fault}", place=place, hint="write https://"
        )
    return url.rstrip("/")
