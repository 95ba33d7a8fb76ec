"""Floors for a sandboxed run: bubblewrap with the same flags, and a bare process, from Python.

Neither has limits, a control group, a record, a deadline or a spawner; they say what the kernel
and bubblewrap cost by themselves on this machine at this moment.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable

from bench.load import Figure
from remit.runners.bubblewrap import find
from remit.runners.jail import JailRequest, base_options, run_options
from remit.runners.seccomp import ARCHITECTURES, program
from remit.runners.wire import sealed_file

NAMESPACES = [
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
    "--unshare-cgroup-try", "--disable-userns", "--uid", "1000", "--gid", "1000",
    "--cap-drop", "ALL", "--hostname", "job", "--die-with-parent", "--new-session", "--clearenv",
]  # fmt: skip


def bare_bubblewrap(seconds: float) -> Figure:
    """`/bin/true` in bubblewrap with the flags of a run, one after another."""
    found = find(None, for_others=False)
    if found is None:
        raise SystemExit("no bubblewrap was found: apt-get install bubblewrap")
    options = base_options()
    made = run_options(JailRequest(argv=(), tmp_bytes=64 << 20))
    while "--file" in made:
        # The synthesised files of /etc come by descriptor; the floor does without them.
        at = made.index("--file")
        del made[at - 2 : at + 3]
    rules = program(ARCHITECTURES[platform.machine()])

    def one() -> None:
        # bubblewrap reads the filter to its end, so each process needs one of its own.
        filter_fd = sealed_file("seccomp", rules)
        try:
            subprocess.run(
                [
                    str(found.path), *NAMESPACES, "--seccomp", str(filter_fd), *options, *made,
                    "--", "/bin/true",
                ],
                env={}, pass_fds=[filter_fd], check=True,
            )  # fmt: skip
        finally:
            os.close(filter_fd)

    return _repeat("bare bwrap, same flags, /bin/true", one, seconds)


def bare_subprocess(seconds: float) -> Figure:
    """`/bin/true` by `subprocess.run`, one after another."""

    def one() -> None:
        subprocess.run(["/bin/true"], env={}, check=True)

    return _repeat("bare subprocess, /bin/true", one, seconds)


def _cpu() -> tuple[float, float]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = own.ru_utime + own.ru_stime
    return mine, mine + children.ru_utime + children.ru_stime


def _repeat(name: str, one: Callable[[], None], seconds: float) -> Figure:
    one()
    times: list[float] = []
    before, began = _cpu(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        one()
        times.append(time.perf_counter() - start)
    took, after = time.perf_counter() - began, _cpu()
    times.sort()
    return Figure(
        name=name,
        clients=1,
        requests=len(times),
        p50_ms=1000 * times[len(times) // 2],
        p99_ms=1000 * times[int(len(times) * 0.99)],
        per_second=len(times) / took,
        cpu_us=1e6 * (after[0] - before[0]) / len(times),
        cpu_all_us=1e6 * (after[1] - before[1]) / len(times),
    )
