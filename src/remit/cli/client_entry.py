"""What each agent's client wants in its own file, so that it uses the gateway.

An entry names where a key is: an environment variable, what the editor asks for, or the whole
path of a file. It never holds a key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from remit.errors import Code, ConfigError

NAME = "remit"
VARIABLE = "REMIT_TOKEN"
_ASKED = "remit-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """How a client is to reach the gateway; with `key_file`, through `remit connect` over stdio."""

    url: str
    usual_url: bool
    plain: bool
    key_file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentClient:
    """A client: its file, the language and key of its servers, and its HTTP entry if it has one."""

    title: str
    form: Literal["json", "toml"]
    servers: str
    file: Callable[[], Path]
    http: Callable[[str], dict[str, Any]] | None
    stdio_type: bool = False
    asks: bool = False

    def pieces(self, door: Door) -> dict[str, Any]:
        """What the client's file must hold, by top key.

        Raises:
            ConfigError: `config_invalid`: an address or path that cannot stand in a file, or no
                key file for a client that speaks only stdio.
        """
        if door.key_file is not None:
            return {self.servers: {NAME: self._stdio(door, _whole(door.key_file))}}
        if self.http is None:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{self.title} speaks only stdio, and needs a file that holds the key",
                hint="--key-file FILE; `remit init` puts one at .remit/keys/agent.token",
            )
        entry = {self.servers: {NAME: self.http(_public(door.url))}}
        return {"inputs": [_QUESTION], **entry} if self.asks else entry

    def _stdio(self, door: Door, key_file: str) -> dict[str, Any]:
        args = ["connect", "--key-file", key_file]
        args += [] if door.usual_url else ["--url", _public(door.url)]
        args += ["--unsafe-plain-http"] if door.plain else []
        kind = {"type": "stdio"} if self.stdio_type else {}
        return {**kind, "command": "remit", "args": args}


def _public(url: str) -> str:
    """An address that may stand in a file others read, and that no client expands."""
    parts = urlsplit(url)
    if parts.query or parts.fragment or not _literal(url):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "the gateway's address has a query, a fragment, ${ or a character that is not visible",
            hint="give it as http://127.0.0.1:8700/mcp; a key never goes into an address",
        )
    return url


def _whole(path: Path) -> str:
    """The absolute path: a client starts commands in a directory of its own choice."""
    whole = os.path.abspath(path)
    if not _literal(whole):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "the key file's path holds ${ or a character that is not visible",
            hint="clients would read another path: move the file",
        )
    return whole


def _literal(text: str) -> bool:
    return text.isprintable() and "${" not in text


def _typed(url: str, reference: str) -> dict[str, Any]:
    return {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {reference}"}}


def _cursor(url: str) -> dict[str, Any]:
    return {"url": url, "headers": {"Authorization": f"Bearer ${{env:{VARIABLE}}}"}}


def _codex(url: str) -> dict[str, Any]:
    return {"url": url, "bearer_token_env_var": VARIABLE}


def _codex_file() -> Path:
    return Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex") / "config.toml"


def _desktop_file() -> Path:
    if sys.platform == "darwin":
        settings = Path.home() / "Library" / "Application Support"
    else:
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return settings / "Claude" / "claude_desktop_config.json"


_QUESTION = {
    "type": "promptString",
    "id": _ASKED,
    "description": "The agent's API key for Remit",
    "password": True,
}

CLIENTS = {
    "claude-code": AgentClient(
        title="Claude Code",
        form="json",
        servers="mcpServers",
        file=lambda: Path(".mcp.json"),
        http=lambda url: _typed(url, f"${{{VARIABLE}}}"),
    ),
    "claude-desktop": AgentClient(
        title="Claude Desktop", form="json", servers="mcpServers", file=_desktop_file, http=None
    ),
    "cursor": AgentClient(
        title="Cursor",
        form="json",
        servers="mcpServers",
        file=lambda: Path(".cursor", "mcp.json"),
        http=_cursor,
    ),
    "vscode": AgentClient(
        title="VS Code",
        form="json",
        servers="servers",
        file=lambda: Path(".vscode", "mcp.json"),
        # VS Code keeps what it asked for in its secret store; it does not put environment
        # variables into headers in every version.
        http=lambda url: _typed(url, f"${{input:{_ASKED}}}"),
        stdio_type=True,
        asks=True,
    ),
    "codex": AgentClient(
        title="Codex", form="toml", servers="mcp_servers", file=_codex_file, http=_codex
    ),
}
"""Every client by the name that `remit connect` is given."""
