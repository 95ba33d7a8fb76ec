"""The trace that a request to a server is part of (W3C Trace Context, SEP-414)."""

from __future__ import annotations

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from remit import telemetry

_W3C = TraceContextTextMapPropagator()


def trace_context() -> dict[str, str]:
    """What a request's `_meta` says of its trace; nothing where calls are not traced.

    Only `traceparent`: `tracestate` and `baggage` may hold words of whoever called.
    """
    carrier: dict[str, str] = {}
    if telemetry.tracing():
        _W3C.inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}
