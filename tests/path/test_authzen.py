"""An enforcement point outside gets the decision of the path, over HTTP as AuthZEN 1.0 has it.

The gateway, the ledger and the policy engine are real; only the runner would do as a test says, and
is never told anything.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest

from remit.doors.admin import admin_app
from remit.doors.settings import DoorSettings
from remit.gateway import Gateway
from remit.model import Caller, Operator, Permission
from remit.rates import MemoryRates
from remit.testing.identity import NamedIdentity
from tests.doors.serving import http, served
from tests.path.conftest import AGENT, ASK, HEAD, OLGA, MakePath, Path_

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-31"), pytest.mark.slow]

POINT = Operator(subject="edge-gateway", may=frozenset({Permission.EVALUATE}))
READER = Operator(subject="ray", may=frozenset({Permission.READ}))

WHO = """
decision := answer("allow", {}) if {
    input.caller.groups == ["agents"]
    input.caller.kind == "agent"
    input.caller.delegation[0].subject == "dana"
    input.caller.issuer == "remit:keys"
}
"""
SERVICE = """
decision := answer("deny", {"reasons": [
    {"code": "not_now", "message": "Not this service.", "audience": "user"},
    {"code": "inner", "message": "for operators only", "audience": "admin"},
]}) if input.arguments.service == "db"
decision := answer("allow", {}) if input.arguments.service != "db"
"""
FORCED = """
decision := answer("allow", {"constraints": {"arguments": {"force": {"count": 2}}}})
"""
TIER = """
decision := answer("allow", {"constraints": {"runner": {"min_tier": "sandbox"}}})
"""


@dataclass
class Point:
    """An enforcement point and the gateway that it asks."""

    path: Path_
    url: str
    client: httpx2.AsyncClient
    metadata: Mapping[str, str]

    async def post(
        self, body: Any, *, where: str = "access_evaluation_endpoint", token: str = "point",
        **headers: str,
    ) -> httpx2.Response:  # fmt: skip
        named = {"authorization": f"Bearer {token}", "content-type": "application/json", **headers}
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(self.metadata[where], content=sent, headers=named)

    async def ask(self, body: Any = None, **more: Any) -> dict[str, Any]:
        answer = await self.post(about(**more) if body is None else body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def asks(self, body: Any) -> list[dict[str, Any]]:
        answer = await self.post(body, where="access_evaluations_endpoint")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["evaluations"]
        return found

    async def questions(self) -> list[dict[str, Any]]:
        return [one for one in await self.path.entries() if one["event"] == "question"]


def about(
    tool: str = "act", subject: str = "bot", type_: str = "agent", **more: Any
) -> dict[str, Any]:
    """A question; `arguments`, `properties` (of the subject) and `context` may be said."""
    return {
        "subject": {"type": type_, "id": subject, "properties": more.get("properties", {})},
        "action": {"name": "call"},
        "resource": {
            "type": "tool",
            "id": tool,
            "properties": {"arguments": more.get("arguments", {"service": "web"})},
        },
        "context": more.get("context", {}),
    }


@asynccontextmanager
async def point(path: Path_, *, callers: Mapping[str, Caller] | None = None, **per_minute: int
) -> AsyncIterator[Point]:  # fmt: skip
    path.pipeline.backends = replace(
        path.pipeline.backends,
        identity=NamedIdentity(
            callers=callers or {"k1": AGENT},
            operators={"point": POINT, "reader": READER, "olga": OLGA},
            now_ms=path.clock.now_ms(),
        ),
        rates=MemoryRates(per_minute),
    )
    path.pipeline.settings = replace(path.pipeline.settings, tenant=AGENT.tenant)
    gateway = Gateway(path.pipeline)
    async with served(admin_app(gateway, DoorSettings())) as url, http() as client:
        found = await client.get(url + "/.well-known/authzen-configuration")
        yield Point(path, url, client, found.json())
    assert path.runner.told == []  # whatever was asked, nothing ran


# ------------------------------------------------------------------------------------- decisions


async def test_metadata_names_the_endpoints_without_a_credential(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        assert asking.metadata == {
            "policy_decision_point": asking.url,
            "access_evaluation_endpoint": asking.url + "/access/v1/evaluation",
            "access_evaluations_endpoint": asking.url + "/access/v1/evaluations",
        }


async def test_allow_is_true_with_what_names_the_decision(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        answer = await asking.ask()
        assert answer["decision"] is True
        (entry,) = await asking.questions()
    assert answer["context"]["decision_id"] == entry["decision"]
    assert answer["context"]["policy_revision"] == entry["policy"]["revision"]
    assert (entry["verdict"], entry["asked_by"]) == ("allow", "edge-gateway")


async def test_denial_gives_the_reasons_that_are_meant_for_the_caller(make_path: MakePath) -> None:
    async with point(await make_path(HEAD + SERVICE)) as asking:
        assert (await asking.ask(arguments={"service": "web"}))["decision"] is True
        answer = await asking.ask(arguments={"service": "db"})
    context = answer["context"]
    assert answer["decision"] is False
    assert (context["reason"], context["message"]) == ("policy_denied", "Not this service.")
    assert context["decision_id"]
    assert "operators" not in json.dumps(answer)


async def test_approval_that_is_needed_is_false_and_says_so(make_path: MakePath) -> None:
    async with point(await make_path(ASK)) as asking:
        answer = await asking.ask()
        assert await asking.path.ledger.approvals() == []
    assert answer["decision"] is False
    assert answer["context"]["reason"] == "approval_required"
    assert answer["context"]["approvals"]["required"] == 1


@pytest.mark.parametrize("rego", [FORCED, TIER])
async def test_what_a_point_might_not_perform_is_false_until_it_says_it_does(
    make_path: MakePath, rego: str
) -> None:
    async with point(await make_path(HEAD + rego)) as asking:
        answer = await asking.ask()
        assert answer["decision"] is False
        assert answer["context"]["reason"] == "constraints_not_understood"
        answer = await asking.ask(context={"dev_remit_constraints": True})
        assert answer["decision"] is True
        assert answer["context"]["constraints"]
    if rego == FORCED:
        assert answer["context"]["arguments"] == {"count": 2, "service": "web"}


async def test_approval_is_not_had_by_saying_that_constraints_are_performed(
    make_path: MakePath,
) -> None:
    async with point(await make_path(ASK)) as asking:
        assert not (await asking.ask(context={"dev_remit_constraints": True}))["decision"]


async def test_frozen_gateway_answers_false(make_path: MakePath) -> None:
    path = await make_path()
    async with point(path) as asking:
        await path.administration.freeze(OLGA, True, "stop")
        answer = await asking.ask()
    assert (answer["decision"], answer["context"]["reason"]) == (False, "frozen")


async def test_policy_without_an_answer_is_false(make_path: MakePath) -> None:
    async with point(await make_path(HEAD + "decision := 1\n")) as asking:
        answer = await asking.ask()
    assert (answer["decision"], answer["context"]["reason"]) == (False, "policy_bad_decision")


async def test_arguments_that_a_call_could_not_have_are_false(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        answer = await asking.ask(arguments={"service": 1})
        assert (answer["decision"], answer["context"]["reason"]) == (False, "invalid_arguments")
        assert answer["context"]["place"] == "/service"


# ------------------------------------------------------------------------------- who is asked about


async def test_what_remit_knows_of_a_subject_goes_before_what_a_point_says(
    make_path: MakePath,
) -> None:
    async with point(await make_path(HEAD + WHO)) as asking:
        wrong = {"groups": ["admins"]}
        assert (await asking.ask(properties=wrong, type_="user"))["decision"] is True
        (entry,) = await asking.questions()
    assert entry["caller"]["kind"] == "agent"


async def test_unknown_subject_is_taken_at_the_points_word_and_marked_so(
    make_path: MakePath,
) -> None:
    rego = HEAD + (
        'decision := answer("allow", {}) if { input.caller.issuer == "authzen:edge-gateway"\n'
        'input.caller.groups == ["sre"]; input.caller.kind == "human"; '
        'input.caller.tenant == "test" }\n'
    )
    async with point(await make_path(rego)) as asking:
        said = {"type_": "user", "properties": {"groups": ["sre"]}}
        assert (await asking.ask(subject="nora", **said))["decision"] is True
        assert (await asking.ask(subject="bot", **said))["decision"] is False


async def test_subject_whose_keys_have_all_expired_is_refused(make_path: MakePath) -> None:
    async with point(await make_path(), callers={"k": replace(AGENT, expires_ms=1)}) as asking:
        answer = await asking.ask()
        assert (answer["decision"], answer["context"]["reason"]) == (False, "caller_revoked")


async def test_one_of_several_credentials_that_differ_has_to_be_named(make_path: MakePath) -> None:
    rego = HEAD + 'decision := answer("allow", {}) if input.caller.groups == ["sre"]\n'
    both = {"a": replace(AGENT, key_id="a"), "b": replace(AGENT, key_id="b", groups=("sre",))}
    async with point(await make_path(rego), callers=both) as asking:
        refused = await asking.post(about())
        assert refused.status_code == 400
        assert "/subject/properties/key" in refused.text
        assert (await asking.post(about(properties={"key": "c"}))).status_code == 400
        assert (await asking.ask(properties={"key": "a"}))["decision"] is False
        assert (await asking.ask(properties={"key": "b"}))["decision"] is True


# --------------------------------------------------------------------------- what it tells nothing of


async def test_hidden_and_missing_tools_have_the_same_answer(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        answers = [
            json.dumps(await asking.ask(tool=name)).replace(name, "…")
            for name in ("hidden", "missing")
        ]
        boxed = await asking.asks({**about(), "evaluations": [
            {"resource": {"type": "tool", "id": name}} for name in ("hidden", "missing")
        ]})  # fmt: skip
    assert answers[0] == answers[1]
    assert json.loads(answers[0])["context"]["reason"] == "unknown_tool"
    assert "decision_id" not in answers[0]
    assert json.dumps(boxed[0]).replace("hidden", "…") == json.dumps(boxed[1]).replace(
        "missing", "…"
    )


async def test_every_question_leaves_an_entry_and_no_name_that_a_caller_may_not_see(
    make_path: MakePath,
) -> None:
    async with point(await make_path()) as asking:
        for name in ("act", "hidden", "missing"):
            await asking.ask(tool=name)
        entries = await asking.questions()
    assert len(entries) == 3
    assert all(entry["asked_by"] == "edge-gateway" for entry in entries)
    assert [entry["tool"] and entry["tool"]["name"] for entry in entries] == ["act", None, None]
    assert "hidden" not in json.dumps(entries)
    assert "missing" not in json.dumps(entries)


async def test_claims_go_in_as_claims(make_path: MakePath) -> None:
    rego = HEAD + (
        'decision := answer("allow", {}) if { input.claims.purpose == "why"; '
        'input.claims.ticket == "T-1"; input.claims.verified == false; '
        'input.context.time > "2025"; input.context.environment == "" }\n'
    )
    said = {"purpose": "why", "ticket": "T-1", "time": "1985-10-26T01:22:00Z", "environment": "x"}
    async with point(await make_path(rego)) as asking:
        assert (await asking.ask(context=said))["decision"] is True
        assert (await asking.ask(context={"purpose": "other"}))["decision"] is False


# ------------------------------------------------------------------------------------- several


def boxcar(*services: str, semantic: str | None = None) -> dict[str, Any]:
    options = {} if semantic is None else {"options": {"evaluations_semantic": semantic}}
    resource = about()["resource"]
    return {
        **about(), **options,
        "evaluations": [
            {"resource": {**resource, "properties": {"arguments": {"service": service}}}}
            for service in services
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("semantic", "services", "decisions"),
    [
        (None, ("web", "db", "web"), [True, False, True]),
        ("execute_all", ("db", "db", "web"), [False, False, True]),
        ("deny_on_first_deny", ("web", "db", "web"), [True, False]),
        ("permit_on_first_permit", ("db", "web", "db"), [False, True]),
    ],
)
async def test_several_are_answered_in_order_as_far_as_is_wanted(
    make_path: MakePath, semantic: str | None, services: tuple[str, ...], decisions: list[bool]
) -> None:
    async with point(await make_path(HEAD + SERVICE)) as asking:
        answers = await asking.asks(boxcar(*services, semantic=semantic))
        assert [one["decision"] for one in answers] == decisions
        assert len(await asking.questions()) == len(decisions)


async def test_one_that_cannot_be_read_is_a_denial_in_its_place(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        body = boxcar("web", "web", "web")
        body["evaluations"][1]["resource"] = {"type": "tool"}
        answers = await asking.asks(body)
    assert [one["decision"] for one in answers] == [True, False, True]
    assert answers[1]["context"]["error"]["status"] == 400


async def test_without_evaluations_it_is_a_single_one(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        single: list[dict[str, Any]] = [{}, {"evaluations": []}]
        for more in single:
            answer = await asking.post({**about(), **more}, where="access_evaluations_endpoint")
            assert answer.json()["decision"] is True


# --------------------------------------------------------------------------------- the way in


async def test_request_id_comes_back_with_every_answer(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        named = {"x-request-id": "bfe9eb29-ab87"}
        for body, token in ((about(), "point"), ({}, "point"), (about(), "wrong")):
            answer = await asking.post(body, token=token, **named)
            assert answer.headers["x-request-id"] == "bfe9eb29-ab87"
        long = await asking.post(about(), **{"x-request-id": "x" * 257})
        assert long.status_code == 400
        assert "x-request-id" not in long.headers


@pytest.mark.parametrize("token", ["wrong", "k1"])
async def test_who_is_no_operator_is_401(make_path: MakePath, token: str) -> None:
    async with point(await make_path()) as asking:
        answer = await asking.post(about(), token=token)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("where", ["access_evaluation_endpoint", "access_evaluations_endpoint"])
async def test_operator_who_may_not_evaluate_is_403(make_path: MakePath, where: str) -> None:
    async with point(await make_path()) as asking:
        answer = await asking.post(boxcar("web"), token="reader", where=where)
        assert answer.status_code == 403
        assert await asking.questions() == []


def _without(*path: str) -> dict[str, Any]:
    body: Any = about()
    found = body
    for step in path[:-1]:
        found = found[step]
    del found[path[-1]]
    return dict(body)


def _with(value: Any, *path: str) -> dict[str, Any]:
    body: Any = about()
    found = body
    for step in path[:-1]:
        found = found.setdefault(step, {})
    found[path[-1]] = value
    return dict(body)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (_without("subject"), "/subject"),
        (_without("subject", "id"), "/subject/id"),
        (_without("subject", "type"), "/subject/type"),
        (_without("action"), "/action"),
        (_without("resource", "id"), "/resource/id"),
        (_with("planet", "subject", "type"), "/subject/type"),
        (_with("delete", "action", "name"), "/action/name"),
        (_with("document", "resource", "type"), "/resource/type"),
        (_with("x" * 129, "resource", "id"), "/resource/id"),
        (_with(1, "subject", "id"), "/subject/id"),
        (_with(["g"] * 65, "subject", "properties", "groups"), "/subject/properties/groups"),
        (_with("g", "subject", "properties", "groups"), "/subject/properties/groups"),
        (_with([], "resource", "properties", "arguments"), "/resource/properties/arguments"),
        (_with("yes", "context", "dev_remit_constraints"), "/context/dev_remit_constraints"),
        (_with("x" * 501, "context", "purpose"), "/context"),
        (_with("\x1b[2J", "context", "ticket"), "/context"),
    ],
)
async def test_request_that_is_none_is_400_with_its_place_and_no_value(
    make_path: MakePath, body: dict[str, Any], place: str
) -> None:
    async with point(await make_path()) as asking:
        answer = await asking.post(body)
        assert answer.status_code == 400
        assert place in answer.text
        for value in ("planet", "delete", "document", "xxxx", "\x1b"):
            assert value not in answer.text
        assert await asking.questions() == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"not json", b'{"subject":1,"subject":2}', b"[" * 100_000,
        json.dumps(boxcar(*["web"] * 51)).encode(),
        json.dumps({**about(), "evaluations": [1]}).encode(),
        json.dumps({**boxcar("web"), "options": {"evaluations_semantic": "any"}}).encode(),
        json.dumps({**boxcar("web"), "options": []}).encode(),
    ],
)  # fmt: skip
async def test_body_that_is_none_is_400(make_path: MakePath, body: bytes) -> None:
    async with point(await make_path()) as asking:
        answer = await asking.post(body, where="access_evaluations_endpoint")
        assert answer.status_code == 400
        assert await asking.questions() == []


async def test_too_long_a_body_is_refused(make_path: MakePath) -> None:
    async with point(await make_path()) as asking:
        answer = await asking.post(_with("x" * 2_000_000, "context", "purpose"))
        assert answer.status_code == 413


async def test_questions_about_one_subject_are_limited_and_another_is_not(
    make_path: MakePath,
) -> None:
    async with point(await make_path(), caller=2) as asking:
        statuses = [(await asking.post(about())).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await asking.post(about(subject="nora"))).status_code == 200
        boxed = await asking.asks(boxcar("web"))
        assert boxed[0]["decision"] is False
        assert boxed[0]["context"]["error"]["status"] == 429


async def test_one_point_may_ask_only_so_often_about_whomever(make_path: MakePath) -> None:
    async with point(await make_path(), evaluation=3) as asking:
        statuses = [
            (await asking.post(about(subject=f"nora-{number}"))).status_code for number in range(5)
        ]
    assert statuses == [200, 200, 200, 429, 429]


async def test_question_that_cannot_be_written_down_has_no_answer(make_path: MakePath) -> None:
    path = await make_path()
    async with point(path) as asking:
        await path.ledger.aclose()
        answer = await asking.post(about())
        assert answer.status_code == 500 or answer.json()["decision"] is False
        assert "true" not in answer.text


async def test_kind_of_a_subject_is_told_as_the_point_names_it(make_path: MakePath) -> None:
    rego = HEAD + 'decision := answer("allow", {}) if input.caller.kind == "service"\n'
    async with point(await make_path(rego)) as asking:
        assert (await asking.ask(subject="job", type_="service"))["decision"] is True
