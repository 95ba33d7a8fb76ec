"""After the host's files."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

T = ("T-16",)

PROGRAMS = (
    Hostile(
        name="reads a file of the host by its name",
        threats=T,
        without=Without.HOST,
        source="""
with refused():
    got(read(facts["secret_file"]))
""",
    ),
    Hostile(
        name="looks into directories that are none of its business",
        threats=T,
        without=Without.HOST,
        source="""
for path in ("/root", "/home", "/var", "/boot", "/srv", "/opt", "/sys", "/media", "/lost+found",
             "/etc/shadow", "/etc/hostname", "/etc/machine-id", "/etc/ssh", "/etc/resolv.conf",
             "/var/run", "/run/secrets", "/run/docker.sock", "/run/systemd"):
    if os.path.lexists(path):
        got(path)
""",
    ),
    Hostile(
        name="goes to the host by the root of another process",
        threats=T,
        without=Without.LOOSE,
        source="""
for pid in filter(str.isdigit, os.listdir("/proc")):
    for way in ("root", "cwd", "map_files", "fd/0", "fd/3", "task/" + pid + "/root"):
        with refused():
            got(way, read("/proc/" + pid + "/" + way + facts["secret_file"]))
""",
    ),
    Hostile(
        name="climbs out with dots",
        threats=T,
        without=Without.HOST,
        source="""
for start in ("", "/proc/self/root", "/proc/self/cwd", "/job", "/tmp", "/usr/lib/..", "/dev/fd/.."):
    with refused():
        got(start, read(start + "/" + "../" * 40 + facts["secret_file"]))
with refused():
    os.chdir("/proc/self/cwd")
    got(read("../" * 40 + facts["secret_file"][1:]))
""",
    ),
    Hostile(
        name="leaves by a second chroot",
        threats=T,
        without=Without.CAPABLE,
        source="""
with refused():
    os.makedirs("/tmp/hole-" + facts["marker"], exist_ok=True)
    try:
        os.chroot("/tmp/hole-" + facts["marker"])
        got("a root of its own")
        for _ in range(40):
            os.chdir("..")
        os.chroot(".")
        got(read(facts["secret_file"]))
    finally:
        with refused():
            os.rmdir("/tmp/hole-" + facts["marker"])
""",
    ),
    Hostile(
        name="opens the host's files by their handles",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
handle = struct.pack("Ii", 128, 0) + bytes(128)
mount = ctypes.c_int()
def by_name(path):
    buffer = ctypes.create_string_buffer(handle)
    if libc.name_to_handle_at(-100, path, buffer, ctypes.byref(mount), 0) == 0:
        return buffer
for path in (b"/", b"/usr", b"/etc/passwd"):
    found = by_name(path)
    if found is None:
        continue
    # The inode of a file system's root is guessed, as the first container escapes did.
    for inode in (None, 2, 128, 256):
        guess = ctypes.create_string_buffer(found.raw)
        if inode:
            struct.pack_into("Q", guess, 8, inode)
        fd = libc.open_by_handle_at(os.open("/", os.O_RDONLY), guess, os.O_RDONLY)
        if fd >= 0:
            got(path, inode, os.readlink(f"/proc/self/fd/{fd}"))
""",
    ),
    Hostile(
        name="writes to the system that all runs see",
        threats=T,
        without=None,
        why="where it could, the host would be changed",
        source="""
for path in ("/x", "/usr/x", "/usr/bin/sh", "/usr/lib/x", "/etc/passwd", "/etc/x", "/dev/x",
             "/bin/x", "/mnt/x", "/run/x", "/proc/x"):
    with refused():
        open(path, "ab").close()
        got(path)
for change in (lambda: os.rename("/usr", "/usr2"), lambda: os.chmod("/usr", 0o777),
               lambda: os.utime("/usr/bin", (0, 0)), lambda: os.unlink("/etc/hosts"),
               lambda: os.symlink("/job", "/usr/x"), lambda: os.link("/etc/passwd", "/etc/x"),
               lambda: os.setxattr("/usr", "user.x", b"x"), lambda: os.truncate("/etc/hosts", 0)):
    with refused():
        change()
        got("changed")
""",
    ),
    Hostile(
        name="makes itself a device",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
for kind, major, minor in ((stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 254, 0), (stat.S_IFCHR, 1, 1),
                           (stat.S_IFCHR, 1, 3), (stat.S_IFCHR, 10, 200)):
    for folder in (".", "/tmp", "/dev", "/dev/shm"):
        path = f"{folder}/node-{facts['marker']}"
        with refused():
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
            got(path, major, minor)
            os.unlink(path)
""",
    ),
    Hostile(
        name="opens the devices of the host",
        threats=T,
        without=Without.HOST,
        source="""
wanted = {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm"}
for name in os.listdir("/dev"):
    if name not in wanted:
        got("sees", name)
for name in ("mem", "kmsg", "port", "kvm", "fuse", "ptmx", "pts/ptmx", "net/tun", "loop-control",
             "sda", "vda", "nvme0n1", "dri/card0", "uinput", "vhost-net", "hpet", "userfaultfd"):
    with refused():
        os.close(os.open("/dev/" + name, os.O_RDWR | os.O_NONBLOCK))
        got("opens", name)
""",
    ),
    Hostile(
        name="finds a descriptor that somebody left open",
        threats=("T-16", "T-20"),
        without=Without.HOST,
        source="""
plain = ("pipe:", "/dev/null", "/memfd:", "anon_inode:", "/job", "/proc/")
for pid in ("self", "1"):
    with refused():
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with refused():
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if not target.startswith(plain):
                    got(pid, fd, target)
for fd in range(3, 256):
    with refused():
        got(fd, os.listdir(fd)[:3])
""",
    ),
    Hostile(
        name="reopens what it was handed, to write it",
        threats=("T-16", "T-20"),
        without=None,
        why="what it is handed is a sealed memory file in no other place",
        source="""
with refused():
    fd = os.open("/proc/self/fd/0", os.O_RDWR)
    os.pwrite(fd, b"changed", 0)
    got("its input can be changed")
""",
    ),
    Hostile(
        name="overwrites the program that started it",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
for pid in ("1", "self", str(os.getppid())):
    try:
        os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
        got(pid)
    except OSError as fault:
        if fault.errno == errno.ETXTBSY:
            got(pid, "as soon as it has ended")
    with refused():
        held = os.open(f"/proc/{pid}/exe", os.O_PATH)
        os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
        got(pid, "by a descriptor")
""",
    ),
    Hostile(
        name="links a file of the host to where it may write",
        threats=T,
        without=Without.HOST,
        source="""
target = facts["secret_file"] if os.path.exists(facts["secret_file"]) else "/etc/passwd"
for source in (target, "/usr/bin/su", "/proc/self/exe"):
    for flags in (0, 0x400, 0x1000):
        if libc.linkat(-100, source.encode(), -100, f"link-{flags}".encode(), flags) == 0:
            if not os.path.islink(f"link-{flags}"):
                got(source, flags)
            os.unlink(f"link-{flags}")
with refused():
    os.rename(target, "moved") if target != facts["secret_file"] else os.link(target, "x")
    got("moved")
""",
    ),
    Hostile(
        name="lists what is mounted, for its places on the host",
        threats=T,
        without=Without.HOST,
        source="""
for table in ("mountinfo", "mounts", "mountstats"):
    with refused():
        text = read("/proc/self/" + table, 1 << 20).decode()
        for line in text.splitlines():
            for word in ("/sys ", "cgroup", "devpts", "securityfs", "remit", facts["directory"]):
                if word in line:
                    got(table, line)
""",
    ),
)
