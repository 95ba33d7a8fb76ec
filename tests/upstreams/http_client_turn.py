"""The client of the official suite, in its turn: the suite starts those of all scenarios at once, and
what a busy machine makes of forty of them is no finding."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
from pathlib import Path

TURNS = 3
DIRECTORY = "REMIT_TEST_TURNS"


def main() -> None:
    """Wait for a turn, then be the client."""
    where = Path(os.environ.get(DIRECTORY) or tempfile.mkdtemp())
    with (where / f"turn-{os.getpid() % TURNS}").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        import asyncio

        from tests.upstreams import http_client_main

        scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
        context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
        asyncio.run(http_client_main.main(sys.argv[1], scenario, context))


if __name__ == "__main__":
    main()
