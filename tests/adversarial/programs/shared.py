"""Programs after what all of the host shares, and what of a run could work on outside of it."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

PROGRAMS = (
    Hostile(
        name="leaves a file by which others act as its owner",
        threats=("T-16",),
        without=Without.HOST,
        source="""
def look(how):
    with refused():
        if os.stat("planted").st_mode & 0o6000:
            got(how)
        os.unlink("planted")
def make(mode, flags=os.O_CREAT | os.O_WRONLY):
    os.close(os.open("planted", flags, mode))
os.umask(0)
for mode in (0o4755, 0o2755, 0o6755):
    for how in ("open", "chmod", "fchmod", "mknod", "openat2", "tmpfile", "fchmodat2", "creat"):
        with refused():
            if how == "open":
                make(mode)
            elif how == "mknod":
                os.mknod("planted", stat.S_IFREG | mode)
            elif how == "openat2":
                asked = struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, mode, 0)
                call(437, -100, b"planted", asked, len(asked))
            elif how == "tmpfile":
                file = os.open(".", os.O_TMPFILE | os.O_WRONLY, mode)
                os.link(f"/proc/self/fd/{file}", "planted", follow_symlinks=True)
            elif how == "creat" and x86:
                call(85, b"planted", mode)
            else:
                make(0o755)
                with open("planted") as file:
                    if how == "fchmod":
                        os.fchmod(file.fileno(), mode)
                    elif how == "fchmodat2":
                        call(452, -100, b"planted", mode, 0)
                    else:
                        os.chmod("planted", mode)
        look(how)
""",
    ),
    Hostile(
        name="empties the host's store of asynchronous reads and writes",
        threats=("T-17",),
        without=Without.HOST,
        source="""
context = ctypes.c_ulong(0)
if not libc.syscall(206 if x86 else 0, 1, ctypes.byref(context)):
    got("a context of it")
    libc.syscall(207 if x86 else 1, context)
""",
    ),
    Hostile(
        name="takes huge pages, which its limit does not count",
        threats=("T-17",),
        without=None,
        why="most hosts keep none, and there the kernel has none to give",
        source="""
libc.mmap.restype = ctypes.c_void_p
size = 1 << 21
failed = ctypes.c_void_p(-1).value
asked = [(0x40022, -1), (0x40021, -1), (21 << 26 | 0x40022, -1)]
for flags, file in asked:
    if libc.mmap(None, ctypes.c_size_t(size), 3, flags, file, ctypes.c_long(0)) != failed:
        got("a mapping", hex(flags))
    elif ctypes.get_errno() != errno.ENOMEM:
        got("another answer than that there are none", ctypes.get_errno())
if call(319 if x86 else 279, b"huge", 4) != "ENOMEM":
    got("a file of them")
if call(29 if x86 else 194, 0, size, 0o5600) != "ENOMEM":
    got("a segment of them")
""",
    ),
    Hostile(
        name="has its crash taken to the host's handler",
        threats=("T-16",),
        without=Without.HOST,
        source="""
import resource
# core(5): where the host hands crashes to a program, a limit of 0 does not keep them from it, and
# 1 does. That program is the host's root, and reads what a run put into its own memory.
for wanted in (None, (0, 0), (1, 1), (0, 1)):
    with contextlib.suppress(OSError, ValueError):
        if wanted is not None:
            resource.setrlimit(resource.RLIMIT_CORE, wanted)
    if resource.getrlimit(resource.RLIMIT_CORE)[0] != 1:
        got("a crash that is taken there", wanted)
""",
    ),
)
