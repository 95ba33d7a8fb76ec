"""Parameters in headers and streams of events, as parsers: whatever comes, in whatever pieces."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import UpstreamFault
from remit.upstreams.http_listed import usable
from remit.upstreams.http_parameters import header_value, mirrored, parameter_headers
from remit.upstreams.http_sse import BURST, PER_S, Event, Events

TEXT = st.text(st.characters(codec="utf-8"))


def _told(value: str) -> str:
    """What a server reads in a header (SEP-2243)."""
    if value.startswith("=?base64?") and value.endswith("?="):
        return base64.b64decode(value[9:-2], validate=True).decode()
    return value


@given(TEXT | st.sampled_from(["=?base64?YQ==?=", "=?base64??=", " a", "a\t", "é", ""]))
def test_every_text_arrives_as_it_was_in_one_line_of_ascii(text: str) -> None:
    value = header_value(text)
    assert _told(value) == text
    assert value.isascii()
    assert value.isprintable()
    assert value == value.strip()


def _schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _at(name: object, kind: object = "string") -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": name}


@pytest.mark.parametrize(
    "schema",
    [
        _schema(a=_at("")),
        _schema(a=_at("A B")),
        _schema(a=_at("A:B")),
        _schema(a=_at("A\r\nB")),
        _schema(a=_at("Ä")),
        _schema(a=_at(1)),
        _schema(a=_at(None)),
        _schema(a=_at("A" * 200)),
        _schema(a=_at("A", "number")),
        _schema(a=_at("A", "object")),
        _schema(a=_at("A", ["string"])),
        _schema(a={"x-mcp-header": "A"}),
        _schema(a=_at("A"), b=_at("a")),
        {**_schema(), "x-mcp-header": "A", "type": "string"},
        _schema(a={"type": "array", "items": _at("A")}),
        _schema(a={"anyOf": [_at("A")]}),
        {"$defs": {"a": _at("A")}},
        {"allOf": [_schema(a=_at("A"))]},
        _schema(**{f"a{n}": _at(f"A{n}") for n in range(65)}),
    ],
)
def test_a_tool_that_names_headers_wrongly_is_not_offered(schema: dict[str, Any]) -> None:
    assert mirrored(schema) is None
    good = {"name": "good", "inputSchema": _schema(a=_at("A"))}
    assert usable([{"name": "bad", "inputSchema": schema}, good]) == [good]


def test_arguments_go_into_the_headers_that_were_named() -> None:
    schema = _schema(
        a=_at("A"), b=_at("B", "integer"), c=_at("C", "boolean"), d=_schema(e=_at("E")), f={}
    )
    what = mirrored(schema)
    assert what is not None
    given_ = {"a": "x", "b": 3.0, "c": False, "d": {"e": " y"}, "f": "z"}
    expected = {
        "Mcp-Param-A": "x",
        "Mcp-Param-B": "3",
        "Mcp-Param-C": "false",
        "Mcp-Param-E": "=?base64?IHk=?=",
    }
    assert dict(parameter_headers(what, given_)) == expected
    assert parameter_headers(what, {"a": None, "d": "no object"}) == []


def test_annotations_in_data_are_no_annotations() -> None:
    schema = _schema(a={"default": _at("A"), "enum": [_at("B")], "$ref": "https://x.test/"})
    assert mirrored(schema) == ()
    assert mirrored(None) == ()


LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b"event: x", b": comment", b"id: 3", b"retry: 5", b"",
         b"other: c", b"data:  d", b"retry: no"]
    )
)  # fmt: skip


@given(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"]), st.integers(1, 7))
def test_events_are_the_same_in_whatever_pieces_they_come(
    lines: list[bytes], end: bytes, size: int
) -> None:
    stream = b"\xef\xbb\xbf" + end.join([*lines, b""])
    whole = list(Events(10_000).feed(stream))
    reader = Events(10_000)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert [event for piece in pieces for event in reader.feed(piece)] == whole
    # By the standard's words: an event for each empty line that ends some data.
    expected, data, name = [], list[bytes](), b""
    for line in lines:
        if not line:
            if data:
                expected.append(Event(name or b"message", b"\n".join(data)))
            data, name = [], b""
        elif line.startswith(b"data"):
            data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"event"):
            name = b"x"
    assert whole == expected


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_events_or_a_fault_and_bounded(data: bytes, size: int) -> None:
    reader = Events(100)
    try:
        for at in range(0, len(data), size):
            for event in reader.feed(data[at : at + size]):
                assert len(event.data) <= 100
    except UpstreamFault:
        assert len(data) > 100


@pytest.mark.threat("T-41")
@pytest.mark.parametrize(
    "nothing", [b"\n", b": still here\n\n", b"data:\n\n", b"event: ping\ndata: {}\n\n"]
)
def test_lines_that_say_nothing_are_not_read_for_ever(
    nothing: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("remit.upstreams.http_sse.time.monotonic", lambda: now)
    reader, lines = Events(10_000), nothing.count(b"\n")
    at_once = BURST // lines
    list(reader.feed(nothing * at_once))
    with pytest.raises(UpstreamFault):
        list(reader.feed(nothing * (1 + BURST // lines)))
    now, reader = 0.0, Events(10_000)
    for _ in range(3 * at_once):  # as slow as it may be, it may be for ever
        now += lines / PER_S
        list(reader.feed(nothing))


def test_lines_that_say_something_are_not_counted() -> None:
    said = b'data: {"a":\ndata: 1}\n\n'
    assert len(list(Events(10_000).feed(said * BURST))) == BURST


@pytest.mark.parametrize(
    ("lines", "last", "retry"),
    [
        (b"id: 7\nretry: 250\n", b"7", 250),
        (b"id: 7\nid: a\0b\n", b"7", None),
        (b"id: 7\nid: " + b"x" * 1_025 + b"\n", b"7", None),
        (b"id: 7\nid\n", b"", None),
        (b"retry: 1234567890\nretry: -1\nretry: 1.5\nretry\nid2: 9\nagain: 3\n", b"", None),
    ],
)
def test_where_a_stream_goes_on_and_when_are_taken_within_bounds(
    lines: bytes, last: bytes, retry: int | None
) -> None:
    reader = Events(10_000)
    assert list(reader.feed(lines + b"\n")) == []
    assert (reader.last_id, reader.retry_ms) == (last, retry)
    again = reader.again()
    assert (again.last_id, again.retry_ms) == (last, retry)
