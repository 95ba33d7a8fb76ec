"""Several policies are asked of one thing at once, and what stands is one value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from remit.canonical import digest_of
from remit.document import list_document
from remit.errors import Code, PolicyFault
from remit.model import Allow, Decision, Deny, RequireApproval
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.embedded import EmbeddedEngine
from remit.policy.engine import Engine
from remit.policy.layers import layer
from remit.policy.point import PolicyPoint
from tests.policy.test_fail_closed import SPINNING
from tests.policy.world import CALLER, HEAD, NOW, RESTART, ask, code_of, policy, when

pytestmark = pytest.mark.anyio

ALLOWS = when("one", 'answer("allow", {})')
DENIES = when("one", 'answer("deny", {})')
ASKS = when("one", 'answer("require_approval", {"approvals": {"required": 2}})')


@asynccontextmanager
async def layered(**bundles: PolicyBundle) -> AsyncIterator[PolicyPoint]:
    """A point with these layers, each in an engine of its own."""
    layers = [
        layer(await EmbeddedEngine.start(bundle, deadline_ms=10_000), bundle, name=name)
        for name, bundle in bundles.items()
    ]
    point = PolicyPoint(layers)
    try:
        yield point
    finally:
        await point.aclose()


def two_entries(first: str, second: str, data: Mapping[str, Any] | None = None) -> PolicyBundle:
    """A bundle that is asked in two packages."""
    modules = {
        "policy.rego": HEAD + first,
        "other.rego": HEAD.replace("package remit\n", "package remit.other\n") + second,
    }
    return bundle_of(modules, data or {}, entries=("remit", "remit.other"))


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    ("org", "team", "expected"),
    [
        (ALLOWS, ALLOWS, Allow),
        (ALLOWS, ASKS, RequireApproval),
        (ASKS, DENIES, Deny),
        (DENIES, ALLOWS, Deny),
        (ALLOWS, when("other", "1"), Deny),
    ],
)
async def test_strictest_layer_decides_whatever_their_order(
    org: str, team: str, expected: type[Decision]
) -> None:
    async with layered(org=policy(org), team=policy(team), policy=policy(ALLOWS)) as point:
        assert isinstance(await ask(point, "one"), expected)
    async with layered(policy=policy(ALLOWS), team=policy(team), org=policy(org)) as point:
        assert isinstance(await ask(point, "one"), expected)


@pytest.mark.threat("T-12")
async def test_layer_that_gives_no_usable_answer_denies_for_all() -> None:
    rotten = policy(when("one", '"yes"') + when("spin", SPINNING) + when("fails", "1 / input.zero"))
    broad = policy("".join(when(case, 'answer("allow", {})') for case in ("one", "spin", "fails")))
    async with layered(org=rotten, policy=broad) as point:
        assert code_of(await ask(point, "one")) == "policy_bad_decision"
        assert code_of(await ask(point, "fails", zero=0)) == "policy_error"


async def test_evaluation_names_every_layer_and_one_revision_of_all() -> None:
    org, team = policy(ALLOWS), policy(ALLOWS, {"x": 1})
    async with layered(org=org, team=team) as point:
        told = (await ask(point, "one")).evaluation
        named = [["org", org.revision], ["team", team.revision]]
        assert [list(each) for each in told.layers] == named
        assert told.revision == point.revision == digest_of("remit.policy-layers/1", named)


async def test_one_layer_has_its_own_revision() -> None:
    bundle = policy(ALLOWS)
    async with layered(policy=bundle) as point:
        assert point.revision == bundle.revision
        assert (await ask(point, "one")).evaluation.revision == bundle.revision


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    ("second", "code"),
    [(ALLOWS, "none"), (DENIES, "policy_denied"), (when("one", "{}"), "policy_undefined")],
)
async def test_every_entry_of_a_bundle_is_asked(second: str, code: str) -> None:
    async with layered(policy=two_entries(ALLOWS, second)) as point:
        assert code_of(await ask(point, "one")) == code


@pytest.mark.threat("T-12")
async def test_entry_without_a_rule_denies_and_says_which() -> None:
    text = HEAD.replace("package remit\n", "package remit.other\n").replace("decision", "verdict")
    modules = {"policy.rego": HEAD + ALLOWS, "other.rego": text}
    bundle = bundle_of(modules, {}, entries=("remit", "remit.other"))
    async with layered(policy=bundle) as point:
        decision = await ask(point, "one")
        assert code_of(decision) == "policy_undefined"
        assert "data.remit.other.decision" in decision.reasons[1].message


async def test_reasons_say_which_layer_gave_them() -> None:
    async with layered(org=policy(ALLOWS), policy=two_entries(ALLOWS, ALLOWS)) as point:
        decision = await ask(point, "one")
        assert {reason.layer for reason in decision.reasons} == {
            "org",
            "policy/remit",
            "policy/remit.other",
        }


@pytest.mark.threat("T-03")
async def test_tool_is_visible_only_where_every_layer_and_entry_shows_it() -> None:
    def shows(*names: str) -> str:
        return "".join(f'visible["{name}"] := true\n' for name in names)

    tools = [RESTART.__class__(**_fields(name)) for name in "abcd"]
    document = list_document(caller=CALLER, tools=tools, now_ms=NOW)
    async with layered(
        org=policy(shows("a", "b", "c")), policy=two_entries(shows("a", "b", "d"), shows("a", "d"))
    ) as point:
        assert await point.visible(document, list("abcd")) == frozenset({"a"})
    async with layered(org=policy(shows("a")), policy=policy("")) as point:
        assert not await point.visible(document, list("abcd"))


def _fields(name: str) -> dict[str, Any]:
    return {each: getattr(RESTART, each) for each in RESTART.__slots__} | {"name": name}


@pytest.mark.threat("T-10")
async def test_layers_are_asked_as_they_stood_when_the_decision_began() -> None:
    """Its engine ends only after the answer, though it was replaced before it was asked."""
    before, after = policy(ALLOWS), policy(ALLOWS, {"x": 1})
    async with layered(org=before, team=before) as point:
        replacing = layer(await EmbeddedEngine.start(after), after, name="team")
        call = asyncio.create_task(ask(point, "one"))
        await asyncio.sleep(0)  # it has taken what stands; its questions are not on their way yet
        point.put(replacing)
        told = (await call).evaluation
        assert told.layers == (("org", before.revision), ("team", before.revision))
        now = (await ask(point, "one")).evaluation
        assert now.layers == (("org", before.revision), ("team", after.revision))


async def test_layer_of_no_name_in_force_is_not_put() -> None:
    async with layered(org=policy(ALLOWS)) as point:
        before = point.standing
        with pytest.raises(KeyError):
            point.put(layer(before.layers[0].engine, policy(ALLOWS), name="other"))
        assert point.standing is before


@pytest.mark.threat("T-10")
async def test_engine_that_was_replaced_answers_until_nobody_counts_on_it() -> None:
    after = policy(ALLOWS, {"x": 1})
    async with layered(org=policy(ALLOWS)) as point:
        before = point.standing
        engine = before.layers[0].engine
        before.enter()
        point.put(layer(await EmbeddedEngine.start(after), after, name="org"))
        for _ in range(10):
            await asyncio.sleep(0)
        await engine.probe()
        before.leave()
        async with asyncio.timeout(20):
            while not await _closed(engine):
                pass


async def _closed(engine: Engine) -> bool:
    try:
        await engine.probe()
    except PolicyFault as fault:
        return fault.code is Code.POLICY_NOT_READY
    return False


async def test_engine_that_was_closed_takes_no_question() -> None:
    engine = await EmbeddedEngine.start(policy(ALLOWS))
    await engine.aclose()
    with pytest.raises(PolicyFault, match="closed") as fault:
        await engine.evaluate(["remit.decision"], b"{}")
    assert fault.value.code is Code.POLICY_NOT_READY
