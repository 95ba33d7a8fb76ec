"""Secrets of Vault and OpenBao: a login for each run, and an end to all that came of it.

The run's token of Remit's issuer logs in at a JWT role, whose bound claims say what it is good for.
What the login gives is a token of few uses. With a `path` it reads one secret, and is kept, sealed,
to revoke the lease and then itself; without one it is itself what is lent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held, Kit, Order
from remit.runners.credentials.http import (
    Answer,
    Service,
    bounded,
    required_issuer,
    seconds_left,
)

LOGIN_TTL_S = 60
"""Life of the token that logs in."""

GIVE_UP_S = 1.5
"""Longest that is spent on revoking what could not be lent."""

REVOKE_LEASE = "sys/leases/revoke"

MIN_SECRET = 4
"""Shorter values are in every output: blanking them would hide nothing and spoil it."""

_SAID = {
    "invalid audience (aud) claim": "the role's bound_audiences lack the audience of this section",
    "invalid expiration time (exp) claim": "the token had expired: compare the two clocks",
    "invalid not before (nbf) claim": "the token is not valid yet: compare the two clocks",
    "invalid issuer (iss) claim": "bound_issuer is not Remit's issuer",
    "does not match any associated bound claim": "the role's bound_claims are not of this run",
    "error validating claims": "the role's bound_claims are not of this run",
    "could not be found": "there is no such role",
    "failed to verify": "the token's signature is not of the keys that it knows",
    "error verifying token signature": "the token's signature is not of the keys that it knows",
    "one use left": "the token had one use left, and a lease needs more: raise token_num_uses",
    "no handler for route": "nothing is mounted there",
    "unsupported path": "nothing is mounted there",
    "is sealed": "it is sealed",
}
"""What its errors come down to. Its own words may hold anything, and are not passed on."""

_HINTS = {403: "its policies do not allow this", 404: "there is nothing there"}
_LOGIN_HINTS = {403: "no JWT method is at this mount of this namespace"}

_PUBLIC = frozenset({"username", "user", "host", "hostname", "port", "database", "dbname", "name"})
"""Fields that are names, so that output that tells of them stays readable."""


class VaultBroker:
    """One path of one Vault or OpenBao server, or a token of it where there is no path.

    Promises that what a login led to is revoked in the same call where it cannot be lent, and that
    nothing is lent which could not be revoked, or which the server would let live longer than the
    run. A secret without a lease (of a key-value engine) is long-lived, and its loan says so.

    Raises:
        ConfigError: an address, path or name is not plain; there is no issuer.
    """

    narrows = False

    def __init__(self, kit: Kit) -> None:
        section = kit.section
        self._issuer = required_issuer(kit.issuer)
        self._now = kit.now
        self._role = str(section["role"])
        self._audience = str(section["audience"])
        self._login_path = f"/v1/auth/{_path(section['mount'], 'mount')}/login"
        path = section.get("path")
        self._path = None if path is None else _path(path, "path")
        namespace = section.get("namespace")
        self._headers = {} if namespace is None else {"x-vault-namespace": str(namespace)}
        self._service = Service(
            section["address"],
            name="the Vault server",
            ca=kit.read_file("ca_file"),
            place="address",
        )
        self.gives = frozenset({"token"}) if self._path is None else None

    async def lend(self, order: Order) -> Advance:
        """Log in, make sure that it ends with the run, and read the path if there is one."""
        async with bounded("the Vault server"):
            left_s = seconds_left(order.ends_ms, self._now())
            login = await self._login(order, left_s)
            try:
                expires_ms = await self._shortened(login, left_s)
                if self._path is None:
                    return Advance(
                        fields={"token": login.token},
                        secrets=(login.token,),
                        expires_ms=expires_ms,
                        lease=login.accessor,
                        key=_key(login.token, None),
                    )
                return await self._read(self._path, login, expires_ms)
            except BaseException:
                await self._give_up(login.token)
                raise

    async def revoke(self, held: Held) -> bool:
        """Revoke the lease, which the server confirms when it is done, then the token."""
        if held.key is None:
            return False
        found = json.loads(held.key)
        token, lease = found["token"], found["lease"]
        async with bounded("the Vault server"):
            if lease is not None:
                answer = await self._ask(
                    "POST", REVOKE_LEASE, token, {"lease_id": lease, "sync": True}, again=True
                )
                # A token that ended took its leases along; whether it did is asked below.
                if not answer.ok and answer.status != 403:
                    raise _fault("the lease could not be revoked", answer)
            answer = await self._ask("POST", "auth/token/revoke-self", token, {}, again=True)
        # The token was allowed to do this when it was lent: 403 says that it is none any more.
        if not answer.ok and answer.status != 403:
            raise _fault("the token could not be revoked", answer)
        return True

    async def aclose(self) -> None:
        await self._service.aclose()

    async def _login(self, order: Order, left_s: int) -> _Login:
        jwt = self._issuer.mint(order.audience or self._audience, order, min(LOGIN_TTL_S, left_s))
        answer = await self._service.ask(
            "POST", self._login_path, headers=self._headers, json={"role": self._role, "jwt": jwt}
        )
        if not answer.ok:
            raise _fault("the login was refused", answer, _LOGIN_HINTS)
        auth = answer.facts().get("auth")
        if not isinstance(auth, dict):
            raise BrokerFault("the Vault server answered the login without a token")
        if auth.get("token_type") == "batch":
            raise BrokerFault(
                "the role gives batch tokens, which cannot be revoked: let it give service tokens"
            )
        return _Login(answer, auth)

    async def _shortened(self, login: _Login, left_s: int) -> int:
        """When the token ends, after it was made to end with the run where it would not have."""
        lives_s = login.lives_s
        if lives_s == 0 or lives_s > left_s:
            if login.uses == 1:
                raise BrokerFault(
                    f"tokens of the role live {lives_s} s, the run {left_s} s, and a token of one "
                    "use cannot be shortened: lower the role's token_ttl"
                )
            answer = await self._ask(
                "POST", "auth/token/renew-self", login.token, {"increment": f"{left_s}s"}
            )
            if not answer.ok:
                raise _fault("the token could not be made to end with the run", answer)
            auth = answer.facts().get("auth")
            lives_s = answer.seconds(auth if isinstance(auth, dict) else {}, "lease_duration")
            if not 0 < lives_s <= left_s:
                raise BrokerFault(
                    "the token could not be made to end with the run: lower the role's token_ttl "
                    "and leave token_period unset"
                )
        return self._now() + lives_s * 1000

    async def _read(self, path: str, login: _Login, expires_ms: int) -> Advance:
        answer = await self._ask("GET", path, login.token)
        if not answer.ok:
            raise _fault("the secret could not be read", answer)
        found = answer.facts()
        fields = _fields(found.get("data"))
        lease = found.get("lease_id")
        if not lease:
            await self._give_up(login.token)
            return Advance(
                fields=fields,
                secrets=_secrets(fields),
                expires_ms=None,
                note="the secret has no lease: the server can neither end nor revoke it",
            )
        lease = answer.text(found, "lease_id")
        lives_s = answer.seconds(found, "lease_duration")
        await self._check_revocable(login.token)
        return Advance(
            fields=fields,
            secrets=(*_secrets(fields), login.token),
            expires_ms=min(expires_ms, self._now() + lives_s * 1000),
            lease=lease,
            key=_key(login.token, lease),
            note=f"token accessor {login.accessor}",
        )

    async def _check_revocable(self, token: str) -> None:
        """Refuse what could not be taken back."""
        needed = (REVOKE_LEASE, "auth/token/revoke-self")
        answer = await self._ask("POST", "sys/capabilities-self", token, {"paths": list(needed)})
        if not answer.ok:
            raise _fault("whether its lease can be revoked could not be found out", answer)
        found = answer.facts()
        for path in needed:
            allowed = found.get(path)
            if not isinstance(allowed, list) or not {"update", "root"} & {*map(str, allowed)}:
                raise BrokerFault(
                    f"the lease could not be revoked at the end: let a policy of the role update "
                    f"{path}"
                )

    async def _give_up(self, token: str) -> None:
        """Revoke a token, and so what came of it; it also ends by itself."""
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await self._ask("POST", "auth/token/revoke-self", token, {})
        except (BrokerFault, TimeoutError):
            return

    async def _ask(
        self,
        method: str,
        path: str,
        token: str,
        body: Mapping[str, Any] | None = None,
        *,
        again: bool = False,
    ) -> Answer:
        headers = {**self._headers, "x-vault-token": token}
        return await self._service.ask(
            method, f"/v1/{path}", headers=headers, json=body, again=again
        )


class _Login:
    """What a login gave; it prints nothing of it."""

    __slots__ = ("accessor", "lives_s", "token", "uses")

    def __init__(self, answer: Answer, auth: Mapping[str, Any]) -> None:
        self.token = answer.text(auth, "client_token")
        self.accessor = answer.text(auth, "accessor")
        self.lives_s = answer.seconds(auth, "lease_duration")
        self.uses = answer.seconds(auth, "num_uses")


def _path(text: str, place: str) -> str:
    """A path of the API that every server reads the same way."""
    parts = text.strip("/").split("/")
    if any(part in ("", ".", "..") or quote(part, safe="-._~@:+=,") != part for part in parts):
        raise ConfigError(Code.CONFIG_INVALID, "this is no plain path", place=place)
    return "/".join(parts)


def _key(token: str, lease: str | None) -> str:
    return json.dumps({"token": token, "lease": lease})


def _fields(data: object) -> dict[str, str]:
    """The secret's fields; those of version 2 of the key-value engine are one level deeper."""
    if isinstance(data, dict) and data.keys() == {"data", "metadata"}:
        data = data["data"]
    fields: dict[str, str] = {}
    for name, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, str):
            fields[name] = value
        elif isinstance(value, int | float):
            fields[name] = json.dumps(value)
    if not fields:
        raise BrokerFault("the Vault server answered with a secret that has no fields")
    return fields


def _secrets(fields: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        value for name, value in fields.items() if name not in _PUBLIC and len(value) >= MIN_SECRET
    )


def _fault(step: str, answer: Answer, hints: Mapping[int, str] = _HINTS) -> BrokerFault:
    text = answer.content.decode("utf-8", "replace")
    why = next((why for said, why in _SAID.items() if said in text), hints.get(answer.status, ""))
    return BrokerFault(
        f"{step} by the Vault server with status {answer.status}" + (why and f": {why}")
    )
