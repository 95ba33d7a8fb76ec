"""What is beside a hostile run stays as it was, and what a run may have it has."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from remit.model import Ending
from remit.runners.sandbox import SandboxRunner
from tests.adversarial.conftest import Box
from tests.runners.support import alive, begin, contained, python, shell

pytestmark = [pytest.mark.needs("bwrap", "userns", "cgroup"), pytest.mark.threat("T-16")]

KILL_ALL = """
import os, signal
if os.fork() == 0:
    signal.pause()
os.kill(-1, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_host_and_other_runs_survive_a_kill_of_everyone(
    box: Box, facts: dict[str, Any]
) -> None:
    async def lived(runner: SandboxRunner) -> None:
        other = await begin(runner, shell("exec sleep 60"))
        result = await contained(runner, python(KILL_ALL))
        assert (result.ending, result.signal) == (Ending.SIGNAL, signal.SIGKILL)
        bystanders = [os.getpid(), facts["spawner"], facts["victim"]]
        assert alive(bystanders) == bystanders
        runner_has = await runner.destroy(other)
        assert runner_has.complete

    box.wait(lived)


def test_two_runs_do_not_see_each_other(box: Box) -> None:
    async def lived(runner: SandboxRunner) -> None:
        script = "echo other >/tmp/left; echo other >/dev/shm/left; echo other >left; exec sleep 60"
        other = await begin(runner, shell(script))
        seen = await contained(
            runner, shell("cat /tmp/left /dev/shm/left left; ls /proc | grep -c ^[0-9]")
        )
        assert b"other" not in seen.stdout
        assert int(seen.stdout) <= 4  # PID 1, the shell, ls and grep
        await runner.destroy(other)
        after = await contained(runner, shell("ls /tmp /job /dev/shm/"))
        assert b"left" not in after.stdout

    box.wait(lived)


@pytest.mark.threat("T-19")
def test_its_own_loopback_works_as_far_as_it_may(box: Box) -> None:
    source = """
import socket
server = socket.create_server(("127.0.0.1", 8000))
client = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"own")
print(client.recv(3))
"""
    result = box.wait(lambda runner: contained(runner, python(source)))
    assert result.stdout == b"b'own'\n", result.stderr
