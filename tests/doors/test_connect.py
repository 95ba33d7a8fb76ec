"""`remit connect`, started as clients start it: a command with pipes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from click.testing import CliRunner
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from remit.cli.connect import check_url, connect, read_key
from remit.doors.bridge import header_value
from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.errors import Code, ConfigError
from tests.doors.fake import FakeGateway
from tests.doors.serving import LEGACY, MODERN, call_body, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COMMAND = ["-c", "from remit.cli.connect import connect; connect()"]
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": LEGACY, "capabilities": {},
               "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip

MODES = pytest.mark.parametrize("mode", ["auto", "legacy", MODERN])


def parameters(url: str, key: str = "key-ann") -> StdioServerParameters:
    env = {"REMIT_URL": f"{url}/mcp", "REMIT_KEY": key}
    return StdioServerParameters(command=sys.executable, args=COMMAND, env=env)


@asynccontextmanager
async def piped(url: str, key: str = "key-ann") -> AsyncIterator[asyncio.subprocess.Process]:
    """The command with its pipes in our hands."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"REMIT_URL": f"{url}/mcp", "REMIT_KEY": key},
    )
    try:
        with anyio.fail_after(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def say(process: asyncio.subprocess.Process, message: Any) -> None:
    assert process.stdin is not None
    line = message if isinstance(message, bytes) else json.dumps(message).encode()
    process.stdin.write(line + b"\n")
    await process.stdin.drain()


async def hear(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    return json.loads(await process.stdout.readline())


@MODES
async def test_a_stdio_client_finds_and_calls_tools_in_every_mode(mode: Any) -> None:
    gateway = FakeGateway()
    heard: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        Client(parameters(url), mode=mode) as client,
    ):
        assert client.session.protocol_version == (LEGACY if mode == "legacy" else MODERN)
        assert "echo" in [t.name for t in (await client.list_tools()).tools]
        result = await client.call_tool("echo", {"text": "one\ntwo ✓"})
        denied = await client.call_tool("fails")
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("nothing_here")
        await client.call_tool("progress", progress_callback=on_progress)
    assert result.content[0].model_dump()["text"] == "one\ntwo ✓"
    assert denied.is_error
    assert unknown.value.message == "Unknown tool: nothing_here"
    assert heard == ["one", "two", "three"]
    assert {call.caller.subject for call in gateway.calls} == {"ann"}


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_a_cancel_from_a_stdio_client_ends_the_call(mode: Any) -> None:
    gateway = FakeGateway()
    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        Client(parameters(url), mode=mode) as client,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "slow")
            with anyio.fail_after(30):
                await gateway.started.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(30):
            await gateway.cancelled.wait()
        assert not (await client.call_tool("echo", {"text": "x"})).is_error


async def test_it_ends_when_the_client_closes_its_side_and_takes_its_calls_with_it() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url, piped(url) as process:
        await say(process, call_body("slow"))
        with anyio.fail_after(30):
            await gateway.started.wait()
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
        with anyio.fail_after(30):
            await gateway.cancelled.wait()


async def test_an_answer_that_is_almost_there_is_still_given_at_the_end() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url, piped(url) as process:
        await say(process, call_body("echo", {"text": "x"}, id_="last"))
        assert process.stdin is not None
        process.stdin.close()
        assert (await hear(process))["id"] == "last"
        assert await process.wait() == 0


async def test_a_key_that_is_refused_is_told_to_the_client_and_to_the_person() -> None:
    async with (
        served(mcp_app(FakeGateway(), DoorSettings())) as url,
        piped(url, "wrong-key") as process,
    ):
        await say(process, call_body("echo", id_=9))
        answer = await hear(process)
        assert process.stderr is not None
        told = await process.stderr.readline()
    assert (answer["id"], answer["error"]["code"]) == (9, 4010)
    assert b"refused the key" in told
    assert b"wrong-key" not in told


async def test_a_gateway_that_is_not_there_is_told_to_both() -> None:
    async with piped("http://127.0.0.1:1") as process:
        for message in (call_body("echo", id_=1), {"jsonrpc": "2.0", "id": 2,
                        "method": "initialize", "params": {}}):  # fmt: skip
            await say(process, message)
            answer = await hear(process)
            assert answer["id"] == message["id"]
            assert "remit serve" in answer["error"]["message"]
        assert process.stderr is not None
        assert b"cannot be reached" in await process.stderr.readline()


async def test_a_line_that_is_not_json_is_answered_and_the_next_one_served() -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, piped(url) as process:
        await say(process, b"{nonsense")
        assert (await hear(process))["error"]["code"] == -32700
        await say(process, b"")
        await say(process, call_body("echo", {"text": "x"}))
        assert (await hear(process))["result"]["content"][0]["text"] == "x"


@pytest.mark.threat("T-06")
async def test_a_message_goes_through_byte_for_byte() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url, piped(url) as process:
        twice = json.dumps(call_body("echo", id_=3))[:-1] + ', "method": "tools/call"}'
        await say(process, twice.encode())
        answer = await hear(process)
    assert answer["error"]["data"]["code"] == "duplicate_key"
    assert answer["id"] == 3
    assert gateway.calls == []


async def test_a_session_that_the_gateway_forgot_is_opened_again() -> None:
    gateway = FakeGateway()
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo"}}
    app = mcp_app(gateway, DoorSettings())
    sessions = app.state.door._legacy
    async with served(app) as url, piped(url) as process:
        await say(process, INITIALIZE)
        assert (await hear(process))["result"]["protocolVersion"] == LEGACY
        await say(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        for session_id, transport in list(sessions._server_instances.items()):
            await sessions._discard_session(session_id, transport)
        await say(process, call)
        # What changed while there was no session was told to nobody.
        told = {each.get("method"): each for each in [await hear(process), await hear(process)]}
        assert told.keys() == {None, "notifications/tools/list_changed"}
        assert told[None]["result"]["isError"] is False
        assert process.stderr is not None
        assert b"opened again" in await process.stderr.readline()
    assert len(gateway.calls) == 1


async def test_a_session_ends_with_its_client() -> None:
    app = mcp_app(FakeGateway(), DoorSettings())
    sessions = app.state.door._legacy._server_instances
    async with served(app) as url, piped(url) as process:
        await say(process, INITIALIZE)
        await hear(process)
        assert len(sessions) == 1
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
        assert sessions == {}


@pytest.mark.threat("T-02")
@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://gate.example/mcp", Code.ADDRESS_REFUSED),
        ("http://10.0.0.1:8700/mcp", Code.ADDRESS_REFUSED),
        ("http://localhost.evil.example/mcp", Code.ADDRESS_REFUSED),
        ("http://user:pass@127.0.0.1/mcp", Code.CONFIG_INVALID),
        ("file:///etc/passwd", Code.CONFIG_INVALID),
        ("127.0.0.1:8700", Code.CONFIG_INVALID),
    ],
)
def test_a_key_is_not_sent_where_others_can_read_it(url: str, code: Code) -> None:
    with pytest.raises(ConfigError) as refused:
        check_url(url, plain=False)
    assert refused.value.code is code


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8700/mcp", "http://[::1]/mcp", "http://localhost/mcp", "https://x/mcp"],
)
def test_loopback_and_https_are_taken(url: str) -> None:
    check_url(url, plain=False)
    check_url("http://gate.example/mcp", plain=True)


def test_the_key_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text("remit_a_b\n")
    monkeypatch.setenv("REMIT_KEY", "from-environment")
    assert read_key(file) == "remit_a_b"
    assert read_key(None) == "from-environment"
    file.write_text("two words\n")
    with pytest.raises(ConfigError):
        read_key(file)
    monkeypatch.delenv("REMIT_KEY")
    assert CliRunner().invoke(connect, []).exit_code == 2


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("read_status", "read_status"),
        ("a b", "a b"),
        (" a", "=?base64?IGE=?="),
        ("é", "=?base64?w6k=?="),
        ("a\r\nb", "=?base64?YQ0KYg==?="),
        ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ("", "=?base64??="),
    ],
)
def test_a_header_can_carry_any_name(text: str, sent: str) -> None:
    from mcp.shared.inbound import decode_header_value

    assert header_value(text) == sent
    assert decode_header_value(sent) == text


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_a_stdio_client_hears_that_its_tools_have_changed(mode: Any) -> None:
    gateway = FakeGateway()
    told = anyio.Event()

    async def hear_of(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            told.set()

    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        Client(parameters(url), mode=mode, message_handler=hear_of) as client,
    ):
        with anyio.fail_after(30):
            if mode == "legacy":
                while not (gateway.watching and gateway.listed):
                    await anyio.sleep(0.01)
                gateway.hidden["ann"].add("slow")
                gateway.change()
                await told.wait()
            else:
                async with client.listen(tools_list_changed=True) as heard:
                    gateway.hidden["ann"].add("slow")
                    gateway.change()
                    await anext(heard)
                while gateway.watching:
                    await anyio.sleep(0.01)
