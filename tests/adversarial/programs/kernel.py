"""After privileges and the kernel's sharp edges."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

T = ("T-16",)

_REACHED = """
def reached(name, number, *arguments, by=("EPERM", "ENOSYS", "EACCES")):
    "Whether the call got past the wall: a complaint about its arguments says so too."
    said = call(number, *arguments)
    if said not in by:
        got(name, said)
"""

PROGRAMS = (
    Hostile(
        name="makes a user namespace by unshare",
        threats=T,
        without=Without.HOST,
        source="""
for flags in (0x10000000, 0x10000000 | 0x20000, 0x10000000 | 0x40000000):
    child = os.fork()
    if child == 0:
        os._exit(0 if call(272 if x86 else 97, flags) else 1)
    if os.waitpid(child, 0)[1]:
        got(hex(flags))
""",
    ),
    Hostile(
        name="makes a user namespace by clone",
        threats=T,
        without=Without.HOST,
        source="""
child = libc.syscall(ctypes.c_long(56 if x86 else 220), ctypes.c_long(0x10000000 | 17), 0, 0, 0, 0)
if child == 0:
    os._exit(0)
if child > 0:
    os.waitpid(child, 0)
    got("clone")
""",
    ),
    Hostile(
        name="makes a user namespace by clone3",
        threats=T,
        without=Without.HOST,
        source="""
child = libc.syscall(ctypes.c_long(435), struct.pack("11Q", 0x10000000, 0, 0, 0, 17, *[0] * 6), 88)
if child == 0:
    os._exit(0)
if child > 0:
    os.waitpid(child, 0)
    got("clone3")
""",
    ),
    Hostile(
        name="mounts something",
        threats=(*T, "T-37"),
        without=Without.CAPABLE,
        source="""
call(272 if x86 else 97, 0x20000)
os.makedirs("here", exist_ok=True)
for source, kind, flags in ((b"none", b"tmpfs", 0), (b"/usr", b"", 4096), (b"proc", b"proc", 0),
                            (b"", b"", 32), (b"overlay", b"overlay", 0)):
    if not call(165 if x86 else 40, source, b"here", kind, flags, 0):
        got(kind, flags)
for target in (b"/", b"/proc", b"/tmp", b"/usr"):
    if not call(166 if x86 else 39, target, 2):
        got("unmounted", target)
""",
    ),
    Hostile(
        name="mounts something by the newer calls",
        threats=(*T, "T-37"),
        without=Without.CAPABLE,
        source=_REACHED
        + """
call(272 if x86 else 97, 0x20000)
for name, number in dict(open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432,
                         fspick=433, mount_setattr=442, open_tree_attr=467).items():
    reached(name, number, -1, b"", 0, 0, 0)
""",
    ),
    Hostile(
        name="makes another directory the root",
        threats=T,
        without=Without.CAPABLE,
        source=_REACHED
        + """
call(272 if x86 else 97, 0x20000)
reached("pivot_root", 155 if x86 else 41, b".", b".")
reached("chroot", 161 if x86 else 51, b".")
""",
    ),
    Hostile(
        name="loads a program into the kernel",
        threats=T,
        without=Without.HOST,
        root=True,
        source=_REACHED
        + """
for command in (0, 5):
    reached("bpf", 321 if x86 else 280, command, bytes(128), 128)
reached("socket filter by bpf", 321 if x86 else 280, 5, struct.pack("IIQQ", 1, 2, 0, 0) + bytes(104), 128)
""",
    ),
    Hostile(
        name="handles page faults itself",
        threats=T,
        without=Without.HOST,
        source=_REACHED
        + """
for flags in (0, 1, 0o2000000):
    reached("userfaultfd", 323 if x86 else 282, flags)
""",
    ),
    Hostile(
        name="hands the kernel rings of work",
        threats=T,
        without=Without.HOST,
        source=_REACHED
        + """
reached("setup", 425, 8, bytes(120))
reached("enter", 426, 0, 0, 0, 0, 0)
reached("register", 427, -1, 0, 0, 0)
""",
    ),
    Hostile(
        name="counts what the processor does",
        threats=T,
        without=Without.HOST,
        root=True,
        source=_REACHED
        + """
reached("perf", 298 if x86 else 241, struct.pack("II", 1, 64) + bytes(56), 0, -1, -1, 0,
        by=("EPERM", "ENOSYS", "EACCES", "ENOENT"))
""",
    ),
    Hostile(
        name="loads a module, another kernel, or restarts the machine",
        threats=T,
        without=Without.HOST,
        root=True,
        source=_REACHED
        + """
reached("init_module", 175 if x86 else 105, 0, 0, b"")
reached("finit_module", 313 if x86 else 273, -1, b"", 0)
reached("delete_module", 176 if x86 else 106, b"no such module", 0)
reached("kexec_load", 246 if x86 else 104, 0, 0, 0, -1)
reached("reboot", 169 if x86 else 142, 0, 0, 0, 0)
reached("swapon", 167 if x86 else 224, b"/no/such/file", 0)
reached("acct", 163 if x86 else 89, b"/no/such/file")
""",
    ),
    Hostile(
        name="watches every file of the machine",
        threats=T,
        without=Without.HOST,
        root=True,
        source=_REACHED
        + """
for flags in (0, 4, 8, 0x200):
    reached("fanotify", 300 if x86 else 262, flags, 0)
""",
    ),
    Hostile(
        name="changes the machine's clock or name",
        threats=T,
        without=Without.HOST,
        root=True,
        source=_REACHED
        + """
reached("settimeofday", 164 if x86 else 170, 8, 0)
reached("sethostname", 170 if x86 else 161, 8, 1 << 20)
reached("setdomainname", 171 if x86 else 162, 8, 1 << 20)
import time
with refused():
    time.clock_settime(time.CLOCK_REALTIME, -1.0)
    got("clock")
""",
    ),
    Hostile(
        name="turns off the randomness of addresses",
        threats=T,
        without=Without.HOST,
        source=_REACHED
        + """
reached("personality", 135 if x86 else 92, 0x0040000)
""",
    ),
    Hostile(
        name="calls the kernel by the other ABI of the machine",
        threats=T,
        without=Without.HOST,
        signal=31,
        source="""
if x86:
    call(0x40000000 + 39)
else:
    os.kill(os.getpid(), 31)
got("lived")
""",
    ),
    Hostile(
        name="calls the kernel with 32 bits",
        threats=T,
        without=Without.HOST,
        signal=31,
        source="""
import mmap
if not x86:
    os.kill(os.getpid(), 31)
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("53b814000000cd805bc3"))  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
got("lived")
""",
    ),
    Hostile(
        name="uses a call that is newer than the filter",
        threats=T,
        without=Without.HOST,
        source="""
for number in (467, 468, 469, 470, 500, 9999):
    said = call(number, -1, 0, 0, 0, 0)
    if said != "ENOSYS":
        got(number, said)
""",
    ),
    Hostile(
        name="becomes root by a setuid file of its own",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
import shutil
shutil.copy("/usr/bin/id", "id")
with refused():
    os.chmod("id", 0o6755)
child = os.fork()
if child == 0:
    with refused():
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    me = os.geteuid()
    said = os.popen("./id -u").read().strip()
    if said and int(said) != me:
        got("user", said, "from", me)
    os._exit(0)
os.waitpid(child, 0)
""",
    ),
    Hostile(
        name="becomes root by the setuid files of the host",
        threats=T,
        without=None,
        why="where it could, passwords would be asked for",
        source="""
for folder in ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib/openssh", "/usr/libexec"):
    with refused():
        for each in os.scandir(folder):
            mode = os.stat(each.path, follow_symlinks=False)
            if stat.S_ISREG(mode.st_mode) and mode.st_mode & 0o6000 and mode.st_uid in (0, os.getuid()):
                got(each.path)
for line in ("su -c id root", "sudo -n id", "newgrp root", "pkexec id", "mount -t tmpfs x /tmp"):
    if os.popen(line + " </dev/null 2>/dev/null").read():
        got(line)
""",
    ),
    Hostile(
        name="takes another user or group",
        threats=T,
        without=Without.CAPABLE,
        source="""
for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]),
               lambda: os.setresuid(0, 0, 0), lambda: os.setresgid(0, 0, 0),
               lambda: os.chown(".", 0, 0), lambda: os.chown(".", 12345, -1)):
    with refused():
        change()
        got("changed")
if call(122 if x86 else 151, 0) == 0 and os.getuid() == 0:
    got("fsuid")
""",
    ),
    Hostile(
        name="gives a file of its own capabilities",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
import shutil
shutil.copy("/usr/bin/id", "capable")
for value in (struct.pack("<IIIII", 0x02000001, 0xffffffff, 0, 0xff, 0),
              struct.pack("<IIIIII", 0x03000001, 0xffffffff, 0, 0xff, 0, 0)):
    with refused():
        os.setxattr("capable", "security.capability", value)
        got(len(value))
""",
    ),
    Hostile(
        name="has a capability left, or gets one",
        threats=T,
        without=Without.LOOSE,
        root=True,
        source="""
for line in read("/proc/self/status").decode().splitlines():
    if line.startswith("Cap") and int(line.split()[1], 16):
        got(line)
    if line.startswith("NoNewPrivs") and line.split()[1] != "1":
        got(line)
head = struct.pack("Ii", 0x20080522, 0)
if not call(126 if x86 else 91, head, struct.pack("6I", 1 << 21, 1 << 21, 1 << 21, 0, 0, 0)):
    got("capset")
for each in range(41):
    if libc.prctl(47, 2, each, 0, 0) == 0:
        got("ambient", each)
""",
    ),
    Hostile(
        name="reads the keys of the gateway's user",
        threats=(*T, "T-33"),
        without=Without.HOST,
        source=_REACHED
        + """
add, request, keyctl = (248, 249, 250) if x86 else (217, 218, 219)
reached("add_key", add, b"user", b"mine-" + facts["marker"].encode(), b"x", 1, -2)
reached("request_key", request, b"user", facts["key"].encode(), 0, 0)
for ring in (-1, -2, -3, -4, -5):
    reached("keyctl", keyctl, 0, ring, 0)
with refused():
    if facts["marker"].encode() in read("/proc/keys", 65_536):
        got("/proc/keys")
""",
    ),
    Hostile(
        name="pushes characters into the terminal",
        threats=T,
        without=None,
        why="tested at a terminal of its own",
        source="""
import fcntl
for fd in (*range(16), "/dev/tty", "/dev/console", "/dev/pts/0", "/proc/1/fd/0"):
    with refused():
        fd = os.open(fd, os.O_RDWR | os.O_NOCTTY) if isinstance(fd, str) else fd
        with refused():
            fcntl.ioctl(fd, 0x5412, b" ")
            got("TIOCSTI", fd)
        with refused():
            fcntl.ioctl(fd, 0x541C, bytes([2, 0]))
            got("TIOCLINUX", fd)
        # The kernel looks at 32 bits of the request, so a filter that looks at 64 is passed by.
        if not call(16 if x86 else 29, fd, 0x5412 | 1 << 32, b" "):
            got("TIOCSTI with a high bit", fd)
with refused():
    os.close(os.open("/dev/tty", os.O_RDWR))
    got("a terminal")
""",
    ),
)
