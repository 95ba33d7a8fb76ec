"""Reading a whole list of a server, page by page, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from remit.errors import Code, UpstreamFault
from remit.upstreams.limits import Limits
from remit.upstreams.lists import Kind
from remit.upstreams.messages import Reply, invalid


async def everything(
    page: Callable[[dict[str, Any]], Awaitable[Reply]], limits: Limits, kind: Kind
) -> list[dict[str, Any]]:
    """Every item of a list, in the server's order, as it sent them, each of a name of its own.

    Args:
        page: asks the method of the list with these parameters.
        limits: the bounds on time, pages, items, bytes and cursors.

    Raises:
        UpstreamFault: there is no whole list. Reading a list is no call: `sent` is false.
    """
    try:
        async with asyncio.timeout(limits.list_s):
            return await _pages(page, limits, kind)
    except TimeoutError:
        message = f"the server did not list its {kind.noun} within {limits.list_s:g} s"
        raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message) from None
    except UpstreamFault as fault:
        raise UpstreamFault(
            fault.code,
            fault.message,
            answer=fault.answer,
            challenged=fault.challenged,
            hint=fault.hint,
        ) from None


async def _pages(
    page: Callable[[dict[str, Any]], Awaitable[Reply]], limits: Limits, kind: Kind
) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    cursors: set[str] = set()
    params: dict[str, Any] = {}
    size = 0
    for _ in range(limits.pages):
        reply = await page(params)
        size += reply.size
        if size > limits.list_bytes:
            raise invalid(f"the server's list of {kind.noun} is over {limits.list_bytes} bytes")
        _add(found, reply.result.get(kind.member), limits, kind)
        cursor = reply.result.get("nextCursor")
        if cursor is None:
            return list(found.values())
        if not isinstance(cursor, str) or len(cursor) > limits.cursor_chars:
            raise invalid(f"the server's list of {kind.noun} goes on at no proper cursor")
        if cursor in cursors:
            raise invalid(f"the server's list of {kind.noun} goes round in a circle")
        cursors.add(cursor)
        params = {"cursor": cursor}
    raise invalid(f"the server's list of {kind.noun} has more than {limits.pages} pages")


def _add(found: dict[str, dict[str, Any]], page: Any, limits: Limits, kind: Kind) -> None:
    noun = kind.noun
    if not isinstance(page, list):
        raise invalid(f"the server's list of {noun} is no list")
    if len(found) + len(page) > limits.tools:
        raise invalid(f"the server lists more than {limits.tools} {noun}")
    for item in page:
        name = item.get(kind.key) if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            raise invalid(f"the server lists {_one(noun)} without a name")
        if name in found:
            raise invalid(f"the server lists two {noun} of one name")
        found[name] = item


def _one(noun: str) -> str:
    return f"a {noun[:-1]}"
