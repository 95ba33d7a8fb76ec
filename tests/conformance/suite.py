"""Running the official conformance suite against a server, at one revision."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.plugins.machine import ROOT, node_binary

MAIN = ROOT / "tests/conformance/node/node_modules/@modelcontextprotocol/conformance/dist/index.js"


def run(url: str, revision: str, output: Path, *, baseline: Path | None) -> None:
    """Fails with what the suite said unless every required scenario passes or is in the baseline.

    Args:
        url: of the MCP endpoint, on loopback.
        revision: the one whose required scenarios are run.
        output: a directory for the suite's own files.
        baseline: the file of expected failures, if any; the suite fails for an entry that passes.
    """
    expected = ["--expected-failures", str(baseline)] if baseline else []
    done = subprocess.run(
        [
            str(node_binary()), str(MAIN), "server",
            "--url", url,
            "--requirements", revision,
            *expected,
            "--output-dir", str(output),
        ],
        capture_output=True, text=True, cwd=ROOT, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    scored = done.stdout.count("\n=== Running scenario: ")
    assert scored >= 30, f"the suite ran {scored} scenarios only"
