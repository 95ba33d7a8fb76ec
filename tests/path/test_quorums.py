"""Each layer's own people have to agree before a plan runs, and the log proves that they did."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Code, Refused
from remit.ledger.story import Story
from remit.model import ApprovalState, Operator, Permission, Quorum
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.embedded import EmbeddedEngine
from remit.policy.layers import layer
from remit.stages.approve import satisfied
from tests.path.conftest import HEAD, MakePath, Path_
from tests.path.test_path import approve, code, text

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-09")]


def person(subject: str, *groups: str) -> Operator:
    return Operator(subject=subject, groups=groups, may=frozenset(Permission), key_id=subject)


def asking(required: int, *groups: str, **more: Any) -> PolicyBundle:
    rule = {"approvals": {"required": required, "groups": list(groups), **more}}
    rego = HEAD + f'decision := answer("require_approval", {json.dumps(rule)})\n'
    return bundle_of({"test.rego": rego}, {})


def allowing(**more: Any) -> PolicyBundle:
    return bundle_of({"test.rego": HEAD + f'decision := answer("allow", {json.dumps(more)})\n'}, {})


LAYERS = {"policy": asking(2, "sre"), "organisation": asking(1, "security")}


async def state(path: Path_, approval_id: str) -> ApprovalState:
    found = await path.ledger.approval(approval_id)
    assert found is not None
    return found.state


async def test_call_runs_once_each_layers_people_agreed(make_path: MakePath) -> None:
    path = await make_path(layers=LAYERS)
    waiting = (await path.call("act")).decision["approval_id"]
    for who in (person("ann", "sre"), person("sam", "security")):
        await approve(path, waiting, who)
        assert await state(path, waiting) is ApprovalState.PENDING
        assert code(await path.call("act")) == "approval_required"
    assert path.runner.told == []
    await approve(path, waiting, person("ben", "sre"))
    assert await state(path, waiting) is ApprovalState.APPROVED
    assert code(await path.call("act")) == "ok"
    story = Story()
    entries = await path.entries()
    for index, entry in enumerate(entries):
        story.observe(index, entry)
    (opened,) = [entry for entry in entries if entry["event"] == "approval.opened"]
    assert opened["quorums"] == [
        {"required": 2, "groups": ["sre"]},
        {"required": 1, "groups": ["security"]},
    ]


async def test_person_of_no_layers_groups_may_not_vote(make_path: MakePath) -> None:
    path = await make_path(layers=LAYERS)
    waiting = (await path.call("act")).decision["approval_id"]
    with pytest.raises(Refused) as refused:
        await approve(path, waiting, person("eve", "sales"))
    assert refused.value.code is Code.APPROVAL_NOT_ELIGIBLE
    assert "security, sre" in refused.value.message


@pytest.mark.threat("T-08")
async def test_layer_that_asks_for_more_after_the_vote_is_not_met_by_it(
    make_path: MakePath,
) -> None:
    path = await make_path(layers={"policy": asking(1, "sre"), "organisation": allowing()})
    waiting = (await path.call("act")).decision["approval_id"]
    await approve(path, waiting, person("ann", "sre"))
    stricter = asking(1, "security")
    engine = await EmbeddedEngine.start(stricter, deadline_ms=5_000)
    path.policy.put(layer(engine, stricter, name="organisation"))
    await path.activate()
    reply = await path.call("act")
    assert code(reply) == "approval_not_eligible"
    assert path.runner.told == []


async def test_layer_that_excludes_a_person_excludes_them_from_every_quorum(
    make_path: MakePath,
) -> None:
    layers = {"policy": asking(1, "sre"), "organisation": asking(1, "security", exclude=["ann"])}
    path = await make_path(layers=layers)
    waiting = (await path.call("act")).decision["approval_id"]
    with pytest.raises(Refused):
        await approve(path, waiting, person("ann", "sre", "security"))
    found = await path.ledger.approval(waiting)
    assert found is not None
    assert found.rule.quorums == (
        Quorum(groups=("security",)),
        Quorum(groups=("sre",)),
    )
    await approve(path, waiting, person("ben", "sre", "security"))
    assert code(await path.call("act")) == "ok"


@pytest.mark.threat("T-13")
async def test_run_is_narrowed_by_every_layer_together(make_path: MakePath) -> None:
    layers = {
        "policy": allowing(constraints={"runner": {"wall_s": 20, "memory_mb": 64}}),
        "organisation": allowing(constraints={"runner": {"wall_s": 5}}),
    }
    path = await make_path(layers=layers)
    reply = await path.call("act")
    assert code(reply) == "ok"
    (spec,) = path.runner.specs.values()
    assert (spec.limits.wall_s, spec.limits.memory_mb) == (5, 64)


@pytest.mark.threat("T-12")
async def test_layers_that_contradict_each_other_run_nothing(make_path: MakePath) -> None:
    layers = {
        "policy": allowing(constraints={"arguments": {"force": {"count": 1}}}),
        "organisation": allowing(constraints={"arguments": {"force": {"count": 2}}}),
    }
    path = await make_path(layers=layers)
    reply = await path.call("act")
    assert code(reply) == "policy_inconsistent"
    assert "organisation" not in text(reply)
    assert path.runner.told == []


@pytest.mark.threat("T-08")
async def test_agreement_is_too_old_for_a_policy_that_wants_a_fresher_one(
    make_path: MakePath,
) -> None:
    path = await make_path(layers={"policy": asking(1, "sre", ttl_s=3600)})
    waiting = (await path.call("act")).decision["approval_id"]
    await approve(path, waiting, person("ann", "sre"))
    agreed = await path.ledger.approval(waiting)
    assert agreed is not None
    later = agreed.opened_ms + 600_000
    assert satisfied(agreed.rule, agreed, later)
    assert satisfied(replace(agreed.rule, ttl_s=601), agreed, later)
    assert not satisfied(replace(agreed.rule, ttl_s=600), agreed, later)
