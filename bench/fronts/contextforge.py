"""ContextForge in front of one server, set up as the quick start of its README does it.

Differences from that: fresh secrets instead of the example's, which it refuses; destinations on
loopback allowed; its limit of requests a minute lifted, as Remit's is. SQLite, one worker, its own
logging level.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADMIN = "admin@example.com"
START_S = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it listens, what it is asked with, and the process."""

    port: int
    path: str
    tool: str
    token: str
    pid: int


def environment(root: Path) -> dict[str, str]:
    """Its settings, by its own names."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "JWT_SECRET_KEY": secrets.token_hex(32),
        "AUTH_ENCRYPTION_SECRET": secrets.token_hex(32),
        "BASIC_AUTH_PASSWORD": f"Pw-{secrets.token_hex(8)}-A1",
        "PLATFORM_ADMIN_EMAIL": ADMIN,
        "PLATFORM_ADMIN_PASSWORD": f"Pw-{secrets.token_hex(8)}-A1!",
        "PLATFORM_ADMIN_FULL_NAME": "Platform Administrator",
        "MCPGATEWAY_UI_ENABLED": "false",
        "MCPGATEWAY_ADMIN_API_ENABLED": "true",
        "DATABASE_URL": f"sqlite:///{root}/mcp.db",
        "SSRF_ALLOW_LOCALHOST": "true",
        "RATE_LIMIT_MEDIUM_RPM": "100000000",
        "RATE_LIMIT_MEDIUM_BURST": "100000000",
        "TOOL_RATE_LIMIT": "100000000",
        "LOG_LEVEL": "ERROR",
    }


@contextmanager
def contextforge(home: Path, root: Path, upstream: str, port: int) -> Iterator[Place]:
    """Run it until the block ends, with the upstream registered and a virtual server of its tool.

    Args:
        home: its environment, as install.sh makes it.
        root: an empty directory for its database.
        upstream: the server's URL, streamable HTTP.
        port: where it is to listen, on 127.0.0.1.
    """
    env = environment(root)
    with (root / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [str(home / "bin/mcpgateway"), "--host", "127.0.0.1", "--port", str(port)],
            env=env, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        token = _token(home, root, env)
        asked = _Asked(port, token)
        asked.until_healthy(process)
        gateway = {"name": "echo", "url": upstream, "transport": "STREAMABLEHTTP"}
        asked.json("/gateways", gateway)
        tools = asked.json("/tools")
        bundle = {"name": "bench", "description": "bench", "associated_tools": [tools[0]["id"]]}
        made = asked.json("/servers", {"server": bundle})
        yield Place(
            port=port,
            path=f"/servers/{made['id']}/mcp",
            tool=tools[0]["name"],
            token=token,
            pid=process.pid,
        )
    finally:
        process.terminate()
        process.wait(30)


def _token(home: Path, root: Path, env: dict[str, str]) -> str:
    argv = [str(home / "bin/python"), "-m", "mcpgateway.utils.create_jwt_token"]
    argv += ["--username", ADMIN, "--exp", "600", "--secret", env["JWT_SECRET_KEY"]]
    done = subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


class _Asked:
    def __init__(self, port: int, token: str) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def json(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, headers=self._headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                self.json("/health")
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise RuntimeError("ContextForge did not become healthy; see its gateway.log")
