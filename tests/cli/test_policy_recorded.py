"""A decision of a gateway that serves, explained and compared as an operator would, in its directory."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx2
import pytest

from tests.cli.conftest import Remit
from tests.cli.serving import configure, serving
from tests.doors.serving import call_body, http, modern_headers

ARGUMENTS = {"service": "ledger-db", "environment": "staging", "replicas": 1}


@pytest.mark.slow
def test_decision_of_a_serving_gateway_is_explained_by_its_id_alone(
    home: Path, remit: Remit
) -> None:
    config = configure(home)
    token = (home / ".remit/keys/agent.token").read_text().strip()
    with serving(config) as gateway:
        at = gateway.until("serving")

        async def call() -> httpx2.Response:
            async with http() as session:
                headers = modern_headers("tools/call", "restart_service", token)
                return await session.post(
                    at["mcp"], headers=headers, json=call_body("restart_service", ARGUMENTS)
                )

        reply = anyio.run(call).json()["result"]
        decision = reply["_meta"]["dev.remit/decision"]["decision_id"]
        explained = remit("policy", "explain", decision)
        assert explained.code == 0, explained.err
        assert (
            "  the policy here has the same revision and gives the same answer\n" in explained.out
        )
        assert "\ndeny\n  service: This service may not be restarted" in explained.out
        differing = remit("policy", "diff", "policy", "policy", "--recorded")
        assert (differing.code, differing.out.splitlines()[0]) == (0, "0 of 1 decisions differ")
        assert gateway.stop() == 0
    assert remit("policy", "explain", decision).out == explained.out
