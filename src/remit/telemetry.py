"""Spans, metrics and logs: what Remit tells an operator while it runs.

None of it is evidence: telemetry may be sampled or lost, the log of `remit.ledger` may not.
Labels are bounded: tool names come from the catalog, codes from `errors.Code`; never a caller.
Span and attribute names follow OpenTelemetry's MCP conventions where those have one; `mcp`
already makes the server span, so only child spans are made here.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from bisect import bisect_left
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from itertools import accumulate
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from remit import __version__
from remit.errors import Refused, RemitError

REGISTRY = CollectorRegistry(auto_describe=True)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)

CALLS = Counter("remit_calls", "Calls answered.", ["tool", "verdict", "code"], registry=REGISTRY)


class StageTimes(Collector):
    """A histogram of the time spent in each stage, counted by the event loop's one thread.

    A call passes nine stages, so an observation here is two additions without a lock.
    """

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, name: str, seconds: float) -> None:
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = [0] * (len(_SECONDS) + 1)
            self._sums[name] = 0.0
        counts[bisect_left(_SECONDS, seconds)] += 1
        self._sums[name] += seconds

    def totals(self) -> dict[str, float]:
        """Seconds spent in each stage since the start or the last reset."""
        return dict(self._sums)

    def reset(self) -> None:
        """Begin again, for a measurement."""
        self._counts.clear()
        self._sums.clear()

    def collect(self) -> Iterator[Metric]:
        """The histogram as Prometheus wants it: cumulative, by upper bound."""
        family = HistogramMetricFamily(
            "remit_stage_seconds",
            "Time spent in a stage of the request path.",
            labels=["stage"],
        )
        bounds = [*map(str, _SECONDS), "+Inf"]
        for name, counts in self._counts.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric([name], buckets, self._sums[name])
        yield family

    def describe(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(
            "remit_stage_seconds",
            "Time spent in a stage of the request path.",
            labels=["stage"],
        )


STAGE_TIMES = StageTimes()
REGISTRY.register(STAGE_TIMES)
RUNS = Counter("remit_runs", "Runs by how they ended.", ["tool", "ending"], registry=REGISTRY)
RUN_SECONDS = Histogram(
    "remit_run_seconds",
    "Time from a runner's start to its end.",
    ["tool"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
REFUSALS = Counter("remit_refusals", "Requests refused, by code.", ["code"], registry=REGISTRY)
POLICY_FAULTS = Counter(
    "remit_policy_faults", "Denials because policy gave no usable answer.", ["code"],
    registry=REGISTRY,
)  # fmt: skip
NOTICES = Counter(
    "remit_notices", "Messages that policy wanted sent, by what became of them.", ["result"],
    registry=REGISTRY,
)  # fmt: skip
VISIBLE_ASKED = Counter(
    "remit_visible_asked", "Questions to policy about which tools may be seen.", registry=REGISTRY
)
POLICY_RELOADS = Counter(
    "remit_policy_reloads", "Policies that were to replace one in force, by what became of them.",
    ["result"], registry=REGISTRY,
)  # fmt: skip
POLICY_SHADOW = Counter(
    "remit_policy_shadow", "Decisions that were put to the policy on trial, by what it said.",
    ["result"], registry=REGISTRY,
)  # fmt: skip
UNENFORCED = Counter(
    "remit_policy_unenforced", "Answers of policy on plans in shadow mode, where none is enforced.",
    ["verdict"], registry=REGISTRY,
)  # fmt: skip
RESULTS_JUDGED = Counter(
    "remit_results_judged", "Answers of policy about the results of runs.",
    ["verdict"], registry=REGISTRY,
)  # fmt: skip
APPROVALS = Counter("remit_approvals", "Approvals, by what became of them.", ["state"],
    registry=REGISTRY,
)  # fmt: skip
CONSENTS = Counter("remit_consents", "Consents of people, by what became of them.", ["what"],
    registry=REGISTRY,
)  # fmt: skip
RUNS_IN_FLIGHT = Gauge("remit_runs_in_flight", "Runs that have begun and not ended.",
    registry=REGISTRY,
)  # fmt: skip
SLOTS_WAITING = Gauge("remit_slots_waiting", "Sandboxes made ahead of need that wait for a run.",
    ["kind"], registry=REGISTRY,
)  # fmt: skip
SLOT_CLAIMS = Counter("remit_slot_claims", "Runs that a slot is kept for, by what became of it.",
    ["kind", "result"], registry=REGISTRY,
)  # fmt: skip
SLOT_REFILLS = Counter("remit_slot_refills", "Slots made, and slots that went unused, by why.",
    ["kind", "result"], registry=REGISTRY,
)  # fmt: skip
LEFTOVERS = Counter("remit_leftovers", "Leftovers of runs that a sweep removed.",
    registry=REGISTRY,
)  # fmt: skip


def exposition() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)


# ---------------------------------------------------------------------------------------- spans

_TRACER = trace.get_tracer("remit")


def tracing() -> bool:
    """Whether an OpenTelemetry SDK is installed and in use, so that spans go anywhere."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def configure_tracing() -> bool:
    """Send spans where the standard variables say (`OTEL_TRACES_EXPORTER`, or an OTLP endpoint).

    Does nothing, and gives False, where they say nothing, where a provider is set already, or
    where the SDK or the exporter is not installed; the last is said in a log line.
    """
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    wanted = os.environ.get("OTEL_TRACES_EXPORTER") or (
        "otlp" if any(os.environ.get(name) for name in endpoints) else "none"
    )
    if wanted == "none" or tracing():
        return False
    name = {"otlp": "otlp_proto_http"}.get(wanted, wanted)
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = found[0].load()()
    except (ImportError, IndexError):
        logger().warning("no_tracing", exporter=name, hint="pip install 'remit[otel]'")
        return False
    about = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "remit")}
    about["service.version"] = __version__
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return True


class stage:  # noqa: N801 - used as `with stage("plan"):`
    """Time one stage of the path, in a child span when anything records spans.

    Values that a caller chose never become attributes: only ids, hashes, codes and names that
    come from the catalog do. A class and not a generator, because a call passes nine of them.
    """

    __slots__ = ("_began", "_name", "_span")

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: AbstractContextManager[trace.Span] | None = None

    def __enter__(self) -> None:
        if tracing() and trace.get_current_span().is_recording():
            self._span = _TRACER.start_as_current_span(
                f"remit.{self._name}", record_exception=False, set_status_on_exception=False
            )
            self._span.__enter__()
        self._began = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        STAGE_TIMES.observe(self._name, time.perf_counter() - self._began)
        if self._span is not None:
            if raised is not None:
                _annotate_error(trace.get_current_span(), raised)
            self._span.__exit__(kind, raised, where)


def _annotate_error(span: trace.Span, raised: BaseException) -> None:
    """What ended a stage: a code or a class, never the text, which may hold a caller's value."""
    code = raised.code.value if isinstance(raised, RemitError) else type(raised).__name__
    span.set_attribute("error.type", code)
    if isinstance(raised, Refused) and raised.decision_id is not None:
        span.set_attribute("remit.decision_id", raised.decision_id)


def annotate(**attributes: str | int | bool | None) -> None:
    """Put attributes on the current span, when anything records it; None is left out."""
    if not tracing():
        return
    span = trace.get_current_span()
    for key, value in attributes.items():
        if value is not None:
            span.set_attribute(f"remit.{key}", value)


def annotate_call(tool: str | None, **attributes: str | int | bool | None) -> None:
    """Put onto the server span what became of a call, with the tool's name if it was found.

    Args:
        tool: a name from the catalog; never the one that a caller sent.
    """
    if not tracing():
        return
    if tool is not None:
        span = trace.get_current_span()
        span.update_name(f"tools/call {tool}")
        span.set_attribute("gen_ai.tool.name", tool)
    annotate(**attributes)


# ----------------------------------------------------------------------------------------- logs

SECRET_SHAPES = re.compile(
    r"remit_[A-Za-z0-9-]{1,64}_[A-Za-z0-9_-]{20,}"
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
)
"""What a credential of Remit's own, a bearer header or a private key looks like in text."""

MASK = "***"

_SECRET_NAMES = frozenset({"authorization", "token", "secret", "password", "key", "api_key"})


def mask(text: str) -> str:
    """The text with everything that looks like a credential replaced by `***`."""
    return SECRET_SHAPES.sub(MASK, text)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {
            name: MASK if str(name).lower() in _SECRET_NAMES else _masked(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def mask_event(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """structlog processor: no credential leaves in a log line."""
    for name, value in event.items():
        event[name] = MASK if name.lower() in _SECRET_NAMES else _masked(value)
    return event


def name_exception(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """structlog processor: of an exception its class and place, not its text.

    The text of an exception that was not foreseen may hold what a caller sent.
    """
    given = event.pop("exc_info", None)
    raised = sys.exc_info()[1] if given is True else given
    if isinstance(raised, tuple):
        raised = raised[1]
    if isinstance(raised, BaseException):
        event["exception"] = _named(raised)
    return event


def _named(raised: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(raised.__traceback__)[-8:]
    at = [f"{'/'.join(f.filename.split('/')[-2:])}:{f.lineno} {f.name}" for f in frames]
    cause = raised.__cause__ or raised.__context__
    named: dict[str, Any] = {"type": type(raised).__qualname__, "at": at}
    if isinstance(raised, RemitError):
        named["says"] = str(raised)  # written here, and never of a caller's value
    return named if cause is None else named | {"after": type(cause).__qualname__}


_SHARED: tuple[Any, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    name_exception,
    mask_event,
)


class _LibraryLine(logging.Formatter):
    """Lines of libraries in the form of Remit's own: what they say, without what it is about.

    Libraries put a request's values into their messages. Only the message's template is kept, of
    it the first line, and of an exception its class and place.
    """

    MAX_CHARACTERS = 200

    def __init__(self, renderer: Any) -> None:
        super().__init__()
        self._renderer = renderer

    def format(self, record: logging.LogRecord) -> str:
        says = str(record.msg).partition("\n")[0][: self.MAX_CHARACTERS]
        event: MutableMapping[str, Any] = {"event": "library", "from": record.name, "says": says}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        for processor in _SHARED:
            event = processor(None, record.levelname.lower(), event)
        return str(self._renderer(None, record.levelname.lower(), event))


def configure_logs(form: str, level: str) -> None:
    """Send structured logs to standard error.

    Args:
        form: `json`, `console`, or `auto` for console on a terminal and JSON elsewhere.
        level: `debug`, `info`, `warning` or `error`.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*_SHARED, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LibraryLine(renderer))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def logger() -> Any:
    """The structured logger; an event name and keywords, nothing else."""
    return structlog.get_logger("remit")
