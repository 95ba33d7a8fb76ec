"""The everything-server as a process of its own, over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.plugins.machine import ROOT

MODULE = "tests.upstream_servers.everything"


@contextmanager
def everything_over_http(*how: str) -> Iterator[str]:
    """Serve on a port of 127.0.0.1 until the block ends; gives the URL.

    Args:
        how: `json` for answers in JSON, without sessions.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "http", str(listener.fileno()), *how],
            stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            cwd=ROOT,
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            process.kill()  # asked to end, it would wait for whoever listens to it yet
            process.wait()
