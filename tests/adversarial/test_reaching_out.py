"""Hostile commands that reach for the host: its files, processes, kernel and users."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from remit.model import Ending
from remit.runners.sandbox import SandboxRunner
from tests.runners.support import alive, begin, contained, python, shell

pytestmark = [pytest.mark.anyio, pytest.mark.needs("bwrap", "userns", "cgroup")]

SYSCALL = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return errno.errorcode.get(ctypes.get_errno(), "0") if result == -1 else "allowed"
"""


@pytest.mark.threat("T-16")
async def test_the_hosts_files_are_not_there(runner: SandboxRunner, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    paths = f"/root /home /var /run /sys /boot /srv /opt /etc/shadow /etc/hostname {secret}"
    result = await contained(runner, shell(f"for p in {paths}; do [ -e $p ] && echo $p; done; :"))
    assert (result.ending, result.stdout) == (Ending.EXIT, b"")


@pytest.mark.threat("T-16")
async def test_the_hosts_files_are_not_reached_through_proc(runner: SandboxRunner) -> None:
    script = """
for way in root cwd; do ls /proc/1/$way/root /proc/1/$way/home 2>/dev/null; done
cat /proc/1/root/etc/shadow /proc/kcore /proc/kmsg 2>/dev/null | head -c 10
cd /proc/self/root/../../.. && ls -d root home var 2>/dev/null
:"""
    assert (await contained(runner, shell(script))).stdout == b""


@pytest.mark.threat("T-16")
async def test_no_process_but_its_own_is_seen_or_signalled(runner: SandboxRunner) -> None:
    script = "echo /proc/[0-9]*; kill -9 -1; kill -9 1; kill -9 $PPID; echo still here"
    result = await contained(runner, shell(script))
    numbers = result.stdout.splitlines()[0].split()
    assert set(numbers) <= {b"/proc/1", b"/proc/2", b"/proc/3"}
    assert (result.ending, result.stdout.splitlines()[-1]) == (Ending.EXIT, b"still here")


@pytest.mark.threat("T-16")
async def test_the_host_survives_a_kill_of_everyone(runner: SandboxRunner) -> None:
    other = await begin(runner, shell("exec sleep 60"))
    await contained(runner, python("import os, signal\nos.kill(-1, signal.SIGKILL)"))
    assert alive([os.getpid(), runner.spawner_pid or 0]) == [os.getpid(), runner.spawner_pid]
    assert (await runner.destroy(other)).complete


@pytest.mark.threat("T-16")
async def test_the_base_cannot_be_written(runner: SandboxRunner) -> None:
    script = """
for p in /x /usr/x /usr/bin/sh /etc/passwd /etc/x /dev/x /bin/x /mnt /proc/sys/kernel/hostname \
  /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/1/oom_score_adj; do
  ( echo x >$p ) 2>/dev/null && echo $p
done; :"""
    assert (await contained(runner, shell(script))).stdout == b""


@pytest.mark.threat("T-16")
async def test_the_limits_cannot_be_lifted_from_inside(runner: SandboxRunner) -> None:
    source = """
import os, resource
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
    try:
        resource.setrlimit(kind, (1 << 30, 1 << 30)); print("lifted", kind)
    except (PermissionError, ValueError):
        pass
print(os.path.exists("/sys/fs/cgroup"), resource.getrlimit(resource.RLIMIT_CORE)[1])
try:
    os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000"); print("lowered")
except PermissionError:
    pass
"""
    assert (await contained(runner, python(source))).stdout == b"False 0\n"


@pytest.mark.threat("T-16")
async def test_mounts_roots_and_namespaces_cannot_be_made(runner: SandboxRunner) -> None:
    source = (
        SYSCALL
        + """
import os, platform
x86 = platform.machine() == "x86_64"
names = dict(mount=165, umount2=166, pivot_root=155, chroot=161, unshare=272, setns=308) if x86 \
    else dict(mount=40, umount2=39, pivot_root=41, chroot=51, unshare=97, setns=268)
names |= dict(open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433,
              mount_setattr=442)
for name, number in names.items():
    print(name, call(number, 0, 0, 0, 0, 0))
"""
    )
    lines = (await contained(runner, python(source))).stdout.decode().splitlines()
    assert len(lines) == 13
    assert {line.split()[1] for line in lines} == {"EPERM"}


@pytest.mark.threat("T-16")
async def test_the_kernels_sharp_edges_are_refused(runner: SandboxRunner) -> None:
    source = (
        SYSCALL
        + """
import platform
x86 = platform.machine() == "x86_64"
names = dict(ptrace=101, add_key=248, request_key=249, keyctl=250, perf_event_open=298, bpf=321,
    userfaultfd=323, process_vm_readv=310, process_vm_writev=311, kexec_load=246, init_module=175,
    finit_module=313, open_by_handle_at=304, name_to_handle_at=303, syslog=103, kcmp=312,
    acct=163, swapon=167, reboot=169, iopl=172, fanotify_init=300) if x86 else dict(
    ptrace=117, add_key=217, request_key=218, keyctl=219, perf_event_open=241, bpf=280,
    userfaultfd=282, process_vm_readv=270, process_vm_writev=271, kexec_load=104, init_module=105,
    finit_module=273, open_by_handle_at=265, name_to_handle_at=264, syslog=116, kcmp=272,
    acct=89, swapon=224, reboot=142, fanotify_init=262)
names |= dict(io_uring_setup=425, io_uring_enter=426, io_uring_register=427, pidfd_getfd=438)
for name, number in names.items():
    if (said := call(number, 0, 0, 0, 0, 0)) != "EPERM":
        print(name, said)
print("newer", call(467, 0), call(9999, 0))
print("personality", call(135 if x86 else 92, 0x0040000), call(135 if x86 else 92, 0xffffffff))
"""
    )
    result = await contained(runner, python(source))
    assert result.stdout == b"newer ENOSYS ENOSYS\npersonality EPERM allowed\n"


@pytest.mark.threat("T-16")
async def test_the_other_abi_of_the_machine_kills(runner: SandboxRunner) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("this machine has no x32 ABI; to run it: use x86_64")
    source = SYSCALL + "call(0x40000000 + 39)\nprint('survived')"
    result = await contained(runner, python(source))
    assert (result.ending, result.signal) == (Ending.SIGNAL, signal.SIGSYS)
    assert b"survived" not in result.stdout


@pytest.mark.threat("T-16")
async def test_a_32_bit_call_kills(runner: SandboxRunner) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("this machine has no int 0x80; to run it: use x86_64")
    source = """
import ctypes, mmap
code = b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3"  # mov eax, 20; int 0x80; ret
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print("got", ctypes.CFUNCTYPE(ctypes.c_int)(address)(), flush=True)
"""
    result = await contained(runner, python(source))
    assert (result.ending, result.signal) == (Ending.SIGNAL, signal.SIGSYS)
    assert b"got" not in result.stdout


@pytest.mark.threat("T-16")
async def test_no_character_can_be_pushed_into_a_terminal(runner: SandboxRunner) -> None:
    source = """
import fcntl, os
for request in (0x5412, 0x541C, 0x5412 | 1 << 32):
    try:
        fcntl.ioctl(0, request, b"x"); print("pushed")
    except (PermissionError, OverflowError) as exc:
        pass
    except OSError as exc:
        print(exc.errno)
try:
    open("/dev/tty"); print("a terminal")
except OSError:
    pass
print(os.getsid(0) == os.getpid() or os.getsid(0) != 0)
"""
    assert (await contained(runner, python(source))).stdout == b"True\n"


@pytest.mark.threat("T-16")
async def test_setuid_programs_give_nothing(runner: SandboxRunner) -> None:
    source = """
import os, shutil
shutil.copy("/bin/id", "/job/id"); os.chmod("/job/id", 0o6755)
os.system("/job/id -u; su -c id root </dev/null >/dev/null 2>&1 && echo rooted")
for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        change(); print("changed")
    except OSError:
        pass
print(os.stat("/usr/bin/su").st_uid if os.path.exists("/usr/bin/su") else 65534)
"""
    assert (await contained(runner, python(source))).stdout == b"1000\n65534\n"


@pytest.mark.threat("T-20")
async def test_no_descriptor_of_ours_is_inherited(runner: SandboxRunner) -> None:
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    spec = shell("ls /proc/self/fd; ls /proc/1/fd | wc -l", files=(("a", b"x"),), stdin=b"in")
    lines = (await contained(runner, spec)).stdout.split()
    os.close(leaked)
    assert lines[:-1] == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads


@pytest.mark.threat("T-16")
async def test_pid_1_of_the_sandbox_is_no_way_out(runner: SandboxRunner) -> None:
    """bubblewrap's PID 1 is outside the command's control: not traced, not written to."""
    source = """
import os
for name in ("mem", "oom_score_adj", "attr/exec", "uid_map"):
    try:
        with open(f"/proc/1/{name}", "r+b", buffering=0) as file:
            file.write(b"0 0 1")
            print(name)
    except OSError:
        pass
for fd in os.listdir("/proc/1/fd") if os.access("/proc/1/fd", os.R_OK) else ():
    target = os.readlink(f"/proc/1/fd/{fd}")
    if not target.startswith(("pipe:", "/dev/null", "/memfd:", "anon_inode:")):
        print(target)
"""
    assert (await contained(runner, python(source))).stdout == b""
