"""What docs/policy-bundles.md tells to type works as it stands there, in that order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from remit.policy.archive import MAX_ARCHIVE_BYTES, MAX_FILES, MAX_UNPACKED_BYTES
from remit.policy.bundle import MAX_DATA_BYTES, MAX_MODULE_BYTES, read_bundle
from remit.policy.content import _REFUSED
from remit.policy.signature import ALGORITHMS
from remit.settings.policy import PolicySection
from tests.plugins.machine import ROOT, opa_binary
from tests.policy.world import STARTER

PAGE = (ROOT / "docs" / "policy-bundles.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.needs("opa")
@pytest.mark.needs("openssl")
def test_commands_of_the_page_work_in_their_order(tmp_path: Path) -> None:
    binary = opa_binary()
    assert binary is not None
    shutil.copytree(STARTER, tmp_path / "policy")
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "opa").symlink_to(binary)
    (commands / "remit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m remit "$@"\n')
    (commands / "remit").chmod(0o755)
    script = "\n".join(blocks("sh"))
    assert script.count("remit policy ") == 4
    environ = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    revision = read_bundle(tmp_path / "policy").revision
    from_opa = read_bundle(tmp_path / "from-opa.tar.gz")
    assert done.stdout.splitlines() == [revision, revision, revision, from_opa.revision]
    assert len(from_opa.modules) == 1


def test_configuration_of_the_page_is_one() -> None:
    given = yaml.safe_load(blocks("yaml")[0])["policy"]
    section = PolicySection.model_validate(given)
    verify = section.layers[0].verify
    assert verify is not None
    assert verify.algorithm == "ES256"


def test_limits_and_kinds_of_the_page_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    mib = 1024 * 1024
    assert (
        f"at most {MAX_ARCHIVE_BYTES // mib} MiB, {MAX_UNPACKED_BYTES // mib} MiB unpacked, "
        f"and {MAX_FILES:,} files; a module {MAX_MODULE_BYTES // 1024} KiB, "
        f"data {MAX_DATA_BYTES // mib} MiB."
    ) in text
    for name in ("policy.wasm", "plan.json", "patch.json", "data.yaml"):
        assert name in _REFUSED
        assert f"`{name}`" in text
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == ["RS256", "ES256", "HS256", "EdDSA"]
    assert set(ALGORITHMS) == {"RS256", "ES256", "HS256", "EdDSA"}
