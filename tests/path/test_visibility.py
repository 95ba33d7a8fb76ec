"""Visibility on the whole path: a call asks about one tool, and a freeze ends what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from remit.gateway import Gateway
from remit.telemetry import VISIBLE_ASKED
from tests.path.conftest import AGENT, ALLOW, HEAD, OLGA, MakePath, tool

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-03")]

LIST = 'name != "hidden"'
LATE = ALLOW.replace(LIST, 'input.context.time > "2020"; count(input.tools) <= 200')
MANY = [tool(f"t{number:04d}", "read") for number in range(450)]


def asked() -> float:
    """How many questions about what may be seen policy was put so far."""
    (metric,) = VISIBLE_ASKED.collect()
    return next(one.value for one in metric.samples if one.name.endswith("_total"))


async def test_calls_ask_about_their_tool_once_until_a_freeze_and_once_after(
    make_path: MakePath,
) -> None:
    path = await make_path()
    before = asked()
    for number in range(3):
        assert not (await path.call("look", service=f"web-{number}")).is_error
    assert asked() - before == 1
    await path.administration.freeze(OLGA, True, "stop")
    assert (await path.call("look", service="web")).decision["code"] == "frozen"
    assert asked() - before == 2
    await path.administration.freeze(OLGA, False, "go on")
    assert not (await path.call("look", service="web")).is_error
    assert asked() - before == 3


async def test_new_policy_hides_at_once_what_the_one_before_showed(make_path: MakePath) -> None:
    path = await make_path()
    gateway = Gateway(path.pipeline)
    assert "act" in [one.name for one in await gateway.visible(AGENT)]
    assert not (await path.call("act", service="web")).is_error
    await path.load(ALLOW.replace(LIST, 'name == "look"'))
    reply = await path.call("act", service="web")
    assert reply.decision["code"] == "unknown_tool"
    assert "act" not in [one.name for one in await gateway.visible(AGENT)]


async def _refusal(path: Any, name: str) -> str:
    reply = await path.call(name, service="web")
    return repr((reply.content.text, dict(reply.decision), reply.jsonrpc_error)).replace(name, "…")


async def test_hidden_and_missing_tools_have_the_same_reply_after_the_same_questions(
    make_path: MakePath,
) -> None:
    path = await make_path()
    found = []
    for name in ("hidden", "missing"):
        before = asked()
        found.append((await _refusal(path, name), await _refusal(path, name), asked() - before))
    assert found[0] == found[1]


async def test_rule_that_reads_the_time_is_asked_for_each_call_and_each_page(
    make_path: MakePath,
) -> None:
    path = await make_path(LATE, tools=MANY)
    gateway = Gateway(path.pipeline)
    before = asked()
    for _ in range(2):
        assert not (await path.call("t0001", service="web")).is_error
    assert asked() - before == 2
    shown = await gateway.visible(AGENT, after="t0299", enough=51)
    assert [one.name for one in shown if one.name > "t0299"][:50] == [
        one.name for one in MANY[300:350]
    ]
    assert asked() - before == 3


async def test_list_of_many_is_put_to_the_engine_in_parts_and_is_whole(make_path: MakePath) -> None:
    rego = ALLOW.replace(LIST, "count(input.tools) <= 200")
    path = await make_path(rego, tools=MANY)
    before = asked()
    gateway = Gateway(path.pipeline)
    for _ in range(3):
        shown = await gateway.visible(AGENT)
        assert [one.name for one in shown if one.name.startswith("t0")] == [o.name for o in MANY]
    assert asked() - before == 3


async def test_policy_that_cannot_say_what_is_visible_shows_nothing_and_is_asked_again(
    make_path: MakePath,
) -> None:
    broken = HEAD.replace(LIST, "to_number(name) == 1")
    path = await make_path(broken + 'decision := answer("allow", {})\n')
    before = asked()
    for _ in range(2):
        assert (await path.call("look", service="web")).decision["code"] == "unknown_tool"
    assert asked() - before == 2
