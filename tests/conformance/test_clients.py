"""Clients that people use, against a real gateway: what they find, and what a call gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from remit.stages.asking import OWN
from tests.conformance.fixture import Fixture, tools
from tests.doors.serving import LEGACY, MODERN, client
from tests.plugins.machine import ROOT, node_binary

HERE = Path(__file__).parent
INSPECTOR = (
    HERE / "node/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
)
NAMES = sorted([*(tool["name"] for tool in tools()), *(own.name for own in OWN)])
SIMPLE = "This is a simple text response for testing."

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("bwrap"),
    pytest.mark.needs("userns"),
    pytest.mark.needs("cgroup"),
]


@pytest.mark.parametrize("mode", ["auto", "legacy", MODERN])
async def test_the_mcp_package_in_every_mode(fixture_gateway: Fixture, mode: str) -> None:
    heard: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    url = fixture_gateway.url.removesuffix("/mcp")
    async with client(url, mode, fixture_gateway.key) as c:
        assert c.session.protocol_version == (LEGACY if mode == "legacy" else MODERN)
        assert [t.name for t in (await c.list_tools()).tools] == NAMES
        simple = await c.call_tool("test_simple_text")
        mixed = await c.call_tool("test_multiple_content_types")
        await c.call_tool("test_tool_with_progress", progress_callback=on_progress)
    assert isinstance(simple.content[0], types.TextContent)
    assert simple.content[0].text == SIMPLE
    assert [block.type for block in mixed.content] == ["text", "image", "resource"]
    assert heard[-3:] == [
        (heard[-3][0], "0 of 100"),
        (heard[-3][0] + 1, "50 of 100"),
        (heard[-3][0] + 2, "100 of 100"),
    ]
    assert simple.meta is not None
    decision, receipt = (simple.meta[f"dev.remit/{name}"] for name in ("decision", "receipt"))
    assert decision["code"] == "ok"
    assert receipt["schema"] == "remit.receipt/1"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_stdio_client_through_remit_connect(fixture_gateway: Fixture, mode: Any) -> None:
    started = StdioServerParameters(
        command=sys.executable,
        args=["-m", "remit", "connect"],
        env={"REMIT_URL": fixture_gateway.url, "REMIT_KEY": fixture_gateway.key},
    )
    async with Client(started, mode=mode) as c:
        result = await c.call_tool("test_simple_text")
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == SIMPLE


def _inspect(fixture: Fixture, *words: str) -> Any:
    done = subprocess.run(
        [
            str(node_binary()), str(INSPECTOR), "--cli", fixture.url,
            "--transport", "http",
            "--header", f"Authorization: Bearer {fixture.key}",
            *words,
        ],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    return json.loads(done.stdout)


@pytest.mark.needs("node22")
@pytest.mark.needs("node-tools")
def test_the_inspector_lists_and_calls(fixture_gateway: Fixture) -> None:
    listed = _inspect(fixture_gateway, "--method", "tools/list")
    assert [tool["name"] for tool in listed["tools"]] == NAMES
    words = ("--method", "tools/call", "--tool-name")
    called = _inspect(fixture_gateway, *words, "test_simple_text")
    assert called["content"][0]["text"] == SIMPLE


@pytest.mark.needs("langchain")
def test_langchain_lists_and_calls(fixture_gateway: Fixture) -> None:
    done = subprocess.run(
        [
            str(ROOT / ".venv-langchain/bin/python"), str(HERE / "langchain_client.py"),
            fixture_gateway.url, fixture_gateway.key,
        ],
        capture_output=True, text=True, timeout=60, cwd=HERE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["tools"] == NAMES
    assert SIMPLE in said["answer"]
    assert "intentionally returns an error" in said["refused"]
