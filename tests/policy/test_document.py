"""The document that policy sees is complete, fits its schema, and marks claims as claims."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from remit.document import MAX_TOOLS, call_document, list_document, rfc3339
from remit.history import History, Trail
from remit.model import (
    Approval,
    ApprovalRule,
    ApprovalState,
    CredentialRule,
    EgressRule,
    EnvironmentRule,
    PlanKind,
    PreviewResult,
    Round,
    Taint,
    Verdict,
    Vote,
)
from tests.policy.world import (
    CALLER,
    NOW,
    RESTART,
    SANDBOX,
    frozen,
    normal_call,
    plan_of,
    question,
    schema,
)

SCHEMA = schema("remit.input-1")
CHECK = jsonschema.Draft202012Validator(SCHEMA)


def _full() -> dict[str, Any]:
    votes = tuple(
        Vote(subject=name, verdict=verdict, voted_ms=NOW, groups=("sre",))
        for name, verdict in (("olga", Verdict.APPROVE), ("max", Verdict.DENY))
    )
    approval = Approval(
        id="apr_1",
        state=ApprovalState.APPROVED,
        plan_hash=plan_of().hash,
        call_digest=plan_of().call_digest,
        caller=CALLER,
        tool_name=RESTART.name,
        environment="staging",
        rule=ApprovalRule(),
        opened_ms=NOW,
        expires_ms=NOW + 1000,
        shown=frozen({}),
        votes=votes,
    )
    return call_document(
        normal=normal_call(purpose="rollout", session_id="s-1", trace_id="ab" * 16),
        plan=plan_of(),
        capabilities=SANDBOX,
        now_ms=NOW,
        preview=PreviewResult(
            digest="sha256:" + "34" * 32,
            text="+ 1",
            bytes=3,
            exit=0,
            run_id="run_1",
            data=frozen({"changes": [1.5]}),
        ),
        approvals=(approval,),
        history=History(
            since_ms=NOW - 1000,
            all=Trail(calls=2, systems=("web",), effects=("read",), untrusted_from=("web",)),
            session=Trail(calls=1, systems=("web",), effects=("read",)),
        ),
    )


def test_each_phase_fits_the_schema() -> None:
    CHECK.validate(question())
    CHECK.validate(_full())
    CHECK.validate(list_document(caller=CALLER, tools=[RESTART], now_ms=NOW))
    preview = call_document(
        normal=normal_call(), plan=plan_of(PlanKind.PREVIEW), capabilities=SANDBOX, now_ms=NOW
    )
    CHECK.validate(preview)
    assert preview["phase"] == "preview"


def test_each_top_level_key_is_always_there() -> None:
    keys = set(SCHEMA["properties"])
    assert set(SCHEMA["required"]) == keys
    for document in (question(), _full(), list_document(caller=CALLER, tools=[], now_ms=NOW)):
        assert set(document) == keys


def test_schema_refuses_a_key_it_does_not_know_at_every_level() -> None:
    def objects(node: Any) -> list[dict[str, Any]]:
        if isinstance(node, list):
            return [found for item in node for found in objects(item)]
        if not isinstance(node, dict):
            return []
        return [node, *(found for item in node.values() for found in objects(item))]

    tools = list_document(caller=CALLER, tools=[RESTART], now_ms=NOW)["tools"]
    document = _full() | {"tools": tools}
    # What a caller or a preview may fill as it likes is left out.
    free = [document["arguments"], document["usage"], document["estimate"]]
    free += objects(document["preview"]["data"])
    for found in objects(document):
        if any(found is each for each in free):
            continue
        found["surprise"] = 1
        assert not CHECK.is_valid(document), sorted(found)
        del found["surprise"]
    assert CHECK.is_valid(document)


def test_answers_are_there_in_one_shape_whatever_was_answered() -> None:
    given = {"who": {"action": "accept", "content": {"n": 1.5}}, "page": {"action": "cancel"}}
    document = call_document(
        normal=replace(normal_call(), round=Round(answers=frozen(given), number=2, run_id="run_1")),
        plan=plan_of(),
        capabilities=SANDBOX,
        now_ms=NOW,
    )
    CHECK.validate(document)
    page = {"action": "cancel", "content": {}}
    assert document["answers"] == {"round": 2, "given": {"who": given["who"], "page": page}}
    assert question()["answers"] == {"round": 0, "given": {}}


@pytest.mark.parametrize("key", sorted(SCHEMA["properties"]))
def test_schema_refuses_a_document_that_lacks(key: str) -> None:
    document = question()
    del document[key]
    assert not CHECK.is_valid(document)


@pytest.mark.threat("T-24")
def test_what_the_caller_says_of_itself_is_never_marked_as_verified() -> None:
    document = question(purpose="I am the administrator", client_name="trusted")
    assert document["claims"]["purpose"] == "I am the administrator"
    assert document["claims"]["verified"] is False
    assert "administrator" not in str({k: v for k, v in document.items() if k != "claims"})
    document["claims"]["verified"] = True
    assert not CHECK.is_valid(document)


def test_absent_words_are_empty_and_not_missing() -> None:
    claims = question()["claims"]
    assert {value for name, value in claims.items() if name != "verified"} == {""}


def test_only_verified_votes_go_in_with_the_plan_they_were_for() -> None:
    votes = _full()["approvals"]
    assert [(vote["subject"], vote["verdict"]) for vote in votes] == [
        ("olga", "approve"),
        ("max", "deny"),
    ]
    assert {vote["plan_hash"] for vote in votes} == {plan_of().hash}
    assert all(vote["verified"] is True for vote in votes)


def test_delegation_names_the_original_authority_first() -> None:
    assert question()["caller"]["delegation"] == [{"subject": "dana", "kind": "human"}]


def test_forced_arguments_are_what_policy_sees() -> None:
    forced = frozen({"service": "web", "environment": "staging", "replicas": 2})
    document = call_document(
        normal=normal_call(), plan=plan_of(), capabilities=SANDBOX, now_ms=NOW, arguments=forced
    )
    assert document["arguments"]["replicas"] == 2
    assert document["arguments_meta"]["bytes"] == len(forced.text)
    assert document["arguments_meta"]["digest"] != question()["arguments_meta"]["digest"]


def test_tool_facts_name_every_environment_it_can_act_in() -> None:
    def environments(rule: EnvironmentRule) -> list[str]:
        tool = replace(RESTART, environment=rule)
        found = list_document(caller=CALLER, tools=[tool], now_ms=NOW)["tools"][0]["environments"]
        assert isinstance(found, list)
        return found

    assert environments(RESTART.environment) == ["staging", "production"]
    assert environments(EnvironmentRule(fixed="moon", names=("moon",))) == ["moon"]
    assert environments(EnvironmentRule()) == [""]


def test_schema_takes_no_more_tools_than_one_evaluation_may_have() -> None:
    assert SCHEMA["properties"]["tools"]["maxItems"] == MAX_TOOLS


def test_times_are_rfc_3339_in_utc_with_milliseconds() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(NOW) == "2026-11-23T03:39:46.867Z"


def test_same_values_give_the_same_document() -> None:
    assert _full() == _full()


def test_history_tells_what_the_subject_did_and_what_of_it_in_this_session() -> None:
    assert _full()["history"] == {
        "calls": 2,
        "systems": ["web"],
        "effects": ["read"],
        "untrusted": True,
        "sensitive": False,
        "untrusted_from": ["web"],
        "sensitive_from": [],
        "since": rfc3339(NOW - 1000),
        "session": {
            "calls": 1,
            "systems": ["web"],
            "effects": ["read"],
            "untrusted": False,
            "sensitive": False,
            "untrusted_from": [],
            "sensitive_from": [],
        },
    }


def test_a_list_document_tells_nothing_of_earlier_calls() -> None:
    history = list_document(caller=CALLER, tools=[RESTART], now_ms=NOW)["history"]
    empty = {name: value for name, value in history.items() if name not in ("session", "since")}
    assert history["session"] == empty
    assert not any(empty.values())
    assert history["since"] == ""


def test_tool_facts_say_what_it_acts_on_and_returns() -> None:
    tool = replace(
        RESTART,
        system="chat",
        open_world=True,
        returns=(Taint.UNTRUSTED,),
        egress=(
            EgressRule(host="a.example", port=443),
            EgressRule(host="b.example", port=80, methods=("GET",), path_prefix="/v1/"),
        ),
        credentials=(CredentialRule(ref="chat", scopes=("post",)),),
    )
    document = list_document(caller=CALLER, tools=[tool], now_ms=NOW)
    CHECK.validate(document)
    facts = document["tools"][0]
    assert (facts["system"], facts["open_world"], facts["returns"]) == ("chat", True, ["untrusted"])
    assert facts["egress"] == [
        {"host": "a.example", "port": 443},
        {"host": "b.example", "port": 80, "methods": ["GET"], "path_prefix": "/v1/"},
    ]
    assert facts["credentials"] == [{"ref": "chat", "scopes": ["post"], "audience": ""}]


def test_how_a_person_was_authenticated_is_the_issuers_word() -> None:
    normal = normal_call()
    strong = replace(normal.call.caller, acr="high", amr=("otp", "pwd"), auth_ms=NOW)
    document = call_document(
        normal=replace(normal, call=replace(normal.call, caller=strong)),
        plan=plan_of(),
        capabilities=SANDBOX,
        now_ms=NOW,
    )
    CHECK.validate(document)
    caller = document["caller"]
    assert (caller["acr"], caller["amr"]) == ("high", ["otp", "pwd"])
    assert caller["auth_time"] == rfc3339(NOW)
    weak = question()["caller"]
    assert (weak["acr"], weak["amr"], weak["auth_time"]) == ("", [], "")
