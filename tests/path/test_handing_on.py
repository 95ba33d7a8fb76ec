"""A real OPA pulls its policy from a real Remit, and follows when Remit's policy changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from remit.canonical import encode
from remit.doors.admin import admin_app
from remit.doors.settings import DoorSettings
from remit.errors import NotFound
from remit.gateway import Gateway
from remit.identity.keys import KeyIdentity, OperatorKey, new_key
from remit.model import Allow, Operator, Permission
from remit.pipeline import Pipeline
from remit.policy.archive import read_archive
from remit.policy.bundle import bundle_of
from remit.policy.embedded import EmbeddedEngine
from remit.policy.layers import layer
from remit.policy.serving import MAX_WAITING, ServedBundles
from remit.policy.source import Origin, open_source
from tests.doors.serving import served
from tests.path.conftest import ALLOW, HEAD, MakePath, Path_
from tests.plugins.machine import opa_binary
from tests.policy.bundles.test_page import blocks
from tests.policy.world import question

pytestmark = pytest.mark.anyio

DENY = HEAD + 'decision := answer("deny", {})\n'
KEY = new_key("olga")
READER = Operator(subject="olga", may=frozenset({Permission.READ}))


def gateway_of(path: Path_) -> Gateway:
    identity = KeyIdentity(
        [],
        [OperatorKey(id=KEY.id, sha256=KEY.sha256, operator=READER)],
        now=path.clock.now_ms,
    )
    bundles = ServedBundles(path.policy)
    return Gateway(
        Pipeline(
            replace(path.pipeline.backends, identity=identity, bundles=bundles),
            path.pipeline.settings,
        )
    )


@asynccontextmanager
async def pulling(folder: Path, url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A real OPA that has its policy from there; gives a client of it."""
    binary = opa_binary()
    assert binary is not None
    socket = folder / "opa.sock"
    # The configuration that the page on bundles gives, at this address and with this credential.
    config = yaml.safe_load(blocks("yaml")[1])
    config["services"]["remit"]["url"] = url
    config["services"]["remit"]["credentials"]["bearer"]["token"] = KEY.token
    (folder / "opa.json").write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        binary, "run", "--server", "--addr", f"unix://{socket}", "-c", folder / "opa.json",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        transport = httpx2.AsyncHTTPTransport(uds=str(socket))
        async with httpx2.AsyncClient(transport=transport, base_url="http://opa") as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def answer_under(client: httpx2.AsyncClient, revision: str) -> Any:
    """OPA's decision, once it decides under this revision."""
    async with asyncio.timeout(30):
        while True:
            try:
                found = await client.post(
                    "/v1/data/remit/decision?provenance=true",
                    content=encode({"input": question()}),
                )
            except httpx2.TransportError:
                await asyncio.sleep(0.05)
                continue
            answer = found.json()
            bundles = answer["provenance"].get("bundles", {})
            if bundles.get("policy", {}).get("revision") == revision:
                return answer["result"]
            await asyncio.sleep(0.02)


@pytest.mark.needs("opa")
async def test_opa_decides_by_the_revision_that_remit_decides_by(
    make_path: MakePath, tmp_path: Path
) -> None:
    path = await make_path(ALLOW)
    gateway = gateway_of(path)
    async with served(admin_app(gateway, DoorSettings())) as url:
        async with pulling(tmp_path, url) as opa:
            ours = await path.policy.decide(question(), decision_id="dec_1")
            assert isinstance(ours, Allow)
            theirs = await answer_under(opa, ours.evaluation.revision)
            assert theirs["decision"] == "allow"
            before = path.policy.revision
            await path.load(DENY)
            assert path.policy.revision != before
            theirs = await answer_under(opa, path.policy.revision)
            assert theirs["decision"] == "deny"
        gateway.stop_waiting()


async def test_another_remit_follows_as_opa_does(make_path: MakePath, tmp_path: Path) -> None:
    path = await make_path(ALLOW)
    gateway = gateway_of(path)
    async with served(admin_app(gateway, DoorSettings())) as url:
        place = f"{url}/v1/policy/bundles/policy.tar.gz"
        source = open_source(Origin(layer="org", place=place, token=KEY.token, every_s=3_600))
        assert (await source.load()).revision == path.policy.revision
        waiting = asyncio.ensure_future(source.changed())
        await path.load(DENY)
        async with asyncio.timeout(20):
            found = await waiting
        assert found is not None
        assert found.revision == path.policy.revision
        await source.aclose()
        gateway.stop_waiting()


async def test_waiting_ends_when_the_policy_changes(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    bundles = ServedBundles(path.policy)
    first = await bundles.bundle("policy", known=frozenset(), wait_s=60)
    assert read_archive(first.content).revision == first.revision == path.policy.revision
    known = frozenset({first.revision})
    waiting = asyncio.ensure_future(bundles.bundle("policy", known=known, wait_s=60))
    await path.load(DENY)
    async with asyncio.timeout(20):
        assert (await waiting).revision == path.policy.revision != first.revision


async def test_change_between_looking_and_waiting_is_not_missed(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    bundles = ServedBundles(path.policy)
    known = frozenset({path.policy.revision})
    denying = bundle_of({"test.rego": DENY}, {})
    changed = layer(await EmbeddedEngine.start(denying, deadline_ms=5_000), denying)
    waiting = asyncio.ensure_future(bundles.bundle("policy", known=known, wait_s=3_600))
    asyncio.get_running_loop().call_soon(path.policy.put, changed)
    async with asyncio.timeout(5):
        assert (await waiting).revision == denying.revision


async def test_waiting_ends_with_its_time_and_with_the_gateway(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    bundles = ServedBundles(path.policy)
    known = frozenset({path.policy.revision})
    async with asyncio.timeout(20):
        assert (await bundles.bundle("policy", known=known, wait_s=0.05)).revision in known
        waiting = asyncio.ensure_future(bundles.bundle("policy", known=known, wait_s=3_600))
        bundles.close()
        assert (await waiting).revision in known
        assert (await bundles.bundle("policy", known=known, wait_s=3_600)).revision in known


async def test_no_more_wait_than_may(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    bundles = ServedBundles(path.policy)
    known = frozenset({path.policy.revision})
    async with asyncio.timeout(20):
        waiting = [
            asyncio.ensure_future(bundles.bundle("policy", known=known, wait_s=3_600))
            for _ in range(MAX_WAITING)
        ]
        await asyncio.sleep(0)
        await bundles.bundle("policy", known=known, wait_s=3_600)
        assert not any(each.done() for each in waiting)
        bundles.close()
        await asyncio.gather(*waiting)


async def test_archive_is_made_once_for_a_revision(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    bundles = ServedBundles(path.policy)
    one, two = [await bundles.bundle("policy", known=frozenset(), wait_s=0) for _ in range(2)]
    assert one is two


async def test_layer_of_another_name_is_not_found(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    with pytest.raises(NotFound):
        await ServedBundles(path.policy).bundle("other", known=frozenset(), wait_s=1)
