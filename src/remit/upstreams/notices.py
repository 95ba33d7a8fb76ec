"""What a server tells by itself: that a list of it is another now, or that a resource is.

A server of the handshake says in its capabilities which of it it does; one of 2026-07-28 is asked for
it by `subscriptions/listen`, and answers with what it will tell. Nothing that it tells is believed:
a list is read again and judged, and of a resource only the URI counts that was asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from remit.errors import Code, UpstreamFault
from remit.upstreams.limits import Limits

SUBSCRIBE = "subscribe"
"""Among what a server announces: that it tells of changes of resources."""

LISTS: Mapping[str, str] = MappingProxyType(
    {f"notifications/{name}/list_changed": name for name in ("tools", "prompts", "resources")}
)
"""The notifications of a list that changed, and which list."""

UPDATED = "notifications/resources/updated"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
LISTEN = "subscriptions/listen"


def bounded(limits: Limits) -> Limits:
    """The bounds on a conversation in which a server is only heard: it has less to say."""
    return replace(limits, burst=min(limits.burst, 2_000), per_s=min(limits.per_s, 100.0))


class Hears(Protocol):
    """Told what a server tells; each method returns at once and does not raise."""

    def changed(self, name: str) -> None:
        """The list of that name (`tools`, `prompts`, `resources`) is another, the server says."""

    def updated(self, uri: str) -> None:
        """The resource is another, the server says; the URI is the server's word."""


class Hearing(Protocol):
    """A connection to one server that is held open to hear what it tells.

    Promises that each method ends within the time that is set for it, and that whoever it was made
    for hears nothing more once it is closed.
    """

    async def hold(self, uris: frozenset[str]) -> Mapping[str, UpstreamFault]:
        """Have the server tell of these resources and no others; those that it refuses, and why.

        Raises:
            UpstreamFault: the connection is of no use any more.
        """

    async def over(self) -> UpstreamFault:
        """Wait until nothing more can be heard; why."""

    async def close(self) -> None:
        """End it. Idempotent."""


def announced(capabilities: Mapping[str, Any]) -> frozenset[str]:
    """What a server says that it tells of: names of lists, and `subscribe`."""
    found = set()
    for name in LISTS.values():
        told = capabilities.get(name)
        if isinstance(told, Mapping) and told.get("listChanged") is True:
            found.add(name)
    resources = capabilities.get("resources")
    if isinstance(resources, Mapping) and resources.get("subscribe") is True:
        found.add(SUBSCRIBE)
    return frozenset(found)


def tell(hears: Hears, method: str, params: Mapping[str, Any]) -> None:
    """Pass a notification on, if it is one of these."""
    if (name := LISTS.get(method)) is not None:
        hears.changed(name)
    elif method == UPDATED and isinstance(uri := params.get("uri"), str):
        hears.updated(uri)


def wanted(lists: frozenset[str], uris: frozenset[str]) -> dict[str, Any]:
    """The parameters of `subscriptions/listen` (MCP 2026-07-28)."""
    flags: dict[str, Any] = {f"{name}ListChanged": True for name in sorted(lists)}
    if uris:
        flags["resourceSubscriptions"] = sorted(uris)
    return {"notifications": flags}


def unhonoured(params: Mapping[str, Any], uris: frozenset[str]) -> Mapping[str, UpstreamFault]:
    """Of these resources, those that an acknowledgement does not name."""
    told = params.get("notifications")
    named = told.get("resourceSubscriptions") if isinstance(told, Mapping) else None
    honoured = {each for each in named if isinstance(each, str)} if isinstance(named, list) else ()
    return {uri: not_told() for uri in uris if uri not in honoured}


def not_told() -> UpstreamFault:
    """The fault of a resource whose changes a server does not tell."""
    message = "the server does not tell of changes of this resource"
    return UpstreamFault(Code.UPSTREAM_ERROR, message, sent=True)
