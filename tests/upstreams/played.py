"""MCP servers that are played by this process, so that a test says when each of them does what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from remit.canonical import encode
from remit.model import Frozen, Lease, Limits, RunSpec, SessionMode, UpstreamCall
from remit.testing.runner import NoopRunner, lease
from remit.testing.spoken import SpeakerInput, SpeakerOutput
from remit.upstreams.asking import Seen
from remit.upstreams.definitions import read_definition
from remit.upstreams.runner import UpstreamRunner

Message = dict[str, Any]

ECHO: Message = {
    "name": "echo",
    "description": "Says it again.",
    "inputSchema": {"type": "object"},
}
LOOK: Message = {"name": "look", "inputSchema": {"type": "object", "x-order": ["b", "a"]}}


@dataclass
class Server:
    """One process of a server, as its program sees it."""

    spec: RunSpec
    given: SpeakerInput
    told: SpeakerOutput
    heard: list[Message] = field(default_factory=list)

    async def say(self, **message: Any) -> None:
        await self.raw(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def raw(self, data: bytes) -> None:
        await self.told.write(data)

    async def hear(self) -> Message | None:
        """The next message; None once there will be none."""
        data = b""
        while not data.endswith(b"\n"):
            piece = await self.given.readline()
            if not piece:
                return None
            data += piece
        message: Message = json.loads(data)
        self.heard.append(message)
        return message


OnCall = Callable[[Server, Message], Awaitable[int | None]]
"""Plays the answer to one `tools/call`; what it gives, if anything, ends the process."""


async def echoes(server: Server, message: Message) -> None:
    """Give the arguments back."""
    params = message["params"]
    arguments, words = params.get("arguments"), json.dumps(params.get("arguments"))
    result = {"content": [{"type": "text", "text": words}], "structuredContent": arguments}
    await server.say(id=message["id"], result=result)


def gives(result: Any) -> OnCall:
    """Answer with this."""

    async def answer(server: Server, message: Message) -> None:
        await server.say(id=message["id"], result=result)

    return answer


async def reports_once(server: Server, message: Message) -> None:
    """Report that half of it is done, then answer; to who asked for no reports, only answer."""
    token = message["params"]["_meta"].get("progressToken")
    params = {"progressToken": token, "progress": 1, "total": 2, "message": "half"}
    await server.say(method="notifications/progress", params=params)
    await server.say(id=message["id"], result={"content": []})


@dataclass
class Program:
    """A server's program: what it lists, and how it answers. `servers` are its processes so far."""

    on_call: OnCall = echoes
    tools: list[Message] = field(default_factory=lambda: [ECHO, LOOK])
    on_open: OnCall | None = None
    modern: bool = True
    servers: list[Server] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, spec: RunSpec, given: SpeakerInput, told: SpeakerOutput) -> int:
        server = Server(spec, given, told)
        self.servers.append(server)
        self.started.set()
        while (message := await server.hear()) is not None:
            code = await self._answer(server, message)
            if code is not None:
                return code
        return 0

    async def _answer(self, server: Server, message: Message) -> int | None:
        method, number = message["method"], message.get("id")
        if method in ("server/discover", "initialize") and self.on_open is not None:
            return await self.on_open(server, message)
        if method == "tools/call":
            return await self.on_call(server, message)
        if method == "tools/list":
            await server.say(id=number, result={"tools": self.tools})
        elif method == "server/discover" and self.modern:
            offered = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
            await server.say(id=number, result=offered)
        elif method == "initialize" and not self.modern:
            wanted = message["params"]["protocolVersion"]
            await server.say(id=number, result={"protocolVersion": wanted, "capabilities": {}})
        elif number is not None:
            await server.say(id=number, error={"code": -32601, "message": "no"})
        return None

    @property
    def calls(self) -> list[Message]:
        """Every call that any of its processes heard."""
        return [
            each
            for server in self.servers
            for each in server.heard
            if each["method"] == "tools/call"
        ]


def digest(tool: Message, server: str = "files") -> str:
    """The digest of a listed tool."""
    return read_definition(server, tool).digest


def call_spec(
    tool: Message = ECHO,
    arguments: Any = None,
    *,
    write: bool = False,
    output_bytes: int = 65_536,
    wall_s: int = 20,
    **call: Any,
) -> RunSpec:
    """A run that is a call of this tool of the server `files`."""
    asked = UpstreamCall(
        server="files",
        tool=tool["name"],
        definition=digest(tool),
        arguments=Frozen(encode({} if arguments is None else arguments)),
        caller="sha256:" + "a" * 64,
    )
    return RunSpec(
        argv=("/bin/files-server",),
        env=(("HOME", "/job"),),
        limits=Limits(wall_s=wall_s, output_bytes=output_bytes),
        fence_key="sha256:" + "f" * 64 if write else "",
        upstream=replace(asked, **call),
    )


def in_session(
    spec: RunSpec, caller: str = "a", mode: SessionMode = SessionMode.PER_CALLER
) -> RunSpec:
    """The same call, in a session."""
    assert spec.upstream is not None
    name = "sha256:" + caller * 64
    return replace(spec, upstream=replace(spec.upstream, session=mode, caller=name))


@dataclass
class World:
    """A runner of calls around processes that are played."""

    program: Program
    runner: UpstreamRunner
    inner: NoopRunner
    seen: list[tuple[str, list[str]]] = field(default_factory=list)
    count: int = 0

    def lease(self) -> Lease:
        self.count += 1
        return lease(f"run_{self.count}")

    async def begin(self, spec: RunSpec) -> Lease:
        """A run that was let go."""
        own = self.lease()
        await self.runner.provision(own, spec)
        await self.runner.start(own)
        return own


def world(program: Program, make: Callable[[NoopRunner, Seen], UpstreamRunner]) -> World:
    """A world with a runner that is made so."""
    inner = NoopRunner(speaker=program)
    seen: list[tuple[str, list[str]]] = []
    runner = make(inner, lambda server, items: seen.append((server, [i["name"] for i in items])))
    return World(program=program, runner=runner, inner=inner, seen=seen)
