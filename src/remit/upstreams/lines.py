"""JSON values, one a line, over a stream of bytes whose other end is not trusted."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from remit import canonical
from remit.errors import Code, InputError, UpstreamFault


class ByteStream(Protocol):
    """Bytes to and from one server; whoever made it also closes it."""

    async def write(self, data: bytes, /) -> None:
        """Send all of `data`; returns when there is room for more.

        Raises:
            OSError: the other end does not take it any more.
        """

    async def read(self) -> bytes:
        """The next bytes, at least one and not many times 64 KiB; none at the end.

        Raises:
            OSError: the stream broke.
        """


class LineReader:
    """Reads lines of bounded length, each one strict JSON value (`remit.canonical.parse`).

    Lines of nothing but white space are given as None, so that the reader of a flood can count
    them. It holds at most one line and one `read` in memory.
    """

    def __init__(
        self, stream: ByteStream, *, line_bytes: int, depth: int, values: int | None = None
    ) -> None:
        self._stream = stream
        self._line_bytes = line_bytes
        self._depth = depth
        self._values = values
        self._held = bytearray()
        self._searched = 0

    async def next(self) -> tuple[Any, int]:
        """The next value, and the length of its line in bytes.

        Raises:
            UpstreamFault: `upstream_gone` at the end of the stream, `output_too_large` if a line
                is too long, `upstream_invalid` if it is too deep or not strict JSON. Reading on
                after it has no meaning.
        """
        line = await self._line()
        if not line.strip(b" \t\r"):
            return None, len(line)
        try:
            value = canonical.parse(
                line,
                max_depth=self._depth,
                max_bytes=self._line_bytes,
                max_values=self._values,
            )
        except InputError as fault:
            message = (
                f"the server sent a line that is not strict JSON ({fault.code}); its output is for "
                "messages alone, and what it logs belongs on its standard error"
            )
            raise UpstreamFault(Code.UPSTREAM_INVALID, message) from None
        if value is None:
            raise UpstreamFault(Code.UPSTREAM_INVALID, "the server sent a line that is no message")
        return value, len(line)

    async def _line(self) -> bytes:
        held = self._held
        while (end := held.find(b"\n", self._searched)) < 0:
            self._searched = len(held)
            self._check_length(len(held))
            held += await self._chunk()
        self._check_length(end)
        line = bytes(held[:end])
        del held[: end + 1]
        self._searched = 0
        return line

    def _check_length(self, length: int) -> None:
        if length > self._line_bytes:
            message = f"the server sent a line longer than {self._line_bytes} bytes"
            raise UpstreamFault(Code.OUTPUT_TOO_LARGE, message)

    async def _chunk(self) -> bytes:
        # A stream that always has bytes ready must not keep everybody else from running.
        await asyncio.sleep(0)
        try:
            chunk = await self._stream.read()
        except (OSError, EOFError):
            raise UpstreamFault(Code.UPSTREAM_GONE, "the server's stream broke") from None
        if not chunk:
            where = "in the middle of a message" if self._held else "between two messages"
            raise UpstreamFault(Code.UPSTREAM_GONE, f"the server ended its stream {where}")
        return chunk


def line(value: Any) -> bytes:
    """One JSON value as a line, in the canonical bytes that plans are hashed over.

    Raises:
        InputError: `plan_not_canonical` if it has no canonical form.
    """
    return canonical.encode(value) + b"\n"
