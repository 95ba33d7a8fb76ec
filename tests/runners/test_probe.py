"""The probe's eyes: with all walls it sees each, and with one taken away exactly that one is missed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from remit.runners import looks, probe, seccomp
from remit.runners.bubblewrap import find
from remit.runners.jail import WALLS, JailRequest, base_options, run_options
from remit.runners.wire import sealed_file

pytestmark = [pytest.mark.threat("T-16"), pytest.mark.needs("bwrap", "userns")]

Options = list[str]


def _options() -> Options:
    """A run's options, without the descriptors that only the spawner makes."""
    walls = list(WALLS)
    for flag in ("--block-fd", "--info-fd", "--seccomp", "--args"):
        at = walls.index(flag)
        del walls[at : at + 2]
    made = run_options(JailRequest(argv=(), tmp_bytes=looks.TMP_MB << 20, over=()))
    return [*walls, *base_options(), *made]


def _look(
    options: Options, *, filtered: bool = True, fds: tuple[int, ...] = (), **env: str
) -> set[str]:
    bwrap = find(None, for_others=False)
    assert bwrap is not None
    program = seccomp.program(seccomp.ARCHITECTURES[platform.machine()])
    filter_fd = sealed_file("seccomp", program)
    try:
        extra = ["--seccomp", str(filter_fd)] if filtered else []
        job = ["/bin/sh", "-c", looks.SANDBOX, "sh", str(Path(__file__).parent), "host", "", "0"]
        done = subprocess.run(
            [bwrap.path, *extra, *options, "--", *job],
            env=env, pass_fds=[*([filter_fd] if filtered else []), *fds], capture_output=True, check=False,
        )  # fmt: skip
    finally:
        os.close(filter_fd)
    return set(done.stdout.decode().split())


def _without(*words: str) -> Callable[[Options], Options]:
    def change(options: Options) -> Options:
        at = next(i for i in range(len(options)) if options[i : i + len(words)] == [*words])
        return [*options[:at], *options[at + len(words) :]]

    return change


def _with(*words: str) -> Callable[[Options], Options]:
    """Before the root is made read-only, so that mounts can still be made."""

    def change(options: Options) -> Options:
        at = options.index("--remount-ro")
        return [*options[:at], *words, *options[at:]]

    return change


def _replaced(old: str, new: str) -> Callable[[Options], Options]:
    return lambda options: [new if each == old else each for each in options]


def test_with_all_walls_it_sees_each_of_them() -> None:
    assert _look(_options()) == set(probe.ISOLATION)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (_without("--uid", "1000"), {"user_namespace"}),
        (_replaced("job", "host"), {"ipc_and_uts_namespaces"}),
        (_without("--unshare-net"), {"network_none"}),
        (_without("--remount-ro", "/"), {"read_only_base", "devices_reduced"}),
        (_with("--ro-bind", "/root", "/root"), {"host_files_hidden"}),
        (_with("--ro-bind", "/sys", "/sys"), {"host_files_hidden"}),
        (_with("--ro-bind", str(Path(__file__).parent), str(Path(__file__).parent)),
         {"host_files_hidden"}),
        (_with("--dev-bind", "/dev/tty", "/dev/tty"), {"devices_reduced"}),
        (_with("--dir", "/dev/.hidden"), {"devices_reduced"}),
        (_replaced(str(looks.TMP_MB << 20), str(8 << 20)), {"sized_tmpfs"}),
        (_with("--cap-add", "CAP_NET_BIND_SERVICE"), {"no_privileges"}),
    ],
)  # fmt: skip
def test_a_wall_that_is_missing_is_missed(
    change: Callable[[Options], Options], missed: set[str]
) -> None:
    options = change(_options())
    seen = _look(options)
    assert set(probe.ISOLATION) - seen == missed


def test_host_processes_are_noticed() -> None:
    options = _without("--unshare-pid")(_options())
    assert "pid_namespace" not in _look(options)


def test_a_filter_that_is_missing_is_missed() -> None:
    options = _without("--disable-userns")(_options())
    seen = _look(options, filtered=False)
    assert set(probe.ISOLATION) - seen == {"filtered_calls", "no_nested_userns"}


def test_the_environment_bubblewrap_was_started_with_is_missed() -> None:
    assert set(probe.ISOLATION) - _look(_options(), SECRET="x") == {"no_environment_leak"}


def test_a_descriptor_that_was_left_open_is_missed() -> None:
    with open("/dev/null") as leaked:
        seen = _look(_options(), fds=(leaked.fileno(),))
    assert set(probe.ISOLATION) - seen == {"no_descriptors"}
