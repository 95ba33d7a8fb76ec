"""Real servers of each revision over HTTP, made with the `mcp` package."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remit.errors import Code, UpstreamFault
from remit.model import SessionMode
from remit.upstreams.messages import Progress
from tests.upstreams.http_asked import TOKEN, asking, call, spec_of

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
OLD = ("2025-03-26", "2025-06-18", "2025-11-25")
WAYS = [
    *(f"{revision}/{how}/{state}" for revision in OLD for how in ("json", "stream")
      for state in ("stateful", "stateless")),
    "2026-07-28/json/stateless",
    "2026-07-28/stream/stateless",
    "events",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> Iterator[str]:
    """Where the reference servers are."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "http_reference_server.py")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


def _seen(reference: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{reference}/seen") as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


async def _tools(servers: Any, url: str) -> dict[str, dict[str, Any]]:
    found = await servers.list_tools("there", url, TOKEN, within_s=20)
    return {item["name"]: item for item in found}


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_of_each_revision_lists_calls_and_reports(reference, way):
    reports: list[Progress] = []
    url = f"{reference}/{way}"
    async with asking() as servers:
        tools = await _tools(servers, url)
        spec = spec_of(url, tools["echo"], {"region": "ü\n", "a": [1]})
        echo = await call(servers, spec, token=TOKEN)
        report = spec_of(url, tools["report"], {})
        await call(servers, report, token=TOKEN, progress=reports.append)
        with pytest.raises(UpstreamFault) as broken:
            await call(servers, spec_of(url, tools["broken"], {}), token=TOKEN)
        state = servers.state("there")
    assert list(tools) == ["echo", "report", "wait", "broken"]
    assert echo["structuredContent"] == {"region": "ü\n", "a": [1]}
    if "json" not in way:
        assert [each.message for each in reports] == ["step 1", "step 2", "step 3"]
    assert (broken.value.code, broken.value.sent) == (Code.UPSTREAM_ERROR, True)
    assert state is not None
    assert state.doing == "up"
    assert state.revision == ("2025-11-25" if way == "events" else way.partition("/")[0])
    assert (state.calls, state.sessions) == (0, 0)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "events"])
async def test_every_request_has_what_its_revision_wants_and_nothing_of_a_caller(reference, way):
    url = f"{reference}/{way}"
    revision = way.partition("/")[0]
    _seen(reference)
    async with asking() as servers:
        tools = await _tools(servers, url)
        await call(servers, spec_of(url, tools["echo"], {"region": "a b"}), token=TOKEN)
    seen = [each for each in _seen(reference) if each.get("verb")]
    for each in seen:
        assert each["headers"]["authorization"] == f"Bearer {TOKEN.decode()}"
        assert "cookie" not in each["headers"]
        assert each["headers"]["accept-encoding"] == "identity"
    (made,) = [each for each in seen if each["body"].get("method") == "tools/call"]
    assert made["headers"]["mcp-protocol-version"] == revision
    if revision == "2026-07-28":
        assert made["headers"]["mcp-method"] == "tools/call"
        assert made["headers"]["mcp-name"] == "echo"
        assert made["headers"]["mcp-param-region"] == "a b"
        meta = made["body"]["params"]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == revision
        assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
        assert "DELETE" not in [each["verb"] for each in seen]
    if way.endswith("stateful") and revision != "2026-07-28":
        begun = [each for each in seen if each["body"].get("method") == "initialize"]
        assert [each["verb"] for each in seen].count("DELETE") == len(begun) >= 2
        assert made["headers"]["mcp-session-id"]


@pytest.mark.parametrize(
    "way", ["2026-07-28/json/stateless", *WAYS[-3:], "2025-11-25/json/stateful"]
)
async def test_a_call_that_is_given_up_ends_at_the_server(reference, way):
    url = f"{reference}/{way}"
    async with asking() as servers:
        tools = await _tools(servers, url)
        _seen(reference)
        with pytest.raises(UpstreamFault) as late:
            await call(servers, spec_of(url, tools["wait"], {}), token=TOKEN, within_s=3)
        assert (late.value.code, late.value.sent) == (Code.UPSTREAM_TIMEOUT, True)
        again = await call(servers, spec_of(url, tools["echo"], {}), token=TOKEN)
        assert again["structuredContent"] == {}
        if "json" not in way or "2026" not in way:
            seen: list[Any] = []
            while {"waiting": False} not in seen:
                seen += _seen(reference)
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("mode", [SessionMode.SHARED, SessionMode.PER_CALLER])
async def test_reads_that_may_share_a_session_do_and_callers_are_kept_apart(reference, mode):
    url = f"{reference}/2025-11-25/json/stateful"
    async with asking() as servers:
        tools = await _tools(servers, url)
        _seen(reference)
        for caller in ("a", "b", "a", "b"):
            spec = spec_of(url, tools["echo"], {}, session=mode, caller=caller)
            await call(servers, spec, token=TOKEN)
        state = servers.state("there")
        assert state is not None
        assert state.sessions == (1 if mode is SessionMode.SHARED else 2)
    seen = [each for each in _seen(reference) if each.get("verb")]
    calls = [
        each["headers"]["mcp-session-id"]
        for each in seen
        if each["body"].get("method") == "tools/call"
    ]
    assert len(calls) == 4
    assert (calls[0] == calls[1]) is (mode is SessionMode.SHARED)
    assert calls[0] == calls[2]
    assert calls[1] == calls[3]
    ended = [each["headers"]["mcp-session-id"] for each in seen if each["verb"] == "DELETE"]
    assert len(ended) == len(set(ended))
    assert set(calls) <= set(ended)
