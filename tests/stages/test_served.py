"""Results of reads that are no tool's: read strictly, bounded by policy, masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from remit.canonical import encode
from remit.catalog.arguments import SchemaCheck
from remit.errors import Code
from remit.model import (
    Constraints,
    Ending,
    Method,
    ResultKind,
    RunResult,
    RunState,
    Tool,
    Upstream,
)
from remit.stages.output import Output, output
from remit.stages.review import result_facts
from remit.testing.catalog import make_tool

pytestmark = pytest.mark.threat("T-50")

TEXT = {"uri": "a:b", "mimeType": "text/plain", "text": "Words."}
BLOB = {"uri": "a:c", "mimeType": "image/png", "blob": "aGk="}
IMAGE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
GOOD: Mapping[Method, dict[str, Any]] = {
    Method.RESOURCES_READ: {"contents": [TEXT, BLOB]},
    Method.PROMPTS_GET: {
        "description": "A prompt.",
        "messages": [
            {"role": "user", "content": {"type": "text", "text": "Do it."}},
            {"role": "assistant", "content": IMAGE},
        ],
    },
    Method.COMPLETE: {"completion": {"values": ["a", "b"], "total": 2, "hasMore": False}},
}


def entry(method: Method) -> Tool:
    upstream = Upstream(server="s", tool=method.value, definition="sha256:0", method=method)
    return replace(make_tool(), upstream=upstream, result=ResultKind.MCP)


def came(method: Method, value: Any, **constraints: Any) -> Output:
    result = RunResult(ending=Ending.ANSWERED, stdout=encode(value))
    return output(
        SchemaCheck(),
        entry(method),
        Constraints(**constraints),
        state=RunState.SUCCEEDED,
        code=None,
        result=result,
    )


def structured(found: Output) -> Any:
    return found.reply.value()["structured"]


@pytest.mark.parametrize("method", GOOD)
def test_the_members_of_the_method_come_back_and_no_others(method: Method) -> None:
    more = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "_meta": {"a": 1}}
    found = came(method, GOOD[method] | more)
    assert found.code is None
    assert structured(found) == GOOD[method]


@pytest.mark.parametrize("method", GOOD)
def test_a_result_of_another_method_is_no_result(method: Method) -> None:
    others = [value for other, value in GOOD.items() if other is not method]
    for value in [*others, {}, [], {"content": []}, {"contents": [{"uri": "a:b"}]}, 7]:
        found = came(method, value)
        assert found.code is Code.OUTPUT_INVALID
        assert found.reply.value()["is_error"]


def test_what_looks_like_a_credential_or_moves_the_screen_does_not_leave() -> None:
    said = "\x1b[31mAuthorization: Bearer abcdefghijkl.a1B2"
    shown = [
        structured(came(Method.RESOURCES_READ, {"contents": [TEXT | {"text": said}]})),
        structured(
            came(
                Method.PROMPTS_GET,
                {"messages": [{"role": "user", "content": {"type": "text", "text": said}}]},
            )
        ),
        structured(came(Method.COMPLETE, {"completion": {"values": [said]}})),
    ]
    for each in shown:
        assert "a1B2" not in str(each)
        assert "\x1b" not in str(each)


@pytest.mark.parametrize(
    ("method", "allowed", "passes"),
    [
        (Method.RESOURCES_READ, ("text/plain",), False),
        (Method.RESOURCES_READ, ("text/plain", "image/png"), True),
        (Method.PROMPTS_GET, ("text/plain",), False),
        (Method.PROMPTS_GET, ("text/plain", "image/png"), True),
        (Method.COMPLETE, ("image/png",), False),
        (Method.COMPLETE, ("text/plain",), True),
    ],
)
def test_only_the_types_that_policy_lets_back_come_back(
    method: Method, allowed: tuple[str, ...], passes: bool
) -> None:
    found = came(method, GOOD[method], output_content_types=allowed)
    assert found.code is (None if passes else Code.OUTPUT_WITHHELD)


def test_what_policy_redacts_is_gone_from_what_is_answered_and_kept() -> None:
    found = came(Method.RESOURCES_READ, {"contents": [TEXT]}, output_redact=("/contents/*/text",))
    assert structured(found) == {"contents": [TEXT | {"text": "[redacted]"}]}
    assert b"Words." not in found.kept.stdout
    whole = came(Method.RESOURCES_READ, {"contents": [TEXT]}, output_redact=("/contents",))
    assert whole.code is Code.OUTPUT_WITHHELD
    assert b"Words." not in whole.kept.stdout


def test_policy_about_results_is_shown_what_a_model_would_be() -> None:
    for method, value in GOOD.items():
        result = RunResult(ending=Ending.ANSWERED, stdout=encode(value))
        facts = result_facts(entry(method), RunState.SUCCEEDED, result)
        assert facts["valid"] is True
        assert facts["structured"] == value
    facts = result_facts(
        entry(Method.RESOURCES_READ),
        RunState.SUCCEEDED,
        RunResult(ending=Ending.ANSWERED, stdout=encode(GOOD[Method.RESOURCES_READ])),
    )
    assert facts["content_types"] == ["image/png", "text/plain"]
    assert [each["text"] for each in facts["content"]] == ["Words.", ""]
