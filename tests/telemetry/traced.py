"""A gateway whose spans are kept, real clients at its MCP door, and all spans as JSON at the end.

In a process of its own, because a tracer provider is set once for a process:
`python -m tests.telemetry.traced CONFIG AGENT_TOKEN {with|without}`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp.shared.exceptions import MCPError
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from remit.app import door_settings, open_gateway
from remit.config import load
from remit.doors.mcp import mcp_app
from remit.model import Ending, RunResult, RunSpec
from remit.telemetry import configure_logs
from remit.testing.scripted import ScriptedRunner
from tests.doors.serving import call_body, client, modern_headers, modern_meta, served

SAID = "CALLERSWORD"
"""Part of everything that the callers here choose; it must be in no span of the gateway."""

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def behave(_spec: RunSpec) -> RunResult:
    return RunResult(ending=Ending.EXIT, exit_code=0, stdout=f"{SAID} out\n".encode())


def words(**more: str) -> dict[str, Any]:
    """`_meta` with words of the caller's wherever a caller may put some."""
    return {
        "dev.remit/purpose": {"purpose": f"{SAID} purpose", "ticket": SAID},
        "tracestate": f"vendor={SAID}",
        "baggage": f"key={SAID}",
        "progressToken": SAID,
        **more,
    }


async def post(url: str, token: str, body: dict[str, Any], name: str | None = None) -> None:
    headers = modern_headers(str(body["method"]), name, key=token)
    async with httpx2.AsyncClient(timeout=20) as session:
        await session.post(f"{url}/mcp", headers=headers, json=body)


async def speak(url: str, token: str) -> None:
    """Everything a caller may do that makes a server span."""
    for mode in ("2026-07-28", "legacy"):
        async with client(url, mode, key=token) as agent:
            await agent.list_tools()
            await agent.call_tool("read_status", {"environment": "staging"})
    await post(
        url, token,
        call_body("read_status", {"environment": "staging"}, words(traceparent=PARENT), SAID),
        "read_status",
    )  # fmt: skip
    denied = {"service": "ledger-db", "environment": "production"}
    for name, arguments in (
        ("restart_service", denied),
        ("read_status", {"environment": SAID}),
        (f"tool_{SAID}", {}),
    ):
        await post(url, token, call_body(name, arguments, words(), 7), name)
    odd = {"jsonrpc": "2.0", "id": SAID, "method": f"x/{SAID}", "params": {"_meta": modern_meta()}}
    await post(url, token, odd)
    async with client(url, "legacy", key=token) as agent:
        try:
            await agent.call_tool(f"tool_{SAID}", {"word": SAID})
        except MCPError:
            return


def as_json(span: ReadableSpan) -> dict[str, Any]:
    context, parent = span.context, span.parent
    assert context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "span": context.span_id,
        "trace": f"{context.trace_id:032x}",
        "parent": None if parent is None else parent.span_id,
        "state": context.trace_state.to_header(),
        "attributes": dict(span.attributes or {}),
        "events": [[event.name, dict(event.attributes or {})] for event in span.events],
        "status": [span.status.status_code.name, span.status.description],
    }


async def main(config: Path, token: str) -> None:
    settings = load(config)
    runner = ScriptedRunner()
    runner.behave = behave
    async with (
        open_gateway(settings, runner=runner) as gateway,
        served(mcp_app(gateway, door_settings(settings))) as url,
    ):
        await speak(url, token)


if __name__ == "__main__":
    configure_logs("json", "error")
    exporter = InMemorySpanExporter()
    if sys.argv[3] == "with":
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
    print(json.dumps([as_json(span) for span in exporter.get_finished_spans()]))
