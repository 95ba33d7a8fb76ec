"""A span for each stage under the server span that `mcp` makes, and no caller's word in any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from remit import telemetry
from remit.errors import Code, Refused
from remit.telemetry import annotate, annotate_call, stage
from tests.cli.serving import configure, serving
from tests.plugins.machine import ROOT
from tests.telemetry.traced import PARENT, SAID

pytestmark = pytest.mark.slow

Span = dict[str, Any]

STAGES = [
    "normalise", "admit", "plan", "authorize", "consent", "approve", "commit", "execute", "settle"
]  # fmt: skip


def traced(home: Path, how: str) -> list[Span]:
    token = (home / ".remit/keys/agent.token").read_text().strip()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.telemetry.traced",
         str(configure(home)), token, how],
        capture_output=True, text=True, timeout=100, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[Span] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> list[Span]:
    from remit.cli.main import run

    made = tmp_path_factory.mktemp("traced")
    assert run(["init", str(made)]) == 0
    return traced(made, "with")


def servers(spans: list[Span], name: str) -> list[Span]:
    return [s for s in spans if s["kind"] == "SERVER" and s["name"] == name]


def below(spans: list[Span], parent: Span) -> list[Span]:
    return [s for s in spans if s["parent"] == parent["span"] and s["trace"] == parent["trace"]]


def test_call_over_the_real_door_has_a_span_for_each_stage_under_the_server_span(
    spans: list[Span],
) -> None:
    calls = servers(spans, "tools/call read_status")
    assert len(calls) == 3  # two revisions by the client, one by hand
    for call in calls:
        stages = [s for s in below(spans, call) if s["name"].startswith("remit.")]
        assert [s["name"] for s in stages] == [f"remit.{name}" for name in [*STAGES, "respond"]]
        assert {s["kind"] for s in stages} == {"INTERNAL"}


def test_spans_carry_the_ids_by_which_the_record_is_found(spans: list[Span]) -> None:
    call = servers(spans, "tools/call read_status")[0]
    about = call["attributes"]
    stages = {s["name"].removeprefix("remit."): s["attributes"] for s in below(spans, call)}
    assert about["gen_ai.tool.name"] == "read_status"
    assert about["remit.code"] == "ok"
    assert about["remit.call_id"].startswith("call_")
    assert about["remit.decision_id"] == stages["authorize"]["remit.decision_id"]
    assert (
        about["remit.run_id"]
        == stages["commit"]["remit.run_id"]
        == stages["settle"]["remit.run_id"]
    )
    assert stages["authorize"]["remit.plan_hash"] == stages["commit"]["remit.plan_hash"]
    assert stages["settle"]["remit.outcome"] == "succeeded"


def test_refusal_has_its_code_and_decision_on_the_stage_that_refused(spans: list[Span]) -> None:
    (call,) = servers(spans, "tools/call restart_service")
    *_, last = below(spans, call)
    assert last["name"] == "remit.authorize"
    assert last["attributes"]["error.type"] == call["attributes"]["remit.code"] == "policy_denied"
    assert last["attributes"]["remit.decision_id"] == call["attributes"]["remit.decision_id"]


def test_trace_of_the_caller_goes_on_here(spans: list[Span]) -> None:
    trace_id = PARENT.split("-")[1]
    assert [s["name"] for s in spans if s["trace"] == trace_id and s["kind"] == "SERVER"] == [
        "tools/call read_status"
    ]


@pytest.mark.threat("T-26")
@pytest.mark.threat("T-03")
def test_no_span_of_the_gateway_holds_a_word_that_a_caller_chose(spans: list[Span]) -> None:
    own = [span for span in spans if span["kind"] in ("SERVER", "INTERNAL")]
    assert len(own) > 30
    assert SAID in json.dumps([span for span in spans if span["kind"] == "CLIENT"])
    assert [span for span in own if SAID in json.dumps(span)] == []


@pytest.mark.threat("T-26")
def test_names_of_spans_are_few_whatever_is_called(spans: list[Span]) -> None:
    names = {span["name"] for span in spans if span["kind"] == "SERVER"}
    assert names == {
        "initialize", "notifications/initialized", "server/discover", "tools/list", "tools/call",
        "tools/call read_status", "tools/call restart_service", "other",
    } & names  # fmt: skip
    assert {"tools/call", "tools/call read_status", "other"} <= names


def test_errors_keep_the_code_of_the_protocol(spans: list[Span]) -> None:
    errors = servers(spans, "tools/call")
    kinds = [s["attributes"]["error.type"] for s in errors]
    assert sorted(kinds) == ["-32602", "-32602", "tool_error"]  # two unknown tools, bad arguments
    assert {tuple(s["status"]) for s in errors} <= {("ERROR", None), ("ERROR", "")}


def test_without_a_provider_no_span_is_made_and_the_same_calls_are_answered(home: Path) -> None:
    assert traced(home, "without") == []


def test_without_a_provider_a_stage_and_its_attributes_touch_no_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def touched(*_: Any, **__: Any) -> Any:
        raise AssertionError("a span was asked for")

    assert not telemetry.tracing()
    monkeypatch.setattr(trace, "get_current_span", touched)
    monkeypatch.setattr(telemetry._TRACER, "start_as_current_span", touched)
    with stage("plan"):
        annotate(run_id="run_1")
        annotate_call("tool", code="ok")
    with pytest.raises(Refused), stage("plan"):
        raise Refused(Code.POLICY_DENIED, "no")


# ------------------------------------------------------------------- where spans are sent, by serve


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "otlp_proto_http"),
        ({"OTEL_TRACES_EXPORTER": "nowhere"}, "nowhere"),
    ],
)
def test_exporter_that_is_not_installed_is_said_and_serving_goes_on(
    home: Path, variables: dict[str, str], wanted: str | None
) -> None:
    with serving(configure(home), variables) as gateway:
        if wanted is not None:
            line = gateway.until("no_tracing")
            assert (line["exporter"], line["hint"]) == (wanted, "pip install 'remit[otel]'")
        assert gateway.stop() == 0
        assert [line for line in gateway.lines if line["event"] == "no_tracing"][1:] == []
        assert wanted is not None or "no_tracing" not in "".join(gateway.raw)


def test_standard_variables_send_the_gateways_spans_where_they_say() -> None:
    script = (
        "import sys; from opentelemetry import trace; from remit import telemetry as t;"
        "assert t.configure_tracing() and t.tracing() and not t.configure_tracing();"
        "tracer = trace.get_tracer('test');"
        "span = tracer.start_as_current_span('server');\n"
        "with span:\n with t.stage('plan'):\n  t.annotate(run_id='run_1')\n"
        "trace.get_tracer_provider().shutdown()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "console"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"name": "remit.plan"' in done.stdout
    assert '"remit.run_id": "run_1"' in done.stdout
    assert '"service.name": "remit"' in done.stdout
