"""The one command that enables what is missing, for this distribution."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_INSTALL = {
    "debian": "sudo apt-get install bubblewrap",
    "ubuntu": "sudo apt-get install bubblewrap",
    "fedora": "sudo dnf install bubblewrap",
    "rhel": "sudo dnf install bubblewrap",
    "arch": "sudo pacman -S bubblewrap",
    "alpine": "sudo apk add bubblewrap",
    "suse": "sudo zypper install bubblewrap",
}
_CGROUPS = "/sys/fs/cgroup"
_CONTAINERS = ("/.dockerenv", "/run/.containerenv")


def on_system_path(name: str) -> str | None:
    """Where the system has a program; never from the caller's own PATH."""
    return shutil.which(name, path="/usr/bin:/usr/local/bin:/bin")


def setting(path: str) -> str | None:
    """The text of a kernel setting, or None if this kernel has none of that name."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def distribution() -> frozenset[str]:
    """The ids of this distribution and of those it is like (`os-release(5)`)."""
    names: set[str] = set()
    for line in (setting("/etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key in {"ID", "ID_LIKE"}:
            names |= set(value.strip("\"'").split())
    return frozenset(names)


def install_bubblewrap() -> str:
    known = distribution()
    return next((line for name, line in _INSTALL.items() if name in known), "install bubblewrap")


def named(program: str) -> str:
    """What to do about a program whose path the configuration names."""
    key = {"bubblewrap": "sandbox.bwrap", "runsc": "gvisor.runsc"}[program]
    return f"mend runners.{key} in remit.yaml: no {program} that runs can use is at that path"


def user_namespaces() -> str:
    """How unprivileged user namespaces are allowed where something refuses them."""
    if setting("/proc/sys/user/max_user_namespaces") == "0":
        return "sudo sysctl -w user.max_user_namespaces=15000"
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    if in_container():
        return (
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined IMAGE"
        )
    return install_bubblewrap()


def cgroups() -> str:
    """How this process gets a part of the cgroup tree that it may divide."""
    if systemd():
        return " ".join(delegation(["remit", "serve"]))
    if in_container() and (os.geteuid() == 0 or read_only(_CGROUPS)):
        return "docker run --privileged --cgroupns=private IMAGE"
    # Where it is installed for one person, root's PATH has no `remit`.
    return 'sudo env "PATH=$PATH" remit serve'


def install_runsc() -> str:
    """Debian has a build of 2022; current ones come from gVisor's own repository."""
    known = distribution() & {"debian", "ubuntu"}
    return (
        "sudo apt-get install runsc" if known else "see https://gvisor.dev/docs/user_guide/install"
    )


def newer_runsc() -> str:
    """Where current builds of gVisor are."""
    return "install a current runsc: https://gvisor.dev/docs/user_guide/install"


def disks() -> str:
    """What to do where a profile limits disks and this machine cannot."""
    return "remove io_mb_per_s from the profile, or boot with systemd.unified_cgroup_hierarchy=1"


def read_only(path: str) -> bool:
    """Whether the file system there is mounted read-only, so that root could not write either."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return True


def delegation(command: list[str]) -> list[str]:
    """`command` started in a systemd scope of its own with its controllers delegated."""
    user = [] if os.geteuid() == 0 else ["--user"]
    return ["systemd-run", *user, "--scope", "--quiet", "-p", "Delegate=yes", "--", *command]


def systemd() -> bool:
    return Path("/run/systemd/system").is_dir() and shutil.which("systemd-run") is not None


def in_container() -> bool:
    return any(Path(path).exists() for path in _CONTAINERS)
