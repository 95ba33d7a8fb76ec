"""docs/authzen.md: what its example asks gets the answers that it shows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.model import Tier
from remit.policy.bundle import load_bundle
from remit.policy.layers import MAIN
from remit.testing.scripted import CAPABILITIES
from tests.path.conftest import AGENT, MakePath, tool
from tests.path.test_authzen import point
from tests.policy.world import STARTER

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-31")]

PAGE = Path(__file__).parents[2] / "docs" / "authzen.md"
RESTART = tool(
    "restart_service",
    environment={"argument": "environment"},
    input_schema={
        "type": "object",
        "properties": {
            "service": {"type": "string"},
            "environment": {"type": "string", "enum": ["staging", "production"]},
            "replicas": {"type": "integer"},
        },
        "required": ["service", "environment"],
    },
    command={"argv": ["/bin/true", "{service}"]},
    consequence="Restart {service}.",
)


def _named(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with the two names in it shortened as the page has them."""
    context = dict(answer["context"])
    assert context["decision_id"].startswith("dec_")
    context |= {"decision_id": "dec_…", "policy_revision": context["policy_revision"][:7] + "…"}
    return {**answer, "context": context}


@pytest.mark.parametrize("known", [True, False])
async def test_example_of_the_page_is_answered_as_it_shows(
    known: bool, make_path: MakePath
) -> None:
    assert CAPABILITIES.tier is Tier.SANDBOX
    blocks = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    asked, performed, refused = (json.loads(block) for block in blocks)
    path = await make_path(layers={MAIN: load_bundle(STARTER)}, tools=[RESTART])
    bot = replace(AGENT, subject=asked["subject"]["id"])
    async with point(path, callers={"k": bot} if known else {}) as asking:
        assert _named(await asking.ask(asked)) == performed
        del asked["context"]["dev_remit_constraints"]
        assert _named(await asking.ask(asked)) == refused
