"""Finding an authorization server's endpoints (RFC 8414, OpenID Connect Discovery 1.0), and the
server of a resource (RFC 9728): only for what the operator named, and nothing of it believed twice.

A document has to be about what was asked for: its `issuer` is the issuer letter by letter, its
`resource` the resource, or one that it is below. No redirect is followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from remit.addresses import covers
from remit.challenge import Challenge, bearer_challenge, scopes_in
from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.guarded import REFUSED, Guard
from remit.runners.credentials.http import Answer, Service

SERVER = "the authorization server"
RESOURCE = "the resource"
MAX_URL = 2_048

_PLAIN = re.compile(r"[!-~]+")

ASKED = frozenset(
    {
        "response_type", "client_id", "redirect_uri", "state", "code_challenge",
        "code_challenge_method", "resource", "scope", "response_mode", "request", "request_uri",
        "authorization_details",
    }
)  # fmt: skip
"""What only Remit asks a page for: who finds one of these twice may believe the first, and `request`
stands for all of them (RFC 9101)."""

_ASKED = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What an authorization server says of itself. `methods` are the ways in which clients
    authenticate; None where it does not say. `s256`: it checks PKCE by S256 (RFC 7636). `answers_iss`:
    its answers name it (RFC 9207). `documents`: a client can be the address of its metadata."""

    issuer: str
    token_url: str
    revocation_url: str | None
    methods: frozenset[str] | None
    authorization_url: str | None = None
    registration_url: str | None = None
    scopes: frozenset[str] = frozenset()
    s256: bool = False
    answers_iss: bool = False
    documents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """What a resource says of itself (RFC 9728): its own name, its one authorization server, and
    scopes: those that its metadata lists, and those that its challenge asked for."""

    resource: str
    issuer: str
    scopes: tuple[str, ...] = ()
    challenged: tuple[str, ...] = ()


class Discovery:
    """Asks for metadata.

    Args:
        guard: where requests may go.
        ca: PEM of the only authorities that certificates may be of; None: the system's.
    """

    def __init__(self, guard: Guard, *, ca: bytes | None = None) -> None:
        self._guard = guard
        self._ca = ca

    async def issuer_of(self, resource: str) -> str:
        """The one authorization server of a resource (RFC 9728).

        Raises:
            BrokerFault: it names none, or several, or the metadata is about another resource.
        """
        found = await self.protected(resource)
        if found.resource != resource:
            raise BrokerFault("the metadata of the resource is about another resource")
        return found.issuer

    async def protected(self, resource: str) -> Protected:
        """What the metadata of a resource says, which is about it or about what it is below.

        Raises:
            BrokerFault: it has none, is about another one, or names none or several servers.
        """
        challenge = await self._challenge(resource)
        for url in self._metadata_urls(resource, challenge):
            answer = await self._get(url, RESOURCE)
            if answer.ok:
                return self._protected(resource, answer.facts(), challenge)
        raise BrokerFault("the resource has no metadata that names its authorization server")

    def _protected(
        self, asked: str, found: Mapping[str, Any], challenge: Challenge | None
    ) -> Protected:
        resource = found.get("resource")
        if not isinstance(resource, str) or not _about(resource, asked):
            raise BrokerFault("the metadata of the resource is about another resource")
        servers = found.get("authorization_servers")
        if not isinstance(servers, list) or len(servers) != 1:
            raise BrokerFault("the resource does not name exactly one authorization server")
        scopes = found.get("scopes_supported")
        return Protected(
            resource=resource,
            issuer=self._address(servers[0]),
            scopes=scopes_in(scopes) if isinstance(scopes, list) else (),
            challenged=() if challenge is None else challenge.scopes,
        )

    async def endpoints(self, issuer: str) -> Endpoints:
        """The endpoints of an issuer.

        Raises:
            BrokerFault: it has no metadata, or none that is its own.
        """
        for url in _issuer_urls(issuer):
            answer = await self._get(url, SERVER)
            if answer.ok:
                return self._endpoints(issuer, answer.facts())
        raise BrokerFault("the authorization server has no metadata")

    def service(self, url: str, name: str, place: str) -> Service:
        """What asks an address that was found."""
        if not self._guard.allows(url, urlsplit(url).hostname or ""):
            raise BrokerFault(REFUSED)
        return Service(url, name=name, ca=self._ca, place=place, look=self._guard.look)

    async def _challenge(self, resource: str) -> Challenge | None:
        """How the resource answers who shows it nothing."""
        service = self.service(resource, RESOURCE, "resource")
        try:
            answer = await service.ask("POST", json=_ASKED)
        except BrokerFault:
            return None
        finally:
            await service.aclose()
        return bearer_challenge(answer.challenge) if answer.status == 401 else None

    def _metadata_urls(self, resource: str, challenge: Challenge | None) -> list[str]:
        """The address in the resource's challenge, then the well-known ones (§3.1, §5.1)."""
        parts = urlsplit(resource)
        origin = f"{parts.scheme}://{parts.netloc}"
        well_known = f"{origin}/.well-known/oauth-protected-resource"
        urls = [f"{well_known}{parts.path.rstrip('/')}", well_known]
        if challenge is not None and challenge.metadata is not None:
            url = self._address(challenge.metadata)
            told = urlsplit(url)
            if f"{told.scheme}://{told.netloc}" != origin:
                raise BrokerFault("the resource's challenge leads to another server's metadata")
            urls.insert(0, url)
        return list(dict.fromkeys(urls))

    def _endpoints(self, issuer: str, found: Mapping[str, Any]) -> Endpoints:
        if found.get("issuer") != issuer:
            raise BrokerFault("the authorization server's metadata is about another issuer")
        methods = found.get("token_endpoint_auth_methods_supported")
        if methods is not None and not (
            isinstance(methods, list) and all(isinstance(each, str) for each in methods)
        ):
            raise BrokerFault("the authorization server's metadata cannot be used")
        challenges = found.get("code_challenge_methods_supported")
        scopes = found.get("scopes_supported")
        return Endpoints(
            issuer=issuer,
            token_url=self._address(found.get("token_endpoint")),
            revocation_url=self._perhaps(found.get("revocation_endpoint")),
            methods=None if methods is None else frozenset(methods),
            authorization_url=self._page(found.get("authorization_endpoint")),
            registration_url=self._perhaps(found.get("registration_endpoint")),
            scopes=frozenset(each for each in scopes if isinstance(each, str))
            if isinstance(scopes, list)
            else frozenset(),
            s256=isinstance(challenges, list) and "S256" in challenges,
            answers_iss=found.get("authorization_response_iss_parameter_supported") is True,
            documents=found.get("client_id_metadata_document_supported") is True,
        )

    def _perhaps(self, found: object) -> str | None:
        return None if found is None else self._address(found)

    def _page(self, found: object) -> str | None:
        """A page for people, which may have a query of its own (RFC 6749 §3.1)."""
        if not isinstance(found, str):
            return None
        self._address(found.partition("?")[0])
        if len(found) > MAX_URL or not _PLAIN.fullmatch(found) or "#" in found:
            raise BrokerFault("an address that was found is none")
        own = {name for name, _ in parse_qsl(found.partition("?")[2], keep_blank_values=True)}
        if own & ASKED:
            raise BrokerFault("the page that was found asks for something of its own")
        return found

    def _address(self, found: object) -> str:
        """An address that a document names, if it is one that may be asked."""
        if not isinstance(found, str) or len(found) > MAX_URL or not _PLAIN.fullmatch(found):
            raise BrokerFault("an address that was found is none")
        try:
            allowed = self._guard.allows(found, urlsplit(found).hostname or "")
        except ValueError:
            allowed = False
        if not allowed:
            raise BrokerFault(REFUSED)
        return found

    async def _get(self, url: str, name: str) -> Answer:
        service = self.service(url, name, "issuer")
        try:
            return await service.ask("GET", headers={"accept": "application/json"}, again=True)
        finally:
            await service.aclose()


def _about(resource: str, asked: str) -> bool:
    """Whether metadata of this resource holds for the one that was asked: that one, or above it."""
    try:
        return resource == asked or covers(resource, asked)
    except ValueError:
        return False


def _issuer_urls(issuer: str) -> Iterator[str]:
    """Where its metadata can stand: RFC 8414 §3.1, then OpenID Connect Discovery §4 in both forms."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield f"{origin}/.well-known/oauth-authorization-server{path}"
    yield f"{origin}/.well-known/openid-configuration{path}"
    if path:
        yield f"{origin}{path}/.well-known/openid-configuration"
