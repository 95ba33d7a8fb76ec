"""The reference server is what the official suite calls one: without that, nothing through Remit
would say anything about Remit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.suite import run
from tests.upstream_servers.serving import everything_over_http

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("node22"),
    pytest.mark.needs("node-tools"),
]


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
def test_the_reference_server_passes_every_required_scenario(tmp_path: Path, revision: str) -> None:
    with everything_over_http() as url:
        run(url, revision, tmp_path, baseline=None)
