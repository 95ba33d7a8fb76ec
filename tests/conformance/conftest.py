"""One gateway for all outside checks of a session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.fixture import Fixture, serving


@pytest.fixture(scope="package")
def fixture_gateway() -> Iterator[Fixture]:
    """A real gateway with the fixture's tools; made only when a test that may run wants it."""
    with tempfile.TemporaryDirectory(prefix="remit-outside-") as root, serving(Path(root)) as made:
        yield made
