"""One worker process as the gateway sees it: frames out, frames in, and its death."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.errors import Code, PolicyFault

WORKER = str(Path(__file__).with_name("worker.py"))
MAX_REPLY = 128 * 1024 * 1024

ENVIRONMENT = {"MIMALLOC_ARENA_RESERVE": "0"}
"""All of a worker's environment. Without it the engine's allocator maps 1 GiB when it is imported,
which no later limit on the address space takes back."""

_HEAD = struct.Struct(">I1s")


@dataclass(frozen=True, slots=True)
class Reply:
    """One frame from a worker: R result, U undefined (of which rule), F fault, P panic."""

    kind: bytes
    body: bytes

    def result(self) -> bytes:
        """The result's JSON.

        Raises:
            PolicyFault: `policy_undefined` or `policy_error`.
        """
        if self.kind == b"R":
            return self.body
        if self.kind == b"U":
            raise PolicyFault(
                Code.POLICY_UNDEFINED,
                "the rule has no value for this input",
                place=self.body.decode() or None,
            )
        raise fault_in(self.body)


def fault_in(body: bytes) -> PolicyFault:
    told: dict[str, Any] = json.loads(body)
    return PolicyFault(Code.POLICY_ERROR, str(told["message"]), place=told["place"])


def frame(kind: bytes, body: bytes) -> bytes:
    return _HEAD.pack(len(body), kind) + body


def command(memory_mb: int) -> list[str]:
    """How a worker is started: isolated from the user's site and paths, as a plain file."""
    return [sys.executable, "-I", "-B", WORKER, str(memory_mb), str(os.getpid())]


class WorkerProcess:
    """A started worker. One frame at a time: asking while one is out is a mistake of the pool.

    `on_death` is called once, with the exit code, after the process is gone and reaped.
    """

    def __init__(self, *, memory_mb: int, on_death: Callable[[WorkerProcess, int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_death = on_death
        self._on_reply: Callable[[Reply | None], None] | None = None
        self._inbox = bytearray()
        self._outbox = memoryview(b"")
        ours, theirs = socket.socketpair()
        with theirs:
            # Started from the loop's own thread: the kernel ends a child with the *thread* that
            # made it, and a thread of a pool may go while the gateway lives on.
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command(memory_mb),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours.fileno(), self._readable)
        self._open = True
        self._gone: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._open

    def ask(self, data: bytes, on_reply: Callable[[Reply | None], None]) -> None:
        """Send a frame; `on_reply` is called once, with None if the process died first."""
        assert self._on_reply is None, "one frame at a time"
        self._on_reply = on_reply
        if not self._open:
            self._answer(None)
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # it is dying: the reader sees the end and answers
        if sent < len(data):
            self._outbox = memoryview(data)[sent:]
            self._loop.add_writer(self._socket.fileno(), self._writable)

    async def converse(self, data: bytes, *, timeout_s: float) -> bytes:
        """Send a frame and wait for its result; a late worker is killed.

        Raises:
            PolicyFault: what the worker says, or `policy_unavailable`.
        """
        future: asyncio.Future[Reply | None] = self._loop.create_future()

        def settle(reply: Reply | None) -> None:
            if not future.done():
                future.set_result(reply)

        self.ask(data, settle)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await future
        except TimeoutError:
            self.kill()
            raise PolicyFault(
                Code.POLICY_UNAVAILABLE, "the policy worker did not answer in time"
            ) from None
        if reply is None:
            raise PolicyFault(Code.POLICY_UNAVAILABLE, "the policy worker died")
        return reply.result()

    def kill(self) -> None:
        """End it now, whatever it is doing."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait_gone(self) -> None:
        """Kill it and wait until it is gone and reaped."""
        self.kill()
        self._close()
        if self._gone is not None:
            await self._gone

    def _writable(self) -> None:
        try:
            self._outbox = self._outbox[self._socket.send(self._outbox) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._outbox = memoryview(b"")
        if not self._outbox:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            data = self._socket.recv(262_144)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._inbox += data
        if len(self._inbox) < _HEAD.size:
            return
        size, kind = _HEAD.unpack_from(self._inbox)
        if size > MAX_REPLY:
            self.kill()
        elif len(self._inbox) >= _HEAD.size + size:
            body = bytes(self._inbox[_HEAD.size : _HEAD.size + size])
            self._inbox.clear()
            self._answer(Reply(kind, body))

    def _answer(self, reply: Reply | None) -> None:
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is not None:
            on_reply(reply)

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._gone = self._loop.create_task(self._reap())

    async def _reap(self) -> None:
        """Its end of the pipe is closed, so it is going or should be."""
        self.kill()
        code = await asyncio.to_thread(self._process.wait)
        self._answer(None)
        self._on_death(self, code)


def run_once(data: bytes, *, memory_mb: int = 1024, timeout_s: float = 10) -> bytes:
    """Ask a worker that lives for this one frame; for the command line and for loading.

    Raises:
        PolicyFault: what the worker says, or `policy_unavailable` if it was late or died.
    """
    try:
        done = subprocess.run(
            command(memory_mb),
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PolicyFault(
            Code.POLICY_UNAVAILABLE, "the policy worker did not answer in time"
        ) from None
    if len(done.stdout) < _HEAD.size:
        raise PolicyFault(Code.POLICY_UNAVAILABLE, "the policy worker died")
    size, kind = _HEAD.unpack_from(done.stdout)
    body = done.stdout[_HEAD.size : _HEAD.size + size]
    return Reply(kind, body).result()


def load_frame(modules: Mapping[str, str], data: Mapping[str, Any]) -> bytes:
    return frame(b"L", json.dumps({"modules": dict(modules), "data": dict(data)}).encode())


def try_frame(
    modules: Mapping[str, str], data: Mapping[str, Any], queries: list[str], document: Any
) -> bytes:
    return frame(
        b"T",
        json.dumps(
            {"modules": dict(modules), "data": dict(data), "queries": queries, "input": document}
        ).encode(),
    )


def cover_frame(
    modules: Mapping[str, str], data: Mapping[str, Any], queries: list[str], document: Any
) -> bytes:
    return frame(
        b"C",
        json.dumps(
            {"modules": dict(modules), "data": dict(data), "queries": queries, "input": document}
        ).encode(),
    )


def parse_frame(modules: Mapping[str, str]) -> bytes:
    return frame(b"A", json.dumps({"modules": dict(modules)}).encode())
