"""A real gateway that serves the tools which the conformance suite calls by name.

Each is a `command` tool whose result is MCP content, run in a sandbox of its own: what the suite
sees has gone the whole path.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.identity.keys import new_key
from remit.ledger.signer import FileSigner
from tests.conformance.contents import RESULTS, SCHEMA_2020_12

START_S = 30

POLICY = """package remit

import rego.v1
import future.keywords.not

default decision := {
    "schema": "remit.decision/1", "decision": "deny",
    "reasons": [{"code": "no_rule", "message": "no rule", "audience": "user"}],
}

decision := {
    "schema": "remit.decision/1", "decision": "allow",
    "reasons": [{"code": "fixture", "message": "a fixture of the conformance suite"}],
    "constraints": {"egress": input.tool.egress},
} if input.tool.effect == "read"

visible := {tool.name: true | some tool in input.tools}
"""

REPORTS = """import json, sys, time
for step in ("0 of 100", "50 of 100", "100 of 100"):
    print(step, file=sys.stderr, flush=True)
    time.sleep(0.05)
print(json.dumps({"content": [{"type": "text", "text": "done, in three steps"}]}))
"""


PLAIN = {
    "test_logging_tool": ("Never sends a log message: Remit has no logging.", {"type": "object"}),
    "test_streaming_elicitation": (
        "Asks its client for nothing: Remit sends no requests.",
        {"type": "object"},
    ),
    "json_schema_2020_12_tool": ("Has a schema with much of the vocabulary.", SCHEMA_2020_12),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixture:
    """A gateway that runs, and the one key that it knows."""

    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


def tools() -> list[dict[str, Any]]:
    """The catalog of the fixture."""
    made = [
        {
            "name": name,
            "description": f"Gives the content that the suite expects of {name}.",
            "effect": "read",
            "result": "mcp",
            "command": {
                "argv": ["/bin/cat", "result.json"],
                "files": [{"path": "result.json", "content": json.dumps(result)}],
            },
        }
        for name, result in RESULTS.items()
    ]
    plain = [
        {
            "name": name,
            "description": why,
            "effect": "read",
            "input_schema": schema,
            "command": {"argv": ["/bin/echo", "done"]},
        }
        for name, (why, schema) in PLAIN.items()
    ]
    progress = {
        "name": "test_tool_with_progress",
        "description": "Reports three steps on its standard error, then its result.",
        "effect": "read",
        "result": "mcp",
        "command": {
            "argv": ["/usr/bin/python3", "-I", "-S", "steps.py"],
            "files": [{"path": "steps.py", "content": REPORTS}],
        },
    }
    return [*made, *plain, progress]


@contextmanager
def serving(root: Path, catalog: Mapping[str, Any] | None = None) -> Iterator[Fixture]:
    """Run `remit serve` on a catalog, the fixture's own if none is given, until the block ends."""
    root.chmod(0o755)
    key = new_key("suite")
    (root / "policy").mkdir()
    (root / "policy" / "policy.rego").write_text(POLICY)
    keys = root / "data" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    (root / "data").chmod(0o700)
    FileSigner.create(keys / "log.key", "remit.conformance")
    config = {
        "server": {
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "data_dir": "data",
        },
        "identity": {"keys": [{"id": key.id, "sha256": key.sha256, "subject": "suite"}]},
        "catalog": catalog or {"tools": tools()},
        "limits": {"calls_per_minute": 100_000},
        "policy": {"deadline_ms": 10_000},
        "telemetry": {"log_format": "json"},
    }
    path = root / "remit.yaml"
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML
    said = root / "gateway.log"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "remit", "--config", str(path), "serve"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Fixture(port=_until_ready(process, said), key=key.token)
    finally:
        process.terminate()
        try:
            process.wait(40)
        finally:
            process.kill()


def until_listed(fixture: Fixture, tool: str) -> None:
    """Wait until the gateway offers this tool, which it has from a server that it is asking yet."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    headers = {
        "Authorization": f"Bearer {fixture.key}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
    }
    asked = urllib.request.Request(fixture.url, data=json.dumps(body).encode(), headers=headers)
    deadline = time.monotonic() + START_S
    said = b""
    while time.monotonic() < deadline:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            said = answer.read()
        if f'"{tool}"'.encode() in said:
            return
        time.sleep(0.1)
    raise AssertionError(f"not offered: {tool}\n{said[:1000]!r}")


def _until_ready(process: subprocess.Popen[bytes], said: Path) -> int:
    """Wait until the gateway is ready; gives the port of its MCP door."""
    deadline = time.monotonic() + START_S
    last = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        at = _doors(said)
        if at is not None:
            try:
                with urllib.request.urlopen(f"{at['admin']}/readyz", timeout=10):
                    return int(at["mcp"].rsplit(":", 1)[1].partition("/")[0])
            except urllib.error.HTTPError as exc:
                last = exc.read().decode(errors="replace")
            except OSError as exc:
                last = str(exc)
        time.sleep(0.1)
    raise AssertionError(f"not ready: {last}\n{said.read_text(errors='replace')[-3000:]}")


def _doors(said: Path) -> dict[str, str] | None:
    """Where the gateway says that its doors are: ports that it took itself, and nobody before."""
    for line in said.read_text(errors="replace").splitlines(keepends=True):
        if '"serving"' in line and line.endswith("\n"):
            told: dict[str, str] = json.loads(line)
            if told["event"] == "serving":
                return told
    return None
