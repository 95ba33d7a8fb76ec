"""Remit's side towards servers over HTTP, as the client that the official suite starts.

The suite gives the url of its own server as the last argument, and says in the environment which
scenario it is and, of some, which calls to make; see `http_client_turn`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from remit.canonical import encode
from remit.model import Frozen, Round, RunSpec
from remit.runners.credentials import http
from remit.runners.credentials.client_credentials import ClientCredentialsBroker
from remit.runners.credentials.discovery import Discovery
from remit.runners.credentials.guarded import Guard
from remit.upstreams.http_asking import PooledServers
from remit.upstreams.limits import Limits
from tests.runners.credentials.world import kit, order, section
from tests.upstreams.http_asked import call, spec_of
from tests.upstreams.http_client_consent import Person

T = TypeVar("T")

WITHIN_S = 60.0

FORM: dict[str, Any] = {"elicitation": {"form": {}}}
_EXAMPLES: dict[str, Any] = {"number": 2, "integer": 2, "string": "us-west1", "boolean": True}


def arguments_for(item: dict[str, Any]) -> dict[str, Any]:
    """Something for each argument that the tool wants."""
    schema = item.get("inputSchema", {})
    kinds = schema.get("properties", {})
    wanted = schema.get("required", [])
    return {name: _EXAMPLES.get(kinds.get(name, {}).get("type")) for name in wanted}


def schema_back(items: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The call that gives a tool's schema back to the server as it came."""
    (shown,) = [item for name, item in items.items() if name != "json_schema_echo"]
    return [{"name": "json_schema_echo", "arguments": {"schema": shown["inputSchema"]}}]


async def token_for(url: str, context: dict[str, Any]) -> bytes:
    """A token by the broker of client credentials, with the client that the suite gives.

    A client with a secret never has its server found: who writes the configuration looks at the
    resource's metadata, as is done here before.
    """
    written: dict[str, Any] = {"resource": url, "client_id": context["client_id"]}
    if "private_key_pem" in context:
        written |= {"client_auth": "private_key_jwt", "find_issuer": True}
    else:
        host = urlsplit(url).hostname or ""
        issuer = await Discovery(Guard(frozenset({host}))).issuer_of(url)
        written |= {"client_auth": "client_secret_basic", "issuer": issuer}
    # What its server gives lives an hour and cannot be revoked.
    found = section(broker="client_credentials", unsafe_keep_s=60, **written)
    names = {"client_secret": "client_secret", "private_key": "private_key_pem"}
    secrets = {name: context[key] for name, key in names.items() if key in context}
    broker = ClientCredentialsBroker(kit(found, secrets=secrets))
    try:
        return (await broker.lend(order())).fields["token"].encode()
    finally:
        await broker.aclose()


def answers_to(result: dict[str, Any]) -> Round:
    """What somebody who agrees to everything answers, with the server's own state."""
    said = {"action": "accept", "content": {"confirmed": True}}
    return Round(
        answers=Frozen(encode(dict.fromkeys(result["inputRequests"], said))),
        number=1,
        run_id="before",
        state=result.get("requestState"),
    )


async def answered(
    servers: PooledServers, spec: RunSpec, ask: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    """Make the call, and once more with answers where the server asks something."""
    result = await ask(spec)
    if result.get("resultType") == "input_required":
        assert spec.upstream is not None
        again = replace(spec, upstream=replace(spec.upstream, round=answers_to(result)))
        await ask(again)


async def main(url: str, scenario: str, context: dict[str, Any]) -> None:
    """List the tools, and call those that the scenario is about, or all."""
    http.TOTAL_S = http.TRY_S = http.CONNECT_S = WITHIN_S  # a slow machine is no finding
    servers = PooledServers(limits=Limits(open_s=WITHIN_S, list_s=WITHIN_S, unanswered_s=WITHIN_S))
    token = await token_for(url, context) if "client-credentials" in scenario else None
    person = None
    if scenario.startswith("auth/") and token is None:
        person = await Person.at(url, scenario, context)

    async def with_token(ask: Callable[[bytes | None], Awaitable[T]]) -> T:
        return await ask(token) if person is None else await person.asking(ask)

    async def asked(spec: RunSpec) -> dict[str, Any]:
        return await with_token(lambda shown: call(servers, spec, token=shown, within_s=WITHIN_S))

    try:
        found = await with_token(
            lambda shown: servers.list_tools("suite", url, shown, within_s=WITHIN_S)
        )
        items = {str(item["name"]): item for item in found}
        calls = context.get("toolCalls")
        if scenario == "json-schema-ref-no-deref":
            calls = []
        elif scenario == "json-schema-2020-12-preservation":
            calls = schema_back(items)
        elif calls is None:
            calls = [{"name": n, "arguments": arguments_for(i)} for n, i in items.items()]
        for each in calls:
            spec = spec_of(url, items[each["name"]], each["arguments"], server="suite")
            await answered(servers, able(spec) if scenario.startswith("sep-2322") else spec, asked)
    finally:
        await servers.aclose()
        if person is not None:
            await person.aclose()


def able(spec: RunSpec) -> RunSpec:
    """A call for somebody who can be asked."""
    assert spec.upstream is not None
    return replace(spec, upstream=replace(spec.upstream, capabilities=Frozen(encode(FORM))))
