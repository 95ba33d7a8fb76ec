"""Environments that are kept, with turns: under gVisor, and by a gateway that is an ordinary user."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from remit.errors import RunnerFault
from remit.model import Tier
from remit.profile import Profile, RunnerKind
from tests.adversarial.test_unprivileged import environment, source
from tests.plugins.machine import CGROUPS
from tests.runners.test_kept import OK, keeping_one
from tests.runners.test_unprivileged import USER, delegated

__all__ = ["source"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-32"),
]

STRONG = Profile(name="strong", runner=RunnerKind.GVISOR)
CALLS = "tests/upstreams/test_turns_sandboxed.py"
TURNS = "tests/runners/test_kept.py"
CLOSES = "tests/upstreams/test_runner_sandboxed.py"
CHOSEN = "each_turn or one_turn or connection_of_one or lent or older_fence or reach_out or reaches_nothing or output"


@pytest.mark.anyio
@pytest.mark.needs("runsc")
async def test_under_gvisor_each_turn_reaches_what_its_own_plan_names(tmp_path: Path) -> None:
    async with keeping_one(tmp_path, STRONG) as kept:
        found = kept.runner.profile("strong")
        assert found is not None
        assert found.tier is Tier.GVISOR
        assert await kept.tell("connect") != OK
        for mine, other in (("/one", "/two"), ("/two", "/one")):
            own = await kept.attached(mine)
            with pytest.raises(RunnerFault):
                await kept.attached(other)
            assert await kept.tell("connect", mine) == OK
            assert "403" in await kept.tell("connect", other)
            traffic = await kept.detached(own)
            assert [each.requests for each in traffic.connections]
            assert await kept.tell("connect", mine) != OK
        assert [head.split()[1] for head in kept.seen] == [b"/one", b"/two"]


@pytest.mark.anyio
@pytest.mark.needs("runsc")
async def test_under_gvisor_a_connection_of_one_turn_is_none_of_the_next(tmp_path: Path) -> None:
    async with keeping_one(tmp_path, STRONG) as kept:
        own = await kept.attached()
        assert await kept.lent(own) == "injecting"
        assert await kept.tell("hold") == "held"
        assert await kept.tell("use") == OK
        await kept.detached(own)
        after = await kept.attached()
        assert await kept.tell("use") == "closed"
        assert await kept.tell("connect") == OK
        await kept.detached(after)
        assert [b"planted" in head for head in kept.seen] == [True, False]


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    os.geteuid() != 0, reason="this user is unprivileged already; to run it: be root"
)
def test_an_ordinary_users_kept_servers_have_their_turns_as_roots_have(source: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    python, home = environment(source), str(source / "home")
    with delegated("memory", "pids", "cpu", "unified") as groups:

        def enter() -> None:
            for group in groups:
                (group / "cgroup.procs").write_text("0")
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)

        options = ["-q", "-rs", "-p", "no:cacheprovider", f"--basetemp={home}/tmp", "-k", CHOSEN]
        done = subprocess.run(
            [python, "-m", "pytest", *options, TURNS, CALLS, CLOSES],
            env={
                "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": home,
                "TMPDIR": home,
                "REMIT_SEED": os.environ["REMIT_SEED"],
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            cwd=source,
            preexec_fn=enter,
            capture_output=True,
            text=True,
            timeout=250,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 8, done.stdout[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]
