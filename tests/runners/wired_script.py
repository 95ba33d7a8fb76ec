"""A run with a way out and a credential, one of each kind of slot, and one that is spoken with,
as whoever starts this.

    python -m tests.runners.wired_script STATE_DIR

Prints a JSON line with what each of them said.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from remit.runners.wire import sealed_file
from tests.runners.wired import wired

SCRIPT = "cat /run/remit/ca.pem /run/remit/credentials/token"
DIAL = "import socket; print(socket.create_connection(('127.0.0.1', 3128)).recv(9).decode())"


def main(state: str) -> None:
    with wired(Path(state)) as spawner:
        said = {"uids": spawner.hello["uids"], "images": spawner.hello["images"]}
        argv = ("/bin/sh", "-c", f'{SCRIPT}; /usr/bin/python3 -I -c "{DIAL}"')
        lease, out = spawner.provision(
            *argv, egress=True, handed=True, fds=[sealed_file("trust", b"trust ")]
        )
        _, fds = spawner.hear("provisioned", lease=lease)
        with socket.socket(fileno=fds[0]) as listening:
            spawner.start(lease, token=b"token ")
            served, _ = listening.accept()
            with served:
                served.send(b"served")
        said["cold"] = out.read().decode()
        said["left"] = spawner.hear("ended", lease=lease)[0]["evidence"]["processes_left"]
        slot, out, _ = spawner.park("shell")
        files = [("in", b"given")]
        limits = {"open_files": 32}
        argv = ("/bin/sh", "-c", "cat in -; ulimit -n")
        found = spawner.become(slot, out, *argv, stdin=b" input ", files=files, limits=limits)
        said["shell"] = found[0].decode()
        slot, out, _ = spawner.park("python", "python3", "-I")
        said["python"] = spawner.become(slot, out, "python3", "-I", "-c", "print(1)")[0].decode()
        lease, feeding, hearing = spawner.speak("/bin/cat")
        spawner.start(lease)
        os.write(feeding, b"word")
        said["spoken"] = os.read(hearing, 10).decode()
        os.close(feeding)
        said["heard_out"] = spawner.hear("ended", lease=lease)[0]["code"] == 0
        os.close(hearing)
        print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
