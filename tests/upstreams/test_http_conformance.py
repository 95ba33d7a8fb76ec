"""The official suite's client scenarios against Remit's side towards servers over HTTP.

What is not passed is in the baseline beside this file, each with its reason; the suite fails for
anything else, and for a baseline entry that passes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.machine import ROOT, node_binary
from tests.upstreams.http_client_turn import DIRECTORY

HERE = Path(__file__).parent
SUITE = ROOT / "tests/conformance/node/node_modules/@modelcontextprotocol/conformance/dist/index.js"
CLIENT = f"{sys.executable} -m tests.upstreams.http_client_turn"
BASELINE = HERE / "http-client-baseline.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.needs("node22"), pytest.mark.needs("node-tools")]


def _run(output: Path, *how: str) -> None:
    done = subprocess.run(
        [
            str(node_binary()), str(SUITE), "client",
            "--command", CLIENT, "--output-dir", str(output), "--timeout", "400000", *how,
        ],
        capture_output=True, text=True, cwd=ROOT, timeout=400,
        env={**os.environ, DIRECTORY: str(output)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


@pytest.mark.timeout(420)
def test_every_scenario_of_the_newest_revision_passes_or_has_a_reason(tmp_path: Path) -> None:
    required = ("--requirements", "2026-07-28")
    _run(tmp_path, *required, "--expected-failures", str(BASELINE))


@pytest.mark.parametrize(
    "scenario", ["initialize", "tools_call", "sse-retry", "auth/scope-step-up"]
)
def test_scenarios_of_the_handshake_pass(tmp_path: Path, scenario: str) -> None:
    _run(tmp_path, "--scenario", scenario, "--spec-version", "2025-11-25")


def test_each_part_of_the_baseline_has_a_reason() -> None:
    before = ""
    for line in BASELINE.read_text(encoding="utf-8").splitlines():
        if line.startswith("  - "):
            assert before.startswith(("  #", "  - ")), line
        before = line
