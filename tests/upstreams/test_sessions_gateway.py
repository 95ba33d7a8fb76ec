"""A whole gateway that keeps a server's process: its calls, its end, and what the log says of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.upstream_servers.behind import Behind, said

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-39"),
]

PROGRAM = (Path(__file__).parent / "small_server.py").read_text()
SMALL: dict[str, Any] = {
    "name": "small",
    "command": {"argv": ["/usr/bin/python3", "-I", "-S", "-c", PROGRAM]},
    "session": "per_caller",
    "tools": [{"name": "do", "effect": "read"}],
}


async def entries(behind: Behind) -> list[dict[str, Any]]:
    found = await behind.gateway.ledger.entries(0, 10_000)
    return [json.loads(each.text) for each in found]


async def test_a_gateway_keeps_a_process_for_its_caller_and_ends_it_with_itself(
    tmp_path: Path,
) -> None:
    behind = Behind(tmp_path, [SMALL])
    async with behind.open():
        await behind.offered("small")
        for n in (1, 2):
            reply = await behind.call("small_do", {"what": "tell", "n": n})
            assert not reply.is_error, said(reply)
            assert reply.structured is not None
            assert reply.structured.value()["calls"] == n
        outcome = await behind.outcome()
        name = outcome["runner"]["session"]
        assert outcome["destruction"]["session"]["id"] == name
    async with behind.open():
        [ended] = [each for each in await entries(behind) if each["event"] == "runner.swept"]
    assert (ended["run"], ended["when"]) == (name, "session")
    assert ended["destruction"]["complete"] is True
    assert ended["destruction"]["session"]["ended"] == "the gateway ends"
    assert ended["destruction"]["session"]["calls"] == 2
