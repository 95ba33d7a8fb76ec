"""Whatever a server sends, and whether it reads or not: a result or one of our faults, in time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import Code, UpstreamFault
from remit.upstreams.limits import Limits
from remit.upstreams.revisions import Revision
from tests.upstreams.process_stream import open_to

_ABLE: dict[str, Any] = {"capabilities": {}}
OURS = (Code.UPSTREAM_ERROR, Code.UPSTREAM_INVALID, Code.UPSTREAM_GONE, Code.UPSTREAM_TIMEOUT)


class _Deaf:
    """A server that does not read: what is written to it waits for ever."""

    def __init__(self, chunks: list[bytes], *, ends: bool) -> None:
        self._chunks = chunks
        self._ends = ends

    async def write(self, _: bytes, /) -> None:
        await asyncio.get_running_loop().create_future()

    async def read(self) -> bytes:
        if self._chunks:
            return self._chunks.pop(0)
        if self._ends:
            return b""
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class _Scripted(_Deaf):
    """A server that reads, and says what was thought out beforehand."""

    async def write(self, _: bytes, /) -> None:
        return


class _Fed(_Scripted):
    """A server that says what it is told to, when it is told to."""

    def __init__(self) -> None:
        super().__init__([], ends=False)
        self.says: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def write(self, data: bytes, /) -> None:
        self.heard.put_nowait(json.loads(data))

    async def read(self) -> bytes:
        return await self.says.get()


@pytest.mark.anyio
async def test_an_answer_in_the_moment_of_giving_up_disturbs_nobody():
    stream = _Fed()
    stream.says.put_nowait(
        _line({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-11-25"} | _ABLE})
    )
    revisions = [Revision.R2025_11_25]
    async with await open_to(stream, revisions=revisions) as conversation:
        given_up = asyncio.create_task(conversation.call("any", {}))
        while (await stream.heard.get()).get("id") != 2:
            pass
        stream.says.put_nowait(_line({"jsonrpc": "2.0", "id": 2, "result": {}}))
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        call = asyncio.create_task(conversation.call("any", {}))
        while (await stream.heard.get()).get("id") != 3:
            pass
        stream.says.put_nowait(_line({"jsonrpc": "2.0", "id": 3, "result": {"a": 1}}))
        assert await call == {"a": 1}


@pytest.mark.anyio
async def test_a_server_that_does_not_read_is_given_up():
    with pytest.raises(UpstreamFault) as caught:
        await open_to(_Deaf([], ends=False), limits=Limits(write_s=0.02))
    assert caught.value.code is Code.UPSTREAM_INVALID
    assert "does not read" in caught.value.message


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
_LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0"),
        "id": st.integers(0, 4) | _VALUES,
        "method": st.sampled_from(["ping", "notifications/progress", "x"]) | _VALUES,
        "params": st.fixed_dictionaries({"progressToken": st.integers(0, 4)}) | _VALUES,
        "result": st.just({"supportedVersions": ["2026-07-28"], "capabilities": {}})
        | st.just({"protocolVersion": "2025-11-25", "capabilities": {}})
        | st.just({"tools": [], "nextCursor": "a"})
        | _VALUES,
        "error": st.just({"code": -32601, "message": "no"}) | _VALUES,
    },
)


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


_CHUNKS = st.lists(st.binary(max_size=40) | _LIKELY.map(_line) | st.just(b"\n"), max_size=8)


@given(_CHUNKS, st.booleans(), st.booleans())
def test_whatever_a_server_sends_gives_a_result_or_one_of_our_faults(chunks, ends, deaf):
    limits = Limits(
        open_s=0.02, unanswered_s=0.005, call_s=0.01, list_s=0.01, write_s=0.01, burst=5
    )

    faults: list[UpstreamFault] = []

    async def speak() -> None:
        stream = (_Deaf if deaf else _Scripted)([c for c in chunks if c], ends=ends)
        async with asyncio.timeout(5), await open_to(stream, limits=limits) as conversation:
            for talk in (conversation.list_tools(), conversation.call("any", {})):
                try:
                    await talk
                except UpstreamFault as fault:
                    faults.append(fault)

    try:
        asyncio.run(speak())
    except UpstreamFault as fault:
        faults.append(fault)
    assert len(faults) <= 2
    assert [each.code for each in faults if each.code not in OURS] == []
