"""Installation tokens of a GitHub App, narrowed to what the plan and the section both name.

The App's key signs a token of five minutes; with it an installation token is asked for, for exactly
these repositories and permissions. It lives an hour and is revoked with itself when the run ends.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held, Kit, Order
from remit.runners.credentials.http import Answer, Service, bounded, seconds_left

APP_TOKEN_S = 300
BACKDATED_S = 60
"""GitHub's own advice against clocks that differ."""

LONGEST_MS = 3_600_000 + 300_000
"""An hour, and how far the clocks may differ."""

LEVELS = ("read", "write", "admin")

ALWAYS = {"metadata": "read"}
"""What GitHub adds to every token that is for a repository."""

_VERSION = "2022-11-28"

_HINTS = {
    401: "it does not accept the App's key or id, or the clocks differ by more than a minute",
    403: "the installation is suspended, or its rate limit is used up",
    404: "the App has no such installation",
    422: "the installation does not have all of these repositories and permissions",
    429: "its rate limit is used up",
}

Asked = tuple[frozenset[str], Mapping[str, str]]


class GithubBroker:
    """One installation of one App; repositories and permissions are the most that a run may have.

    Promises that the token is for nothing that the plan and the section do not both name: an
    answer that is wider is revoked and not lent. An order that leaves no repository, or no
    permission, is refused: GitHub would take it for all.

    Raises:
        ConfigError: a key that is no RSA key, a section without repositories or permissions, or an
            address that is not plain.
    """

    gives = frozenset({"token"})
    narrows = True

    def __init__(self, kit: Kit) -> None:
        section = kit.section
        self._now = kit.now
        self._app_id = str(section["app_id"])
        self._key = _private_key(kit.secret("private_key"))
        self._repositories = frozenset(map(_repository, section["repositories"]))
        self._permissions: Mapping[str, str] = dict(section["permissions"])
        for place in ("repositories", "permissions"):
            if not section[place]:
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    "without them a token would be for all that the installation has",
                    place=place,
                    hint="name the most that a run may have",
                )
        installation = quote(str(section["installation_id"]), safe="")
        self._path = f"/app/installations/{installation}/access_tokens"
        self._service = Service(section["api"], name="GitHub", place="api")

    async def lend(self, order: Order) -> Advance:
        """Ask for a token for what the plan and the section both name."""
        seconds_left(order.ends_ms, self._now())
        repositories, permissions = self._meet(order.scopes)
        body = {"repositories": sorted(repositories), "permissions": dict(permissions)}
        async with bounded("GitHub"):
            answer = await self._ask("POST", self._path, self._app_token(), body)
            if not answer.ok:
                raise _fault("GitHub did not give a token", answer)
            found = answer.facts()
            token = answer.text(found, "token")
            try:
                _check(found, repositories, permissions)
                expires_ms = _expiry(found, self._now())
            except BrokerFault:
                await self._delete(token)
                raise
        return Advance(
            fields={"token": token},
            secrets=(token,),
            expires_ms=expires_ms,
            key=token,
            note=f"for {_words(repositories, permissions)}",
        )

    async def revoke(self, held: Held) -> bool:
        """Revoke the token with itself; one that GitHub no longer takes is dead."""
        if held.key is None:
            return False
        async with bounded("GitHub"):
            answer = await self._delete(held.key)
        if not answer.ok and answer.status != 401:
            raise _fault("GitHub did not revoke the token", answer)
        return True

    async def aclose(self) -> None:
        await self._service.aclose()

    def _meet(self, scopes: Iterable[str]) -> Asked:
        """What both name. An order without scopes does not narrow; one with them names both kinds."""
        named = tuple(scopes)
        if not named:
            return self._repositories, self._permissions
        repositories: set[str] = set()
        permissions: dict[str, str] = {}
        for scope in named:
            kind, _, what = scope.partition(":")
            if kind == "repository" and what:
                repositories.add(_repository(what))
                continue
            name, _, level = what.partition("=")
            if kind != "permission" or not name or level not in LEVELS:
                raise BrokerFault("a scope is neither repository:NAME nor permission:NAME=LEVEL")
            permissions[name] = max(level, permissions.get(name, level), key=LEVELS.index)
        met = {
            name: min(level, self._permissions[name], key=LEVELS.index)
            for name, level in permissions.items()
            if name in self._permissions
        }
        left = self._repositories & repositories
        if not left or not met:
            what = "repository" if not left else "permission"
            raise BrokerFault(f"the plan and the credential have no {what} in common")
        return left, met

    def _app_token(self) -> str:
        """The App's own token (RS256), which only asks for others."""
        now = self._now() // 1000
        claims = {"iss": self._app_id, "iat": now - BACKDATED_S, "exp": now + APP_TOKEN_S}
        return jwt.encode(claims, self._key, algorithm="RS256")

    async def _delete(self, token: str) -> Answer:
        return await self._ask("DELETE", "/installation/token", token, None, again=True)

    async def _ask(
        self,
        method: str,
        path: str,
        token: str,
        body: Mapping[str, Any] | None,
        *,
        again: bool = False,
    ) -> Answer:
        headers = {
            "accept": "application/vnd.github+json",
            "authorization": f"Bearer {token}",
            "x-github-api-version": _VERSION,
        }
        return await self._service.ask(method, path, headers=headers, json=body, again=again)


def _private_key(text: str) -> rsa.RSAPrivateKey:
    try:
        key = load_pem_private_key(text.encode("utf-8"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "this is no RSA private key in PEM",
            place="private_key",
            hint="point private_key at the file that GitHub made for the App",
        )
    return key


def _repository(name: str) -> str:
    """A repository's name, in lower case as GitHub compares them, without its owner."""
    return name.rpartition("/")[2].lower()


def _check(found: Mapping[str, Any], repositories: frozenset[str], most: Mapping[str, str]) -> None:
    """Refuse what is wider than was asked for.

    Raises:
        BrokerFault: it is, or it does not say.
    """
    given, named = found.get("permissions"), found.get("repositories")
    if not isinstance(given, dict) or not isinstance(named, list):
        raise BrokerFault("GitHub did not say what its token is for")
    wider = {
        name
        for name, level in given.items()
        if level not in LEVELS or LEVELS.index(level) > _rank(most.get(name, ALWAYS.get(name)))
    }
    names = {each.get("name") if isinstance(each, dict) else None for each in named}
    if wider or not all(isinstance(n, str) and n.lower() in repositories for n in names):
        raise BrokerFault("GitHub gave a token for more than was asked for; it was revoked")


def _rank(level: str | None) -> int:
    return -1 if level is None else LEVELS.index(level)


def _expiry(found: Mapping[str, Any], now_ms: int) -> int:
    text = found.get("expires_at")
    try:
        expires = datetime.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        expires = None
    if expires is None or expires.tzinfo is None:
        raise BrokerFault("GitHub answered without a usable expires_at")
    expires_ms = int(expires.timestamp() * 1000)
    if expires_ms > now_ms + LONGEST_MS:
        raise BrokerFault("GitHub gave a token that lives longer than an hour")
    return expires_ms


def _words(repositories: Iterable[str], permissions: Mapping[str, str]) -> str:
    allowed = ", ".join(f"{name}={level}" for name, level in sorted(permissions.items()))
    text = f"{allowed} on {', '.join(sorted(repositories))}"
    return text if len(text) <= 500 else f"{text[:499]}…"


def _fault(step: str, answer: Answer) -> BrokerFault:
    why = _HINTS.get(answer.status)
    return BrokerFault(f"{step}: status {answer.status}" + (f", {why}" if why else ""))
