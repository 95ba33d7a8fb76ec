"""After a life beyond its run. Each prints READY once it has made itself hard to end."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

T = ("T-18",)

_DEAF = """
import signal, time
def deaf():
    for number in signal.valid_signals() - {signal.SIGCHLD}:
        with refused():
            with contextlib.suppress(ValueError):
                signal.signal(number, signal.SIG_IGN)
def apart():
    "A grandchild in a session of its own; True in it."
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    return True
def ready():
    print("READY", flush=True)
def forever():
    while True:
        time.sleep(1)
"""

PROGRAMS = tuple(
    Hostile(name=name, threats=T, without=Without.HOST, source=_DEAF + source)
    for name, source in {
        "leaves a daemon behind": """
if apart():
    os.closerange(0, 256)
    forever()
ready()
forever()
""",
        "hears no signal": """
deaf()
if apart():
    deaf()
    forever()
ready()
forever()
""",
        "is another process ten times a second": """
if apart():
    os.closerange(0, 256)
    until = time.monotonic() + facts.get("seconds", 60)
    while time.monotonic() < until:
        with refused():
            if os.fork():
                os._exit(0)
            os.setsid()
        time.sleep(0.1)
ready()
forever()
""",
        "stops itself where it stands": """
if apart():
    os.closerange(0, 256)
    os.kill(os.getpid(), signal.SIGSTOP)
    forever()
ready()
os.kill(os.getpid(), signal.SIGSTOP)
forever()
""",
        "lives on in a thread while its leader is dead": """
import threading
if apart():
    os.closerange(0, 256)
    threading.Thread(target=forever).start()
    libc.pthread_exit(0)
ready()
forever()
""",
        "takes the place of the one who would reap it": """
libc.prctl(36, 1, 0, 0, 0)
libc.prctl(1, 0, 0, 0, 0)
for _ in range(3):
    if apart():
        libc.prctl(36, 1, 0, 0, 0)
        libc.prctl(1, 0, 0, 0, 0)
        forever()
ready()
forever()
""",
        "becomes another program at each moment": """
if apart():
    os.closerange(1, 256)
    again = "import os, sys; os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', os.environ['AGAIN']])"
    os.environ["AGAIN"] = again
    os.execv("/usr/bin/python3", ["/usr/bin/python3", "-I", "-S", "-c", again])
ready()
forever()
""",
        "waits in the kernel for a child that never comes back": """
if apart():
    os.closerange(0, 256)
    # Waits as after vfork(2), with memory of its own: two that share a stack do who knows what.
    libc.syscall(56 if x86 else 220, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0)  # clone, CLONE_VFORK
    forever()
ready()
forever()
""",
        "holds the run's output open": """
if apart():
    while True:
        with refused():
            os.write(2, b".")
        time.sleep(0.01)
ready()
os._exit(0)
""",
        "kills its parents first": """
for pid in (1, os.getppid()):
    if pid == 1 or os.getppid() == 1:
        for number in (signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM):
            with refused():
                os.kill(pid, number) if os.getpid() < 100 else None
if apart():
    os.closerange(0, 256)
    forever()
ready()
forever()
""",
    }.items()
)
