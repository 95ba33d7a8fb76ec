"""A whole keeper keeps people's consents: sealed, over its own end, lent by the ledger's word."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from remit.canonical import encode
from remit.errors import Code, RunnerFault
from remit.model import ConsentPage, ConsentState, HandedFile, Lease, Principal
from remit.ports import Consents
from remit.runners.wire import read_file
from remit.testing.consents import REDIRECT, ConsentsContract, Visit
from tests.runners.credentials.consenting import FakeConsentServer, browse
from tests.runners.credentials.fakes import serving
from tests.runners.credentials.keeping import FILE, World, keeping, kill, lease, plain, static

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

UID = 299_998
_NUMBERS = itertools.count()

ADA = Principal(tenant="acme", subject="ada")
"""For whom the runs of `keeping` act."""


@pytest.fixture
def server() -> Iterator[FakeConsentServer]:
    fake = FakeConsentServer()
    fake.known("remit")
    with serving(fake) as fake.url:
        yield fake


def sections(server: FakeConsentServer) -> Mapping[str, Mapping[str, Any]]:
    """With all addresses written, so that each step is one request."""
    consented = plain(
        broker="authorization_code",
        resource="https://mcp.example/mcp",
        issuer=server.url,
        authorization_url=f"{server.url}/authorize",
        token_url=f"{server.url}/token",
        revocation_url=f"{server.url}/revoke",
        client_id="remit",
        client_auth="none",
        scopes=["read", "write"],
        file=FILE,
    )
    return {"contract": consented, "plain": static()}


async def given(world: World, principal: Principal = ADA) -> None:
    page = await world.keeper.begin("contract", principal, ["read"], REDIRECT, None)
    await world.keeper.finish(page.state, await browse(page))


async def lent(world: World) -> tuple[str, str]:
    """What a new run of Ada's is lent, and the run."""
    grant = await world.granted("contract", service=f"service-{next(_NUMBERS)}")
    found = await world.keeper.lend(lease(grant))
    (loan,) = found.loans
    assert loan.note is not None
    assert "outlives the run" in loan.note
    return _token(found.files), grant.run_id


def _token(files: tuple[HandedFile, ...]) -> str:
    (file,) = files
    try:
        return read_file(file.fd, 4_096).decode()
    finally:
        os.close(file.fd)


class TestKeeper(ConsentsContract):
    @pytest.fixture
    async def consents(self, server: FakeConsentServer, tmp_path: Path) -> AsyncIterator[Consents]:
        async with keeping(tmp_path, sections(server)) as world:
            yield world.keeper

    @pytest.fixture
    def visit(self) -> Visit:
        async def yes(page: ConsentPage) -> Mapping[str, str]:
            return await browse(page)

        return yes


async def test_a_run_is_lent_what_its_person_gave(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    async with keeping(tmp_path, sections(server)) as world:
        await given(world)
        token, run = await lent(world)
        grant = server.live(token)
        assert grant is not None
        data, found = await world.keeper.scrub(_lease(run), f"a {token} b".encode())
        assert (token.encode() in data, found) == (False, 1)
        (loan,) = await world.keeper.take_back(_lease(run))
        assert (loan.revoked, loan.returned_ms is not None) == (False, True)
        assert server.live(token) is grant


def _lease(run: str) -> Any:
    from remit.model import Lease

    return Lease(id=run, gateway="gw-1", fence=0, deadline_ms=0)


@pytest.mark.threat("T-51")
async def test_a_run_on_anothers_behalf_is_lent_nothing_whoever_consented(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    async with keeping(tmp_path, sections(server)) as world:
        await given(world, Principal(tenant="acme", subject="agent-7"))  # the caller itself
        await given(world, Principal(tenant="other", subject="ada"))
        grant = await world.granted("contract")
        with pytest.raises(RunnerFault) as fault:
            await world.keeper.lend(lease(grant))
        assert fault.value.code is Code.CONSENT_REQUIRED


async def test_a_consent_outlives_a_keeper_that_is_killed(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    server.lives_s = 1  # so that each keeper renews
    tokens: set[str] = set()
    async with keeping(tmp_path, sections(server)) as world:
        await given(world)
        for _ in range(3):
            await ended()
            tokens.add((await lent(world))[0])
            before = world.keeper.pid
            kill(before)
            async with asyncio.timeout(60):
                while world.keeper.pid == before:
                    await asyncio.sleep(0.01)
            assert await world.keeper.status("contract", ADA) is ConsentState.HELD
    async with keeping(tmp_path, sections(server)) as world:
        assert [each.principal for each in await world.keeper.listed()] == [ADA]
        await ended()
        tokens.add((await lent(world))[0])
    assert len(tokens) == 4
    (grant,) = server.grants
    assert not grant.ended  # no refresh token came twice


async def ended() -> None:
    """Until every token that was given before has ended by the clock."""
    until = time.time() + 1.1
    while time.time() < until:
        await asyncio.sleep(0.05)


async def test_nothing_that_was_given_stands_readable_on_disk(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    async with keeping(tmp_path, sections(server)) as world:
        await given(world)
        token, _ = await lent(world)
    (grant,) = server.grants
    (kept,) = (tmp_path / "keeper" / "consents").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert token.encode() not in data
            assert grant.refresh.encode() not in data
            assert b"ada" not in data or "consents" not in path.parts


@pytest.mark.threat("T-51")
async def test_a_consent_moved_to_anothers_name_on_disk_is_none(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    directory = tmp_path / "keeper" / "consents"
    async with keeping(tmp_path, sections(server)) as world:
        await given(world, Principal(tenant="acme", subject="bob"))
        (bobs,) = directory.iterdir()
        await given(world)
        (adas,) = set(directory.iterdir()) - {bobs}
    adas.write_bytes(bobs.read_bytes())
    async with keeping(tmp_path, sections(server)) as world:
        assert [each.principal.subject for each in await world.keeper.listed()] == ["bob"]


@pytest.mark.threat("T-51")
async def test_a_revoked_consent_does_not_come_back_with_the_next_keeper(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    async with keeping(tmp_path, sections(server)) as world:
        await given(world)
        assert await world.keeper.revoke("contract", ADA)
        assert server.grants[0].ended
    async with keeping(tmp_path, sections(server)) as world:
        assert list(await world.keeper.listed()) == []


async def test_a_server_that_refuses_a_runs_token_gets_another_with_the_next_run(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    async with keeping(tmp_path, sections(server)) as world:
        await given(world)
        first, run = await lent(world)
        await world.keeper.unaccepted(_lease(run))
        second, run = await lent(world)
        assert first != second
        await world.keeper.take_back(_lease(run))
        await world.keeper.unaccepted(_lease(run), ["write"])
        assert await world.keeper.status("contract", ADA, ["read"]) is ConsentState.NEEDED
        page = await world.keeper.begin("contract", ADA, ["read"], REDIRECT, None)
        assert page.scopes == ("read", "write")


async def test_no_answer_of_the_keeper_to_the_gateway_has_a_token(
    server: FakeConsentServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []
    async with keeping(tmp_path, sections(server)) as world:
        ask = world.keeper._ask

        async def listening(*how: Any, **more: Any) -> Any:
            answer, fds = await ask(*how, **more)
            heard.append(encode(answer))
            return answer, fds

        monkeypatch.setattr(world.keeper, "_ask", listening)
        await given(world)
        await lent(world)
        await world.keeper.listed()
        await world.keeper.revoke("contract", ADA)
    (grant,) = server.grants
    assert len(heard) >= 5
    for text in heard:
        assert grant.refresh.encode() not in text
        assert not any(token.encode() in text for token in grant.access)


@pytest.mark.threat("T-38")
async def test_a_look_is_lent_what_the_person_gave_who_is_written_and_nobody_elses(
    tmp_path: Path, server: FakeConsentServer
) -> None:
    look = Lease(id="look_" + "a" * 26, gateway="gw-1", fence=0, deadline_ms=0)
    plainly = sections(server)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with keeping(tmp_path / "one", plainly) as world:
        await given(world)
        with pytest.raises(RunnerFault) as alone:
            await world.keeper.look(look, "contract")
        assert "to runs alone" in alone.value.message
    as_ada = {**plainly, "contract": {**plainly["contract"], "unsafe_look_as": "ada"}}
    async with keeping(tmp_path / "two", as_ada) as world:
        await given(world, Principal(tenant="acme", subject="bob"))
        with pytest.raises(RunnerFault) as missing:
            await world.keeper.look(look, "contract")
        assert "has not consented" in missing.value.message
        await given(world)
        other = Lease(id="look_" + "b" * 26, gateway="gw-1", fence=0, deadline_ms=0)
        token = _token((await world.keeper.look(other, "contract")).files)
        live = server.live(token)
        assert live is server.grants[-1]
        await world.keeper.take_back(other)
        assert server.live(token) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give it a user; to run it: sudo")
async def test_a_keeper_of_its_own_user_keeps_consents_too(
    server: FakeConsentServer, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for life in range(2):
        async with keeping(home, sections(server), uid=UID) as world:
            if life == 0:
                await given(world)
            _, run = await lent(world)
            if life == 0:
                await world.keeper.unaccepted(_lease(run))
        (kept,) = (home / "keeper/consents").iterdir()
        assert kept.stat().st_uid == UID
    assert server.refreshes == 1
