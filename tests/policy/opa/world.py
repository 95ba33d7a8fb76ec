"""Real `opa` servers, servers that misbehave, and points that ask them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from remit.errors import Code, PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.content import files_of
from remit.policy.engine import Engine
from remit.policy.layers import Layer, Tenure
from remit.policy.opa.client import OpaEngine
from remit.policy.opa.supervisor import SupervisedOpa
from remit.policy.point import PolicyPoint
from tests.plugins.machine import opa_binary

DECIDE = "remit.decision"
VERSION = "1.22.2"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def opa() -> Path:
    binary = opa_binary()
    assert binary is not None, "the tests that need it are marked"
    return binary


def write(directory: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def written(directory: Path, bundle: PolicyBundle) -> Path:
    """A bundle as a directory that `opa run --bundle` takes."""
    return write(directory, files_of(bundle))


@asynccontextmanager
async def pointing(engine: Engine, *entries: str) -> AsyncIterator[PolicyPoint]:
    """A point with this engine alone, closed at the end."""
    layer = Layer(
        name="policy",
        entries=entries or ("remit",),
        tenure=Tenure(engine),
        revision=engine.revision,
    )
    point = PolicyPoint([layer])
    try:
        yield point
    finally:
        await point.aclose()


@asynccontextmanager
async def supervised(
    bundle: PolicyBundle, state_dir: Path, **more: Any
) -> AsyncIterator[SupervisedOpa]:
    """An `opa` that Remit runs. The deadline is long so that a busy machine is not a fault."""
    more = {"deadline_ms": 10_000, **more}
    engine = await SupervisedOpa.start(bundle, binary=opa(), state_dir=state_dir, **more)
    try:
        yield engine
    finally:
        await engine.aclose()


@asynccontextmanager
async def serving(
    *arguments: str, cwd: Path, address: str, log: str = "error"
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """An `opa run --server` of others, listening at `address` before it is given."""
    process = subprocess.Popen(
        [
            *(str(opa()), "run", "--server", "--skip-version-check", f"--log-level={log}"),
            *(f"--addr={address}", *arguments),
        ],
        cwd=cwd,
        env={},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        await _listening(process, address, cwd)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


async def _listening(process: subprocess.Popen[bytes], address: str, cwd: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            if process.poll() is not None:
                assert process.stderr is not None
                raise AssertionError(process.stderr.read().decode())
            with suppress(OSError):
                if address.startswith("unix://"):
                    path = os.path.relpath(cwd / address.removeprefix("unix://"))
                    _, writer = await asyncio.open_unix_connection(path)
                else:
                    host, _, port = address.rpartition("//")[2].rpartition(":")
                    _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def misbehaving(handler: Handler, path: Path | None = None) -> AsyncIterator[str]:
    """A server over a Unix socket, else over TCP, that treats every connection as `handler` does."""
    held: set[asyncio.Task[Any]] = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        held.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            held.discard(task)
            writer.transport.abort()

    if path is None:
        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(hold, path)
        url = f"unix:{path}"
    try:
        yield url
    finally:
        server.close()
        for task in held:
            task.cancel()
        await server.wait_closed()
        while held:
            await asyncio.sleep(0)


async def request_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The first line and the body of the next request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    return lines[0], await reader.readexactly(int(fields.get("content-length", "0")))


def http(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    fields: Sequence[str] = ("Content-Type: application/json",),
    length: int | None = None,
) -> bytes:
    """An HTTP answer; `length` is what it says of its body, if that is not the truth."""
    size = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {size}", "", ""]
    return "\r\n".join(head).encode() + body


def decided(verdict: str = "allow", **more: Any) -> dict[str, Any]:
    reasons = [{"code": "asked", "message": "as asked"}]
    return {"schema": "remit.decision/1", "decision": verdict, "reasons": reasons, **more}


def said(result: Any = None, *, revision: str = "r1", **more: Any) -> bytes:
    """What an OPA with one bundle of this revision says, with this result or none."""
    answer: dict[str, Any] = {
        "provenance": {"version": VERSION, "bundles": {"policy": {"revision": revision}}}
    }
    if result is not None:
        answer["result"] = result
    return json.dumps({**answer, **more}).encode()


def always(answer: bytes, *, close: bool = False) -> Handler:
    """Gives these bytes to every request, then maybe closes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(answer)
            await writer.drain()
            if close:
                return

    return handler


def answering(result: Any = None, **more: Any) -> Handler:
    """A server that behaves."""
    return always(http(said(decided() if result is None else result, **more)))


@asynccontextmanager
async def asking(handler: Handler, tmp_path: Path, **more: Any) -> AsyncIterator[PolicyPoint]:
    """A point that asks a misbehaving server. The deadline is long: few faults wait for it."""
    more = {"deadline_ms": 5_000, **more}
    async with misbehaving(handler, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, **more)
        async with pointing(engine) as point:
            yield point


async def fault_of(asked: Awaitable[Any]) -> PolicyFault:
    """The fault that this raises."""
    try:
        await asked
    except PolicyFault as fault:
        return fault
    raise AssertionError("nothing was raised")


async def code_of_probe(engine: Engine) -> Code:
    return (await fault_of(engine.probe())).code
