"""JSON values, one a line, of bounded length, from bytes in whatever pieces."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import Code, UpstreamFault
from remit.upstreams.lines import LineReader

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-40")]


class Pieces:
    """A stream that gives these, and then ends."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def write(self, data: bytes, /) -> None:
        raise AssertionError("nothing is said here")

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def reader(*pieces: bytes) -> LineReader:
    return LineReader(Pieces(*pieces), line_bytes=8, depth=3, values=4)


async def fault_of(*pieces: bytes) -> tuple[Code, str]:
    with pytest.raises(UpstreamFault) as caught:
        await reader(*pieces).next()
    return caught.value.code, caught.value.message


async def test_a_line_of_nothing_is_none_and_counts_by_its_length() -> None:
    found = reader(b"\n \t", b"\r\n", b'"a"\n\n')
    told: list[tuple[Any, int]] = [await found.next() for _ in range(4)]
    assert told == [(None, 0), (None, 3), ("a", 3), (None, 0)]


async def test_a_line_is_as_long_as_it_may_be_and_not_longer() -> None:
    assert await reader(b'"12345', b'6"\n').next() == ("123456", 8)
    for pieces in ([b'"1234567"\n'], [b'"12345', b'67"'], [b" " * 9], [b"         \n"]):
        assert (await fault_of(*pieces))[0] is Code.OUTPUT_TOO_LARGE


@pytest.mark.parametrize("text", [b"null", b"nothing", b"[[[[]]]]", b"[1,1,1,1", b"{}{}", b"\xff"])
async def test_what_is_no_message_is_a_lie(text: bytes) -> None:
    assert (await fault_of(text + b"\n"))[0] is Code.UPSTREAM_INVALID


async def test_the_end_says_whether_it_came_inside_of_a_message() -> None:
    code, message = await fault_of(b"[1")
    assert (code, "in the middle" in message) == (Code.UPSTREAM_GONE, True)
    code, message = await fault_of()
    assert (code, "between two" in message) == (Code.UPSTREAM_GONE, True)
