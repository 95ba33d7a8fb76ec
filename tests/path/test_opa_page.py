"""What docs/opa.md gives to be copied works as it stands there, with a real OPA and a real Remit."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.breaker import FAILURES
from remit.cli.doctor import installation
from remit.config import load
from remit.doors.admin import admin_app
from remit.doors.settings import DoorSettings
from remit.errors import PolicyFault
from remit.policy.bundle import bundle_of
from remit.policy.opa import probing
from remit.policy.opa.answer import MINIMUM
from remit.policy.opa.client import OpaEngine
from remit.policy.opa.connection import MAX_ANSWER
from remit.policy.opa.transport import CONNECT_S
from remit.settings.policy import PolicySection
from tests.doors.serving import served
from tests.path.conftest import HEAD, MakePath
from tests.path.test_handing_on import KEY, gateway_of
from tests.plugins.machine import OPA_VERSION, ROOT
from tests.policy.opa.certificates import Authority
from tests.policy.opa.world import opa, pointing, serving, supervised, written
from tests.policy.world import code_of, question
from tests.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.needs("opa")]

PAGE = (ROOT / "docs" / "opa.md").read_text()
TOKEN = "hunter2-hunter2"
ALLOW = HEAD + 'decision := answer("allow", {}) if input.tool\n'
DENY = HEAD + 'decision := answer("deny", {})\n'


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


RUN_HERE, SERVICES, OWN, REMOTE = blocks("yaml")
OVER_SOCKET, OVER_TLS = blocks("sh")
(AUTHZ,) = blocks("rego")


def section(snippet: str) -> PolicySection:
    """The section `policy` of a `remit.yaml` of the page, as Remit reads it."""
    return PolicySection.model_validate(yaml.safe_load(snippet)["policy"])


def placed(text: str, places: Mapping[str, str]) -> str:
    """A snippet with the page's places exchanged; each has to be there."""
    for at, other in places.items():
        assert at in text, at
        text = text.replace(at, other)
    return text


@asynccontextmanager
async def running(command: str, environ: Mapping[str, str]) -> AsyncIterator[None]:
    argv = shlex.split(command.replace("\\\n", " "))
    assert argv[0] == "opa"
    process = subprocess.Popen(
        [opa(), *argv[1:]], env=dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def ready(engine: OpaEngine) -> None:
    async with asyncio.timeout(30):
        while engine.probes_installed is not True:
            with suppress(PolicyFault):
                await engine.probe()
            await asyncio.sleep(0.02)


async def test_opa_that_remit_runs_is_one_line_of_configuration(tmp_path: Path) -> None:
    given = section(RUN_HERE)
    assert (given.engine, given.opa.binary) == ("opa", "/usr/local/bin/opa")
    async with (
        supervised(bundle_of({"policy.rego": ALLOW}, {}), tmp_path) as engine,
        pointing(engine) as point,
    ):
        assert code_of(await point.decide(question(), decision_id="dec_1")) == "none"


@pytest.mark.parametrize("way", ["socket", "tls"])
async def test_server_of_ones_own_takes_remits_policy_and_answers_remit_alone(
    way: str, make_path: MakePath, tmp_path: Path
) -> None:
    path = await make_path(ALLOW)
    gateway = gateway_of(path)
    async with served(admin_app(gateway, DoorSettings())) as url:
        files = _files(tmp_path, url, way)
        if way == "socket":
            command = placed(OVER_SOCKET, {"/run/opa": str(tmp_path), **files})
            given = section(OWN).opa
            assert given.url == "unix:/run/opa/opa.sock"
            assert given.socket_uid is not None
            engine = await OpaEngine.connect(
                f"unix:{tmp_path}/opa.sock", token=TOKEN, deadline_ms=10_000
            )
        else:
            port = free_port()
            ours = _certificates(tmp_path)
            places = {"0.0.0.0:8181": f"127.0.0.1:{port}", "/etc/opa/": f"{tmp_path}/"}
            command = placed(OVER_TLS, places)
            given = section(REMOTE).opa
            engine = await OpaEngine.connect(
                placed(str(given.url), {"opa.example.com:8181": f"127.0.0.1:{port}"}),
                ca_file=tmp_path / Path(str(given.ca_file)).name,
                cert_file=tmp_path / Path(str(given.cert_file)).name,
                key_file=tmp_path / Path(str(given.key_file)).name,
                deadline_ms=10_000,
            )
            assert ours.path.name == "opa-ca.pem"
        async with running(command, {"REMIT_OPA_TOKEN": TOKEN}), pointing(engine) as point:
            await ready(engine)
            decision = await point.decide(question(), decision_id="dec_1")
            assert code_of(decision) == "none"
            assert f"policy={path.policy.revision}" in decision.evaluation.revision
            assert "remit_probe=sha256:" in decision.evaluation.revision
            assert (await engine.evaluate(["remit.visible"], b'{"tools": []}')).values == (b"{}",)
            with pytest.raises(PolicyFault) as raised:
                await engine.evaluate(["system.authz.allow"], b"{}")
            assert raised.value.code == "policy_not_ready"
            await _follows(path, point)
        gateway.stop_waiting()


async def _follows(path: Any, point: Any) -> None:
    await path.load(DENY)
    async with asyncio.timeout(30):
        while code_of(await point.decide(question(), decision_id="dec_2")) != "policy_denied":
            await asyncio.sleep(0.02)


def _files(folder: Path, url: str, way: str) -> dict[str, str]:
    """The page's files of OPA, in this folder; where they are in place of `/etc/opa`."""
    (folder / "remit-token").write_text(KEY.token + "\n")
    places = {"http://127.0.0.1:8701": url, "/etc/opa/": f"{folder}/"}
    (folder / "opa.yaml").write_text(placed(SERVICES, places))
    rego = AUTHZ
    if way == "tls":
        rego = placed(rego, {"opa.runtime().env.REMIT_OPA_TOKEN": '"CN=remit"'})
        assert 'compare it with `"CN=remit"`' in PAGE
    (folder / "authz.rego").write_text(rego)
    return {"/etc/opa/": f"{folder}/"}


def _certificates(folder: Path) -> Authority:
    ours = Authority(folder, "opa-ca")
    (folder / "clients-ca.pem").write_bytes(ours.path.read_bytes())
    for name, cert, key in (
        ("opa", "server.pem", "server.key"),
        ("remit", "opa-client.pem", "opa-client.key"),
    ):
        pair = ours.issue(name, address="127.0.0.1" if name == "opa" else None)
        os.rename(pair.cert, folder / cert)
        os.rename(pair.key, folder / key)
    return ours


async def test_doctor_warns_of_a_server_without_the_probes(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/policy.rego").write_text(ALLOW)
    configured = {"policy": {"engine": "opa", "opa": {"url": f"unix:{tmp_path}/opa.sock"}}}
    (tmp_path / "remit.yaml").write_text(yaml.safe_dump(configured))
    settings = load(tmp_path / "remit.yaml", environ={})
    written(tmp_path / "served", bundle_of({"policy.rego": ALLOW}, {}))
    written(tmp_path / "probe", probing.bundle())
    found = {}
    for bundles in (["served"], ["served", "probe"]):
        address = f"unix://{tmp_path}/opa.sock"
        async with serving("--bundle", *bundles, cwd=tmp_path, address=address):
            check = await installation.policy_engine(settings)
            found[len(bundles)] = (check.status, check.found)
    assert found[1] == (
        "warn", "opa 1.22.2 is healthy and denies an empty input, but has not got the probes"
    )  # fmt: skip
    assert found[2][0] == "ok"
    check = await installation.policy_engine(settings)
    assert (check.status, str(check.fix)[:11]) == ("fail", "docs/opa.md")


def test_page_names_the_figures_of_the_code() -> None:
    text = " ".join(PAGE.split())
    least = ".".join(str(part) for part in MINIMUM)
    assert f"OPA {least} or later; 1.21.1 or later is recommended; {OPA_VERSION}" in text
    assert f"larger than {MAX_ANSWER // 1024**2} MiB" in text
    assert f"a connection has {CONNECT_S * 1000:.0f} ms" in text
    assert FAILURES == 5
    assert "After five failures in a row" in text
