"""A run under gVisor with a way out, a credential and a result, as whoever starts this.

    python -m tests.runners.gvisor_script STATE_DIR

Prints a JSON line with what it said and what was left of it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from remit.runners.gvisor import find, told
from remit.runners.wire import close_all, sealed_file
from tests.runners.wired import wired

SOURCE = """
import socket
print(open("/proc/version").read().split()[2])
print(open("/run/remit/credentials/token").read())
print(socket.create_connection(("127.0.0.1", 3128)).recv(9).decode())
open("/job/out", "w").write("result")
"""


def main(state: str) -> None:
    runsc = find(for_others=False)
    assert runsc is not None
    with wired(Path(state), told(runsc)) as spawner:
        profile: dict[str, Any] = {
            "runner": "gvisor",
            "base": {"kind": "host"},
            "mounts": [],
            "io_mb_per_s": None,
        }
        lease, out = spawner.provision(
            "/usr/bin/python3", "-I", "-S", "-c", SOURCE, profile=profile, egress=True,
            handed=True, collect=["out"], fds=[sealed_file("trust", b"trust ")],
        )  # fmt: skip
        _, fds = spawner.hear("provisioned", lease=lease)
        with socket.socket(fileno=fds[0]) as listening:
            spawner.start(lease, token=b"token")
            served, _ = listening.accept()
            with served:
                served.send(b"served")
        said = out.read().decode().split()
        end, files = spawner.hear("ended", lease=lease)
        print(
            json.dumps(
                {
                    "said": said,
                    "result": os.pread(files[0], 100, 0).decode(),
                    "evidence": end["evidence"],
                }
            )
        )
        close_all(files)


if __name__ == "__main__":
    main(sys.argv[1])
