"""What a caller hears of the way out of an action that failed."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import Code
from remit.model import Connection, Ending, RunResult, RunState, Traffic
from remit.runners.egress.refusals import REFUSALS
from remit.stages.reached import ADVICE, MAX_TOLD, way_out_said
from remit.stages.redact import UNSCRUBBED
from remit.stages.respond import failure_content
from tests.path.conftest import tool

pytestmark = pytest.mark.threat("T-32")


def went(host: str = "example.com", **more: Any) -> Connection:
    facts: dict[str, Any] = {"port": 443, "kind": "tunnel", "opened_ms": 1, "closed_ms": 2}
    return Connection(host=host, **(facts | more))


def traffic(*connections: Connection, **more: Any) -> Traffic:
    refused = sum(each.refused is not None for each in connections)
    return Traffic(connections=connections, refused=refused, closed_ms=2, **more)


def test_every_refusal_that_there_is_says_what_to_do() -> None:
    assert set(ADVICE) == {*REFUSALS, "lost"}
    for code in ADVICE:
        said = way_out_said(traffic(went(refused=code)))
        assert said == f"Its way out refused example.com:443 [{code}]: {ADVICE[code]}."


def test_each_refusal_is_told_once_and_many_are_counted() -> None:
    same = way_out_said(traffic(*[went(refused="not_allowed")] * 9))
    assert same is not None
    assert same.count("example.com:443") == 1
    many = way_out_said(traffic(*[went(f"h{n}.test", refused="connect") for n in range(9)]))
    assert many is not None
    assert many.count("[connect]") == MAX_TOLD
    assert "9 refusals in all" in many


def test_refusals_that_are_only_counted_are_told_as_such() -> None:
    said = way_out_said(Traffic(refused=3, closed_ms=2))
    assert said == "Its way out refused 3 times; the run's record has why."
    named = way_out_said(traffic(went("", port=0, refused="too_many")))
    assert named == f"Its way out refused a connection [too_many]: {ADVICE['too_many']}."


def test_a_way_out_that_was_not_taken_is_named() -> None:
    said = way_out_said(traffic())
    assert said is not None
    assert "HTTPS_PROXY" in said
    assert "REMIT_EGRESS_URL" in said
    assert way_out_said(None) is None


def test_a_tool_whose_destinations_policy_did_not_give_is_told_so() -> None:
    assert way_out_said(None) is None
    result = RunResult(ending=Ending.EXIT, exit_code=6)
    there = tool("act", egress=[{"host": "example.com", "port": 443}])
    for asked, told in ((there, True), (tool("act"), False)):
        reply = failure_content(asked, RunState.FAILED, Code.RUN_FAILED, result).value()
        assert ("policy and the runner's profile gave none" in reply["content"][0]["text"]) == told


def test_tls_without_a_request_points_to_the_trust_file() -> None:
    said = way_out_said(traffic(went(kind="https", requests=1), went("two.test", kind="https")))
    assert said is not None
    assert "two.test:443" in said
    assert "SSL_CERT_FILE" in said
    assert way_out_said(traffic(went(kind="https", requests=1), went(kind="tunnel"))) is None


def said(code: Code, *, hidden: bool = False, **more: Any) -> str:
    result = RunResult(
        ending=Ending.EXIT, exit_code=1, traffic=traffic(went(refused="not_allowed")), **more
    )
    reply = failure_content(tool("act"), RunState.FAILED, code, result, hidden=hidden).value()
    text: str = reply["content"][0]["text"]
    return text


def test_a_failed_action_says_where_it_could_not_go() -> None:
    assert "example.com:443 [not_allowed]" in said(Code.RUN_FAILED)
    assert "example.com:443 [not_allowed]" in said(Code.RUN_TIMED_OUT)
    assert "example.com" not in said(Code.RUN_OUT_OF_MEMORY)


@pytest.mark.threat("T-33")
def test_where_its_words_may_not_be_seen_neither_may_the_hosts_that_it_chose() -> None:
    assert "example.com" not in said(Code.RUN_FAILED, hidden=True)
    assert "example.com" not in said(Code.RUN_FAILED, limits_hit=(UNSCRUBBED,))
