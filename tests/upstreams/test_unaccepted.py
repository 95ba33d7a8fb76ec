"""A server over HTTP that does not take what a person's consent gave: it is told to who keeps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import ConsentState, Lease
from remit.testing.consents import ALICE, MemoryConsents
from remit.testing.runner import NoopRunner, lease
from remit.upstreams.elsewhere import AGAIN
from remit.upstreams.runner import UpstreamRunner
from tests.upstreams.http_asked import Asked, asking, call, hostile, spec_of
from tests.upstreams.test_elsewhere import TOKEN, Played, spec, token

pytestmark = pytest.mark.anyio


class Told(MemoryConsents):
    """Remembers what it was told."""

    def __init__(self, *refs: str, broken: bool = False) -> None:
        super().__init__(refs)
        self.told: list[tuple[str, Sequence[str] | None]] = []
        self._broken = broken

    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None:
        self.told.append((lease.id, scopes))
        if self._broken:
            raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, "the keeper is not there")
        await super().unaccepted(lease, scopes)


def refuses(challenged: tuple[str, ...] | None) -> Callable[[Any], Any]:
    async def answer(progress: Any) -> dict[str, Any]:
        raise UpstreamFault(
            Code.UPSTREAM_UNAUTHORIZED, "it says no", sent=True, challenged=challenged
        )

    return answer


async def ran(consents: Told, challenged: tuple[str, ...] | None) -> tuple[str, ...]:
    played = Played(refuses(challenged))
    runner = UpstreamRunner(
        NoopRunner(), asked=played, seen=lambda server, items: None, consents=consents
    )
    own = lease("unaccepted")
    await runner.provision(own, spec(credentials=(TOKEN,)))
    await runner.start(own, [token(b"given")])
    result = await runner.collect(own)
    await runner.destroy(own)
    assert (AGAIN.encode() in result.stdout) is bool(consents.told)
    return result.limits_hit


async def test_a_token_that_is_not_accepted_is_told_without_scopes() -> None:
    consents = Told(TOKEN.ref)
    assert await ran(consents, ()) == ("upstream_unauthorized",)
    assert consents.told == [("unaccepted", None)]


async def test_scopes_that_a_server_wants_are_told_and_asked_for() -> None:
    consents = Told(TOKEN.ref)
    consents.loans["unaccepted"] = (TOKEN.ref, ALICE)
    await ran(consents, ("write",))
    assert consents.told == [("unaccepted", ("write",))]
    assert await consents.status(TOKEN.ref, ALICE) is ConsentState.NEEDED


async def test_other_credentials_and_other_refusals_are_nothing_to_tell() -> None:
    consents = Told("another")
    await ran(consents, ())
    assert consents.told == []
    consents = Told(TOKEN.ref)
    await ran(consents, None)
    assert consents.told == []


async def test_a_keeper_that_is_gone_changes_nothing_of_the_calls_end() -> None:
    assert await ran(Told(TOKEN.ref, broken=True), ()) == ("upstream_unauthorized",)


@pytest.mark.parametrize(
    ("status", "header", "challenged"),
    [
        ("401 Unauthorized", "", ()),
        ("401 Unauthorized", 'Bearer error="invalid_token", scope="a"', ()),
        ("403 Forbidden", 'Bearer error="insufficient_scope", scope="b a"', ("a", "b")),
        ("403 Forbidden", 'Bearer scope="a"', ("a",)),
        ("403 Forbidden", 'Bearer error="insufficient_scope"', None),
        ("403 Forbidden", 'Bearer error="access_denied", scope="a"', None),
        ("403 Forbidden", "", None),
    ],
)
@pytest.mark.parametrize("where", ["tools/list", "tools/call"])
async def test_what_a_server_says_of_the_token_is_read_from_its_challenge(
    status: str, header: str, challenged: tuple[str, ...] | None, where: str
) -> None:
    async def answer(asked: Asked) -> None:
        if asked.body["method"] != where:
            await asked.honest()
            return
        more = f"WWW-Authenticate: {header}\r\n" if header else ""
        await asked.json({}, status, more)

    item = {"name": "any", "inputSchema": {"type": "object"}}
    async with hostile(answer) as server, asking() as servers:
        wanted = spec_of(f"http://127.0.0.1:{server.port}/mcp", item, {})
        with pytest.raises(UpstreamFault) as fault:
            await call(servers, wanted, token=b"shown")
    assert fault.value.code is Code.UPSTREAM_UNAUTHORIZED
    assert fault.value.challenged == challenged
