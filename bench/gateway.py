"""The gateway that is measured: its real doors, policy and ledger, on a world of the bench's own.

`noop` puts `remit.testing.NoopRunner` in place of the sandbox and nothing else; every figure
made with it is marked so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import uvloop

from remit.app import door_settings, open_gateway
from remit.backends import Backends
from remit.catalog.command import build_tool
from remit.catalog.spec import ToolSpec
from remit.catalog.store import CommandCatalog
from remit.cli.serve import bound, door
from remit.config import load
from remit.doors.mcp import mcp_app
from remit.identity.keys import new_key
from remit.ledger.signer import FileSigner
from remit.model import Tool
from remit.telemetry import configure_logs
from remit.testing.catalog import make_tool
from remit.testing.runner import NoopRunner

TOOL = {
    "name": "bench_true",
    "description": "Does nothing, for measuring.",
    "effect": "read",
    "environment": {"argument": "environment"},
    "input_schema": {
        "type": "object",
        "properties": {
            "environment": {"type": "string", "enum": ["staging", "production"]},
            "text": {"type": "string", "maxLength": 200},
        },
        "required": ["environment", "text"],
    },
    "command": {"argv": ["/bin/true"]},
}


def more_tools(count: int) -> list[Tool]:
    """The measured tool and so many others, all of which the agent may see."""
    others = [make_tool(f"other_{number:05d}", environment={"fixed": "staging"})
              for number in range(count - 1)]  # fmt: skip
    return [build_tool(ToolSpec.model_validate(TOOL)), *others]


def make_world(root: Path, port: int, *, record_all: bool = False, tools: int = 1) -> str:
    """Write the starter policy with a grant of each tool, a configuration and keys.

    Gives the agent's token.
    """
    with resources.as_file(resources.files("remit") / "templates" / "policy") as starter:
        shutil.copytree(starter, root / "policy")
    data = root / "policy" / "data.json"
    facts = json.loads(data.read_text())
    facts["grants"] = {"agents": {tool.name: ["staging"] for tool in more_tools(tools)}}
    data.write_text(json.dumps(facts))
    keys = root / "data" / "keys"
    keys.mkdir(parents=True)
    FileSigner.create(keys / "log.key", "remit.bench/log")
    key = new_key("bench")
    limits = {"calls_per_minute": 1_000_000}
    if record_all:
        limits["refusals_recorded_per_minute"] = 100_000
    config = {
        "server": {"data_dir": "data", "listen": f"127.0.0.1:{port}", "admin": "127.0.0.1:0"},
        "identity": {
            "keys": [
                {
                    "id": key.id,
                    "sha256": key.sha256,
                    "subject": "bench",
                    "kind": "agent",
                    "groups": ["agents"],
                }
            ]
        },
        "catalog": {"tools": [TOOL]},
        "limits": limits,
    }
    (root / "remit.yaml").write_text(json.dumps(config))
    return key.token


async def serve(root: Path, runner: str, tools: int) -> None:
    settings = load(root / "remit.yaml")
    instead = NoopRunner() if runner == "noop" else None
    catalog = CommandCatalog(more_tools(tools))

    def rearrange(backends: Backends) -> Backends:
        return replace(backends, catalog=catalog)

    async with open_gateway(settings, runner=instead, rearrange=rearrange) as gateway:
        listening = bound("server.listen", settings.listen)
        listening.listen()
        await door(mcp_app(gateway, door_settings(settings))).serve(sockets=[listening])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("runner", choices=["noop", "sandbox"])
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    chosen = parser.parse_args()
    configure_logs("json", "warning")
    run = uvloop.run if chosen.loop == "uvloop" else asyncio.run
    run(serve(chosen.root, chosen.runner, chosen.tools))
