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


def decided(url: str, token: str) -> str:
    """The id of the decision on one call through the door."""

    async def call() -> httpx2.Response:
        async with http() as session:
            headers = modern_headers("tools/call", "restart_service", token)
            body = call_body("restart_service", ARGUMENTS)
            return await session.post(url, headers=headers, json=body)

    reply = anyio.run(call).json()["result"]
    return str(reply["_meta"]["dev.remit/decision"]["decision_id"])


@pytest.mark.slow
def test_decision_of_a_serving_gateway_is_explained_by_its_id_alone(
    home: Path, remit: Remit
) -> None:
    config = configure(home)
    token = (home / ".remit/keys/agent.token").read_text().strip()
    with serving(config) as gateway:
        at = gateway.until("serving")
        decision = decided(at["mcp"], token)
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


@pytest.mark.slow
def test_configured_asks_the_library_and_the_layers_of_the_configuration(
    home: Path, remit: Remit
) -> None:
    config = configure(home)
    text = config.read_text()
    config.write_text(text.replace("policy:\n", "policy:\n  use:\n    secrets: {}\n", 1))
    with serving(config) as gateway:
        at = gateway.until("serving")
        token = (home / ".remit/keys/agent.token").read_text().strip()
        decision = decided(at["mcp"], token)
        assert gateway.stop() == 0
    same = "  the policy here has the same revision and gives the same answer\n"
    alone = remit("policy", "explain", decision)
    assert same not in alone.out
    assert "--configured" in alone.out
    whole = remit("policy", "explain", decision, "--configured")
    assert (whole.code, same in whole.out) == (0, True), whole.err
    (home / "question.json").write_text("{}")
    asked = remit("policy", "eval", "--configured", "--input", "question.json")
    assert (asked.code, asked.out.startswith("deny (policy_denied)")) == (1, True)


@pytest.mark.parametrize("also", [["policy"], ["--use", "secrets"], ["--layer", "a=policy"]])
def test_configured_with_what_it_stands_for_is_wrong_usage(
    home: Path, remit: Remit, also: list[str]
) -> None:
    told = remit("policy", "explain", "dec_1", *also, "--configured")
    assert told.code == 2
    assert "--configured stands for" in told.err
