"""Remit in front of MCP servers: `remit serve` as an operator runs it, with the starter policy."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from tests.conformance.fixture import Fixture, until_listed

from bench.fronts.process import listening
from remit.identity.keys import NewKey, new_key
from remit.ledger.signer import FileSigner


def write_world(
    root: Path, servers: Sequence[dict[str, Any]], tools: Sequence[str], *, listen: str, admin: str
) -> NewKey:
    """Write the starter policy with a grant of each tool, a configuration, and keys.

    Gives the agent's key.

    Args:
        root: an empty directory.
        servers: entries of `catalog.servers`.
        tools: the names that the agent is granted.
        listen: where agents connect.
        admin: where operators connect.
    """
    with resources.as_file(resources.files("remit") / "templates" / "policy") as starter:
        shutil.copytree(starter, root / "policy")
    data = root / "policy" / "data.json"
    facts = json.loads(data.read_text())
    facts["grants"] = {"agents": {tool: ["staging"] for tool in tools}}
    data.write_text(json.dumps(facts))
    keys = root / "data" / "keys"
    keys.mkdir(parents=True)
    FileSigner.create(keys / "log.key", "remit.bench/log")
    key = new_key("bench")
    known = {"id": key.id, "sha256": key.sha256, "subject": "bench", "kind": "agent"}
    config = {
        "server": {"data_dir": "data", "listen": listen, "admin": admin},
        "identity": {"keys": [{**known, "groups": ["agents"]}]},
        "catalog": {"servers": list(servers)},
        "limits": {"calls_per_minute": 1_000_000},
        "telemetry": {"log_level": "error"},
    }
    (root / "remit.yaml").write_text(json.dumps(config))
    return key


@contextmanager
def remit(root: Path, upstream: str, port: int, admin: int) -> Iterator[tuple[str, int]]:
    """Serve the echo of an MCP server under its own name; gives the agent's token and the pid."""
    server = {
        "name": "echo",
        "prefix": "",
        "url": upstream,
        "effect": "read",
        "environment": {"fixed": "staging"},
    }
    listen, operators = f"127.0.0.1:{port}", f"127.0.0.1:{admin}"
    token = write_world(root, [server], ["echo"], listen=listen, admin=operators).token
    argv = [sys.executable, "-m", "remit", "--config", str(root / "remit.yaml"), "serve"]
    with listening(argv, port) as pid:
        until_listed(Fixture(port=port, key=token), "echo")
        yield token, pid
