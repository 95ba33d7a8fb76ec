"""What policy redacts is nowhere: not in the answer, the record, a replay, or on the way there."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from remit.model import Ending, Reply, RunResult, RunSpec, Tool
from remit.testing.scripted import ends
from tests.path.conftest import HEAD, MakePath, Path_, tool
from tests.path.test_path import approve, code, text

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-23")]

SECRET = "hunter2-of-the-database"
NUMBERED = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "pin": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
TOOLS: list[Tool] = [
    tool("as_json", result="json"),
    tool("as_mcp", result="mcp"),
    tool("as_text"),
    tool("numbered", result="json", output_schema=NUMBERED),
    tool("strict", result="json", output_schema=NUMBERED | {"required": ["n", "pin"]}),
    tool("previewed", result="json", preview={"command": {"argv": ["/bin/echo", "p"]}}),
    tool("look", "read", result="json"),
]


def policy(verdict: str = "allow", phase: str = "", **output: Any) -> str:
    more: dict[str, Any] = {"constraints": {"output": output}}
    if verdict == "require_approval":
        more["approvals"] = {"required": 1}
    return HEAD + f'decision := answer("{verdict}", {json.dumps(more)}) {phase}\n'


REDACT = policy(redact=["/password", "/items/*/key", "/pin"])


async def everything(path: Path_, reply: Reply) -> str:
    """All that is kept or told: the reply, every entry, every value behind one, progress."""
    found = [reply.content.text, reply.structured.text if reply.structured else b""]
    found.append(json.dumps(dict(reply.decision)).encode())
    for entry in await path.entries():
        found.append(json.dumps(entry).encode())
        for commitment in entry.get("commitments", {}).values():
            found.append(await path.ledger.value(commitment) or b"")
    await path.ledger.checkpoint()
    found.append(path.store.read_bytes())
    wal = path.store.with_name(path.store.name + "-wal")
    found.append(wal.read_bytes() if wal.exists() else b"")
    return b"\n".join(found).decode("utf-8", "replace") + "\n".join(path.heard.messages)


def printing(value: Any, **more: Any) -> Callable[[RunSpec], Awaitable[RunResult]]:
    async def behave(_: RunSpec) -> RunResult:
        shown: dict[str, Any] = {
            "ending": Ending.EXIT,
            "exit_code": 0,
            "stdout": json.dumps(value).encode(),
            "stderr": f"connecting with {SECRET}\n".encode(),
        }
        return RunResult(**(shown | more))

    return behave


async def test_redacted_member_is_neither_answered_nor_kept(make_path: MakePath) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    value = {"name": "db", "password": SECRET, "items": [{"key": SECRET, "n": 1}]}
    path.runner.behave = printing(value)
    reply = await path.call("as_json")
    assert code(reply) == "ok"
    assert reply.structured is not None
    shown = {"name": "db", "password": "[redacted]", "items": [{"key": "[redacted]", "n": 1}]}
    assert reply.structured.value() == shown
    assert json.loads(text(reply)) == shown
    outcome = (await path.entries())[-1]
    kept = await path.ledger.value(outcome["commitments"]["stdout"])
    assert json.loads(kept or b"") == shown
    assert SECRET not in await everything(path, reply)


async def test_the_same_run_without_redaction_does_hold_it(make_path: MakePath) -> None:
    path = await make_path(policy(), tools=TOOLS)
    path.runner.behave = printing({"password": SECRET})
    assert SECRET in await everything(path, await path.call("as_json"))


async def test_words_of_an_mcp_result_are_made_from_the_redacted_structure(
    make_path: MakePath,
) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    path.runner.behave = printing(
        {
            "content": [{"type": "text", "text": f"the password is {SECRET}"}],
            "structuredContent": {"password": SECRET, "n": 1},
        }
    )
    reply = await path.call("as_mcp")
    assert json.loads(text(reply)) == {"password": "[redacted]", "n": 1}
    assert SECRET not in await everything(path, reply)


async def test_mcp_result_without_structure_is_withheld(make_path: MakePath) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    path.runner.behave = printing({"content": [{"type": "text", "text": SECRET}]})
    reply = await path.call("as_mcp")
    assert code(reply) == "output_withheld"
    assert reply.decision["outcome"] == "succeeded"
    assert "do not repeat it" in text(reply)
    assert SECRET not in await everything(path, reply)


async def test_text_that_policy_redacts_is_denied_before_it_runs(make_path: MakePath) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    reply = await path.call("as_text")
    assert code(reply) == "policy_unsupported"
    assert path.runner.told == []


async def test_preview_that_policy_redacts_is_denied_before_it_runs(make_path: MakePath) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    assert code(await path.call("previewed")) == "policy_unsupported"
    assert path.runner.told == []


async def test_redaction_of_the_call_alone_leaves_its_preview_be(make_path: MakePath) -> None:
    rego = policy(phase='if input.phase == "call"', redact=["/password"])
    rego += 'decision := answer("allow", {}) if input.phase == "preview"\n'
    path = await make_path(rego, tools=TOOLS)
    path.runner.behave = ends(b'{"password": "x"}')
    assert code(await path.call("previewed")) == "ok"


@pytest.mark.parametrize(
    "more",
    [
        {"exit_code": 3},
        {"ending": Ending.TIMED_OUT, "exit_code": None},
        {"ending": Ending.OUTPUT_LIMIT, "exit_code": None},
        {"stdout_truncated": True},
        {"stdout": SECRET.encode()},
        {"stdout": b'{"password": "' + SECRET.encode() + b'", "password": 1}'},
    ],
    ids=["failed", "timed-out", "too-much", "cut", "not-json", "duplicate-key"],
)
async def test_run_that_did_not_end_well_shows_and_keeps_nothing_of_its_output(
    make_path: MakePath, more: dict[str, Any]
) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    path.runner.behave = printing({"password": SECRET}, **more)
    reply = await path.call("look")
    assert reply.is_error
    assert SECRET not in await everything(path, reply)
    if more.get("exit_code"):
        assert "Policy does not let its output back." in text(reply)


async def test_member_that_cannot_be_a_text_is_left_out(make_path: MakePath) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    path.runner.behave = printing({"n": 1, "pin": 48151623})
    reply = await path.call("numbered")
    assert reply.structured is not None
    assert reply.structured.value() == {"n": 1}
    assert "48151623" not in await everything(path, reply)


async def test_member_that_can_neither_change_nor_go_is_withheld_with_all_the_rest(
    make_path: MakePath,
) -> None:
    path = await make_path(REDACT, tools=TOOLS)
    path.runner.behave = printing({"n": 1, "pin": 48151623})
    reply = await path.call("strict")
    assert code(reply) == "output_withheld"
    assert "48151623" not in await everything(path, reply)


async def test_replayed_result_is_the_redacted_one(make_path: MakePath) -> None:
    path = await make_path(policy("require_approval", redact=["/password"]), tools=TOOLS)
    path.runner.behave = printing({"password": SECRET})
    waiting = await path.call("as_json")
    await approve(path, waiting.decision["approval_id"])
    assert code(await path.call("as_json")) == "ok"
    again = await path.call("as_json")
    assert again.replayed
    assert again.structured is not None
    assert again.structured.value() == {"password": "[redacted]"}
    assert SECRET not in await everything(path, again)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (["application/json"], "ok"),
        (["text/plain"], "policy_unsupported"),
        ([], "policy_unsupported"),
    ],
)
async def test_output_of_a_kind_that_policy_does_not_let_back_is_told_beforehand(
    make_path: MakePath, allowed: list[str], expected: str
) -> None:
    path = await make_path(policy(content_types=allowed), tools=TOOLS)
    path.runner.behave = printing({"n": 1})
    assert code(await path.call("as_json")) == expected
    assert bool(path.runner.told) == (expected == "ok")


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (["text/plain", "image/png", "application/json"], "ok"),
        (["text/plain", "application/json"], "output_withheld"),
        (["text/plain", "image/png"], "output_withheld"),
        (["image/png", "application/json"], "output_withheld"),
    ],
)
async def test_mcp_result_comes_back_if_each_of_its_parts_may(
    make_path: MakePath, allowed: list[str], expected: str
) -> None:
    path = await make_path(policy(content_types=allowed), tools=TOOLS)
    path.runner.behave = printing(
        {
            "content": [
                {"type": "text", "text": "words"},
                {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            ],
            "structuredContent": {"n": 1},
        }
    )
    assert code(await path.call("as_mcp")) == expected


@pytest.mark.parametrize("kind", ["image", "audio"])
async def test_a_picture_or_sound_that_calls_itself_text_does_not_come_back_as_text(
    make_path: MakePath, kind: str
) -> None:
    path = await make_path(policy(content_types=["text/plain"]), tools=TOOLS)
    path.runner.behave = printing(
        {"content": [{"type": kind, "data": "aGk=", "mimeType": "text/plain"}]}
    )
    assert code(await path.call("as_mcp")) == "output_withheld"


async def test_failure_tells_nothing_of_its_output_where_text_may_not_come_back(
    make_path: MakePath,
) -> None:
    path = await make_path(policy(content_types=["application/json"]), tools=TOOLS)
    path.runner.behave = printing({"n": 1}, exit_code=3)
    reply = await path.call("as_json")
    assert SECRET not in text(reply)
    assert path.heard.messages == []
