"""A server of others is ready when Remit may ask it everything that decisions need."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import Code
from remit.policy.library import names, with_library
from remit.policy.opa.client import OpaEngine
from tests.policy.opa.world import fault_of, serving, write, written
from tests.policy.world import policy, when

pytestmark = [pytest.mark.anyio, pytest.mark.needs("opa")]

SOCKET = "unix://opa.sock"
OWN = policy(when("allowed", 'answer("allow", {})') + "visible := {}\n")
BUNDLE = with_library(OWN, {name: {} for name in names()})
AUTHZ = """
package system.authz
import rego.v1
default allow := false
allow if input.path == ["health"]
allow if {{
    input.method == "POST"
    not forbidden
}}
forbidden if array.slice(input.path, 2, 9) == {path}
"""


async def connected(directory: Path) -> OpaEngine:
    return await OpaEngine.connect(
        f"unix:{directory}/opa.sock", deadline_ms=10_000, packages=tuple(BUNDLE.entries)
    )


async def test_whole_library_answers_readiness_as_it_must(tmp_path: Path) -> None:
    written(tmp_path / "policy", BUNDLE)
    async with serving("--bundle", "policy", cwd=tmp_path, address=SOCKET):
        engine = await connected(tmp_path)
        await engine.probe()
        assert engine.revision == BUNDLE.revision
        await engine.aclose()


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("remit", '["remit", "visible"]'),
        ("remit.library.secrets", '["remit", "library", "secrets", "visible"]'),
        ("remit.library.secrets", '["remit", "library", "secrets", "decision"]'),
    ],
)
async def test_server_that_refuses_one_of_the_rules_is_not_ready_and_it_is_said_which_package(
    package: str, path: str, tmp_path: Path
) -> None:
    written(tmp_path / "policy", BUNDLE)
    manifest = b'{"revision": "authz-1", "roots": ["system/authz"]}'
    rego = AUTHZ.format(path=path).encode()
    write(tmp_path / "authz", {".manifest": manifest, "authz.rego": rego})
    arguments = ("--authorization=basic", "--bundle", "policy", "authz")
    async with serving(*arguments, cwd=tmp_path, address=SOCKET):
        engine = await connected(tmp_path)
        fault = await fault_of(engine.probe())
        assert fault.code is Code.POLICY_NOT_READY
        assert fault.message.endswith(f"(asked for {package})")
        await engine.aclose()
