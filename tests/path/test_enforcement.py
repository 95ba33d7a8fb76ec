"""Whole gateways from a `remit.yaml`: layers, library, OPA, and what is on trial."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.app import open_gateway
from remit.config import load
from remit.errors import ConfigError, PolicyFault
from remit.gateway import Gateway
from remit.ledger.signer import FileSigner
from remit.model import Call, Caller, CallerKind, Operator, Permission, Reply
from remit.policy.bundle import bundle_of
from remit.telemetry import REGISTRY
from remit.testing.runner import NoopRunner
from tests.path.conftest import HEAD, Heard
from tests.policy.opa import world as opas

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

ALLOW = HEAD + 'decision := answer("allow", {}) if input.tool\n'
DENY = HEAD + 'decision := answer("deny", {})\n'
PEOPLE = HEAD + 'decision := answer("require_approval", {"approvals": {"required": 1}})\n'
OPERATOR = Operator(subject="olga", may=frozenset(Permission))
KEY = "a" * 64

TOOL = {
    "name": "act",
    "description": "Acts.",
    "effect": "write",
    "input_schema": {"type": "object", "properties": {}},
    "command": {"argv": ["/bin/true"]},
}


class World:
    """A configuration, and the gateway that it makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway: Gateway
        (folder / ".remit" / "keys").mkdir(parents=True)
        FileSigner.create(folder / ".remit/keys/log.key", "remit.test/log")

    def policy(self, name: str, rego: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        new = folder / ".new"
        new.write_text(rego)
        new.rename(folder / "policy.rego")
        return folder

    @asynccontextmanager
    async def open(self, **policy: Any) -> AsyncIterator[World]:
        whole = {
            "catalog": {"tools": [TOOL]},
            "identity": {"keys": [{"id": "k1", "subject": "bot", "kind": "agent", "sha256": KEY}]},
            "approvals": {"hold_s": 0},
            "policy": {"deadline_ms": 10_000, **policy},
        }
        file = self.folder / "remit.yaml"
        file.write_text(yaml.safe_dump(whole))
        settings = load(file, environ={})
        async with open_gateway(settings, runner=NoopRunner()) as self.gateway:
            yield self

    async def call(self) -> Reply:
        caller = Caller(tenant="default", subject="bot", kind=CallerKind.AGENT, key_id="k1")
        call = Call(
            id=self.gateway.new_call_id(), caller=caller, tool_name="act", arguments={},
            received_ms=1,
        )  # fmt: skip
        return await self.gateway.call(call, Heard())

    async def code(self) -> str:
        return str((await self.call()).decision["code"])

    async def decision(self) -> Mapping[str, Any]:
        """The newest decision as the log has it."""
        entries = await self.gateway.ledger.entries(0, 10_000)
        found = [json.loads(entry.text) for entry in entries]
        return next(entry for entry in reversed(found) if entry["event"] == "decision")

    async def status(self) -> Mapping[str, Any]:
        return await self.gateway.status(OPERATOR)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.policy("policy", ALLOW)
    return made


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


async def test_policy_of_the_directory_decides_and_a_record_names_no_layers(world: World) -> None:
    async with world.open():
        assert await world.code() == "ok"
        assert set((await world.decision())["policy"]) == {"revision", "engine"}


@pytest.mark.parametrize(
    ("org", "code"), [(ALLOW, "ok"), (DENY, "policy_denied"), (PEOPLE, "approval_required")]
)
async def test_layer_of_the_organisation_is_asked_too_and_the_strictest_holds(
    world: World, org: str, code: str
) -> None:
    world.policy("org", org)
    async with world.open(layers=[{"name": "org", "path": "org"}]):
        assert await world.code() == code
        policy = (await world.decision())["policy"]
        assert [each["name"] for each in policy["layers"]] == ["policy", "org"]
        status = await world.status()
        assert status["policy_layers"] == policy["layers"]
        assert status["policy_revision"] == policy["revision"]


async def test_library_policy_restricts_what_the_own_policy_allows(world: World) -> None:
    async with world.open(use={"read_only": {"kinds": ["agent"]}}):
        assert await world.code() == "unknown_tool"  # what it would never allow, it hides
    async with world.open(use={"read_only": {"kinds": ["human"]}}):
        assert await world.code() == "ok"


@pytest.mark.threat("T-28")
async def test_bad_policy_at_the_start_is_refused_and_nothing_stays(world: World) -> None:
    world.policy("org", "package remit\nnot rego")
    with pytest.raises(ConfigError, match="keyword"):
        async with world.open(layers=[{"name": "org", "path": "org"}]):
            pass


@pytest.mark.threat("T-10", "T-28")
async def test_changed_directory_is_taken_and_a_bad_one_is_told_in_the_status(world: World) -> None:
    async with world.open(reload_s=1):
        first = (await world.status())["policy_revision"]
        world.policy("policy", DENY)
        world.gateway.look_for_policy()
        policy = world.gateway._backends.policy
        await until(lambda: policy.revision != first)
        assert await world.code() == "policy_denied"
        world.policy("policy", "package remit\nnot rego")
        world.gateway.look_for_policy()
        async with asyncio.timeout(30):
            while not (await world.status())["policy_problem"]:
                await asyncio.sleep(0.02)
        assert await world.gateway.ready() == []
        assert await world.code() == "policy_denied"


def shadowed(result: str) -> float:
    return REGISTRY.get_sample_value("remit_policy_shadow_total", {"result": result}) or 0


async def test_candidate_on_trial_is_counted_and_changes_nothing(world: World) -> None:
    world.policy("next", DENY)
    before = shadowed("mismatch")
    async with world.open(shadow={"path": "next", "sample": 1}):
        assert await world.code() == "ok"
        await until(lambda: shadowed("mismatch") == before + 1)


@pytest.mark.needs("opa")
async def test_opa_that_remit_runs_decides_and_follows_the_directory(world: World) -> None:
    async with world.open(engine="opa", opa={"binary": str(opas.opa())}):
        assert await world.code() == "ok"
        record = (await world.decision())["policy"]
        assert record["engine"] == "opa 1.22.2"
        world.policy("policy", DENY)
        world.gateway.look_for_policy()
        policy = world.gateway._backends.policy
        await until(lambda: policy.revision != record["revision"])
        assert await world.code() == "policy_denied"
        assert (await world.decision())["policy"]["revision"] == policy.revision


@pytest.mark.needs("opa")
async def test_opa_on_trial_says_the_same_as_the_embedded_engine(world: World) -> None:
    before = shadowed("match")
    shadow = {"engine": "opa", "sample": 1}
    async with world.open(shadow=shadow, opa={"binary": str(opas.opa())}):
        assert await world.code() == "ok"
        await until(lambda: shadowed("match") == before + 1)


@pytest.mark.needs("opa")
@pytest.mark.threat("T-29")
async def test_server_of_others_that_changes_its_policy_is_followed(
    world: World, tmp_path: Path
) -> None:
    def bundle(rego: str) -> Path:
        made = bundle_of({"policy.rego": rego}, {})
        return opas.written(tmp_path / "served", made)

    bundle(ALLOW)
    socket = tmp_path / "opa.sock"
    arguments = ("--watch", "--bundle", "served", "--set=decision_logs.console=true")
    async with (
        opas.serving(*arguments, cwd=tmp_path, address=f"unix://{socket}"),
        world.open(engine="opa", opa={"url": f"unix:{socket}"}),
    ):
        assert await world.code() == "ok"
        policy = (await world.decision())["policy"]
        first = policy["revision"]
        assert [len(each) for each in policy["engine_decisions"]] == [36]  # OPA's own, a UUID
        bundle(DENY)
        async with asyncio.timeout(30):
            while (await world.decision())["policy"]["revision"] == first:
                await world.code()
        assert await world.code() == "policy_denied"
        found = await world.gateway.ledger.entries(0, 10_000)
        entries = [json.loads(entry.text) for entry in found]
        active = [each["revision"] for each in entries if each["event"] == "gateway.activated"]
        assert active[0] == first
        assert active[-1] == (await world.decision())["policy"]["revision"] != first


@pytest.mark.needs("opa")
@pytest.mark.threat("T-29")
async def test_gateway_starts_before_its_server_and_denies_until_it_answers(
    world: World, tmp_path: Path
) -> None:
    socket = tmp_path / "opa.sock"
    opas.written(tmp_path / "served", bundle_of({"policy.rego": ALLOW}, {}))
    async with world.open(engine="opa", opa={"url": f"unix:{socket}"}):
        assert await world.code() == "unknown_tool"  # nobody says what is visible
        assert [each for each in await world.gateway.ready() if each.startswith("policy: ")]
        async with opas.serving("--bundle", "served", cwd=tmp_path, address=f"unix://{socket}"):
            async with asyncio.timeout(30):
                while await world.code() != "ok":
                    await asyncio.sleep(0.05)
            assert await world.gateway.ready() == []


async def test_server_that_cannot_be_meant_is_refused_at_the_start(world: World) -> None:
    with pytest.raises((ConfigError, PolicyFault)):
        async with world.open(engine="opa", opa={"binary": "/bin/false"}):
            pass
