"""The vault broker against a real OpenBao server, its database engine against a real PostgreSQL.

The server is set up by the very commands of docs/credentials/vault.md.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from remit.errors import ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held
from remit.runners.credentials.vault import VaultBroker
from tests.runners.credentials.pages import blocks
from tests.runners.credentials.processes import Bao, Postgres, openbao, postgres
from tests.runners.credentials.world import TokenIssuer, kit, now_ms, order, section, served

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("openbao"),
    pytest.mark.needs("postgres"),
]

SINGLE = {
    "role_type": "jwt",
    "user_claim": "sub",
    "bound_audiences": ["vault"],
    "token_policies": ["settings"],
    "token_ttl": "60s",
    "token_num_uses": 1,
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    made = TokenIssuer()
    with served({"/.well-known/jwks.json": lambda: made.jwks}) as url:
        made.url = url
        yield made


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def bao(
    tmp_path_factory: pytest.TempPathFactory, issuer: TokenIssuer, database: Postgres
) -> Iterator[Bao]:
    with openbao(tmp_path_factory.mktemp("bao")) as server:
        (script,) = blocks("vault.md", "sh")
        script = script.replace("https://remit.example.com", issuer.url)
        script = script.replace("db.example.com:5432", f"127.0.0.1:{database.port}")
        done = subprocess.run(
            ["bash", "-eu"],
            input=script,
            env={**server.environ, "PGPASSWORD": database.password},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        server.run(
            "policy", "write", "settings", "-",
            stdin='path "secret/data/*" { capabilities = ["read"] }\n'
            'path "database/creds/report" { capabilities = ["read"] }\n',
        )  # fmt: skip
        server.run("kv", "put", "secret/app", "password=kv-secret-123", "username=ada", "pin=1")
        _role(server, "single")
        _role(server, "settings", token_num_uses=4)
        yield server


def _role(server: Bao, name: str, **changed: Any) -> None:
    text = json.dumps({**SINGLE, **changed})
    server.run("write", f"auth/jwt/role/{name}", "-", stdin=text)


class Brokers:
    """Makes brokers of this server."""

    def __init__(self, bao: Bao, issuer: TokenIssuer) -> None:
        self._bao = bao
        self._issuer = issuer
        self.made: list[VaultBroker] = []

    def __call__(self, **written: Any) -> VaultBroker:
        words = {"role": "report", "path": "database/creds/report", **written}
        words = {key: value for key, value in words.items() if value is not None}
        found = section(broker="vault", address=self._bao.address, **words)
        self.made.append(VaultBroker(kit(found, self._issuer)))
        return self.made[-1]


@pytest.fixture
async def broker(bao: Bao, issuer: TokenIssuer) -> AsyncIterator[Brokers]:
    made = Brokers(bao, issuer)
    yield made
    for each in made.made:
        await each.aclose()


def held(advance: Advance) -> Held:
    return Held(
        loan_id="loan-1",
        run_id="run-01ABCDEF",
        lease=advance.lease,
        key=advance.key,
        expires_ms=advance.expires_ms,
    )


def token_of(advance: Advance) -> str:
    assert advance.key is not None
    token: str = json.loads(advance.key)["token"]
    return token


def accessors(bao: Bao) -> set[str]:
    """One for each token that lives."""
    found = bao.ask("LIST", "auth/token/accessors", token="root")[1]
    return set(found["data"]["keys"])


async def refused(broker: VaultBroker, **changed: Any) -> str:
    with pytest.raises(BrokerFault) as caught:
        await broker.lend(order(**changed))
    return caught.value.message


async def test_a_database_user_exists_while_the_run_lives_and_is_gone_after(
    broker: Brokers, database: Postgres
) -> None:
    vault = broker()
    advance = await vault.lend(order())
    user, password = advance.fields["username"], advance.fields["password"]
    assert database.has_role(user)
    assert database.ask("select current_user", user=user, password=password) == user
    assert await vault.revoke(held(advance)) is True
    assert not database.has_role(user)
    assert database.ask("select 1", user=user, password=password) is None


@pytest.mark.threat("T-33")
async def test_what_is_secret_is_named_and_nothing_of_it_is_shown(broker: Brokers) -> None:
    vault = broker()
    advance = await vault.lend(order())
    assert set(advance.secrets) == {advance.fields["password"], token_of(advance)}
    assert advance.lease is not None
    assert advance.lease.startswith("database/creds/report/")
    shown = repr(advance) + repr(vault) + repr(held(advance)) + str(advance.note)
    assert not any(secret in shown for secret in advance.secrets)
    await vault.revoke(held(advance))


async def test_another_keeper_ends_it_from_what_was_kept(
    broker: Brokers, database: Postgres
) -> None:
    lender = broker()
    advance = await lender.lend(order())
    kept = held(advance)
    await lender.aclose()
    assert await broker().revoke(kept) is True
    assert not database.has_role(advance.fields["username"])


async def test_revoking_twice_is_revoking_once(broker: Brokers, bao: Bao) -> None:
    vault = broker()
    advance = await vault.lend(order())
    assert await vault.revoke(held(advance)) is True
    assert await vault.revoke(held(advance)) is True
    assert bao.ask("GET", "auth/token/lookup-self", token=token_of(advance))[0] == 403


async def test_a_lease_is_never_longer_than_the_run(broker: Brokers, bao: Bao) -> None:
    vault = broker()
    asked = order(lives_s=30)
    advance = await vault.lend(asked)
    assert advance.expires_ms is not None
    assert advance.expires_ms <= asked.ends_ms + 1_000
    _, told = bao.ask("POST", "auth/token/lookup", token="root", body={"token": token_of(advance)})
    assert told["data"]["ttl"] <= 30
    await vault.revoke(held(advance))


async def test_what_nobody_takes_back_ends_by_itself(broker: Brokers, database: Postgres) -> None:
    advance = await broker().lend(order(lives_s=2.5))
    user = advance.fields["username"]
    for _ in range(200):
        if not database.has_role(user):
            break
    assert not database.has_role(user)


async def test_a_lease_that_cannot_be_revoked_now_is_not_called_revoked(
    broker: Brokers, bao: Bao, database: Postgres
) -> None:
    vault = broker()
    advance = await vault.lend(order())
    user = advance.fields["username"]
    statements = '["DROP ROLE there_is_no_such_role"]'
    _statements(bao, statements)
    try:
        with pytest.raises(BrokerFault, match="the lease could not be revoked"):
            await vault.revoke(held(advance))
    finally:
        _statements(bao, json.dumps(['DROP OWNED BY "{{name}}"; DROP ROLE "{{name}}";']))
    assert database.has_role(user)
    assert await vault.revoke(held(advance)) is True
    assert not database.has_role(user)


def _statements(bao: Bao, statements: str) -> None:
    _, told = bao.ask("GET", "database/roles/report", token="root")
    data = {**told["data"], "revocation_statements": json.loads(statements)}
    assert bao.ask("POST", "database/roles/report", token="root", body=data)[0] == 204


async def test_a_single_use_token_is_refused_at_its_second_use(broker: Brokers, bao: Bao) -> None:
    vault = broker(role="single", path=None)
    assert vault.gives == frozenset({"token"})
    advance = await vault.lend(order())
    token = advance.fields["token"]
    assert bao.ask("GET", "secret/data/app", token=token)[0] == 200
    assert bao.ask("GET", "secret/data/app", token=token)[0] == 403
    assert await vault.revoke(held(advance)) is True


async def test_a_token_that_was_not_used_is_dead_after_the_run(broker: Brokers, bao: Bao) -> None:
    vault = broker(role="single", path=None)
    advance = await vault.lend(order())
    assert await vault.revoke(held(advance)) is True
    assert bao.ask("GET", "secret/data/app", token=advance.fields["token"])[0] == 403


async def test_a_key_value_secret_is_lent_and_said_to_be_long_lived(
    broker: Brokers, bao: Bao
) -> None:
    vault = broker(role="settings", path="secret/data/app")
    before = accessors(bao)
    advance = await vault.lend(order())
    assert accessors(bao) == before
    assert advance.fields == {"password": "kv-secret-123", "username": "ada", "pin": "1"}
    assert advance.secrets == ("kv-secret-123",)
    assert (advance.expires_ms, advance.lease, advance.key) == (None, None, None)
    assert advance.note is not None
    assert "no lease" in advance.note
    assert await vault.revoke(held(advance)) is False


async def test_the_wrong_audience_is_refused(broker: Brokers) -> None:
    said = await refused(broker(audience="another"))
    assert "bound_audiences lack the audience" in said
    assert "bound_audiences lack the audience" in await refused(broker(), audience="another")


async def test_an_expired_token_is_refused(broker: Brokers, issuer: TokenIssuer) -> None:
    issuer.extra = {"exp": 1_000_000_000}
    try:
        assert "the token had expired" in await refused(broker())
    finally:
        issuer.extra = {}


@pytest.mark.parametrize("changed", [{"tool": "db.drop"}, {"environment": "staging"}])
async def test_a_run_of_another_tool_or_environment_gets_nothing(
    broker: Brokers, changed: dict[str, str]
) -> None:
    assert "bound_claims are not of this run" in await refused(broker(), **changed)


async def test_a_token_of_another_issuer_is_refused(bao: Bao, issuer: TokenIssuer) -> None:
    other = TokenIssuer()
    other.url = issuer.url
    vault = VaultBroker(kit(section(broker="vault", address=bao.address, role="report"), other))
    assert "signature is not of the keys" in await refused(vault)
    await vault.aclose()


async def test_each_refusal_says_what_to_mend_and_nothing_that_the_server_wrote(
    broker: Brokers, bao: Bao
) -> None:
    bao.run("policy", "write", "all", "-", stdin='path "*" { capabilities = ["read"] }')
    _role(bao, "all", token_num_uses=9, token_policies=["all"])
    assert "there is no such role" in await refused(broker(role="nobody"))
    assert "its policies do not allow this" in await refused(broker(path="sys/policies"))
    assert "no JWT method is at this mount" in await refused(broker(mount="nowhere"))
    assert "nothing is mounted there" in await refused(broker(path="nowhere/x", role="all"))
    _role(bao, "few", token_num_uses=1)
    assert "raise token_num_uses" in await refused(broker(role="few"))


async def test_nothing_is_lent_that_could_not_be_revoked(
    broker: Brokers, bao: Bao, database: Postgres
) -> None:
    before = database.ask("select count(*) from pg_roles")
    assert "sys/leases/revoke" in await refused(broker(role="settings"))
    for _ in range(200):
        if database.ask("select count(*) from pg_roles") == before:
            break
    assert database.ask("select count(*) from pg_roles") == before


async def test_a_token_that_cannot_be_made_to_end_with_the_run_is_not_lent(
    broker: Brokers, bao: Bao
) -> None:
    single = broker(role="single", path=None)
    assert "lower the role's token_ttl" in await refused(single, lives_s=20)
    _role(bao, "periodic", token_num_uses=9, token_period="1h")
    assert "leave token_period unset" in await refused(broker(role="periodic", path=None))


async def test_a_token_that_cannot_be_revoked_is_not_lent(broker: Brokers, bao: Bao) -> None:
    _role(bao, "batch", token_num_uses=0, token_type="batch")
    assert "let it give service tokens" in await refused(broker(role="batch", path=None))


async def test_it_works_in_a_namespace_and_only_there(
    broker: Brokers, bao: Bao, issuer: TokenIssuer
) -> None:
    bao.run("namespace", "create", "team")
    bao.run("auth", "enable", "-namespace=team", "jwt")
    keys = f"jwks_url={issuer.url}/.well-known/jwks.json"
    bao.run("write", "-namespace=team", "auth/jwt/config", keys)
    text = json.dumps({**SINGLE, "token_policies": []})
    bao.run("write", "-namespace=team", "auth/jwt/role/team", "-", stdin=text)
    there = broker(role="team", path=None, namespace="team")
    assert await there.revoke(held(await there.lend(order()))) is True
    assert "there is no such role" in await refused(broker(role="team", path=None))


async def test_a_run_that_is_over_gets_nothing(broker: Brokers) -> None:
    assert "time is over" in await refused(broker(), lives_s=-1)


async def test_no_token_is_left_after_a_loan_failed(broker: Brokers, bao: Bao) -> None:
    before = accessors(bao)
    await refused(broker(path="sys/policies"))
    await refused(broker(role="settings"))
    assert accessors(bao) - before == set()


async def test_nothing_is_left_of_a_loan_that_is_cancelled_in_the_middle(
    broker: Brokers, bao: Bao, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> tuple[str | None, set[str]]:
        return database.ask("select count(*) from pg_roles"), accessors(bao)

    before, made = left(), asyncio.Event()

    async def never(self: VaultBroker, token: str) -> None:
        made.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(VaultBroker, "_check_revocable", never)
    lending = asyncio.create_task(broker().lend(order()))
    await made.wait()
    assert left() != before
    lending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lending
    for _ in range(200):
        if left() == before:
            break
    assert left() == before


@pytest.mark.parametrize("path", ["../sys/raw", "a//b", "a/./b", "a?b=c", "a%2fb", "é"])
def test_a_path_that_two_servers_could_read_differently_is_refused(
    issuer: TokenIssuer, path: str
) -> None:
    found = {"address": "https://v", "role": "r", "audience": "a", "mount": "jwt", "path": path}
    with pytest.raises(ConfigError) as caught:
        VaultBroker(kit(found, issuer))
    assert caught.value.place == "path"


def test_without_an_issuer_it_is_refused(bao: Bao) -> None:
    with pytest.raises(ConfigError, match="issuer"):
        VaultBroker(kit(section(broker="vault", address=bao.address, role="r")))


async def test_the_token_that_logs_in_is_short(broker: Brokers, issuer: TokenIssuer) -> None:
    import jwt

    text = issuer.mint("vault", order(), 60)
    claims = jwt.decode(text, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] <= 60
    assert now_ms() // 1000 - claims["iat"] < 5
