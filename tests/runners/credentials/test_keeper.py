"""A keeper lends what the ledger says, to whom it says, for as long as it says."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from remit.errors import ConfigError, LedgerFault, RunnerFault
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.records import read_export
from remit.ledger.verify import verify
from remit.ledger.writer import Transaction
from remit.model import Effect, Lease, RunState
from remit.runners.credentials.client import KeeperClient
from remit.runners.wire import close_all, receive, send
from remit.testing import ledger_samples as sample
from tests.runners.credentials.issuing import verified
from tests.runners.credentials.keeping import (
    ISSUER,
    SECRET,
    World,
    clock,
    keeping,
    lease,
    oidc,
    settings,
    static,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

INJECT = [{"host": "127.0.0.1", "port": 8443, "value": "Bearer {token}"}]


async def lent_text(world: World, wanted: Lease) -> str:
    lent = await world.keeper.lend(wanted)
    try:
        return os.pread(lent.files[0].fd, 4_096, 0).decode()
    finally:
        close_all([each.fd for each in lent.files])


async def refusal(world: World, wanted: Lease) -> str:
    with pytest.raises(RunnerFault) as caught:
        await world.keeper.lend(wanted)
    return caught.value.message


async def test_a_started_run_is_lent_what_its_plan_names_and_gives_it_back(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        assert await lent_text(world, lease(grant)) == SECRET
        [loan] = await world.keeper.take_back(lease(grant))
        assert (loan.ref, loan.delivered, loan.revoked) == ("static", "file", False)
        assert loan.returned_ms is not None
        assert await world.keeper.take_back(lease(grant)) == (loan,)
        assert os.listdir(tmp_path / "keeper/loans") == []


async def test_a_token_is_about_the_run_as_the_ledger_has_it(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"there": oidc()}, issuer=ISSUER) as world:
        grant = await world.granted("there")
        claims = verified(await lent_text(world, lease(grant)), dict(await world.keeper.keys()))
        assert claims["run"] == grant.run_id
        assert (claims["fence"], claims["plan_hash"]) == (grant.fence, grant.plan.hash)
        assert claims["caller"] == {"subject": "agent-7", "kind": "agent", "groups": ["deployers"]}
        assert claims["act"]["act"] == {"sub": "ada", "kind": "human"}
        [loan] = await world.keeper.take_back(lease(grant))
        assert loan.expires_ms == claims["exp"] * 1000
        assert claims["exp"] * 1000 <= grant.deadline_ms + 60_000


@pytest.mark.threat("T-38")
async def test_a_run_that_the_ledger_does_not_have_is_lent_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        never = Lease(id="run_" + "a" * 26, gateway="gw-1", fence=1, deadline_ms=clock.now_ms())
        assert "no such run" in await refusal(world, never)
        intended = await world.intended("static")
        assert "not started" in await refusal(world, lease(intended))


@pytest.mark.threat("T-35")
async def test_only_the_runs_own_fence_opens_anything(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        for fence in (grant.fence - 1, grant.fence + 1):
            assert "fence" in await refusal(world, lease(grant, fence=fence))


@pytest.mark.threat("T-35")
async def test_a_run_whose_outcome_is_written_is_lent_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        await settle(world, grant)
        assert "over" in await refusal(world, lease(grant))


@pytest.mark.threat("T-35")
async def test_a_newer_run_of_the_call_ends_what_the_older_holds_and_shuts_it_out(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path) as world:
        older, late = await world.granted("static"), await world.granted("static", service="db")
        await lent_text(world, lease(older))
        await settle(world, older, RunState.FAILED)
        newer = await world.granted("static")
        assert newer.fence > older.fence
        await lent_text(world, lease(newer))
        assert os.listdir(tmp_path / "keeper/loans") == [newer.run_id]
        [loan] = await world.keeper.take_back(lease(older))
        assert loan.returned_ms is not None
        assert await lent_text(world, lease(late)) == SECRET


@pytest.mark.threat("T-35")
async def test_a_zombie_that_was_never_closed_is_refused_once_a_newer_run_is_there(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path) as world:
        zombie = await world.granted("static", effect=Effect.WRITE)
        # As an idempotent tool's repeat: the older run is still open in the ledger.
        await close_by_hand(world, zombie)
        await world.granted("static", effect=Effect.WRITE)
        await open_by_hand(world, zombie)
        assert "newer run" in await refusal(world, lease(zombie))


async def test_reads_of_one_call_run_side_by_side(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        first = await world.granted("static", effect=Effect.READ)
        second = await world.granted("static", effect=Effect.READ)
        assert await lent_text(world, lease(second)) == SECRET
        assert await lent_text(world, lease(first)) == SECRET


@pytest.mark.threat("T-38")
async def test_a_run_is_lent_to_once(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        await lent_text(world, lease(grant))
        assert "already" in await refusal(world, lease(grant))
        await world.keeper.take_back(lease(grant))
        assert "already" in await refusal(world, lease(grant))


@pytest.mark.threat("T-38")
async def test_nothing_is_lent_past_the_deadline_or_for_one_that_its_plan_does_not_have(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path) as world:
        soon = await world.granted("static", deadline_ms=clock.now_ms() + 150)
        far = await world.granted("static", service="db", deadline_ms=clock.now_ms() + 10**9)
        assert "not that of its plan" in await refusal(world, lease(far))
        while clock.now_ms() <= soon.deadline_ms:
            await asyncio.sleep(0.01)
        assert "deadline" in await refusal(world, lease(soon))


@pytest.mark.threat("T-38")
async def test_while_everything_is_frozen_nothing_is_lent(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        await world.store.freeze(True, operator="olga", reason="drill", now_ms=clock.now_ms())
        assert "frozen" in await refusal(world, lease(grant))


@pytest.mark.threat("T-38")
async def test_a_handle_that_means_something_else_than_was_planned_is_not_lent(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path) as world:
        wrong = [{"ref": "static", "scopes": [], "digest": "sha256:" + "0" * 64}]
        assert "something else" in await refusal(
            world, lease(await world.granted(credentials=wrong))
        )
        scoped = [{"ref": "static", "scopes": ["x"], "digest": world.keeper.digest("static")}]
        other = await world.granted(service="db", credentials=scoped)
        assert "narrowed" in await refusal(world, lease(other))
        missing = [{"ref": "gone", "scopes": [], "digest": "sha256:" + "0" * 64}]
        third = await world.granted(service="mail", credentials=missing)
        assert "no credential gone" in await refusal(world, lease(third))
        nothing = await world.granted(service="none")
        assert "names no credential" in await refusal(world, lease(nothing))


async def test_a_digest_is_over_the_section_and_not_the_secret(tmp_path: Path) -> None:
    def digest_with(name: str, value: str, **written: Any) -> str | None:
        from dataclasses import replace

        from remit.runners.credentials.process import KeeperProcess

        chosen = replace(
            settings(tmp_path, {"static": static(**written)}), environ={"STATIC_SECRET": value}
        )
        keeper, ready = KeeperProcess.start(chosen)
        keeper.leave()
        keeper.wait()
        return ready.digests[name]

    first = digest_with("static", "one secret")
    assert digest_with("static", "another secret") == first
    assert digest_with("static", "one secret", ttl_s=5) != first


@pytest.mark.threat("T-33")
async def test_a_loan_that_comes_when_nobody_waits_for_it_any_more_leaves_no_file_open(
    tmp_path: Path,
) -> None:
    def held() -> list[str]:
        own = "/proc/self/fd"
        found = [f"{own}/{fd}" for fd in os.listdir(own) if os.path.lexists(f"{own}/{fd}")]
        return [each for each in found if "memfd:credential" in os.readlink(each)]

    async with keeping(tmp_path) as world:
        client, came = world.keeper, asyncio.Event()
        read = client._on_readable

        def readable(keeper: Any) -> None:
            read(keeper)
            if held():
                lending.cancel()  # its answer is there, and it has not had its turn yet
                came.set()

        client._loop.remove_reader(client._keeper.control.fileno())
        client._loop.add_reader(client._keeper.control.fileno(), readable, client._keeper)
        lending = asyncio.ensure_future(client.lend(lease(await world.granted("static"))))
        await came.wait()
        with pytest.raises(asyncio.CancelledError):
            await lending
        assert held() == []


@pytest.mark.threat("T-38")
async def test_a_plan_whose_bytes_were_changed_is_not_lent_for(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        await by_hand(
            world,
            "UPDATE plan SET text = CAST(replace(CAST(text AS TEXT), 'staging', 'release') AS BLOB) WHERE hash = ?",
            grant.plan.hash,
        )
        assert "no such run" in await refusal(world, lease(grant))


@pytest.mark.threat("T-38")
async def test_a_run_that_stands_in_no_entry_of_the_log_is_not_lent_for(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant, other = await world.granted("static"), await world.granted("static", service="db")
        await by_hand(
            world, "UPDATE run SET intent_index = ? WHERE id = ?", other.intent_index, grant.run_id
        )
        assert "no such run" in await refusal(world, lease(grant))
        await by_hand(
            world, "UPDATE run SET deadline_ms = deadline_ms + 1 WHERE id = ?", other.run_id
        )
        assert "no such run" in await refusal(world, lease(other))


@pytest.mark.threat("T-38")
async def test_an_intent_that_is_under_no_checkpoint_of_the_keepers_is_not_lent_for(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        hijacked = Unsigning(world.keeper)
        assert "under no checkpoint" in await hijacked.lend(lease(grant))
        await world.store.checkpoint()
        assert await hijacked.lend(lease(grant)) == ""


@pytest.mark.threat("T-38")
async def test_an_intent_that_was_forged_after_signing_is_not_lent_for(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        await world.store.checkpoint()
        await by_hand(
            world,
            "UPDATE entry SET text = CAST(replace(CAST(text AS TEXT), 'agent-7', 'agent-8') AS BLOB) WHERE seq = ?",
            grant.intent_index,
        )
        assert "not what was signed" in await Unsigning(world.keeper).lend(lease(grant))


@pytest.mark.threat("T-38")
async def test_a_ledger_that_lost_its_end_is_refused_at_start(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        await world.granted("static")
        await world.store.checkpoint()
        copy = (tmp_path / "ledger.db").read_bytes()
        assert copy
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(LedgerFault, match="shorter than what its key has signed"):
        async with keeping(tmp_path):
            pass


async def test_what_the_keeper_signed_verifies_as_any_log(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        for index in range(5):
            grant = await world.granted("static", service=f"web-{index}")
            await world.store.receipt(grant.intent_index)
        key = VerifierKey.parse(world.keeper.signer.verifier_key)
        lines = [line async for line in world.store.export()]
        (tmp_path / "export").write_bytes(b"".join(lines))
    with (tmp_path / "export").open("rb") as file:
        assert verify(read_export(file), key).ok


@pytest.mark.threat("T-33")
async def test_output_is_searched_for_every_form_of_what_was_lent(tmp_path: Path) -> None:
    import base64

    async with keeping(tmp_path) as world:
        grant = await world.granted("static")
        assert await world.keeper.scrub(lease(grant), SECRET.encode()) == (SECRET.encode(), 0)
        await lent_text(world, lease(grant))
        await world.keeper.take_back(lease(grant))
        big = b"x" * 3_000_000 + base64.b64encode(b"zz" + SECRET.encode()) + SECRET.encode()
        clean, found = await world.keeper.scrub(lease(grant), big)
        assert found == 2
        assert len(clean) == len(big)
        assert SECRET.encode() not in clean
        await world.keeper.sweep(frozenset())


async def test_the_proxy_is_told_what_to_inject_and_then_to_forget(tmp_path: Path) -> None:
    chosen = {"static": static(file=None, inject=INJECT)}
    async with keeping(tmp_path, chosen) as world:
        with FakeProxy(await world.keeper.proxy_socket()) as proxy:
            grant = await world.granted("static")
            lent = await world.keeper.lend(lease(grant))
            assert [each.delivered for each in lent.loans] == ["proxy"]
            assert lent.files == ()
            [told] = proxy.seen
            assert (told["op"], told["run"], told["fence"]) == ("inject", grant.run_id, grant.fence)
            assert told["credentials"][0]["value"] == f"Bearer {SECRET}"
            assert told["ends_ms"] <= grant.deadline_ms + 60_000
            await world.keeper.take_back(lease(grant))
            assert proxy.seen[-1] == {"op": "forget", "run": grant.run_id}


async def test_what_the_proxy_refuses_is_not_lent_and_leaves_nothing(tmp_path: Path) -> None:
    chosen = {"static": static(file=None, inject=INJECT)}
    async with keeping(tmp_path, chosen) as world:
        grant = await world.granted("static")
        assert "not there" in await refusal(world, lease(grant))
        with FakeProxy(await world.keeper.proxy_socket(), answer="refused"):
            other = await world.granted("static", service="db")
            assert "does not inject" in await refusal(world, lease(other))
        assert os.listdir(tmp_path / "keeper/loans") == []


@pytest.mark.threat("T-38")
async def test_a_plan_without_a_way_to_where_a_credential_goes_is_not_lent_it(
    tmp_path: Path,
) -> None:
    chosen = {"static": static(file=None, inject=[{**INJECT[0], "port": 8444}])}
    async with keeping(tmp_path, chosen) as world:
        with FakeProxy(await world.keeper.proxy_socket()) as proxy:
            grant = await world.granted("static")
            assert "no way" in await refusal(world, lease(grant))
            assert proxy.seen == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"secret": "env:NOT_THERE"}, "is not set"),
        ({"secret": "file:not-there"}, "cannot be read"),
        ({"file": {"name": "x", "content": "{password}"}}, "does not give: password"),
        ({"file": {"name": "x", "content": "{"}}, "brace"),
        ({"inject": INJECT}, "either inject or file"),
    ],
)
async def test_what_is_configured_wrong_is_said_at_start(
    tmp_path: Path, written: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        await KeeperClient.open(settings(tmp_path, {"static": static(**written)}))
    assert (caught.value.place or "").startswith("runners.credentials.static")
    assert SECRET not in str(caught.value)


async def test_a_loan_ends_when_its_time_is_over_though_nobody_gave_it_back(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"static": static(ttl_s=1)}) as world:
        grant = await world.granted("static")
        await lent_text(world, lease(grant))
        live = frozenset({grant.run_id})
        swept = await world.keeper.sweep(live)
        assert swept == ()
        while not swept:
            await asyncio.sleep(0.05)
            swept = await world.keeper.sweep(live)
        assert swept[0].returned_ms is not None
        assert grant.run_id in (swept[0].note or "")


async def test_a_sweep_ends_what_no_live_run_holds(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        kept, dropped = await world.granted("static"), await world.granted("static", service="db")
        for grant in (kept, dropped):
            await lent_text(world, lease(grant))
        [loan] = await world.keeper.sweep(frozenset({kept.run_id}))
        assert dropped.run_id in (loan.note or "")
        assert os.listdir(tmp_path / "keeper/loans") == [kept.run_id]


# ------------------------------------------------------------------------------------ what it takes


class Unsigning:
    """A gateway that asks for a loan without having its log signed first."""

    def __init__(self, keeper: KeeperClient) -> None:
        self._keeper = keeper

    async def lend(self, wanted: Lease) -> str:
        message = {"op": "lend", "run": wanted.id, "fence": wanted.fence}
        try:
            await self._keeper._ask(message)
        except RunnerFault as fault:
            return fault.message
        return ""


class FakeProxy:
    """The proxy's end of the line: answers as the proxy does, and keeps what it was told."""

    def __init__(self, sock: socket.socket, answer: str = "injecting") -> None:
        self._socket = sock
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self.seen: list[dict[str, Any]] = []
        sock.setblocking(False)

    def __enter__(self) -> FakeProxy:
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _on_readable(self) -> None:
        received = receive(self._socket)
        if received is None:
            return
        message, _ = received
        self.seen.append(message)
        event = "forgotten" if message["op"] == "forget" else self._answer
        send(self._socket, {"ev": event, "run": message["run"], "fault": "so it is"})


async def settle(world: World, grant: Any, state: RunState = RunState.SUCCEEDED) -> None:
    at = sample.SetClock(clock.now_ms())
    await world.store.settle(sample.outcome(at, grant, state), sample.outcome_entry())


async def by_hand(world: World, sql: str, *parameters: Any) -> None:
    """Change the ledger as nothing of ours would."""

    def work(tx: Transaction) -> None:
        found = tx.db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in found:
            tx.db.execute(f"DROP TRIGGER {name}")
        tx.db.execute(sql, parameters)

    await world.store._writer.run(work)


async def close_by_hand(world: World, grant: Any) -> None:
    await by_hand(world, "UPDATE run SET state = 'failed' WHERE id = ?", grant.run_id)


async def open_by_hand(world: World, grant: Any) -> None:
    await by_hand(world, "UPDATE run SET state = NULL WHERE id = ?", grant.run_id)
