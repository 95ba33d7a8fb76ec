"""`python -m bench.pool`: what a run costs the machine, cold and from a slot, beside bare processes.

    python -m bench.pool [--seconds S] [--load N] [-o text|json]

The runner is measured alone, without doors, policy or ledger. `--load` keeps N processes busy
meanwhile. Everything stands beside a floor of the same run: ratios travel between machines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import uvloop

from bench.spawn import bare_bubblewrap, bare_subprocess
from remit.model import EgressRule, Lease, Limits, RunSpec
from remit.profile import Profile, Warm
from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from remit.runners.slots import classes_of

LIMITS = Limits(wall_s=20, memory_mb=256, pids=32)
TRUE = RunSpec(argv=("/bin/true",), limits=LIMITS)
SHELL = RunSpec(argv=("/bin/echo", "hello"), limits=LIMITS)
PYTHON = RunSpec(argv=("/usr/bin/python3", "-I", "-S", "-c", "print('hello')"), limits=LIMITS)
SLEEP = RunSpec(argv=("/bin/sleep", "1000"), limits=LIMITS)
RULE = (EgressRule(host="bench.invalid", port=443),)
ORPHANS = 100
GATEWAY = f"bench-{os.getpid()}"

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: milliseconds, unless the name says otherwise."""

    name: str
    n: int
    p50: float
    p99: float
    per_second: float | None = None


def row(
    name: str, times: Sequence[float], took_s: float | None = None, *, scale: float = 1000
) -> Row:
    at = sorted(times)
    return Row(
        name=name,
        n=len(at),
        p50=scale * at[len(at) // 2],
        p99=scale * at[min(len(at) - 1, int(len(at) * 0.99))],
        per_second=None if took_s is None else len(at) / took_s,
    )


def _lease() -> Lease:
    return Lease(
        id=f"bench-{next(_numbers)}",
        gateway=GATEWAY,
        fence=1,
        deadline_ms=round(time.time() * 1000) + 600_000,
    )


@contextlib.asynccontextmanager
async def _runner(
    warm: Warm, specs: Sequence[RunSpec] = (), *, egress: bool = False, max_runs: int = 32
) -> AsyncIterator[SandboxRunner]:
    profile = Profile(warm=warm)
    classes = {
        each: None for spec in specs for each in classes_of(spec, profile, out=bool(spec.egress))
    }
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as state:
        proxy = await EgressProxy.open(EgressSettings()) if egress else None
        settings = SandboxSettings(
            state_dir=Path(state),
            gateway=GATEWAY,
            max_runs=max_runs,
            profiles={"sandbox": profile},
            classes=tuple(classes),
        )
        runner = await SandboxRunner.open(settings, proxy)
        if runner.capabilities.missing:
            raise SystemExit(f"no sandbox to measure here: {runner.capabilities.hint}")
        try:
            yield runner
        finally:
            await runner.aclose()
            if proxy is not None:
                await proxy.aclose()


async def _run(runner: SandboxRunner, spec: RunSpec) -> None:
    lease = _lease()
    await runner.provision(lease, spec)
    await runner.start(lease)
    result = await runner.collect(lease)
    if result.exit_code != 0 or not (await runner.destroy(lease)).complete:
        raise SystemExit(f"a run went wrong: {result}")


async def _many(
    name: str, one: Callable[[], Awaitable[None]], seconds: float, clients: int = 1
) -> Row:
    """Repeat with so many at a time."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < until:
            await one()
            times.append(time.perf_counter() - began)

    await one()
    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return row(name, times, time.perf_counter() - began)


# ---------------------------------------------------------------------------------------- rows


async def cold(seconds: float) -> list[Row]:
    rows = []
    for egress, word in ((False, ""), (True, ", with a way out")):
        async with _runner(Warm(), egress=egress) as runner:
            spec = replace(TRUE, egress=RULE if egress else ())
            for clients in (1, 4, 8):
                name = f"cold run of /bin/true{word}, {clients} at a time"
                rows.append(await _many(name, partial(_run, runner, spec), seconds, clients))
    return rows


async def pooled(seconds: float) -> list[Row]:
    """From a slot: until the first byte, of it from the start on, and whole runs."""
    rows = []
    cases = (("shell", SHELL, Warm(shell=8, refill_per_s=1_000)),
             ("python", PYTHON, Warm(python=8, refill_per_s=1_000)))  # fmt: skip
    for kind, spec, warm in cases:
        async with _runner(warm, (spec,)) as runner:
            await _waiting(runner, kind, 8)
            until = time.perf_counter() + seconds
            whole, started, claimed = [], [], []
            while time.perf_counter() < until:
                await _waiting(runner, kind, 8)
                times = await _first_byte(runner, spec)
                claimed.append(times[0])
                started.append(times[1])
                whole.append(times[0] + times[1])
            rows.append(row(f"{kind} slot: dispatch to first byte", whole))
            rows.append(row(f"{kind} slot: of it, the claim", claimed))
            rows.append(row(f"{kind} slot: of it, start to first byte", started))
            rows.append(await memory(runner, kind))
    return rows


async def _waiting(runner: SandboxRunner, kind: str, count: int) -> None:
    while runner.waiting[kind] < count:
        await asyncio.sleep(0.001)


async def _first_byte(runner: SandboxRunner, spec: RunSpec) -> tuple[float, float]:
    lease = _lease()
    began = time.perf_counter()
    await runner.provision(lease, spec)
    made = time.perf_counter()
    await runner.start(lease)
    async for _ in runner.stream(lease):
        break
    came = time.perf_counter()
    result = await runner.collect(lease)
    if not result.runner["slot"].startswith("warm") or result.stdout != b"hello\n":
        raise SystemExit(f"this run was not from a slot: {result}")
    await runner.destroy(lease)
    return made - began, came - made


async def memory(runner: SandboxRunner, kind: str) -> Row:
    """What waiting slots hold: proportional set size of all their processes, in MiB."""
    await _waiting(runner, kind, 8)
    sizes = [
        sum(map(_pss, pids)) / 1_048_576
        for name in runner.attempts.held
        if (pids := _pids(runner.attempts.link.hello["roots"], name))
    ]
    return row(f"{kind} slot: memory while it waits (PSS, MiB)", sizes, scale=1)


def _pids(roots: dict[str, str], name: str) -> list[int]:
    found: set[int] = set()
    for root in roots.values():
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in Path(root, name, "cgroup.procs").read_text().split()}
    return sorted(found)


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


async def ends(seconds: float) -> list[Row]:
    """From a kill to the evidence that the control group is gone; and a hundred orphans."""
    async with _runner(Warm()) as runner:
        times: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            lease = _lease()
            await runner.provision(lease, SLEEP)
            await runner.start(lease)
            began = time.perf_counter()
            evidence = await runner.destroy(lease)
            times.append(time.perf_counter() - began)
            if not evidence.complete:
                raise SystemExit(f"something is left: {evidence}")
    return [row("destroy: kill sent to control group gone", times), await _reaped()]


async def _reaped() -> Row:
    """Half of them held before their command, which nothing but a sweep ends."""
    times = []
    for _ in range(3):
        async with _runner(Warm(), max_runs=ORPHANS) as runner:
            leases = [_lease() for _ in range(ORPHANS)]
            for number, lease in enumerate(leases):
                await runner.provision(lease, SLEEP)
                if number % 2:
                    await runner.start(lease)
            if runner.spawner_pid is None:
                raise SystemExit("the spawner is gone")
            os.kill(runner.spawner_pid, signal.SIGKILL)
            for lease in leases:
                await runner.collect(lease)
            later = await SandboxRunner.open(runner.settings)
            began = time.perf_counter()
            found = await later.sweep(frozenset())
            times.append(time.perf_counter() - began)
            await later.aclose()
            if len(found) != ORPHANS or not all(each.complete for each in found):
                raise SystemExit("a sweep left something, or found too little")
    return row(f"{ORPHANS} orphaned leases reaped", times)


def bare(name: str, argv: Sequence[str], seconds: float) -> Row:
    """A process with nothing around it, until its first byte."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env={}) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            times.append(time.perf_counter() - began)
    return row(name, times)


def floors(seconds: float) -> list[Row]:
    found = [bare_bubblewrap(seconds), bare_subprocess(seconds)]
    rows = [
        Row(name=f.name, n=f.requests, p50=f.p50_ms, p99=f.p99_ms, per_second=f.per_second)
        for f in found
    ]
    rows.append(bare("bare /bin/echo, first byte", SHELL.argv, seconds))
    rows.append(bare("bare python3 -I -S, first byte", PYTHON.argv, seconds))
    return rows


@contextlib.contextmanager
def beside(count: int) -> Iterator[None]:
    """Keep so many processes busy."""
    spin = ["/bin/sh", "-c", "while :; do :; done"]
    busy = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def table(rows: Sequence[Row]) -> str:
    lines = [f"{'':<58}{'n':>6}{'p50':>9}{'p99':>9}{'per s':>8}"]
    for row in rows:
        rate = "" if row.per_second is None else f"{row.per_second:8.0f}"
        lines.append(f"{row.name:<58}{row.n:>6}{row.p50:>9.2f}{row.p99:>9.2f}{rate}")
    return "\n".join(lines)


async def _measure(seconds: float) -> list[Row]:
    return [*await cold(seconds), *await pooled(seconds), *await ends(seconds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per row")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    chosen = parser.parse_args()
    with beside(chosen.load):
        rows = [*floors(chosen.seconds), *uvloop.run(_measure(chosen.seconds))]
    if chosen.output == "json":
        found = [{name: getattr(row, name) for name in Row.__slots__} for row in rows]
        print(json.dumps({"load": chosen.load, "rows": found}))
        return
    print(f"{chosen.load} busy processes beside, load {os.getloadavg()[0]:.1f}")
    print(table(rows))


if __name__ == "__main__":
    main()
