"""The admin door hands a layer's policy on as OPA's bundle protocol wants it."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from remit.doors.admin import admin_app
from remit.doors.bundles import GZIP, LONG_POLLED, asked_for
from remit.doors.settings import DoorSettings
from tests.doors.fake_admin import FakeAdmin
from tests.doors.serving import http, served

pytestmark = pytest.mark.anyio

PATH = "/v1/policy/bundles/policy.tar.gz"


@pytest.mark.parametrize(
    ("prefer", "wait", "seconds"),
    [
        ("", None, 0),
        ("modes=snapshot,delta", None, 0),
        ("modes=snapshot,delta;wait=10", 10, 10),
        ("wait=60", 60, 60),
        ("modes=snapshot; wait=86400", 86_400, 300),
        ("wait=-1", None, 0),
        ("await=10", None, 0),
        ("wait=1e9", None, 0),
    ],
)
def test_time_to_wait_is_read_from_what_opa_sends(
    prefer: str, wait: int | None, seconds: float
) -> None:
    asked = asked_for("", prefer)
    assert (asked.wait, asked.wait_s) == (wait, seconds)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("", set()),
        ('"sha256:a"', {"sha256:a"}),
        ('"sha256:a", "sha256:b"', {"sha256:a", "sha256:b"}),
        ("sha256:a", set()),
        ("*", set()),
    ],
)
def test_every_revision_that_is_named_counts(header: str, known: set[str]) -> None:
    assert asked_for(header, "").known == known


async def test_bundle_comes_with_its_revision_as_etag_and_then_not_again() -> None:
    gateway = FakeAdmin()
    headers = {"authorization": "Bearer op-ray"}
    async with served(admin_app(gateway, DoorSettings())) as url, http() as client:
        first = await client.get(url + PATH, headers=headers)
        known = {"if-none-match": first.headers["etag"], "prefer": "modes=snapshot,delta;wait=5"}
        again = await client.get(url + PATH, headers=headers | known)
        other = await client.get(url + PATH, headers=headers | {"prefer": "wait=5"})
    assert (first.status_code, first.content) == (200, b"packed")
    assert (first.headers["etag"], first.headers["content-type"]) == ('"sha256:r1"', GZIP)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == '"sha256:r1"'
    assert other.headers["content-type"] == LONG_POLLED
    assert gateway.asked == [
        ("policy", frozenset(), 0),
        ("policy", frozenset({"sha256:r1"}), 5),
        ("policy", frozenset(), 5),
    ]


async def test_layer_that_is_not_there_is_said() -> None:
    async with served(admin_app(FakeAdmin(), DoorSettings())) as url, http() as client:
        headers = {"authorization": "Bearer op-ray"}
        for name in ("other.tar.gz", "policy", "policy.tar.gz.x", "policyXtarXgz"):
            found = await client.get(f"{url}/v1/policy/bundles/{name}", headers=headers)
            assert found.status_code == 404
            assert found.json()["code"] == "not_found"


async def test_nobody_without_an_operators_credential_gets_policy() -> None:
    async with served(admin_app(FakeAdmin(), DoorSettings())) as url, http() as client:
        for headers in ({}, {"authorization": "Bearer key-ann"}):
            found = await client.get(url + PATH, headers=headers)
            assert found.status_code == 401
            assert b"packed" not in found.content


class Held(FakeAdmin):
    """Holds every request for a bundle until whoever asks is given up."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.let_go = asyncio.Event(), asyncio.Event()

    async def bundle(self, *_: object) -> NoReturn:
        self.held.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.let_go.set()
        raise AssertionError


@pytest.mark.threat("T-28")
async def test_whoever_waits_and_leaves_takes_no_place() -> None:
    gateway = Held()
    headers = {"authorization": "Bearer op-ray", "prefer": "wait=300"}
    async with served(admin_app(gateway, DoorSettings())) as url:
        async with http() as client:
            asking = asyncio.ensure_future(client.get(url + PATH, headers=headers))
            await gateway.held.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(10):
            await gateway.let_go.wait()
