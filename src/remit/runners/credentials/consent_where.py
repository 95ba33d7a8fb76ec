"""Where people consent: the authorization server of a section, as the operator wrote it or as the
resource says, and what it has to be for anybody to be sent there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import BrokerFault, Kit
from remit.runners.credentials.discovery import SERVER, Discovery, Endpoints, Protected
from remit.runners.credentials.guarded import Guard, Resolve
from remit.runners.credentials.http import Service

FOUND_MS = 60_000
"""How long what was found is believed; new people are not asked often."""

_SHOWN = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """One authorization server, and the resource that tokens are for, under the name that it has for
    itself. `known_issuer`: what answers say of their issuer can be held against `endpoints.issuer`."""

    endpoints: Endpoints
    resource: str
    scopes: tuple[str, ...] = ()
    challenged: tuple[str, ...] = ()
    known_issuer: bool = True


class Whereabouts:
    """Finds the server of one section.

    Raises:
        ConfigError: an address is not plain, it is said in two ways where the server is, or a client
            with a secret would have its server found.
    """

    def __init__(self, kit: Kit, *, resolve: Resolve | None = None) -> None:
        section = kit.section
        self._resource = str(section["resource"])
        self._issuer: str | None = section.get("issuer")
        self._page: str | None = section.get("authorization_url")
        self._now = kit.now
        self._found: tuple[Where, int] | None = None
        _check(section)
        ca = kit.read_file("ca_file")
        names = ("resource", "issuer", "authorization_url", "token_url", "revocation_url")
        urls = {name: str(section[name]) for name in names if section.get(name) is not None}
        services = {
            name: Service(url, name=SERVER, ca=ca, place=name) for name, url in urls.items()
        }
        hosts = frozenset(urlsplit(each).hostname or "" for each in urls.values())
        self.discovery = Discovery(Guard(hosts, resolve=resolve), ca=ca)
        self.written: Mapping[str, Service] = {
            urls[name]: services[name] for name in ("token_url", "revocation_url") if name in urls
        }
        self._token_url, self._revocation_url = urls.get("token_url"), urls.get("revocation_url")

    def forget(self) -> None:
        """Look anew next time: a server did not accept what was got there."""
        self._found = None

    async def find(self, *, scopes: bool) -> Where:
        """The server, which has to have a page for people and to check PKCE by S256.

        Args:
            scopes: whether those that the resource names are wanted too, if it has any.

        Raises:
            BrokerFault: it is not found, or is not such a server.
        """
        if self._found is not None and self._found[1] > self._now() and not scopes:
            return self._found[0]
        where = await self._find(scopes)
        if where.endpoints.authorization_url is None:
            raise BrokerFault(f"{SERVER} has no page at which people consent")
        if not where.endpoints.s256:
            raise BrokerFault(
                f"{SERVER} does not say that it checks PKCE by S256, and a code could be stolen"
            )
        if self._page is None and not self._one_server(where.endpoints):
            raise BrokerFault(
                f"{SERVER} sends people to another host's page, and does not say that answers name "
                "their server: a code of that one could be taken"
            )
        self._found = (where, self._now() + FOUND_MS)
        return where

    def _one_server(self, found: Endpoints) -> bool:
        """Whether a code that is got at the found page cannot be another server's (RFC 9700 §4.4)."""
        hosts = {_host(found.issuer), _host(found.token_url), _host(self._resource)}
        return found.answers_iss or _host(str(found.authorization_url)) in hosts

    async def _find(self, scopes: bool) -> Where:
        if self._issuer is None and self._page is None:
            told = await self.discovery.protected(self._resource)
            return _where(await self.discovery.endpoints(told.issuer), told)
        told = Protected(resource=self._resource, issuer=self._issuer or "")
        if scopes:
            with contextlib.suppress(BrokerFault):  # the operator said the rest
                said = await self.discovery.protected(self._resource)
                told = replace(told, scopes=said.scopes, challenged=said.challenged)
        if self._page is None:
            return _where(await self.discovery.endpoints(told.issuer), told)
        assert self._token_url is not None
        endpoints = Endpoints(
            issuer=told.issuer,
            token_url=self._token_url,
            revocation_url=self._revocation_url,
            methods=None,
            authorization_url=self._page,
            s256=True,  # the operator's word, as all of it is
        )
        return _where(endpoints, told, known_issuer=self._issuer is not None)


def _where(endpoints: Endpoints, told: Protected, *, known_issuer: bool = True) -> Where:
    return Where(
        endpoints=endpoints,
        resource=told.resource,
        scopes=told.scopes,
        challenged=told.challenged,
        known_issuer=known_issuer,
    )


def _check(section: Mapping[str, Any]) -> None:
    """Whether it is said in one way where the server is, and a secret is shown to no other."""
    page, token = section.get("authorization_url"), section.get("token_url")
    if (page is None) != (token is None):
        raise _wrong("authorization_url and token_url go together", "token_url")
    if section.get("revocation_url") is not None and token is None:
        raise _wrong("is found in the server's metadata, where token_url is", "revocation_url")
    written = page is not None or section.get("issuer") is not None
    if not written and section.get("client_auth") in _SHOWN:
        raise _wrong("would show the client's secret to whomever the resource names", "issuer")
    if page is not None and section.get("client_id") is None:
        raise _wrong("is needed where the endpoints are written", "client_id")


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _wrong(message: str, place: str) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID, message, place=place, hint="write the authorization server's issuer"
    )
