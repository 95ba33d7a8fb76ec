"""The two engines with one policy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from remit.policy.bundle import PolicyBundle
from remit.policy.embedded import EmbeddedEngine
from remit.policy.engine import Engine
from remit.policy.opa.supervisor import SupervisedOpa
from tests.plugins.machine import opa_binary

PATIENCE_MS = 10_000
"""So that a busy machine is not taken for a difference."""


@asynccontextmanager
async def both(bundle: PolicyBundle, state: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """The two engines with the same policy."""
    binary = opa_binary()
    assert binary is not None
    embedded = await EmbeddedEngine.start(bundle, deadline_ms=PATIENCE_MS)
    try:
        opa = await SupervisedOpa.start(
            bundle, binary=binary, state_dir=state, deadline_ms=PATIENCE_MS
        )
        try:
            yield embedded, opa
        finally:
            await opa.aclose()
    finally:
        await embedded.aclose()
