"""A call's trace goes on at the MCP server, and nothing else of the caller's with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from remit import telemetry
from remit.upstreams.revisions import Revision, dressed
from remit.upstreams.tracing import trace_context

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = f"00-{TRACE:032x}-{SPAN:016x}-01"


@pytest.fixture
def inside_a_span() -> Iterator[None]:
    """A span whose state and baggage hold words of a caller."""
    span = SpanContext(
        TRACE, SPAN, is_remote=False, trace_flags=TraceFlags(1),
        trace_state=TraceState([("caller", "words")]),
    )  # fmt: skip
    token = context.attach(
        baggage.set_baggage("who", "ann", trace.set_span_in_context(NonRecordingSpan(span)))
    )
    yield
    context.detach(token)


@pytest.mark.parametrize("revision", list(Revision))
def test_a_request_names_its_span_and_carries_nothing_else_of_the_trace(
    revision: Revision, inside_a_span: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "tracing", lambda: True)
    sent = dressed({"name": "t"}, revision, {})
    assert sent["_meta"]["traceparent"] == PARENT
    assert not {"tracestate", "baggage"} & sent["_meta"].keys()


@pytest.mark.parametrize("revision", list(Revision))
def test_without_tracing_a_request_names_no_span(revision: Revision, inside_a_span: None) -> None:
    assert "traceparent" not in dressed({"name": "t"}, revision, {}).get("_meta", {})


def test_outside_of_a_span_there_is_nothing_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "tracing", lambda: True)
    assert trace_context() == {}
