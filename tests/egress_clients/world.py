"""A whole gateway whose tools are real clients, and a look at their runs while they live."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from remit.app import open_gateway
from remit.config import load
from remit.gateway import Gateway
from remit.ledger.signer import FileSigner
from remit.model import Call, Caller, CallerKind, Reply
from tests.egress_clients import searching
from tests.egress_clients.servers import GIT_USER
from tests.path.conftest import HEAD, Heard
from tests.runners.support import processes_of

GIVE = HEAD + (
    'decision := answer("allow", {"constraints": '
    '{"egress": input.tool.egress, "credentials": input.tool.credentials}}) '
    'if not endswith(input.tool.name, "-not-given")\n'
    'decision := answer("allow", {}) if endswith(input.tool.name, "-not-given")\n'
)
KEY = "a" * 64
CALLER = Caller(tenant="default", subject="bot", kind=CallerKind.AGENT, key_id="k1")
ISSUER = "https://remit.example.com"
TOPS = ("/job", "/tmp", "/run", "/dev/shm", "/etc", "/mnt/hold", "/var")
"""Where a run could have put something, or been given it."""

HOLD_PY = """
import os, time
def hold():
    "Stay as it is until whoever looks has looked."
    if os.path.isdir("/mnt/hold"):
        open("/mnt/hold/ready", "w").close()
        while not os.path.exists("/mnt/hold/go"):
            time.sleep(0.02)
"""
HOLD_SH = """#!/bin/sh
touch /mnt/hold/ready
while [ ! -e /mnt/hold/go ]; do sleep 0.02; done
"""


def libraries(folder: Path, *names: str) -> Path:
    """Distributions of this interpreter, copied to where every user may read them."""
    for name in names:
        for file in importlib.metadata.files(name) or ():
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                copy = folder / file
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), copy)
    return folder


@dataclass
class Look:
    """What was found in a run while it lived."""

    replies: list[Reply] = field(default_factory=list)
    held: list[tuple[str, bytes]] = field(default_factory=list, repr=False)

    @property
    def said(self) -> str:
        return "".join(block["text"] for block in self.replies[-1].content.value())

    def holds(self, *wanted: bytes) -> list[str]:
        return searching.found(iter(self.held), wanted)


class Place:
    """A configuration, the gateway that it makes, and a directory by which runs are held."""

    def __init__(self, folder: Path, authority: str) -> None:
        self.folder = folder
        self.secret = f"s3cr3t+of/the=operator-{secrets.token_hex(8)}"
        self.marker = f"marker-{secrets.token_hex(8)}"
        self.gateway: Gateway
        (folder / "data" / "keys").mkdir(parents=True)
        FileSigner.create(folder / "data/keys/log.key", "remit.test/log")
        (folder / "policy").mkdir()
        (folder / "policy" / "policy.rego").write_text(GIVE)
        (folder / "authority.pem").write_text(authority)
        (folder / "token").write_text(self.secret)
        (folder / "token").chmod(0o600)
        self.hold = folder / "hold"
        self.hold.mkdir()
        self.hold.chmod(0o777)
        self.tools: list[dict[str, Any]] = []
        self.credentials: dict[str, Any] = {}
        self.internal: list[str] = []

    def tool(
        self,
        name: str,
        *argv: str,
        port: int,
        credential: str = "api",
        libraries: Path | None = None,
        env: dict[str, str] | None = None,
        methods: Sequence[str] | None = ("GET", "POST"),
        path_prefix: str | None = None,
        scopes: Sequence[str] = (),
        **files: str,
    ) -> None:
        mounts = [{"name": "hold", "source": str(self.hold), "writable": True}]
        if libraries is not None:
            mounts.append({"name": "libraries", "source": str(libraries), "writable": False})
        rule: dict[str, Any] = {"host": "localhost", "port": port}
        if methods is not None:
            rule["methods"] = list(methods)
        if path_prefix is not None:
            rule["path_prefix"] = path_prefix
        texts = {"hold.py": HOLD_PY, "hold.sh": HOLD_SH, "marker.txt": self.marker}
        texts |= {path.replace("__", "."): text for path, text in files.items()}
        self.tools.append(
            {
                "name": name,
                "description": f"{name}, as people use it",
                "effect": "write",
                "input_schema": {"type": "object", "properties": {}},
                "command": {
                    "argv": list(argv),
                    "env": {"MARKER": self.marker, "PYTHONPATH": "/job:/mnt/libraries"}
                    | (env or {}),
                    "mounts": mounts,
                    "files": [{"path": path, "content": text} for path, text in texts.items()],
                },
                "limits": {"wall_s": 60, "memory_mb": 512, "pids": 64},
                "egress": [rule],
                "credentials": [{"ref": credential, "scopes": list(scopes)}] if credential else [],
            }
        )

    def reach(self, port: int) -> None:
        self.internal.append(f"localhost:{port}")

    def put_in(self, port: int) -> None:
        """The operator's token, as git, an index and an API each want it."""
        wanted = {
            "git": {"path_prefix": "/git", "basic_user": GIT_USER},
            "index": {"path_prefix": "/simple", "basic_user": GIT_USER},
            "api": {"path_prefix": "/who", "value": "Bearer {token}"},
        }
        for ref, how in wanted.items():
            inject = [{"host": "localhost", "port": port, **how}]
            section = {"broker": "static", "secret": "file:token", "inject": inject}
            self.credentials[ref] = section
        lent = {"broker": "static", "secret": "file:token", "file": {"name": "token"}}
        self.credentials["on-disk"] = lent

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Place]:
        whole = {
            "server": {"data_dir": "data"},
            "catalog": {"tools": self.tools},
            "identity": {"keys": [{"id": "k1", "subject": "bot", "kind": "agent", "sha256": KEY}]},
            "policy": {"deadline_ms": 10_000},
            "runners": {
                "egress": {"internal": self.internal, "ca_file": "authority.pem"},
                "credentials": self.credentials,
                "issuer": {"url": ISSUER},
            },
        }
        file = self.folder / "remit.yaml"
        file.write_text(yaml.safe_dump(json.loads(json.dumps(whole))))
        async with open_gateway(load(file, environ={})) as self.gateway:
            yield self

    async def call(self, name: str) -> Reply:
        call = Call(
            id=self.gateway.new_call_id(),
            caller=CALLER,
            tool_name=name,
            arguments={},
            received_ms=1,
        )
        return await self.gateway.call(call, Heard())

    async def watched(self, name: str, tops: Sequence[str] = TOPS) -> Look:
        """Call it; once its client has done what it came for, look at all that the run holds."""
        look = Look()
        for path in self.hold.iterdir():
            path.unlink()
        calling = asyncio.ensure_future(self.call(name))
        async with asyncio.timeout(60):
            while not (self.hold / "ready").exists() and not calling.done():
                await asyncio.sleep(0.01)
        if not calling.done():
            pids = await self._pids()
            look.held = list(searching.everything(pids, tops))
        (self.hold / "go").touch()
        look.replies.append(await calling)
        assert look.held, look.said
        return look

    async def _pids(self) -> list[int]:
        run = (await self.gateway.ledger.runs(limit=1))[0]
        leases = (self.folder / "data/runners/leases").iterdir()
        names = {run.id, *(path.stem for path in leases)}
        return sorted({pid for name in names for pid in processes_of(name)})

    async def outcome(self) -> dict[str, Any]:
        entries = await self.gateway.ledger.entries(0, 10_000)
        found: list[dict[str, Any]] = [json.loads(entry.text) for entry in entries]
        return next(each for each in reversed(found) if each["event"] == "call.outcome")

    def left(self, *wanted: bytes) -> list[str]:
        """Files of Remit's own that hold any of the wanted: ledger, lease files, result files."""
        own = [path for path in (self.folder / "data").rglob("*") if path.is_file()]
        data = ((str(path), path.read_bytes()) for path in own if path.parent.name != "keys")
        return searching.found(iter(data), wanted)


Wait = Callable[[Any], Any]


@contextlib.contextmanager
def opened(place: Place) -> Iterator[Wait]:
    """The gateway, on a loop of its own; what is given back runs a coroutine on it."""
    with asyncio.Runner() as loop:
        context = place.open()
        loop.run(context.__aenter__())
        try:
            yield loop.get_loop().run_until_complete
        finally:
            loop.run(context.__aexit__(None, None, None))
