"""The official conformance suite through Remit to an MCP server that passes all of it directly.

What is lost on the way is in a baseline beside this file, each with its reason.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.fixture import serving, until_listed
from tests.conformance.shim import shim
from tests.conformance.suite import run
from tests.plugins.machine import ROOT
from tests.upstream_servers.serving import everything_over_http

HERE = Path(__file__).parent
SOURCES = (
    "__init__.py",
    "conformance/__init__.py",
    "conformance/contents.py",
    "upstream_servers/__init__.py",
    "upstream_servers/asking.py",
    "upstream_servers/everything.py",
    "upstream_servers/offered.py",
)
REVISIONS = ("2026-07-28", "2025-11-25")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("bwrap"),
    pytest.mark.needs("userns"),
    pytest.mark.needs("cgroup"),
    pytest.mark.needs("node22"),
    pytest.mark.needs("node-tools"),
    pytest.mark.needs("upstream-servers"),
]


@pytest.fixture(scope="module")
def sources() -> Iterator[Path]:
    """The reference server's own code, where the user of a run can read it."""
    with tempfile.TemporaryDirectory(prefix="remit-sources-") as name:
        Path(name).chmod(0o755)
        for source in SOURCES:
            copy = Path(name) / source
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "tests" / source, copy)
        yield Path(name)


def in_a_sandbox(mounts: Mapping[str, Path], sources: Path) -> dict[str, Any]:
    """The reference server in a sandbox, kept for all calls: each of its tools is a read."""
    return {
        "name": "everything",
        "prefix": "",
        "effect": "read",
        "resources": "offer",
        "prompts": "offer",
        "session": "shared",
        "command": {
            "argv": ["/mnt/python/bin/python", "-m", "tests.upstream_servers.everything", "stdio"],
            "env": {"PYTHONPATH": "/mnt"},
            "mounts": [
                {"name": "python", "source": str(mounts["python"])},
                {"name": "tests", "source": str(sources)},
            ],
        },
    }


@contextmanager
def through(server: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """A gateway with this server behind it; the URL at which the suite may ask it."""
    gateway = folder / "gateway"
    gateway.mkdir()
    with (
        serving(gateway, {"servers": [server]}) as remit,
        shim(remit.port, remit.key) as port,
    ):
        until_listed(remit, "test_simple_text")
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_a_server_in_a_sandbox_passes_directly_passes_through_remit_or_has_a_reason(
    mounts: Mapping[str, Path], sources: Path, tmp_path: Path, revision: str
) -> None:
    with through(in_a_sandbox(mounts, sources), tmp_path) as url:
        run(url, revision, tmp_path / "output", baseline=HERE / f"through-{revision}.yaml")


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_a_server_over_http_passes_directly_passes_through_remit_or_has_a_reason(
    tmp_path: Path, revision: str
) -> None:
    with everything_over_http() as where:
        server = {
            "name": "everything",
            "prefix": "",
            "effect": "read",
            "resources": "offer",
            "prompts": "offer",
            "url": where,
        }
        with through(server, tmp_path) as url:
            run(url, revision, tmp_path / "output", baseline=HERE / f"through-{revision}.yaml")


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_part_of_the_baseline_has_a_reason(revision: str) -> None:
    lines = (HERE / f"through-{revision}.yaml").read_text().splitlines()
    before = ""
    for line in lines:
        if line.startswith("  - "):
            assert before.startswith(("  #", "  - ")), line
        before = line
