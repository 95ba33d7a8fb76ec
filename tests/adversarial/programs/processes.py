"""After other processes, PID 1, the gateway, and what /proc says of the host."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

T = ("T-16",)

PROGRAMS = (
    Hostile(
        name="looks at the processes of the host",
        threats=T,
        without=Without.HOST,
        source="""
for pid in filter(str.isdigit, os.listdir("/proc")):
    with refused():
        if facts["marker"].encode() in read(f"/proc/{pid}/cmdline"):
            got(pid)
if len([each for each in os.listdir("/proc") if each.isdigit()]) > 3:
    got("many")
""",
    ),
    Hostile(
        name="signals a process of the host",
        threats=T,
        without=Without.HOST,
        source="""
for pid in (facts["victim"], facts["gateway"], facts["spawner"]):
    with refused():
        os.kill(pid, 0)
        got(pid)
    with refused():
        os.close(os.pidfd_open(pid))
        got("a handle of", pid)
""",
    ),
    Hostile(
        name="kills everyone it can",
        threats=("T-16", "T-18"),
        without=None,
        why="where it could, this machine would be gone",
        source="""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for pid in (-1, 1, os.getppid()):
    with refused():
        os.kill(pid, signal.SIGTERM if pid == -1 else signal.SIGKILL)
with refused():
    os.killpg(0, 0) if os.getpgid(0) else got("it is in the gateway's group")
""",
    ),
    Hostile(
        name="traces a process",
        threats=T,
        without=Without.HOST,
        source="""
import time
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
for pid in (child, 1, os.getppid()):
    for request in (16, 0x4206):  # ATTACH, SEIZE
        if pid != os.getppid() or os.getppid() == 1:
            if not call(101 if x86 else 117, request, pid, 0, 0):
                got(request, pid)
os.kill(child, 9)
child = os.fork()
if child == 0:
    if not call(101 if x86 else 117, 0, 0, 0, 0):
        got("is traced by its parent")
    os._exit(0)
""",
    ),
    Hostile(
        name="reads the memory of its child from outside",
        threats=T,
        without=Without.HOST,
        source="""
import time
page = ctypes.create_string_buffer(b"x" * 64)
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
out = ctypes.create_string_buffer(64)
ours = struct.pack("QQ", ctypes.addressof(out), 64)
theirs = struct.pack("QQ", ctypes.addressof(page), 64)
for pid in (child, 1):
    if not call(310 if x86 else 270, pid, ours, 1, theirs, 1, 0):
        got("read", pid)
    if not call(311 if x86 else 271, pid, ours, 1, theirs, 1, 0):
        got("written", pid)
os.kill(child, 9)
""",
    ),
    Hostile(
        name="searches the memory of every process that it sees",
        threats=("T-16", "T-20", "T-33"),
        without=Without.LOOSE,
        source="""
# PID 1 of a run is as much the run's as the command: what matters is that it holds nothing.
wanted = facts["marker"].encode()
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    with refused():
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        for line in read(f"/proc/{pid}/maps", 1 << 20).decode().splitlines():
            span, mode = line.split()[:2]
            start, end = (int(each, 16) for each in span.split("-"))
            with contextlib.suppress(OSError, OverflowError):
                if "r" in mode and end - start < 1 << 26 and wanted in os.pread(memory, end - start, start):
                    got(pid, line)
""",
    ),
    Hostile(
        name="makes PID 1 another, or gives it rights",
        threats=T,
        without=Without.CAPABLE,
        source="""
for name, text in (("uid_map", "0 0 1"), ("gid_map", "0 0 1"), ("setgroups", "allow"),
                   ("attr/exec", "unconfined"), ("loginuid", "0")):
    for pid in ("1", "self"):
        with refused():
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(text)
            got("writes", pid, name)
with refused():
    got("its kernel stack", read("/proc/1/stack", 64))
for pid in ("1", "self"):
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with refused():
            got("control of", fd) if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:") else 0
for line in read("/proc/1/status").decode().splitlines():
    if line.startswith("Cap") and int(line.split()[1], 16):
        got(line)
""",
    ),
    Hostile(
        name="reads the environment that PID 1 was started with",
        threats=("T-20", "T-33"),
        without=Without.LOOSE,
        source="""
for pid in filter(str.isdigit, os.listdir("/proc")):
    with refused():
        text = read(f"/proc/{pid}/environ") + read(f"/proc/{pid}/cmdline")
        if facts["marker"].encode() in text:
            got(pid, text)
""",
    ),
    Hostile(
        name="takes a descriptor out of another process",
        threats=T,
        without=Without.HOST,
        source="""
import time
fd = os.open("/dev/null", os.O_RDONLY)
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
for pid in (child, 1):
    with refused():
        handle = os.pidfd_open(pid)
        for number in (0, 1, 3, fd):
            if not call(438, handle, number, 0):
                got(pid, number)
    if not call(312 if x86 else 272, pid, os.getpid(), 0, 0, 0):
        got("compares", pid)
os.kill(child, 9)
""",
    ),
    Hostile(
        name="enters the namespaces of PID 1",
        threats=T,
        without=Without.CAPABLE,
        source="""
for name in ("mnt", "net", "pid", "ipc", "uts", "user", "cgroup", "time"):
    for pid in ("1", "self"):
        with refused():
            fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            if not call(308 if x86 else 268, fd, 0):
                got(name, "of", pid)
with refused():
    if not call(308 if x86 else 268, os.pidfd_open(1), 0x20000):
        got("by a handle of PID 1")
""",
    ),
    Hostile(
        name="turns the kernel's knobs in /proc/sys",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
for name in ("kernel/core_pattern", "kernel/hostname", "kernel/modprobe", "kernel/hotplug",
             "kernel/randomize_va_space", "vm/overcommit_memory", "vm/drop_caches", "fs/file-max",
             "kernel/domainname", "fs/binfmt_misc/register", "user/max_user_namespaces",
             "net/ipv4/ip_forward", "kernel/sem", "kernel/shmmax",
             "fs/mqueue/msg_max", "net/ipv4/ping_group_range"):
    with refused():
        os.close(os.open("/proc/sys/" + name, os.O_WRONLY))
        got(name)
""",
    ),
    Hostile(
        name="pulls the levers of the machine in /proc",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
for name in ("sysrq-trigger", "kcore", "kmsg", "mtrr", "scsi/scsi", "acpi/wakeup", "bus/pci/devices",
             "irq/default_smp_affinity", "timer_list", "latency_stats", "fs/xfs", "kpageflags",
             "kpagecount", "vmallocinfo", "slabinfo", "sched_debug"):
    for mode in (os.O_RDONLY, os.O_WRONLY):
        if mode == os.O_RDONLY and name.startswith(("bus/", "irq/")):
            continue  # what hardware there is may be known, as in any container
        with refused():
            fd = os.open("/proc/" + name, mode | os.O_NONBLOCK)
            if mode == os.O_WRONLY or os.read(fd, 1):
                got(name, mode)
            os.close(fd)
""",
    ),
    Hostile(
        name="reads where the kernel lies in memory",
        threats=T,
        without=Without.HOST,
        root=True,
        source="""
for name in ("kallsyms", "modules", "iomem", "ioports", "self/stack", "self/pagemap"):
    with refused():
        for line in read("/proc/" + name, 65_536).splitlines()[:50]:
            number = line.split()[-1 if name == "modules" else 0].split(b"-")[0]
            if name not in ("self/pagemap",) and number.strip(b"0x") and number[:1] in b"0123456789abcdef":
                got(name, line); break
with refused():
    page = os.pread(os.open("/proc/self/pagemap", os.O_RDONLY), 8, (id(facts) // 4096) * 8)
    if page and struct.unpack("Q", page)[0] & ((1 << 55) - 1):
        got("the frame of a page")
""",
    ),
    Hostile(
        name="moves to a control group of its own",
        threats=("T-16", "T-17"),
        without=Without.HOST,
        root=True,
        source="""
for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/proc/1/root/sys/fs/cgroup"):
    with refused():
        os.listdir(top)
        got("sees", top)
    with refused():
        os.close(os.open(top + "/cgroup.procs", os.O_WRONLY))
        got("could leave to", top)
""",
    ),
    Hostile(
        name="mounts the control groups to run a program of its own on the host",
        threats=("T-16", "T-37"),
        without=Without.CAPABLE,
        source="""
mount = 165 if x86 else 40
call(272 if x86 else 97, 0x10000000 | 0x02000000 | 0x20000)
os.makedirs("group-" + facts["marker"], exist_ok=True)
for kind, options in ((b"cgroup", b"rdma"), (b"cgroup", b"memory"), (b"cgroup", b"none,name=x"),
                      (b"cgroup2", b""), (b"tmpfs", b"")):
    said = call(mount, b"none", b"group-" + facts["marker"].encode(), kind, 0, options)
    if not said:
        got(kind, options)
with refused():
    os.rmdir("group-" + facts["marker"])
""",
    ),
    Hostile(
        name="makes itself the last that the kernel ends for memory",
        threats=("T-17",),
        without=None,
        why="where it could, a process of this machine would be ended in its place",
        source="""
# Where the spawner cannot hold it above, it may go down to where every process begins.
for wanted in (-1000, -500, -1):
    with refused():
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(wanted))
        got(wanted)
""",
    ),
    Hostile(
        name="gives itself more of the processor",
        threats=("T-17",),
        without=Without.HOST,
        root=True,
        source="""
with refused():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    got("nice", os.getpriority(os.PRIO_PROCESS, 0))
for policy in (os.SCHED_FIFO, os.SCHED_RR):
    with refused():
        os.sched_setscheduler(0, policy, os.sched_param(1))
        got(policy)
if not call(251 if x86 else 30, 1, 0, 1 << 13):
    got("real-time reads and writes")
""",
    ),
    Hostile(
        name="lifts its limits",
        threats=("T-17",),
        without=Without.HOST,
        source="""
import resource
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
    soft, hard = resource.getrlimit(kind)
    for wanted in (1 << 40, 4096):
        with contextlib.suppress(OSError, ValueError):
            if soft == -1 or wanted <= soft:
                continue
            resource.setrlimit(kind, (wanted, max(hard, wanted) if hard != -1 else hard))
            if resource.getrlimit(kind)[0] != soft:
                got(kind, wanted)
            resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))
""",
    ),
)
