"""The policy in force, handed to OPA servers as the bundle that they pull from the admin door.

OPA asks with the ETag it has (RFC 9110 §13.1.2) and, where it is set to, with a time to wait
(RFC 7240: `Prefer: modes=snapshot,delta;wait=60`). A server that can wait says so by its content
type; the answer then comes when the policy changes, or 304 when the time is over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive

from remit.model import ServedBundle

GZIP = "application/gzip"
LONG_POLLED = "application/vnd.openpolicyagent.bundles"
MAX_WAIT_S = 300

_WAIT = re.compile(r"(?:^|[;,])\s*wait=([0-9]{1,9})\s*(?=[;,]|$)")
_ETAG = re.compile(r'"([\x21\x23-\x7e]{1,128})"')


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says: the revisions it has, and how long it would wait; None if not at all."""

    known: frozenset[str]
    wait: int | None

    @property
    def wait_s(self) -> float:
        """Seconds, capped."""
        return min(self.wait or 0, MAX_WAIT_S)


def asked_for(if_none_match: str, prefer: str) -> Asked:
    """What these two headers ask for; what is not understood in them asks for nothing."""
    wait = _WAIT.search(prefer)
    return Asked(
        frozenset(_ETAG.findall(if_none_match)), None if wait is None else int(wait.group(1))
    )


def bundle_response(found: ServedBundle, asked: Asked) -> Response:
    """The bundle, or 304 if that is the one it has."""
    headers = {"etag": f'"{found.revision}"', "cache-control": "no-cache"}
    if found.revision in asked.known:
        return Response(status_code=304, headers=headers)
    kind = GZIP if asked.wait is None else LONG_POLLED
    return Response(found.content, headers=headers, media_type=kind)


async def while_there(
    receive: Receive, finding: Coroutine[Any, Any, ServedBundle]
) -> ServedBundle | None:
    """What is found; None, and it is given up, once whoever asked has gone."""
    found, gone = asyncio.ensure_future(finding), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([found, gone], return_when=asyncio.FIRST_COMPLETED)
        return await found if found.done() else None
    finally:
        found.cancel()
        gone.cancel()
        await asyncio.gather(found, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
