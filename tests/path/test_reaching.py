"""What a run may reach: what the catalog declares and policy gives, or nothing runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remit.model import Tool
from tests.path.conftest import HEAD, MakePath, Path_, tool
from tests.path.test_path import approve, code

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-13")]

API = {"host": "api.example.com", "port": 443}
DECLARED: list[dict[str, Any]] = [
    {**API, "methods": ["GET", "POST"], "path_prefix": "/v1"},
    {"host": "cdn.example.com", "port": 443},
]
KEY = {"ref": "vault:ci", "scopes": ["read", "write"]}
TOOLS: list[Tool] = [
    tool("reach", egress=DECLARED, credentials=[KEY]),
    tool("local"),
]


def policy(constraints: dict[str, Any], verdict: str = "allow") -> str:
    more: dict[str, Any] = {"constraints": constraints}
    if verdict == "require_approval":
        more["approvals"] = {"required": 1}
    return HEAD + f'decision := answer("{verdict}", {json.dumps(more)})\n'


async def plans(path: Path_) -> list[dict[str, Any]]:
    """The inputs that policy was asked with, in order."""
    found = []
    for entry in await path.entries():
        if entry["event"] == "decision":
            text = await path.ledger.value(entry["commitments"]["input"])
            found.append(json.loads(text or b"null"))
    return found


async def test_where_policy_is_silent_a_tool_that_declares_runs_without(
    make_path: MakePath,
) -> None:
    path = await make_path(policy({}), tools=TOOLS)
    reply = await path.call("reach")
    assert code(reply) == "ok"
    assert "narrowed_from" in reply.decision
    first, final = await plans(path)
    assert len(first["plan"]["egress"]) == 2
    assert first["plan"]["credentials"] == [KEY]
    assert (final["plan"]["egress"], final["plan"]["credentials"]) == ([], [])
    (spec,) = path.runner.specs
    ran = json.loads(await path.ledger.plan_text(reply.decision["plan_hash"]) or b"")
    assert (ran["egress"], ran["credentials"]) == ([], [])
    assert spec == reply.decision["run_id"]


async def test_tool_that_declares_nothing_is_asked_about_once(make_path: MakePath) -> None:
    given = {"egress": [API], "credentials": [KEY]}
    path = await make_path(policy(given), tools=TOOLS)
    reply = await path.call("local")
    assert code(reply) == "ok"
    assert "narrowed_from" not in reply.decision
    assert len(await plans(path)) == 1


@pytest.mark.parametrize("given", [{"egress": [API]}])
@pytest.mark.parametrize("verdict", ["allow", "require_approval"])
async def test_what_the_runner_cannot_give_is_refused_before_anything_runs(
    make_path: MakePath, given: dict[str, Any], verdict: str
) -> None:
    path = await make_path(policy(given, verdict), tools=TOOLS)
    reply = await path.call("reach")
    assert code(reply) == "runner_lacks"
    assert path.runner.told == []
    assert not {"call.intent", "approval.opened"} & set(await path.events())


async def test_runner_that_holds_egress_is_given_the_plan_with_what_both_let_through(
    make_path: MakePath,
) -> None:
    given = {
        "egress": [
            {**API, "methods": ["GET", "DELETE"], "path_prefix": "/v1/repos"},
            {"host": "evil.example.com", "port": 443},
        ],
        "credentials": [{"ref": "vault:ci", "scopes": ["read", "admin"], "ttl_s": 60}],
    }
    path = await make_path(policy(given), tools=TOOLS, holds={"egress": True, "credentials": True})
    reply = await path.call("reach")
    assert code(reply) == "ok"
    ran = json.loads(await path.ledger.plan_text(reply.decision["plan_hash"]) or b"")
    assert ran["egress"] == [{**API, "methods": ["GET"], "path_prefix": "/v1/repos"}]
    digest = path.credentials.digest("vault:ci")
    lent = {"ref": "vault:ci", "scopes": ["read"], "ttl_s": 60}
    assert ran["credentials"] == [{**lent, "digest": digest}]
    asked = await plans(path)
    assert asked[-1]["plan"]["credentials"] == [lent]
    assert len(await plans(path)) == 2


async def test_what_policy_gives_in_full_needs_no_second_round(make_path: MakePath) -> None:
    given = {"egress": DECLARED, "credentials": [KEY]}
    path = await make_path(policy(given), tools=TOOLS, holds={"egress": True, "credentials": True})
    reply = await path.call("reach")
    assert code(reply) == "ok"
    assert len(await plans(path)) == 1


async def test_policy_that_gives_less_the_second_time_contradicts_itself(
    make_path: MakePath,
) -> None:
    rego = HEAD + (
        'decision := answer("allow", {"constraints": {"egress": given}})\n'
        f"given := {json.dumps([API])} if count(input.plan.egress) == 2\n"
        "given := [] if count(input.plan.egress) != 2\n"
    )
    path = await make_path(rego, tools=TOOLS, holds={"egress": True})
    assert code(await path.call("reach")) == "policy_inconsistent"
    assert path.runner.told == []


async def test_approver_sees_the_destinations_that_the_final_plan_has(
    make_path: MakePath,
) -> None:
    given = {"egress": [{**API, "path_prefix": "/v1/repos"}]}
    path = await make_path(policy(given, "require_approval"), tools=TOOLS, holds={"egress": True})
    reply = await path.call("reach")
    assert code(reply) == "approval_required"
    waiting = await path.ledger.approval(reply.decision["approval_id"])
    assert waiting is not None
    shown = waiting.shown.value()
    assert [each["path_prefix"] for each in shown["egress"]] == ["/v1/repos"]
    assert shown["credentials"] == []
    await approve(path, waiting.id)
    assert code(await path.call("reach")) == "ok"


async def test_preview_reaches_nothing_whatever_its_tool_declares(make_path: MakePath) -> None:
    previewed = tool(
        "previewed", egress=DECLARED, preview={"command": {"argv": ["/bin/echo", "p"]}}
    )
    path = await make_path(policy({"egress": [API]}), tools=[previewed], holds={"egress": True})
    assert code(await path.call("previewed")) == "ok"
    asked = await plans(path)
    assert all(not each["plan"]["egress"] for each in asked if each["plan"]["kind"] == "preview")


async def test_policy_gives_all_that_is_declared_by_handing_it_back(make_path: MakePath) -> None:
    """As docs/policy-input.md writes it; a tool's credential names its audience though it is empty."""
    rego = HEAD + (
        'decision := answer("allow", {"constraints": '
        '{"egress": input.tool.egress, "credentials": input.tool.credentials}})\n'
    )
    path = await make_path(rego, tools=TOOLS, holds={"egress": True, "credentials": True})
    reply = await path.call("reach")
    assert code(reply) == "ok"
    assert "narrowed_from" not in reply.decision
