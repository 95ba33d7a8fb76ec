"""Servers that people have, from the registries, work behind Remit: each call in a sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from remit.model import ToolState
from tests.plugins.machine import ROOT
from tests.upstream_servers.behind import Behind, said
from tests.upstream_servers.real import FETCH, SERVERS, Real, entry

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("git"),
    pytest.mark.needs("upstream-servers"),
    pytest.mark.needs("bwrap"),
    pytest.mark.needs("userns"),
    pytest.mark.needs("cgroup"),
]


@pytest.mark.parametrize("real", SERVERS, ids=lambda real: real.name)
async def test_a_real_server_answers_in_a_sandbox(
    real: Real, files: Path, mounts: Mapping[str, Path], tmp_path: Path
) -> None:
    async with Behind(tmp_path, [entry(real, files, mounts)]).open() as behind:
        status = await behind.offered(real.name)
        held = {name: each for name, each in status.items() if each.state is not ToolState.OFFERED}
        assert (len(status), set(held)) == (real.tools, set(real.suspected)), held
        for asked in real.asked:
            reply = await behind.call(f"{real.name}_{asked.tool}", asked.arguments)
            assert asked.told in said(reply), reply
        outcome = await behind.outcome()
        assert outcome["runner"]["server"] == real.name
        assert outcome["runner"]["revision"] == real.revision
        assert outcome["destruction"]["complete"] is True


HOSTS = "127.0.0.1 localhost one.test two.test\n"
IN_ITS_OWN_NAMES = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process names of its own")
def test_fetch_reaches_only_the_page_that_its_egress_names(
    mounts: Mapping[str, Path], tmp_path: Path
) -> None:
    """The server itself looks up no name and refuses this machine's addresses: the egress proxy
    finds the page, under a name that is this machine's in the test alone."""
    folder, hosts = tmp_path / "world", tmp_path / "hosts"
    folder.mkdir()
    hosts.write_text(HOSTS)
    script = [sys.executable, "-m", "tests.upstream_servers.fetch_script", str(folder)]
    script.append(str(mounts[FETCH.mount]))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", IN_ITS_OWN_NAMES, "sh", str(hosts), *script],
        capture_output=True, text=True, cwd=ROOT, timeout=110, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert "A page of the test." in told["answers"]["one.test"]
    assert "A page of the test." not in told["answers"]["two.test"]
    assert set(told["asked"]) == {"GET /page"}
