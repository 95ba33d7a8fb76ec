"""Finding an authorization server's endpoints (RFC 8414, OpenID Connect Discovery 1.0), and the
server of a resource (RFC 9728): only for what the operator named, and nothing of it believed twice.

A document has to be about exactly what was asked for: its `issuer` is the issuer, its `resource` the
resource, letter by letter. No redirect is followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.guarded import REFUSED, Guard
from remit.runners.credentials.http import Answer, Service

SERVER = "the authorization server"
RESOURCE = "the resource"
MAX_URL = 2_048

_METADATA = re.compile(r'resource_metadata\s*=\s*(?:"([^"\\]*)"|([!-+\--~]+))', re.IGNORECASE)
_ASKED = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What an authorization server says of itself. `methods` are the ways in which clients
    authenticate; None where it does not say."""

    issuer: str
    token_url: str
    revocation_url: str | None
    methods: frozenset[str] | None


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
            BrokerFault: it names none, or several.
        """
        for url in await self._metadata_urls(resource):
            answer = await self._get(url, RESOURCE)
            if not answer.ok:
                continue
            found = answer.facts()
            if found.get("resource") != resource:
                raise BrokerFault("the metadata of the resource is about another resource")
            servers = found.get("authorization_servers")
            if not isinstance(servers, list) or len(servers) != 1:
                raise BrokerFault("the resource does not name exactly one authorization server")
            return self._address(servers[0])
        raise BrokerFault("the resource has no metadata that names its authorization server")

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

    async def _metadata_urls(self, resource: str) -> list[str]:
        """The address in the resource's challenge, then the well-known ones (§3.1, §5.1)."""
        service = self.service(resource, RESOURCE, "resource")
        try:
            answer = await service.ask("POST", json=_ASKED)
        except BrokerFault:
            answer = None
        finally:
            await service.aclose()
        parts = urlsplit(resource)
        origin = f"{parts.scheme}://{parts.netloc}"
        well_known = f"{origin}/.well-known/oauth-protected-resource"
        urls = [f"{well_known}{parts.path.rstrip('/')}", well_known]
        found = _METADATA.search(answer.challenge) if answer and answer.status == 401 else None
        if found is not None:
            url = self._address(found[1] if found[1] is not None else found[2])
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
        revocation = found.get("revocation_endpoint")
        return Endpoints(
            issuer=issuer,
            token_url=self._address(found.get("token_endpoint")),
            revocation_url=None if revocation is None else self._address(revocation),
            methods=None if methods is None else frozenset(methods),
        )

    def _address(self, found: object) -> str:
        """An address that a document names, if it is one that may be asked."""
        if not isinstance(found, str) or not 0 < len(found) <= MAX_URL:
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


def _issuer_urls(issuer: str) -> Iterator[str]:
    """Where its metadata can stand: RFC 8414 §3.1, then OpenID Connect Discovery §4 in both forms."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield f"{origin}/.well-known/oauth-authorization-server{path}"
    yield f"{origin}/.well-known/openid-configuration{path}"
    if path:
        yield f"{origin}{path}/.well-known/openid-configuration"
