"""Credentials of a run: lent when it has started, never in what is kept or shown, ended with it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from remit.backends import Delivery
from remit.model import (
    Amount,
    Channel,
    Connection,
    Ending,
    Frame,
    RunResult,
    RunSpec,
    RunState,
    Told,
    Traffic,
)
from remit.testing.credentials import BLANK, MemoryCredentials
from remit.testing.scripted import ends
from tests.path.conftest import HEAD, OLGA, MakePath, Path_, tool
from tests.path.test_path import code

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-33")]

SECRET = "s3cr3t-that-lives-long"
REFUSED = "not_allowed"
KEY = {"ref": "ci/token"}
GIVE = (
    HEAD + 'decision := answer("allow", {"constraints": {"credentials": [{"ref": "ci/token"}]}})\n'
)
AS_FILE = {"ci/token": Delivery(file="token")}
TOOLS = [
    tool("deploy", credentials=[KEY], result_files=["out.txt"]),
    tool("look", "read", credentials=[KEY]),
    tool("plain"),
]


async def a_path(make_path: MakePath, rego: str = GIVE, **more: Any) -> Path_:
    path: Path_ = await make_path(
        rego,
        tools=TOOLS,
        secrets={"ci/token": SECRET},
        lent_files={"ci/token": "token"},
        deliveries=AS_FILE,
        **more,
    )
    return path


async def outcome(path: Path_) -> dict[str, Any]:
    return [each for each in await path.entries() if each["event"] == "call.outcome"][-1]


async def everything(path: Path_) -> bytes:
    """All that the ledger holds of anything: entries and the values behind commitments."""
    found = []
    for entry in await path.entries():
        found.append(json.dumps(entry).encode())
        for name in entry.get("commitments", {}).values():
            found.append(await path.ledger.value(name) or b"")
    return b"\n".join(found)


async def test_run_is_handed_the_file_that_its_plan_names_and_its_place(
    make_path: MakePath,
) -> None:
    path = await a_path(make_path)
    reply = await path.call("deploy")
    assert code(reply) == "ok"
    run_id = reply.decision["run_id"]
    assert path.runner.handed[run_id] == {"token": SECRET.encode()}
    spec = path.runner.specs[run_id]
    assert dict(spec.env)["REMIT_CREDENTIAL_FILE_CI_TOKEN"] == "/run/remit/credentials/token"
    assert [rule.ref for rule in spec.credentials] == ["ci/token"]
    assert SECRET.encode() not in await everything(path)


async def test_the_keeper_is_asked_in_this_order_and_not_for_a_run_without(
    make_path: MakePath,
) -> None:
    path = await a_path(make_path)
    await path.call("plain")
    assert path.credentials.asked == []
    path.runner.behave = ends(b"said")
    await path.call("deploy")
    assert [what for what, _ in path.credentials.asked] == ["lend", "scrub", "take_back"]
    told = [what for what, _ in path.runner.told[-3:]]
    assert told == ["provision", "start", "destroy"]


async def test_traces_in_output_and_files_are_blanked_before_anything_is_kept_or_shown(
    make_path: MakePath,
) -> None:
    path = await a_path(make_path)
    encoded = base64.b64encode(SECRET.encode())

    async def leak(_: RunSpec) -> RunResult:
        return RunResult(
            ending=Ending.EXIT,
            exit_code=0,
            stdout=b"token is " + SECRET.encode(),
            stderr=b"header " + encoded,
            files={"out.txt": b"kept " + SECRET.encode()},
        )

    path.runner.behave = leak
    reply = await path.call("deploy")
    assert SECRET.encode() not in reply.content.text
    held = await everything(path) + b"".join(path.artifacts.kept.values())
    assert SECRET.encode() not in held
    assert encoded not in held
    assert BLANK in held
    found = await outcome(path)
    assert found["blanked"] == 3
    (artifact,) = path.artifacts.kept.values()
    assert artifact == b"kept " + BLANK


def went_to(*hosts: str) -> Traffic:
    made = [
        Connection(host=host, port=443, kind="tunnel", opened_ms=1, closed_ms=1, refused=REFUSED)
        for host in hosts
    ]
    return Traffic(connections=tuple(made), refused=len(made), closed_ms=1)


async def test_hosts_that_a_run_asked_for_are_searched_too(make_path: MakePath) -> None:
    path = await a_path(make_path)

    async def call_home(_: RunSpec) -> RunResult:
        hosts = went_to("example.com", f"{SECRET}.example.com", "", "example.org")
        return RunResult(ending=Ending.EXIT, exit_code=1, traffic=hosts)

    path.runner.behave = call_home
    reply = await path.call("deploy")
    assert SECRET.encode() not in reply.content.text + await everything(path)
    found = await outcome(path)
    named = [each["host"] for each in found["traffic"]["connections"]]
    assert named == ["example.com", f"{BLANK.decode()}.example.com", "", "example.org"]
    assert found["blanked"] == 1
    path.credentials.broken = ["scrub"]
    reply = await path.call("look")
    assert b"example.com" not in reply.content.text + json.dumps(await outcome(path)).encode()
    assert len((await outcome(path))["traffic"]["connections"]) == 4


async def test_record_says_what_was_lent_and_that_it_ended(make_path: MakePath) -> None:
    path = await a_path(make_path)
    await path.call("deploy")
    found = await outcome(path)
    (loan,) = found["loans"]
    assert (loan["ref"], loan["delivered"], loan["revoked"]) == ("ci/token", "file", True)
    assert loan["lent_ms"] <= loan["returned_ms"]
    evidence = found["destruction"]
    assert (evidence["complete"], evidence["credentials_left"]) == (True, 0)
    assert evidence["seen_ms"]["credentials"] >= loan["lent_ms"]


async def test_run_whose_credential_is_not_lent_never_starts(make_path: MakePath) -> None:
    path = await a_path(make_path)
    path.credentials.broken = ["lend"]
    reply = await path.call("deploy")
    assert code(reply) == "credential_unavailable"
    assert reply.decision["outcome"] == "never_started"
    assert path.runner.times("start") == 0
    assert path.runner.times("destroy") == 1
    assert ("take_back", reply.decision["run_id"]) in path.credentials.asked


@pytest.mark.parametrize("name", ["deploy", "look"])
async def test_output_that_cannot_be_searched_is_neither_kept_nor_shown(
    make_path: MakePath, name: str
) -> None:
    path = await a_path(make_path)
    path.credentials.broken = ["scrub"]
    path.runner.behave = ends(SECRET.encode())
    reply = await path.call(name)
    assert code(reply) == "output_withheld"
    assert reply.decision["outcome"] == "succeeded"
    assert b"could not be searched" in reply.content.text
    assert SECRET.encode() not in await everything(path) + reply.content.text
    assert "unscrubbed" in (await outcome(path))["limits_hit"]


@pytest.mark.threat("T-34")
async def test_loan_that_was_not_taken_back_is_in_the_evidence(make_path: MakePath) -> None:
    path = await a_path(make_path)
    path.credentials.broken = ["take_back"]
    reply = await path.call("deploy")
    assert code(reply) == "ok"
    evidence = (await outcome(path))["destruction"]
    assert (evidence["complete"], evidence["credentials_left"]) == (False, 1)
    assert "not taken back" in evidence["note"]
    path.credentials.broken = []
    (loan,) = await path.credentials.sweep(frozenset())
    assert loan.revoked


async def test_freeze_while_a_credential_is_lent_stops_the_run(make_path: MakePath) -> None:
    path = await a_path(make_path)
    lend = MemoryCredentials.lend

    async def slowly(self: MemoryCredentials, lease: Any) -> Any:
        lent = await lend(self, lease)
        await path.administration.freeze(OLGA, True, "a test")
        return lent

    path.credentials.lend = slowly.__get__(path.credentials)  # type: ignore[method-assign]
    reply = await path.call("deploy")
    assert code(reply) == "frozen"
    assert path.runner.times("start") == 0
    assert not await path.credentials.sweep(frozenset())  # it was taken back


async def test_call_that_is_given_up_while_it_runs_leaves_no_loan(make_path: MakePath) -> None:
    path = await a_path(make_path)
    begun = asyncio.Event()

    async def hang(_: RunSpec) -> RunResult:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    path.runner.behave = hang
    calling = asyncio.ensure_future(path.call("look"))
    await begun.wait()
    calling.cancel()
    await asyncio.wait([calling])
    async with asyncio.timeout(10):
        while (run := (await path.ledger.runs(limit=1))[0]).state.open:
            await asyncio.sleep(0)
    assert run.state is RunState.FAILED
    assert ("take_back", run.id) in path.credentials.asked


async def test_what_a_run_with_a_file_writes_is_told_to_nobody_as_it_comes(
    make_path: MakePath,
) -> None:
    path = await a_path(make_path)
    path.runner.live = [Frame(seq=0, channel=Channel.STDERR, data=SECRET.encode() + b"\n")]
    await path.call("deploy")
    assert any("holds a credential" in each for each in path.heard.messages)
    assert not any(SECRET in each for each in path.heard.messages)
    await path.call("plain")
    assert any(SECRET in each for each in path.heard.messages)  # told, where nothing was lent


async def test_what_a_run_writes_whose_credential_is_injected_is_searched_as_it_comes(
    make_path: MakePath,
) -> None:
    path: Path_ = await make_path(
        GIVE,
        tools=TOOLS,
        secrets={"ci/token": SECRET},
    )
    line = f"cloning with {SECRET}\n".encode()
    path.runner.live = [Frame(seq=0, channel=Channel.STDERR, data=line)]
    await path.call("deploy")
    assert any("cloning with" in each for each in path.heard.messages)
    assert not any(SECRET in each for each in path.heard.messages)


async def test_a_servers_words_are_searched_as_they_come_and_its_numbers_pass(
    make_path: MakePath,
) -> None:
    path: Path_ = await make_path(GIVE, tools=TOOLS, secrets={"ci/token": SECRET})
    amount = Amount(progress=0.5, total=2)
    told = Told(words=f"half way with {SECRET}", amount=amount)
    path.runner.live = [Frame(seq=0, channel=Channel.STDERR, data=b"of operators\n", told=told)]
    await path.call("deploy")
    (message,) = [each for each in path.heard.messages if "half way" in each]
    assert SECRET not in message
    assert amount in path.heard.amounts
    assert not any("of operators" in each for each in path.heard.messages)


async def test_credential_that_nobody_has_is_refused_before_policy(make_path: MakePath) -> None:
    path = await make_path(GIVE, tools=TOOLS, secrets={})
    reply = await path.call("deploy")
    assert code(reply) == "runner_lacks"
    assert path.runner.told == []


async def test_the_digest_of_a_handle_is_part_of_the_plan(make_path: MakePath) -> None:
    path = await a_path(make_path)
    reply = await path.call("deploy")
    plan = json.loads(await path.ledger.plan_text(reply.decision["plan_hash"]) or b"{}")
    (credential,) = plan["credentials"]
    assert credential["digest"] == path.credentials.digest("ci/token")
    path.credentials.digest = lambda ref: "sha256:" + "9" * 64  # type: ignore[method-assign]
    again = await path.call("deploy")
    assert again.decision["plan_hash"] != reply.decision["plan_hash"]
