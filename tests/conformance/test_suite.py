"""The official conformance suite against a real gateway, at both revisions that it scores.

What is not passed is in the baseline beside this file, each with its reason; the suite fails for
anything else, and for a baseline entry that passes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.fixture import Fixture
from tests.conformance.shim import shim
from tests.conformance.suite import run

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("bwrap"),
    pytest.mark.needs("userns"),
    pytest.mark.needs("cgroup"),
    pytest.mark.needs("node22"),
    pytest.mark.needs("node-tools"),
]


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
def test_every_required_scenario_passes_or_has_a_reason(
    fixture_gateway: Fixture, tmp_path: Path, revision: str
) -> None:
    baseline = HERE / f"baseline-{revision}.yaml"
    with shim(fixture_gateway.port, fixture_gateway.key) as port:
        run(f"http://127.0.0.1:{port}/mcp", revision, tmp_path, baseline=baseline)


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
def test_each_part_of_the_baseline_has_a_reason(revision: str) -> None:
    lines = (HERE / f"baseline-{revision}.yaml").read_text().splitlines()
    before = ""
    for line in lines:
        if line.startswith("  - "):
            assert before.startswith(("  #", "  - ")), line
        before = line
