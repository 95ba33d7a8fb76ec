"""A tool is shown only where policy names it; any doubt hides it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from remit.document import list_document
from remit.policy.layers import Standing, layer
from remit.telemetry import REGISTRY
from tests.policy.test_fail_closed import SPINNING
from tests.policy.world import CALLER, NOW, RESTART, asking, engine_of, policy

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-03")]

FAULTS = "remit_policy_faults_total"


def _listing(*names: str) -> dict[str, Any]:
    tools = [replace(RESTART, name=name) for name in names]
    return list_document(caller=CALLER, tools=tools, now_ms=NOW)


async def test_tool_is_shown_only_where_its_name_has_true() -> None:
    for rule in ('visible["a"] := true\n', 'visible := {"a": true, "b": false}\n'):
        async with asking(policy(rule)) as point:
            assert await point.visible(_listing("a", "b"), ["a", "b"]) == frozenset({"a"})


@pytest.mark.parametrize("value", ["1", '"true"', "null", "[true]", "{}"])
async def test_value_that_is_not_true_hides_the_tool(value: str) -> None:
    async with asking(policy(f'visible := {{"a": true, "b": {value}}}\n')) as point:
        assert await point.visible(_listing("a", "b"), ["a", "b"]) == frozenset({"a"})


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "visible := input.absent\n",
        "visible := true\n",
        'visible := "a"\n',
        'visible := ["a"]\n',
        'visible contains "a"\n',
        "visible := {1: true}\n",
        'visible := {"a": true}\nvisible := {"a": false}\n',
        'visible["a"] := to_number("a")\n',
        f"visible := {SPINNING}\n",
        'visible := "<undefined>"\n',
    ],
)
@pytest.mark.threat("T-12")
async def test_no_usable_answer_shows_nothing(rule: str) -> None:
    async with asking(policy(rule), deadline_ms=300) as point:
        assert not await point.visible(_listing("a", "b"), ["a", "b"])


async def test_list_that_policy_cannot_answer_is_counted_and_said_once_until_it_can() -> None:
    rule = 'visible := {"a": true} if input.caller.source_ip == "192.0.2.1"\n'
    blind = _listing("a")
    seeing = {**blind, "caller": {**blind["caller"], "source_ip": "192.0.2.1"}}
    before = REGISTRY.get_sample_value(FAULTS, {"code": "policy_undefined"}) or 0
    async with asking(policy(rule)) as point:
        with capture_logs() as said:
            for document in (blind, blind, seeing, blind):
                await point.visible(document, ["a"])
    told = [(line["event"], line["layer"], line["code"]) for line in said]
    assert told == [("policy_shows_nothing", "policy", "policy_undefined")] * 2
    after = REGISTRY.get_sample_value(FAULTS, {"code": "policy_undefined"})
    assert after == before + 3


async def test_name_that_was_not_asked_about_is_not_shown() -> None:
    async with asking(policy('visible := {"a": true, "b": true, "c": true}\n')) as point:
        assert await point.visible(_listing("a", "b"), ["b", "c"]) == frozenset({"b"})


async def test_more_than_two_hundred_tools_in_one_question_get_no_answer() -> None:
    rule = "visible[t.name] := true if some t in input.tools\n"
    names = [f"t{number}" for number in range(201)]
    async with asking(policy(rule)) as point:
        assert await point.visible(_listing(*names), names) is None
        assert await point.visible(_listing(*names[1:]), names) == frozenset(names[1:])


async def test_rule_that_reads_time_is_known_to() -> None:
    rule = 'visible[t.name] := true if { some t in input.tools; input.context.time > "2" }\n'
    async with asking(policy(rule)) as point:
        assert point.visible_reads == frozenset({"context.time"})
    async with asking(policy('visible["a"] := true\n')) as point:
        assert point.visible_reads == frozenset()


async def test_what_a_server_of_others_reads_is_never_known_to_be_nothing() -> None:
    steady = policy('visible["a"] := true\n')
    async with asking(steady) as point:
        engine = engine_of(point)
        own, foreign = layer(engine, steady), layer(engine, steady, name="b", revision="r7")
        assert (own.reads, foreign.reads) == (frozenset(), None)
        assert Standing([own, foreign]).reads is None
        late = policy('visible["a"] := true if input.context.time\n')
        assert Standing([foreign, layer(engine, late)]).reads == frozenset({"context.time"})


async def test_document_that_is_none_shows_nothing() -> None:
    async with asking(policy('visible := {"a": true}\n')) as point:
        assert await point.visible({}, ["a"]) is None
        assert await point.visible({"tools": [{}]}, ["a"]) is None
