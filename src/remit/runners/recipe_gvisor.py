"""How gVisor makes an environment: its kernel in user space, inside of bubblewrap's walls.

bubblewrap makes the same namespaces as for `recipe_bwrap` (with the base and the run's directories
below `/gv`, and no other file of the host), holds, and executes `runsc run` as its only command.
What runs sees gVisor's kernel; whoever broke out of that would stand in a namespace with only `lo`
(if that), as a user of the run's own, before Landlock and without a single file of the host.

So nothing is left on the host: bundle, container state and directories are in memory of the mount
namespace and go with it. Of our filter there is only what keeps set-id files out of directories of
the host: `runsc` needs calls that runs do not, and has filters of its own. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from remit.runners import landlock
from remit.runners.bases import Base
from remit.runners.jail import (
    DEFAULT_ENV,
    GROUP,
    HOSTS,
    JOB_DIR,
    base_options,
    device_options,
    packed,
    tree_options,
)
from remit.runners.messages import CREDENTIALS_DIR, REMIT_DIR
from remit.runners.recipe import Inside, Order, Pipes
from remit.runners.recipe_bwrap import moved_in
from remit.runners.request import Request
from remit.runners.wire import close_all, reopen, sealed_file

_HOME = "/gv"
_ROOT = f"{_HOME}/root"
_RUNSC = f"{_HOME}/runsc"
_KERNEL = b"runsc-sandbox"  # what `runsc boot` is called in its own argument 0
_OPEN_FILES = 4096
"""What gVisor itself may have open; the command's own limit is gVisor's to hold."""

_BLOCK, _INFO, _ARGS, _SECCOMP, _FILES = 3, 4, 5, 6, 7
PASSWD = b"job:x:0:0:job:/job:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_SYSTEM = (("etc/passwd", PASSWD), ("etc/group", GROUP), ("etc/hosts", HOSTS))

WALLS = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
    *("--unshare-cgroup-try", "--uid", "0", "--gid", "0", "--cap-add", "ALL"),
    *("--hostname", "job", "--die-with-parent", "--new-session", "--clearenv"),
    *("--block-fd", str(_BLOCK), "--info-fd", str(_INFO)),
    *("--seccomp", str(_SECCOMP), "--args", str(_ARGS)),
)
"""The capabilities are in the run's own user namespace; gVisor drops them for what it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gvisor:
    """`runsc` on one platform, with one base; `modes` is a sealed file of `program_of_modes`."""

    bwrap: str
    runsc: str
    platform: str
    base: Base
    modes: int

    def order(self, request: Request, pipes: Pipes, *, uid: int | None) -> Order:
        """bubblewrap with everything below `/gv`, and runsc in it.

        Raises:
            ValueError: also for a slot: gVisor hands no further descriptor on to a command.
        """
        if pipes.extra:
            raise ValueError("gVisor keeps no slot")
        own: list[int] = []
        try:
            made = self._options(request, own)
            own.insert(0, sealed_file("options", packed(made)))
            own.insert(1, reopen(self.modes))
        except OSError:
            close_all(own)
            raise
        trust = () if pipes.trust is None else (pipes.trust,)
        first = (*pipes.stdio, pipes.block, pipes.info, *own)
        fds = (*first, *trust, *pipes.files)
        rules = landlock.ruleset(request.egress)
        return Order(
            path=self.bwrap,
            argv=("bwrap", *WALLS, "--", *self._command(request)),
            fds=fds if rules is None else (*fds, rules),
            own=tuple(own),
            before_exec=None if rules is None else functools.partial(landlock.enter, len(fds)),
            open_files=_OPEN_FILES,
        )

    def _command(self, request: Request) -> tuple[str, ...]:
        """With a way out, sockets are those of the run's own network namespace, which has only
        `lo`; without, gVisor has a loopback of its own and makes no socket outside."""
        network = "host" if request.egress else "none"
        return (
            *(_RUNSC, "--root", f"{_HOME}/state", "--rootless", "--ignore-cgroups"),
            *(f"--platform={self.platform}", f"--network={network}"),
            *("run", "--bundle", f"{_HOME}/bundle", "run"),
        )

    def _options(self, request: Request, own: list[int]) -> list[str]:
        """What bubblewrap is to mount; files it needs are appended to `own`, from `_FILES` on."""

        def given(data: bytes) -> str:
            own.append(sealed_file("file", data))
            return str(_FILES + len(own) - 1)

        size = str(request.tmp_bytes)
        options = ["--ro-bind", self.runsc, _RUNSC, "--proc", "/proc", "--dev", "/dev"]
        options += ["--tmpfs", "/tmp", "--tmpfs", f"{_HOME}/state"]  # noqa: S108 - runsc's own
        options += _below(_ROOT, _tree(self.base.root))
        config = json.dumps(self._config(request)).encode()
        options += ["--perms", "0400", "--file", given(config), f"{_HOME}/bundle/config.json"]
        for path, data in _SYSTEM:
            if self.base.over is None:
                options += ["--perms", "0444", "--file", given(data), f"{_ROOT}/{path}"]
            elif f"/{path}" in self.base.over:
                options += ["--ro-bind-data", given(data), f"{_ROOT}/{path}"]
        options += ["--size", size, "--perms", "1777", "--tmpfs", f"{_HOME}/tmp"]  # noqa: S108 - its own
        options += ["--size", size, "--perms", "0755", "--tmpfs", f"{_HOME}/job"]
        fd = _FILES + len(own)
        if request.egress:
            options += ["--perms", "0444", "--file", str(fd), f"{_HOME}/remit/ca.pem"]
            fd += 1
        for name in request.files:
            options += ["--perms", "0644", "--file", str(fd), f"{_HOME}/job/{name}"]
            fd += 1
        if request.handed:
            options += ["--size", str(1 << 20), "--perms", "0700"]
            options += ["--tmpfs", f"{_HOME}/credentials", "--dir", f"{_HOME}/remit/credentials"]
        for name, source, writable in request.mounts:
            bind = "--bind" if writable else "--ro-bind"
            options += [bind, source, f"{_HOME}/mnt/{name}", "--dir", f"{_ROOT}/mnt/{name}"]
        for path in ("proc", "dev", "sys", "tmp", "job", "run/remit"):
            options += ["--dir", f"{_ROOT}/{path}"]
        return [*options, "--remount-ro", "/", "--chdir", "/"]

    def _config(self, request: Request) -> dict[str, Any]:
        """The run as the OCI runtime specification says it (config.md)."""
        binds = [("/tmp", "tmp", True), (JOB_DIR, "job", True)]  # noqa: S108 - the sandbox's own
        binds += [(REMIT_DIR, "remit", False)] if request.egress or request.handed else []
        binds += [(CREDENTIALS_DIR, "credentials", False)] if request.handed else []
        binds += [(f"/mnt/{name}", f"mnt/{name}", writable) for name, _, writable in request.mounts]
        environment = {**DEFAULT_ENV, **dict(request.env)}
        limit = {"hard": request.open_files, "soft": request.open_files}
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": 0, "gid": 0},
                "args": list(request.argv),
                "env": [f"{name}={value}" for name, value in environment.items()],
                "cwd": JOB_DIR,
                "capabilities": {},
                "noNewPrivileges": True,
                "rlimits": [{"type": "RLIMIT_NOFILE", **limit}],
            },
            "root": {"path": _ROOT, "readonly": True},
            "hostname": "job",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                *(
                    {
                        "destination": destination,
                        "type": "bind",
                        "source": f"{_HOME}/{source}",
                        "options": ["rw" if writable else "ro"],
                    }
                    for destination, source, writable in binds
                ),
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            },
        }

    def inside(self, lease: str) -> Inside:
        """Below `/gv`, where gVisor's own file server has them."""
        return Inside(job=f"{_HOME}/job", credentials=f"{_HOME}/credentials", mounts=f"{_HOME}/mnt")

    def stands(self, init: int) -> bool:
        """Whether bubblewrap moved into its new root."""
        return moved_in(init, f"{_HOME}/job")

    @property
    def shows_files(self) -> bool:
        """gVisor's kernel keeps them, and has every stream of its own open."""
        return False

    def told_to_end(self, pids: Iterable[int]) -> list[int]:
        """gVisor's kernel, which hands a signal on to the command; its other processes must not be
        stopped before it."""
        return [pid for pid in pids if _argument_zero(pid) == _KERNEL]

    def clean(self, lease: str) -> bool:
        """Everything of it was in its namespaces."""
        return True


def _argument_zero(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read(4096).split(b"\0")[0]
    return b""


def _tree(root: str) -> list[str]:
    """The base's own part of its options: all but `/proc` and the devices, which gVisor makes."""
    whole = base_options() if root == "/" else tree_options(root)
    return whole[: -len(device_options())]


def _below(prefix: str, options: list[str]) -> list[str]:
    """The same mounts, below another directory.

    Raises:
        ValueError: one is of a kind that is not known here.
    """
    moved, at = [], 0
    while at < len(options):
        match options[at : at + 3]:
            case ["--ro-bind" | "--symlink", source, path]:
                moved += [options[at], source, prefix + path]
                at += 3
            case ["--dir", path, *_]:
                moved += ["--dir", prefix + path]
                at += 2
            case _:
                raise ValueError("a base cannot be shown by gVisor")
    return moved
