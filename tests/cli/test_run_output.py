"""`remit runs logs -f` and `remit runs files`, over a real gateway's admin API."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio import to_thread
from structlog.testing import capture_logs

from remit.app import door_settings, open_gateway
from remit.config import load
from remit.doors.admin import admin_app
from remit.gateway import Gateway
from remit.model import Amount, Call, Channel, Ending, Frame, Reply, RunResult, RunSpec
from remit.testing.scripted import ScriptedRunner
from tests.cli.conftest import Ended, Remit
from tests.doors.serving import served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REPORT = b"\x00 a report\n"
LIVE = [
    Frame(seq=0, channel=Channel.STDOUT, data=b"begun\n"),
    Frame(seq=1, channel=Channel.STDERR, data=b"careful\n"),
]


class Silent:
    wanted = False

    async def report(self, message: str, amount: Amount | None = None) -> None: ...


class House:
    """A gateway whose one tool runs until the test lets it end."""

    def __init__(self, gateway: Gateway, runner: ScriptedRunner, url: str, key: str) -> None:
        self._gateway = gateway
        self._url = url
        self._key = key
        self.begun = asyncio.Event()
        self.end = asyncio.Event()
        runner.behave = self._behave
        runner.live = LIVE

    async def _behave(self, _: RunSpec) -> RunResult:
        self.begun.set()
        await self.end.wait()
        out = b"".join(frame.data for frame in LIVE if frame.channel is Channel.STDOUT)
        files = {"report.bin": REPORT}
        return RunResult(ending=Ending.EXIT, exit_code=0, stdout=out, files=files)

    async def call(self) -> Reply:
        caller = await self._gateway.authenticate(f"Bearer {self._key}", "127.0.0.1")
        return await self._gateway.call(
            Call(
                id=self._gateway.new_call_id(),
                caller=caller,
                tool_name="read_status",
                arguments={"environment": "staging"},
                received_ms=0,
            ),
            Silent(),
        )

    async def remit(self, remit: Remit, *words: str) -> Ended:
        return await to_thread.run_sync(partial(remit, *words, "--url", self._url))


@pytest.fixture
async def house(home: Path) -> AsyncIterator[House]:
    path = home / "remit.yaml"
    whole: dict[str, Any] = yaml.safe_load(path.read_text())
    for tool in whole["catalog"]["tools"]:
        tool["result_files"] = ["report.bin"]
    path.write_text(yaml.safe_dump(whole))
    settings, runner = load(path, environ={"REMIT_POLICY__DEADLINE_MS": "10000"}), ScriptedRunner()
    key = (home / ".remit/keys/agent.token").read_text().strip()
    with capture_logs():
        async with (
            open_gateway(settings, runner=runner) as gateway,
            served(admin_app(gateway, door_settings(settings))) as url,
        ):
            yield House(gateway, runner, url, key)


async def newest(house: House, remit: Remit) -> str:
    listed = json.loads(
        (await house.remit(remit, "runs", "list", "--limit", "1", "-o", "json")).out
    )
    return str(listed["runs"][0]["id"])


async def test_run_is_followed_to_its_end_each_channel_to_its_own(
    house: House, remit: Remit
) -> None:
    calling = asyncio.ensure_future(house.call())
    await house.begun.wait()
    run = await newest(house, remit)
    following = asyncio.ensure_future(house.remit(remit, "runs", "logs", run, "-f"))
    await asyncio.sleep(0.3)
    assert not following.done()
    house.end.set()
    reply, ended = await calling, await following
    assert reply.decision["code"] == "ok"
    assert (ended.code, ended.out) == (0, "begun\n")
    assert ended.err.splitlines()[0] == "careful"
    assert ended.err.splitlines()[-1] == f"{run} succeeded"


async def test_run_that_is_over_is_printed_as_it_is_kept(house: House, remit: Remit) -> None:
    house.end.set()
    run = (await house.call()).decision["run_id"]
    ended = await house.remit(remit, "runs", "logs", run, "--follow")
    assert (ended.code, ended.out) == (0, "begun\n")
    lines = await house.remit(remit, "runs", "logs", run, "-f", "-o", "jsonl")
    (line,) = map(json.loads, lines.out.splitlines())
    assert (line["live"], line["end"]["state"]) == (False, "succeeded")


async def test_files_are_listed_fetched_and_checked(
    house: House, remit: Remit, tmp_path: Path
) -> None:
    house.end.set()
    reply = await house.call()
    run = reply.decision["run_id"]
    digest = "sha256:" + hashlib.sha256(REPORT).hexdigest()
    facts = {"path": "report.bin", "digest": digest, "bytes": len(REPORT), "kept": True}
    assert reply.decision["files"] == [facts]
    assert digest in (await house.remit(remit, "runs", "files", run)).out
    listed = json.loads((await house.remit(remit, "runs", "files", run, "--json")).out)
    assert listed == {"files": [facts]}
    target = tmp_path / "got.bin"
    words = ("runs", "files", run, "report.bin", "-o", str(target))
    assert (await house.remit(remit, *words)).code == 0
    assert target.read_bytes() == REPORT
    again = await house.remit(remit, *words)
    assert (again.code, target.read_bytes()) == (2, REPORT)
    absent = await house.remit(remit, "runs", "files", run, "other.bin")
    assert absent.code == 1
    assert "runs files" in absent.err


@pytest.mark.threat("T-22")
async def test_file_that_was_changed_on_disk_is_not_handed_out(
    house: House, remit: Remit, home: Path
) -> None:
    house.end.set()
    run = (await house.call()).decision["run_id"]
    for path in (home / ".remit/artifacts").rglob("*"):
        if path.is_file():
            path.write_bytes(b"changed")
    ended = await house.remit(remit, "runs", "files", run, "report.bin")
    assert (ended.code, ended.out) == (1, "")
    assert "not kept any more" in ended.err
