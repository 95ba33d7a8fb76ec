"""After what processes of the host say to each other."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

T = ("T-16",)

PROGRAMS = (
    Hostile(
        name="attaches the host's shared memory",
        threats=T,
        without=Without.HOST,
        source="""
if libc.shmget(facts["ipc_key"], 0, 0) >= 0:
    got("segment")
for name in ("shm", "msg", "sem"):
    with refused():
        lines = read("/proc/sysvipc/" + name).splitlines()[1:]
        if lines:
            got(name, len(lines))
""",
    ),
    Hostile(
        name="opens a message queue of the host",
        threats=T,
        without=Without.HOST,
        source="""
with refused():
    library = ctypes.CDLL("librt.so.1", use_errno=True)
    if library.mq_open(facts["queue"].encode(), os.O_RDONLY) >= 0:
        got("queue")
""",
    ),
    Hostile(
        name="reads the host's files of shared memory",
        threats=T,
        without=Without.HOST,
        source="""
with refused():
    got(read(facts["shared_file"]))
for name in os.listdir("/dev/shm"):
    got(name)
""",
    ),
    Hostile(
        name="connects to an abstract socket of the host",
        threats=("T-16", "T-19"),
        without=Without.HOST,
        source="""
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    with refused(), socket.socket(socket.AF_UNIX, kind) as one:
        one.connect("\\0" + facts["abstract"])
        got(kind)
with refused():
    for line in read("/proc/net/unix", 65_536).splitlines()[1:]:
        if b"@" in line:
            got(line)
""",
    ),
    Hostile(
        name="connects to a socket in the host's files",
        threats=("T-16", "T-19"),
        without=Without.HOST,
        source="""
for path in (facts["socket_path"], "/proc/1/root" + facts["socket_path"], "/run/docker.sock",
             "/run/dbus/system_bus_socket", "/run/containerd/containerd.sock"):
    with refused(), socket.socket(socket.AF_UNIX) as one:
        one.connect(path)
        got(path)
""",
    ),
    Hostile(
        name="finds any socket in the files that it sees",
        threats=("T-16", "T-19"),
        without=Without.HOST,
        source="""
for top in ("/dev", "/etc", "/job", "/mnt", "/run", "/tmp", "/var", facts["directory"]):
    for folder, _, names in os.walk(top):
        for name in names:
            with refused():
                if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode):
                    got(folder, name)
""",
    ),
    Hostile(
        name="names itself to the gateway by its standard streams",
        threats=("T-16", "T-20"),
        without=None,
        why="a pipe is all there is, in the sandbox and outside",
        source="""
for fd in (0, 1, 2):
    with refused():
        one = socket.socket(fileno=os.dup(fd))
        one.getpeername()
        got("a socket at", fd)
    if os.isatty(fd):
        got("a terminal at", fd)
with refused():
    os.read(1, 1)
    got("reads its own output")
""",
    ),
)
