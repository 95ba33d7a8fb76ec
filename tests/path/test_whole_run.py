"""A whole gateway with keeper, egress proxy and spawner: one action that needs a credential.

Nothing here is a stand-in: the command runs in its sandbox, its requests go by the proxy to a server
with TLS, the keeper lends what the ledger says, and the log is read afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from remit.app import open_gateway
from remit.config import load
from remit.gateway import Gateway
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.export import export_store
from remit.ledger.signer import FileSigner
from remit.model import Call, Caller, CallerKind, Reply
from remit.runners.sandbox import SandboxRunner
from tests.ledger.forging import check
from tests.path.conftest import HEAD, Heard
from tests.runners.egress.world import Asked, Destination, certificates, destination, ok

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("bwrap"),
    pytest.mark.needs("curl"),
    pytest.mark.threat("T-33"),
]

SECRET = "s3cr3t+of/the=operator"
GIVE = HEAD + (
    'decision := answer("allow", {"constraints": '
    '{"egress": input.tool.egress, "credentials": input.tool.credentials}})\n'
)
KEY = "a" * 64


class World:
    """A configuration around one destination, and the gateway that it makes."""

    def __init__(self, folder: Path, authority: str, there: Destination) -> None:
        self.folder = folder
        self.there = there
        self.gateway: Gateway
        (folder / ".remit" / "keys").mkdir(parents=True)
        self.signer = FileSigner.create(folder / ".remit/keys/log.key", "remit.test/log")
        (folder / "policy").mkdir()
        (folder / "policy" / "policy.rego").write_text(GIVE)
        (folder / "authority.pem").write_text(authority)
        (folder / "token").write_text(SECRET + "\n")
        (folder / "token").chmod(0o600)

    def tool(self, name: str, *argv: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "description": f"{name} for a test",
            "effect": "write",
            "input_schema": {"type": "object", "properties": {}},
            "command": {"argv": list(argv)},
            **more,
        }

    def tools(self) -> list[dict[str, Any]]:
        url = f"https://localhost:{self.there.port}"
        reach = {"egress": [{"host": "localhost", "port": self.there.port}]}
        curl = ("/usr/bin/curl", "-sS", "--max-time", "10")
        see = "cat $REMIT_CREDENTIAL_FILE_ON_DISK; cp $REMIT_CREDENTIAL_FILE_ON_DISK left.txt"
        hunt = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; "
        hunt += "find / -xdev -type f -newer /proc/1 2>/dev/null | xargs cat 2>/dev/null"
        injected = [{"ref": "injected"}]
        return [
            self.tool("ask", *curl, f"{url}/who", **reach, credentials=injected),
            self.tool("stray", *curl, "https://localhost:1/", **reach, credentials=injected),
            self.tool("hunt", "/bin/sh", "-c", hunt, **reach, credentials=injected),
            self.tool(
                "see", "/bin/sh", "-c", see,
                credentials=[{"ref": "on-disk"}], result_files=["left.txt"],
            ),
            self.tool("plain", "/bin/echo", "hello"),
        ]  # fmt: skip

    def configuration(self, **more: Any) -> dict[str, Any]:
        port = self.there.port
        inject = {"host": "localhost", "port": port, "value": "Bearer {token}"}
        secret = {"broker": "static", "secret": "file:token"}
        return {
            "catalog": {"tools": self.tools()},
            "identity": {"keys": [{"id": "k1", "subject": "bot", "kind": "agent", "sha256": KEY}]},
            "policy": {"deadline_ms": 10_000},
            "runners": {
                "egress": {"internal": [f"localhost:{port}"], "ca_file": "authority.pem"},
                "credentials": {
                    "injected": {**secret, "inject": [inject]},
                    "on-disk": {**secret, "file": {"name": "token"}},
                },
                **more,
            },
        }

    @asynccontextmanager
    async def open(self, **more: Any) -> AsyncIterator[World]:
        file = self.folder / "remit.yaml"
        file.write_text(yaml.safe_dump(json.loads(json.dumps(self.configuration(**more)))))
        async with open_gateway(load(file, environ={})) as self.gateway:
            yield self

    async def call(self, name: str) -> Reply:
        caller = Caller(tenant="default", subject="bot", kind=CallerKind.AGENT, key_id="k1")
        call = Call(
            id=self.gateway.new_call_id(), caller=caller, tool_name=name, arguments={},
            received_ms=1,
        )  # fmt: skip
        return await self.gateway.call(call, Heard())

    async def outcome(self) -> dict[str, Any]:
        entries = await self.gateway.ledger.entries(0, 10_000)
        found: list[dict[str, Any]] = [json.loads(entry.text) for entry in entries]
        return next(each for each in reversed(found) if each["event"] == "call.outcome")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = certificates(tmp_path)

    def reply(asked: Asked) -> bytes:
        return ok(b"known" if asked.headers.get("authorization") == f"Bearer {SECRET}" else b"no")

    async with destination(made.chain, reply) as there:
        folder = tmp_path / "gateway"
        folder.mkdir()
        yield World(folder, made.authority, there)


def said(reply: Reply) -> str:
    return "".join(block["text"] for block in reply.content.value())


def holds(folder: Path, words: bytes) -> list[Path]:
    """The files below a folder that hold these bytes; the operator's own is not one."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != "token" and words in path.read_bytes()
    ]


async def test_injected_credential_does_its_work_and_is_seen_by_nobody(world: World) -> None:
    async with world.open():
        reply = await world.call("ask")
        assert said(reply) == "known"
        outcome = await world.outcome()
        (loan,) = outcome["loans"]
        assert (loan["ref"], loan["delivered"]) == ("injected", "proxy")
        assert loan["returned_ms"] >= loan["lent_ms"]
        (connection,) = outcome["traffic"]["connections"]
        assert (connection["host"], connection["injected"]) == ("localhost", ["injected"])
        evidence = outcome["destruction"]
        assert evidence["complete"], evidence
        assert {"processes", "cgroup", "proxy", "credentials"} <= evidence["seen_ms"].keys()
        hunted = said(await world.call("hunt"))
        assert SECRET not in hunted
        assert "HTTPS_PROXY" in hunted  # it did look
    assert holds(world.folder, SECRET.encode()) == []


@pytest.mark.threat("T-32")
async def test_destination_that_the_plan_does_not_name_is_refused_and_recorded(
    world: World,
) -> None:
    async with world.open():
        reply = await world.call("stray")
        assert reply.decision["code"] == "run_failed"
        outcome = await world.outcome()
        assert outcome["traffic"]["refused"] == 1
        (connection,) = outcome["traffic"]["connections"]
        assert connection["refused"]
    assert world.there.asked == []


async def test_file_credential_is_in_the_run_and_blanked_in_all_that_comes_back(
    world: World,
) -> None:
    async with world.open():
        reply = await world.call("see")
        assert reply.decision["code"] == "ok", said(reply)
        assert said(reply) != ""
        assert SECRET not in said(reply)
        outcome = await world.outcome()
        assert outcome["blanked"] == 2
        assert outcome["loans"][0]["delivered"] == "file"
        assert [each["path"] for each in outcome["files"]] == ["left.txt"]
    assert holds(world.folder, SECRET.encode()) == []


@pytest.mark.threat("T-36")
async def test_slots_are_kept_for_the_tools_there_are_and_made_anew_under_another_policy(
    world: World,
) -> None:
    async with world.open(profiles={"sandbox": {"warm": {"shell": 2}}}):
        runner = world.gateway._pipeline.backends.runner
        assert isinstance(runner, SandboxRunner)
        await until(lambda: runner.waiting["shell"] >= 2)
        reply = await world.call("ask")
        assert said(reply) == "known"
        outcome = await world.outcome()
        assert outcome["destruction"]["complete"], outcome
        assert outcome["runner"]["slot"] == "warm-shell"
        await until(lambda: runner.waiting["shell"] >= 2)
        with capture_logs() as lines:
            (world.folder / "policy" / "policy.rego").write_text(GIVE + "# another\n")
            world.gateway.look_for_policy()
            await until(lambda: any(line["event"] == "slots_drained" for line in lines))
        await until(lambda: runner.waiting["shell"] >= 2)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_log_that_the_keeper_signed_is_whole(world: World) -> None:
    async with world.open():
        await world.call("see")
        await world.call("plain")
    lines = list(export_store(world.folder / ".remit/ledger.db")[0])
    report = check(lines, VerifierKey.parse(world.signer.verifier_key))
    assert report.ok, report
    assert report.intents == 2


async def test_reference_that_leads_nowhere_names_its_line(world: World) -> None:
    os.unlink(world.folder / "token")
    with pytest.raises(Exception, match="secret_unavailable") as refused:
        async with world.open():
            pass
    assert "remit.yaml" in str(refused.value)
