"""Finding an authorization server: by whose word, at which addresses, and what is not believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.discovery import Discovery
from remit.runners.credentials.guarded import REFUSED, Guard
from remit.runners.credentials.http import Service
from tests.runners.credentials.fakes import Reply, Request, Scripted, serving
from tests.runners.credentials.oauth import (
    Place,
    placed,
    unhurried,  # noqa: F401 - a fixture
)
from tests.runners.credentials.world import order

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unhurried")]


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as made:
        yield made


def finding(place: Place, **written: Any) -> Any:
    words = {"issuer": None, "find_issuer": True, "client_auth": "private_key_jwt"}
    return place.broker(**(words | written))


async def refused(place: Place, **written: Any) -> str:
    broker = finding(place, **written)
    with pytest.raises(BrokerFault) as caught:
        await broker.lend(order())
    await broker.aclose()
    assert place.server.given == []
    return caught.value.message


# ------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize(
    "at", ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"]
)
async def test_the_resources_server_is_found_at_the_well_known_places(
    place: Place, at: str
) -> None:
    place.resource.at = at
    broker = finding(place)
    await broker.lend(order())
    assert place.server.given[0]["resource"] == f"{place.resource.url}/mcp"
    await broker.aclose()


@pytest.mark.parametrize("form", ['Bearer resource_metadata="{}"', "Bearer resource_metadata={}"])
async def test_the_resources_server_is_found_where_its_challenge_says(
    place: Place, form: str
) -> None:
    place.resource.at = "/elsewhere"
    place.resource.challenge = form.format(f"{place.resource.url}/elsewhere")
    broker = finding(place)
    await broker.lend(order())
    assert len(place.server.given) == 1
    await broker.aclose()


@pytest.mark.parametrize(
    "at",
    [
        "/.well-known/oauth-authorization-server/tenant",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
    ],
)
async def test_an_issuer_with_a_path_is_found_at_each_of_the_standards_places(
    place: Place, at: str
) -> None:
    issuer = f"{place.server.url}/tenant"
    place.server.documents = {at: lambda: place.server._metadata() | {"issuer": issuer}}
    broker = place.broker(issuer=issuer)
    assert (await broker.lend(order())).fields["token"] in place.server.live
    await broker.aclose()


async def test_what_the_operator_wrote_is_not_looked_for(place: Place) -> None:
    broker = place.broker(issuer=None, token_url=f"{place.server.url}/token")
    await broker.lend(order())
    assert [each.method for each in place.server.seen] == ["POST"]
    assert place.resource.seen == []
    await broker.aclose()


async def test_metadata_is_asked_for_once_for_many_runs(place: Place) -> None:
    broker = finding(place)
    for _ in range(3):
        await broker.lend(order())
    assert sum(each.method == "GET" for each in place.server.seen) == 1
    await broker.aclose()


# ------------------------------------------------------------------------ what is not believed


@pytest.mark.threat("T-41")
async def test_metadata_of_another_issuer_is_not_believed(place: Place) -> None:
    for issuer in (f"{place.server.url}/", "https://login.example.com", None):
        place.server.metadata = {"issuer": issuer}
        assert "about another issuer" in await refused(place)


@pytest.mark.threat("T-41")
async def test_metadata_of_another_resource_is_not_believed(place: Place) -> None:
    place.resource.resource = f"{place.resource.url}/other"
    assert "about another resource" in await refused(place)


@pytest.mark.threat("T-41")
async def test_metadata_of_what_the_resource_is_below_is_not_that_of_the_resource(
    place: Place,
) -> None:
    place.resource.resource = place.resource.url
    assert "about another resource" in await refused(place)


@pytest.mark.parametrize("servers", [[], None, ["https://a.example", "https://b.example"], "x"])
async def test_a_resource_has_to_name_one_server(place: Place, servers: Any) -> None:
    place.resource.servers = servers
    assert "exactly one authorization server" in await refused(place)


@pytest.mark.threat("T-41")
@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com",
        "https://169.254.169.254/latest",
        "https://10.0.0.7",
        "https://metadata.google.internal",
        "http://localhost:1",
        "https://[::1]:1",
        "https://user@login.example.com",
        "file:///etc/passwd",
        "https://[",
        7,
    ],
)
async def test_a_server_that_the_resource_names_is_none_that_may_not_be_reached(
    place: Place, url: Any
) -> None:
    place.resource.servers = [url]
    assert "an address that was found is" in await refused(place)


@pytest.mark.threat("T-41")
@pytest.mark.parametrize("name", ["token_endpoint", "revocation_endpoint"])
@pytest.mark.parametrize("url", ["http://a.example/t", "https://127.0.0.2/t", "https://10.1.2.3/t"])
async def test_an_endpoint_in_metadata_is_none_that_may_not_be_reached(
    place: Place, name: str, url: str
) -> None:
    place.server.metadata = {name: url}
    assert await refused(place) == REFUSED


@pytest.mark.threat("T-41")
async def test_a_challenge_leads_to_no_other_server(place: Place) -> None:
    with serving(Elsewhere()) as other:
        place.resource.challenge = f'Bearer resource_metadata="{other}/x"'
        assert "leads to another server's metadata" in await refused(place)


class Elsewhere(Scripted):
    def answer(self, request: Request) -> Reply:
        raise AssertionError("it was asked")


@pytest.mark.threat("T-41")
async def test_redirects_are_not_followed(place: Place) -> None:
    with serving(Elsewhere()) as other:
        place.server.documents = {}
        place.server.first = [Reply(302, None, {"location": f"{other}/x"})] * 2
        assert "has no metadata" in await refused(place)


async def test_long_metadata_is_not_read(place: Place) -> None:
    place.server.metadata = {"x": "y" * 300_000}
    assert "answers with more than" in await refused(place)


async def test_a_way_to_show_the_client_that_the_server_does_not_take_is_said(
    place: Place,
) -> None:
    place.server.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert "takes no client that shows itself by client_auth" in await refused(place)


# ------------------------------------------------------------------------ names and addresses


def resolving(*addresses: str) -> Any:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.threat("T-41")
@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("10.0.0.1",),
        ("169.254.169.254",),
        ("93.184.216.34", "10.0.0.1"),
        ("::ffff:127.0.0.1",),
        ("fd00:ec2::254",),
    ],
)
async def test_a_name_that_was_found_leads_to_public_addresses_alone(
    addresses: tuple[str, ...],
) -> None:
    guard = Guard(frozenset(), resolve=resolving(*addresses))
    with pytest.raises(BrokerFault, match="may be reached"):
        await guard.look("login.example.com", 443)


async def test_a_name_of_the_operators_may_be_private_and_never_a_metadata_service() -> None:
    named = frozenset({"login.example.com"})
    guard = Guard(named, resolve=resolving("10.0.0.1"))
    assert await guard.look("login.example.com", 443) == "10.0.0.1"
    guard = Guard(named, resolve=resolving("169.254.169.254"))
    with pytest.raises(BrokerFault, match="may be reached"):
        await guard.look("login.example.com", 443)


@pytest.mark.threat("T-41")
async def test_localhost_is_this_machine_or_nothing() -> None:
    named = frozenset({"localhost"})
    assert await Guard(named, resolve=resolving("127.0.0.1")).look("localhost", 80) == "127.0.0.1"
    for addresses in (("10.0.0.1",), ("93.184.216.34",), ("127.0.0.1", "10.0.0.1")):
        with pytest.raises(BrokerFault, match="may be reached"):
            await Guard(named, resolve=resolving(*addresses)).look("localhost", 80)


@pytest.mark.threat("T-41")
@pytest.mark.parametrize("url", ["http://a.example/x", "https://10.0.0.1/x", "https://127.0.0.1/x"])
async def test_nothing_that_may_not_be_reached_is_made_a_service(url: str) -> None:
    with pytest.raises(BrokerFault, match="may be reached"):
        Discovery(Guard(frozenset())).service(url, "it", "x")


@pytest.mark.threat("T-41")
async def test_the_connection_goes_to_the_address_that_was_looked_at(place: Place) -> None:
    """The name itself has no address: had it been resolved again, nothing would be found."""
    port = place.server.url.rpartition(":")[2]
    guard = Guard(frozenset({"login.invalid"}), resolve=resolving("127.0.0.1"))
    service = Service(f"https://login.invalid:{port}", name="it", place="x", look=guard.look)
    service._url = f"http://login.invalid:{port}"  # there is no TLS here
    answer = await service.ask("GET", "/.well-known/oauth-authorization-server")
    assert answer.ok
    assert place.server.seen[0].headers["host"] == f"login.invalid:{port}"
    await service.aclose()


async def test_a_name_without_an_address_is_said() -> None:
    discovery = Discovery(Guard(frozenset(), resolve=resolving()))
    with pytest.raises(BrokerFault, match="resolves to nothing"):
        await discovery.endpoints("https://login.example.com")
