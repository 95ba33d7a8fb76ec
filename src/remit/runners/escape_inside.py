"""What `remit doctor` runs inside of a profile: it tries to get out, and says what it got.

Never imported: its text is the program, run by the profile's own python3 (3.7 or later). It reads
facts about the host from its standard input and prints one JSON object, for each attempt what it
got, as a list of strings; an empty list is a wall that stood.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import socket
import sys
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
FACTS: dict[str, Any] = {}


def call(number: int, *arguments: Any) -> str:
    """A system call by number: `0`, or the name of its error."""
    ctypes.set_errno(0)
    words = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    if LIBC.syscall(number, *words) == -1:
        return errno.errorcode.get(ctypes.get_errno(), "?")
    return "0"


def refused(calls: dict[str, tuple[int, int]], *arguments: Any) -> list[str]:
    """The calls that are not answered EPERM, which is what the filter says before any check."""
    got = []
    for name, numbers in calls.items():
        said = call(numbers[0 if X86 else 1], *arguments) if numbers[0 if X86 else 1] else "EPERM"
        if said != "EPERM":
            got.append(f"{name}: {said}")
    return got


def opened(*paths: str) -> list[str]:
    """The paths that can be read."""
    got = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.read(1)
            got.append(path)
        except IsADirectoryError:
            got.append(path)
        except OSError:
            pass
    return got


def host_files() -> list[str]:
    through = [f"/proc/1/root{FACTS['marker']}", f"/proc/self/root{FACTS['marker']}"]
    hidden = ["/root", "/home", "/etc/shadow"] if FACTS["host_base"] else []
    return opened(FACTS["marker"], *through, *hidden)


def host_processes() -> list[str]:
    got = [f"/proc/{each}" for each in os.listdir("/proc") if each.isdigit() and int(each) > 50]
    try:
        os.kill(FACTS["pid"], 0)
        got.append(f"signal to {FACTS['pid']}")
    except OSError:
        pass
    return got


def environment_of_others() -> list[str]:
    got = []
    for each in os.listdir("/proc"):
        if each.isdigit() and int(each) != os.getpid():
            try:
                with open(f"/proc/{each}/environ", "rb") as file:
                    if file.read(4096):
                        got.append(f"/proc/{each}/environ")
            except OSError:
                pass
    return got


def mounting() -> list[str]:
    return refused(
        {
            "mount": (165, 40),
            "umount2": (166, 39),
            "pivot_root": (155, 41),
            "chroot": (161, 51),
            "open_tree": (428, 428),
            "move_mount": (429, 429),
            "fsopen": (430, 430),
            "fsmount": (432, 432),
            "mount_setattr": (442, 442),
        },
        b"/",
        b"/",
    )


def namespaces() -> list[str]:
    got = refused({"unshare": (272, 97), "setns": (308, 268)}, 0x1000_0000, 0)
    flags = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
    for flag in flags:
        own = os.getpid()
        said = call(56 if X86 else 220, flag | 17, 0, 0, 0, 0)
        if os.getpid() != own:
            os._exit(0)  # the child that should not be
        if said == "0":
            os.wait()
        if said != "EPERM":
            got.append(f"clone {flag:#x}: {said}")
    said = call(435, 0, 0)
    return got if said == "ENOSYS" else [*got, f"clone3: {said}"]


def tracing() -> list[str]:
    return refused(
        {
            "ptrace": (101, 117),
            "process_vm_readv": (310, 270),
            "kcmp": (312, 272),
            "process_vm_writev": (311, 271),
            "pidfd_getfd": (438, 438),
            "perf_event_open": (298, 241),
            "process_madvise": (440, 440),
        },
        os.getppid(),
    )


def kernel_doors() -> list[str]:
    return refused(
        {
            "bpf": (321, 280),
            "userfaultfd": (323, 282),
            "io_uring_setup": (425, 425),
            "add_key": (248, 217),
            "request_key": (249, 218),
            "keyctl": (250, 219),
            "init_module": (175, 105),
            "finit_module": (313, 273),
            "kexec_load": (246, 104),
            "reboot": (169, 142),
            "swapon": (167, 224),
            "quotactl": (179, 60),
            "syslog": (103, 116),
            "acct": (163, 89),
            "settimeofday": (164, 170),
            "name_to_handle_at": (303, 264),
            "open_by_handle_at": (304, 265),
            "fanotify_init": (300, 262),
            "vmsplice": (278, 75),
            "modify_ldt": (154, 0),
            "iopl": (172, 0),
            "sethostname": (170, 161),
            "memfd_secret": (447, 447),
        },
        0,
    )


def privileges() -> list[str]:
    got = []
    with open("/proc/self/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.startswith("Cap") and int(value, 16):
                got.append(line.strip())
            if name == "NoNewPrivs" and value.strip() != "1":
                got.append(line.strip())
    if os.getuid() != 0:
        for act in (os.setuid, os.setgid):
            try:
                act(0)
                got.append(act.__name__)
            except OSError:
                pass
    return got


def terminal_input() -> list[str]:
    """TIOCSTI, TIOCLINUX and TIOCSETD are refused before anything looks at the descriptor."""
    number = 16 if X86 else 29
    found = {hex(code): call(number, 0, code, b"x") for code in (0x5412, 0x541C, 0x5423)}
    return [f"{code}: {said}" for code, said in found.items() if said != "EPERM"]


def socket_families() -> list[str]:
    got = []
    for family in range(64):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            protocols = range(1, 24) if family == 16 else (0, 132, 33, 255)
            for protocol in protocols:
                try:
                    socket.socket(family, kind, protocol).close()
                except (OSError, ValueError):
                    continue
                if family not in (1, 2, 10) or kind == socket.SOCK_RAW or protocol:
                    got.append(f"family {family}, type {kind}, protocol {protocol}")
    return [each for each in got if not each.startswith("family 1,")]


def host_abstract_socket() -> list[str]:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect("\0" + FACTS["abstract"])
        except OSError:
            return []
    return ["connected"]


def _reaches(family: int, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect((host, port))
        except OSError:
            return False
    return True


def host_network() -> list[str]:
    port = FACTS["tcp"]
    places = [(socket.AF_INET, host, port) for host in ("127.0.0.1", "127.1.2.3", "0.0.0.0")]  # noqa: S104 - tried, not bound
    places += [(socket.AF_INET, host, 80) for host in ("169.254.169.254", "192.0.2.1", "10.0.0.1")]
    places += [(socket.AF_INET6, "::1", port), (socket.AF_INET6, "::ffff:127.0.0.1", port)]
    return [f"{host}:{port}" for family, host, port in places if _reaches(family, host, port)]


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex() if name != "lo"]


def way_out() -> list[str]:
    """The one port that leads out leads out, and only where the profile has a way out."""
    if _reaches(socket.AF_INET, "127.0.0.1", 3128) == FACTS["egress"]:
        return []
    return ["it does not answer" if FACTS["egress"] else "it answers"]


def tcp_by_rule() -> list[str]:
    """Landlock's answer comes before that of the network: a port of nobody is not even tried."""
    with socket.socket() as client:
        try:
            client.connect(("127.0.0.1", 9))
        except PermissionError:
            return []
        except OSError as exc:
            return [str(exc.strerror)]
    return ["connected"]


def shared_memory() -> list[str]:
    found = LIBC.shmget(FACTS["shm_key"], 0, 0)
    return ["the host's segment"] if found >= 0 else []


def base_writable() -> list[str]:
    got = []
    for directory in ("/", "/usr", "/usr/bin", "/etc", "/run", "/run/remit", "/mnt", "/lib"):
        try:
            fd = os.open(f"{directory}/remit-escape", os.O_CREAT | os.O_WRONLY, 0o600)
            os.close(fd)
            got.append(directory)
        except OSError:
            pass
    return got


def devices() -> list[str]:
    got = opened("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/sda", "/dev/vda", "/dev/fuse")
    for kind, numbers in ((0o060000, (8, 0)), (0o020000, (1, 1))):
        try:
            os.mknod("/job/device", 0o600 | kind, os.makedev(*numbers))
            got.append(f"mknod {numbers}")
        except OSError:
            pass
    return got


def kernel_files() -> list[str]:
    got = opened("/proc/kcore", "/proc/kmsg", "/sys/kernel/debug", "/sys/fs/cgroup")
    for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
                 "/proc/self/setgroups", "/proc/sys/kernel/hostname"):  # fmt: skip
        try:
            os.close(os.open(path, os.O_WRONLY))
            got.append(path)
        except OSError:
            pass
    return got


def descriptors() -> list[str]:
    got = []
    for each in os.listdir("/proc/self/fd"):
        if int(each) > 2:
            with contextlib.suppress(OSError):
                got.append(f"{each}: {os.readlink(f'/proc/self/fd/{each}')}")
    return got


def memory_disk() -> list[str]:
    """Each tmpfs of the run is full at its size."""
    got = []
    for directory in ("/job", "/tmp"):  # noqa: S108 - the sandbox's own
        path, written = f"{directory}/fill", 0
        try:
            with open(path, "wb", buffering=0) as file:
                while written <= FACTS["tmp_bytes"]:
                    written += file.write(b"\0" * (1 << 20))
            got.append(f"{directory}: {written} bytes")
        except OSError:
            pass
        finally:
            os.unlink(path)
    return got


def main() -> None:
    FACTS.update(json.load(sys.stdin))
    found: dict[str, list[str]] = {}
    for name in FACTS["attempts"]:
        try:
            found[name] = globals()[name]()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the others are tried
            found[name] = [f"could not be tried: {type(exc).__name__}: {exc}"]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
