"""Servers as subprocesses, and the stream of bytes to each."""

from __future__ import annotations

import asyncio
import functools
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from remit.upstreams.conversation import Conversation
from remit.upstreams.limits import Limits

TIGHT = Limits(
    line_bytes=200_000,
    depth=32,
    open_s=20,
    unanswered_s=0.2,
    call_s=20,
    list_s=20,
    burst=200,
    per_s=1,
    pages=10,
    tools=100,
    list_bytes=200_000,
)

open_to = functools.partial(Conversation.open, capabilities={}, limits=TIGHT)

HERE = Path(__file__).parent
REFERENCE = (sys.executable, str(HERE / "reference_server.py"))
HOSTILE = (sys.executable, "-I", "-S", str(HERE / "hostile_server.py"))


class ProcessStream:
    """A server's stdin and stdout."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    async def write(self, data: bytes, /) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    async def read(self) -> bytes:
        return await self._stdout.read(65536)


@asynccontextmanager
async def started(*argv: str, env: Mapping[str, str] | None = None) -> AsyncIterator[ProcessStream]:
    """A server that is ended afterwards, whatever it is doing."""
    process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, env=env)
    stream = ProcessStream(process)
    try:
        yield stream
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        while await stream.read():
            pass
        await process.wait()
        with suppress(OSError):  # what it did not read is lost
            await process.stdin.wait_closed()


@asynccontextmanager
async def conversing(*argv: str, **how: Any) -> AsyncIterator[Conversation]:
    """A conversation with a server started for it."""
    async with started(*argv) as stream, await open_to(stream, **how) as conversation:
        yield conversation
