"""A load of HTTP requests from this process to one loopback server, and what it cost.

Keep-alive connections, one request in flight on each, prepared bytes: the client is kept small
because it shares the two cores with what it measures. CPU is the server's own user and system
time from /proc, with that of its children apart.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one load measured; times in milliseconds, CPU in microseconds a request."""

    name: str
    clients: int
    requests: int
    p50_ms: float
    p99_ms: float
    per_second: float
    cpu_us: float
    cpu_all_us: float


def descendants(pid: int) -> list[int]:
    """The process and all that descend from it, as far as they still live."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def cpu_ticks(pid: int, *, reaped: bool) -> int:
    """User and system ticks of a process; with `reaped`, also of children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    own = int(fields[11]) + int(fields[12])
    return own + (int(fields[13]) + int(fields[14]) if reaped else 0)


def cpu_seconds(pid: int) -> tuple[float, float]:
    """CPU seconds of the process alone, and with all its descendants, dead or alive."""
    alone = cpu_ticks(pid, reaped=False)
    everyone = sum(cpu_ticks(one, reaped=True) for one in descendants(pid))
    return alone / TICK, everyone / TICK


FIRST_ID = 1_000_000_000
"""A request with this id gets a new one of the same length each time: in a session none is used twice."""

_IDS = itertools.count(FIRST_ID + 1)


async def _one(host: str, port: int, request: bytes, expect: bytes, times: list[float],
    left: Callable[[], bool],
) -> None:  # fmt: skip
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while left():
            sent = request.replace(b"%d" % FIRST_ID, b"%d" % next(_IDS))
            began = time.perf_counter()
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _length(head)
            body = await reader.readexactly(length) if length >= 0 else await _chunked(reader)
            times.append(time.perf_counter() - began)
            if expect not in body:
                raise RuntimeError(f"unexpected answer: {head[:200]!r} {body[:500]!r}")
    finally:
        writer.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return -1


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int((await reader.readline()).strip() or b"0", 16)
        body += await reader.readexactly(size)
        await reader.readline()
        if size == 0:
            return body


async def load(
    name: str, pid: int, port: int, request: bytes | Sequence[bytes], expect: bytes,
    *, clients: int, seconds: float,
) -> Figure:  # fmt: skip
    """Send the request over and over for so long; each answer must hold `expect`.

    With several requests, each client has one of its own.
    """
    requests = [request] * clients if isinstance(request, bytes) else list(request)
    times: list[float] = []
    until = time.perf_counter() + min(seconds, 0.5)
    await asyncio.gather(
        *(
            _one("127.0.0.1", port, each, expect, [], lambda: time.perf_counter() < until)
            for each in requests
        )
    )
    before, began = cpu_seconds(pid), time.perf_counter()
    end = began + seconds
    await asyncio.gather(
        *(
            _one("127.0.0.1", port, each, expect, times, lambda: time.perf_counter() < end)
            for each in requests
        )
    )
    took, after = time.perf_counter() - began, cpu_seconds(pid)
    times.sort()
    count = len(times)
    return Figure(
        name=name,
        clients=clients,
        requests=count,
        p50_ms=1000 * times[count // 2],
        p99_ms=1000 * times[min(count - 1, int(count * 0.99))],
        per_second=count / took,
        cpu_us=1e6 * (after[0] - before[0]) / count,
        cpu_all_us=1e6 * (after[1] - before[1]) / count,
    )


def post(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of one keep-alive POST."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
