"""Profiles: what a tool declares meets what its profile gives; policy may only choose less."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from remit.backends import Delivery
from remit.gateway import Gateway
from remit.model import EgressRule, Tier
from remit.profile import Ceilings, Profile, RunnerKind, Tls
from remit.testing.scripted import CAPABILITIES
from tests.path.conftest import HEAD, OLGA, MakePath, Path_, tool
from tests.path.test_path import code
from tests.path.test_reaching import API, plans, policy

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-13")]

REACHING = {"egress": [API], "credentials": []}
PROFILES = {
    "sandbox": Profile(),
    "strong": Profile(name="strong", runner=RunnerKind.GVISOR),
    "small": Profile(
        name="small",
        ceilings=Ceilings(memory_mb=64, wall_s=5),
        egress=(EgressRule(host="api.example.com", port=443, path_prefix="/v1"),),
    ),
    "wide": Profile(name="wide", io_mb_per_s=None, tls=Tls.PASSTHROUGH),
    "gone": Profile(name="gone", ceilings=Ceilings(pids=1)),
}
TIERS = {"strong": Tier.GVISOR, "small": Tier.SANDBOX, "wide": Tier.SANDBOX}
TOOLS = [
    tool("act", egress=[API], input_schema={
        "type": "object",
        "properties": {"count": {"type": "integer", "default": 1}, "code": {"type": "boolean"}},
    }),
    tool("small", runner="small", egress=[API]),
    tool("wide", runner="wide", egress=[API], credentials=[{"ref": "vault:ci"}]),
    tool("gone", runner="gone"),
    tool("seen", preview={"command": {"argv": ["/bin/echo", "p"]}}),
]  # fmt: skip


async def a_path(make_path: MakePath, constraints: dict[str, Any], **more: Any) -> Path_:
    rego = more.pop("rego", None) or policy(constraints)
    path: Path_ = await make_path(
        rego, tools=TOOLS, profiles=PROFILES, holds={"egress": True}, **more
    )
    own = path.runner.capabilities
    path.runner.profiles = {
        name: replace(own, profile=name, tier=tier, digest="sha256:" + name[0] * 64)
        for name, tier in TIERS.items()
    }
    return path


async def planned(path: Path_, reply: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(
        await path.ledger.plan_text(reply.decision["plan_hash"]) or b"{}"
    )
    return found


async def test_plan_names_the_profile_of_its_tool_and_what_it_was(make_path: MakePath) -> None:
    path = await a_path(make_path, REACHING)
    plan = await planned(path, await path.call("small"))
    assert plan["runner"] == {
        "profile": "small", "name": "scripted", "tier": "sandbox", "digest": "sha256:" + "s" * 64,
    }  # fmt: skip
    assert (plan["limits"]["memory_mb"], plan["limits"]["wall_s"]) == (64, 5)
    assert plan["egress"] == [{**API, "path_prefix": "/v1"}]


async def test_profile_that_the_runner_does_not_have_is_refused(make_path: MakePath) -> None:
    path = await a_path(make_path, {})
    assert code(await path.call("gone")) == "runner_unavailable"
    assert path.runner.told == []


async def test_policy_chooses_a_profile_that_gives_no_more(make_path: MakePath) -> None:
    path = await a_path(make_path, {**REACHING, "runner": {"profile": "strong"}})
    reply = await path.call("act")
    assert code(reply) == "ok"
    plan = await planned(path, reply)
    assert plan["runner"]["profile"] == "strong"
    assert plan["runner"]["tier"] == "gvisor"
    assert plan["narrowed_from"] is not None
    assert path.runner.specs[reply.decision["run_id"]].profile == "strong"
    asked = await plans(path)
    assert [each["plan"]["runner"]["profile"] for each in asked] == ["sandbox", "strong"]


async def test_the_chosen_profile_cuts_limits_and_egress(make_path: MakePath) -> None:
    path = await a_path(make_path, {**REACHING, "runner": {"profile": "small"}})
    plan = await planned(path, await path.call("act"))
    assert plan["limits"]["memory_mb"] == 64
    assert plan["egress"] == [{**API, "path_prefix": "/v1"}]


@pytest.mark.parametrize(
    ("name", "profile"),
    [("small", "sandbox"), ("act", "wide"), ("act", "absent"), ("wide", "small")],
)
async def test_profile_that_gives_more_or_is_not_there_is_refused(
    make_path: MakePath, name: str, profile: str
) -> None:
    expected = "ok" if (name, profile) == ("wide", "small") else "constraint_widens"
    path = await a_path(make_path, {**REACHING, "runner": {"profile": profile}})
    assert code(await path.call(name)) == expected


async def test_policy_sees_which_profiles_it_may_name_and_how_strong_they_are(
    make_path: MakePath,
) -> None:
    path = await a_path(make_path, REACHING)
    await path.call("act")
    (asked,) = await plans(path)
    runner = asked["plan"]["runner"]
    assert runner["profile"] == "sandbox"
    assert runner["profiles"] == {"sandbox": "sandbox", "small": "sandbox", "strong": "gvisor"}


BY_ARGUMENT = HEAD + (
    'decision := answer("allow", {"constraints": {"runner": {"profile": stronger}}}) '
    "if input.arguments.code\n"
    'decision := answer("allow", {"constraints": {"runner": {"min_tier": "sandbox"}}}) '
    "if not input.arguments.code\n"
    'stronger := [name | some name, tier in input.plan.runner.profiles; tier == "gvisor"][0]\n'
)


async def test_policy_asks_for_a_stronger_tier_for_one_argument(make_path: MakePath) -> None:
    path = await a_path(make_path, {}, rego=BY_ARGUMENT)
    run = await planned(path, await path.call("act", code=True))
    assert run["runner"]["tier"] == "gvisor"
    run = await planned(path, await path.call("act", code=False))
    assert run["runner"]["tier"] == "sandbox"


async def test_least_tier_that_the_planned_profile_has_not_is_refused(make_path: MakePath) -> None:
    path = await a_path(make_path, {"runner": {"min_tier": "gvisor"}})
    assert code(await path.call("act")) == "runner_degraded"
    path = await a_path(make_path, {"runner": {"min_tier": "gvisor", "profile": "strong"}})
    assert code(await path.call("act")) == "ok"


async def test_preview_moves_with_its_call(make_path: MakePath) -> None:
    path = await a_path(make_path, {"runner": {"profile": "strong"}})
    reply = await path.call("seen")
    assert code(reply) == "ok"
    assert {spec.profile for spec in path.runner.specs.values()} == {"strong"}


@pytest.mark.parametrize("rule", [{"methods": ["GET"]}, {"path_prefix": "/v1"}])
async def test_rule_inside_tls_is_refused_where_tls_passes_through(
    make_path: MakePath, rule: dict[str, Any]
) -> None:
    path = await a_path(make_path, {"egress": [{**API, **rule}]})
    assert code(await path.call("wide")) == "runner_lacks"
    path = await a_path(make_path, {"egress": [API]})
    assert code(await path.call("wide")) == "ok"


@pytest.mark.threat("T-32")
@pytest.mark.parametrize(
    ("egress", "inject", "name", "expected"),
    [
        ([API], EgressRule(host="api.example.com", port=443), "act", "ok"),
        ([API], EgressRule(host="api.example.com", port=443), "wide", "runner_lacks"),
        ([API], EgressRule(host="other.example.com", port=443), "act", "runner_lacks"),
        ([], EgressRule(host="api.example.com", port=443), "act", "runner_lacks"),
    ],
)
async def test_credential_is_given_only_with_its_destination_where_tls_ends_here(
    make_path: MakePath, egress: list[Any], inject: EgressRule, name: str, expected: str
) -> None:
    given = {"egress": egress, "credentials": [{"ref": "vault:ci"}]}
    tools = [tool("act", egress=[API], credentials=[{"ref": "vault:ci"}]), TOOLS[2]]
    path: Path_ = await make_path(
        policy(given),
        tools=tools,
        profiles=PROFILES,
        holds={"egress": True},
        deliveries={"vault:ci": Delivery(inject=(inject,))},
    )
    path.runner.profiles = {"wide": replace(CAPABILITIES, holds={"egress": True}, profile="wide")}
    assert code(await path.call(name)) == expected


async def test_operators_see_each_profile_with_what_was_found_of_it(make_path: MakePath) -> None:
    path = await a_path(make_path, REACHING)
    own = path.runner.profiles["strong"]
    path.runner.profiles["strong"] = replace(own, missing=("runsc",), tier=Tier.NONE)
    status = await Gateway(path.pipeline).status(OLGA)
    found = {each["name"]: (each["tier"], each["missing"]) for each in status["profiles"]}
    assert found["small"] == ("sandbox", [])
    assert found["strong"] == ("none", ["runsc"])
    assert found["gone"] == ("none", ["runner"])
