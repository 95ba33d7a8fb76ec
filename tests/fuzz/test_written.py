"""Lists of servers, files of accepted tools, `server.json` and clients' files, changed and damaged."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from remit.errors import Code, ConfigError
from remit.servers.pins import PinStore
from remit.upstreams.client_files import Client, read_client_file
from remit.upstreams.server_json import read_server_json
from tests.fuzz.odd import changed, damaged, encoded
from tests.servers.make import Told, item, oversight, spec

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(0)]

TIMES = 400
CPU_S = 5
"""The most that reading one small text may take; it takes milliseconds."""

TOOLS = [
    item("read", title="Read", description="Reads a file.", annotations={"readOnlyHint": True}),
    item(
        "send",
        description="Sends it. Use `read` first.",
        inputSchema={
            "type": "object",
            "properties": {"to": {"$ref": "#/$defs/To"}, "n": {"type": "integer", "minimum": 1}},
            "required": ["to"],
            "$defs": {"To": {"type": "string", "pattern": "^[a-z]+$"}},
        },
        outputSchema={"type": "object", "properties": {"ok": {"type": "boolean"}}},
    ),
    item("drop"),
]
PUBLISHED = {
    "$schema": "https://schemas.example.com/2025-12-11/server.schema.json",
    "name": "io.github.ann/weather",
    "description": "Weather",
    "version": "1.0.2",
    "packages": [
        {
            "registryType": "npm",
            "identifier": "@ann/weather",
            "version": "1.0.2",
            "transport": {"type": "stdio"},
            "environmentVariables": [{"name": "API_KEY", "isRequired": True, "isSecret": True}],
            "packageArguments": [{"type": "named", "name": "--port", "default": "3000"}],
        }
    ],
    "remotes": [{"type": "streamable-http", "url": "https://a.example/mcp", "headers": [
        {"name": "X-Key", "value": "Bearer {key}", "variables": {"key": {"isSecret": True}}}
    ]}],
}  # fmt: skip
_SERVER = {"command": "npx", "args": ["-y", "@a/b@1", "--k=${V}"], "env": {"TOKEN": "${input:t}"}}
_REMOTE = {"type": "http", "url": "https://a.example/mcp", "headers": {"Authorization": "Bearer x"}}
_BOTH = {"a": _SERVER, "b": _REMOTE}
FILES: dict[Client, Any] = {
    Client.CLAUDE_CODE: {"mcpServers": _BOTH},
    Client.CLAUDE_CODE_USER: {"mcpServers": _BOTH, "projects": {"/x": {"mcpServers": _BOTH}}},
    Client.CLAUDE_DESKTOP: {"mcpServers": _BOTH},
    Client.CURSOR: {"mcpServers": _BOTH},
    Client.VSCODE: {
        "servers": _BOTH,
        "inputs": [{"id": "t", "type": "promptString", "password": True}],
    },
}
CODEX = """
[mcp_servers.a]
command = "npx"
args = ["-y", "@a/b@1"]
env = { TOKEN = "x" }
[mcp_servers.b]
url = "https://a.example/mcp"
bearer_token_env_var = "KEY"
"""


def _text(random: Random, value: Any) -> str:
    """The value as text, changed or damaged."""
    made = changed(random, value, random.randrange(1, 5)) if random.random() < 0.7 else value
    data = encoded(made)
    if random.random() < 0.4:
        data = damaged(random, data, random.randrange(1, 4))
    return data.decode("utf-8", "replace")


def _outcome(read: Callable[..., object], *given: Any) -> str:
    """How it went; anything but a fault that says where and what is raised."""
    before = time.process_time()
    ended = "read"
    try:
        read(*given, path="a/file")
    except ConfigError as error:
        ended = error.code.value if error.place else "a fault without a place"
    assert time.process_time() - before < CPU_S
    return ended


def test_changed_files_of_clients_and_registries_are_read_or_refused(
    fuzz_seed: int, fuzz_count: Callable[[int], int]
) -> None:
    random = Random(fuzz_seed)
    seen: Counter[str] = Counter()
    for _ in range(fuzz_count(TIMES)):
        client, value = random.choice(list(FILES.items()))
        text = _text(random, value)
        seen[_outcome(read_client_file, client, text)] += 1
        toml = damaged(random, CODEX.encode(), random.randrange(1, 4)).decode("utf-8", "replace")
        seen[_outcome(read_client_file, Client.CODEX, toml)] += 1
        text = _text(random, PUBLISHED)
        seen[_outcome(read_server_json, text)] += 1
    assert seen.keys() == {"read", Code.CONFIG_INVALID.value}


async def _nothing() -> None:
    """What is offered is put in force."""


@pytest.mark.threat("T-43")
async def test_whatever_a_server_lists_nothing_is_offered_that_was_not_accepted(
    tmp_path: Path, fuzz_seed: int, fuzz_count: Callable[[int], int]
) -> None:
    random = Random(fuzz_seed)
    told = Told(files=TOOLS)
    over = oversight(tmp_path, spec())
    offered = 0
    async with over.kept(told, _nothing):
        for _ in range(fuzz_count(TIMES) // 4):
            before = time.process_time()
            await over.look("files")
            assert time.process_time() - before < CPU_S
            pinned = PinStore(tmp_path / "pins").read("files")
            for tool in over.catalog.tools():
                assert tool.upstream is not None
                accepted = pinned[tool.upstream.tool].accepted
                assert accepted is not None
                assert tool.upstream.definition == accepted.definition.digest
                offered += 1
            listed = changed(random, TOOLS, random.randrange(1, 4))
            told.lists["files"] = [each for each in listed if isinstance(each, dict)]
    assert offered > 0


@pytest.mark.threat("T-43")
async def test_a_damaged_file_of_accepted_tools_is_refused_or_holds_what_digests_say(
    tmp_path: Path, fuzz_seed: int, fuzz_count: Callable[[int], int]
) -> None:
    random = Random(fuzz_seed)
    over = oversight(tmp_path, spec())
    async with over.kept(Told(files=TOOLS), _nothing):
        await over.look("files")
    path = tmp_path / "pins" / "files.json"
    whole = path.read_bytes()
    head, _, body = whole.partition(b"\n")
    first = PinStore(tmp_path / "pins").read("files")
    digests = {each.accepted.definition.digest for each in first.values() if each.accepted}
    seen: Counter[str] = Counter()
    for _ in range(fuzz_count(TIMES)):
        changes = random.randrange(1, 3)
        data = damaged(random, whole, changes)
        if random.random() < 0.5:
            data = head + b"\n" + encoded(changed(random, json.loads(body), changes))
        path.write_bytes(data)
        try:
            found = PinStore(tmp_path / "pins").read("files")
        except ConfigError as error:
            seen[error.code] += 1
            continue
        seen["read"] += 1
        now = {each.accepted.definition.digest for each in found.values() if each.accepted}
        assert now <= digests
    assert seen.keys() <= {"read", Code.CATALOG_INVALID}
    assert seen[Code.CATALOG_INVALID] > seen["read"]
