"""The library beside an operator's policy, in the real engine: the strictest answer holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from remit.document import list_document
from remit.model import Allow, Deny, RequireApproval
from remit.policy.bundle import load_bundle
from remit.policy.library import names, with_library
from tests.policy.world import CALLER, NOW, RESTART, STARTER, asking, question

pytestmark = pytest.mark.anyio

STAGING = {"service": "web", "environment": "staging", "replicas": 1}


async def decided(use: Mapping[str, Mapping[str, Any]]) -> Any:
    async with asking(with_library(load_bundle(STARTER), use)) as point:
        return await point.decide(question(STAGING), decision_id="dec_1")


async def test_policy_without_objection_changes_nothing() -> None:
    answer = await decided({"secrets": {}, "field_rules": {}, "two_person": {}})
    assert isinstance(answer, Allow)


async def test_library_asks_where_the_operators_policy_allows() -> None:
    answer = await decided({"two_person": {"effects": ["write"]}, "secrets": {}})
    assert isinstance(answer, RequireApproval)
    assert answer.approvals.required == 2


async def test_library_denies_where_the_operators_policy_allows() -> None:
    answer = await decided({"read_only": {}, "two_person": {"effects": ["write"]}})
    assert isinstance(answer, Deny)
    assert {reason.code for reason in answer.reasons} >= {"read_only.effect"}


async def test_library_never_allows_what_the_operators_policy_denies() -> None:
    permitted = {"environments": {"*": {"*": ["*"]}}}
    async with asking(with_library(load_bundle(STARTER), {"allowlist": permitted})) as point:
        other = {"service": "ledger-db", "environment": "staging", "replicas": 1}
        assert isinstance(await point.decide(question(other), decision_id="dec_1"), Deny)


async def test_tool_is_shown_where_all_of_them_show_it() -> None:
    listed = list_document(caller=CALLER, tools=[RESTART], now_ms=NOW)
    cases: dict[str, frozenset[str]] = {
        "secrets": frozenset({RESTART.name}),
        "read_only": frozenset(),
    }
    for name, shown in cases.items():
        async with asking(with_library(load_bundle(STARTER), {name: {}})) as point:
            assert await point.visible(listed, [RESTART.name]) == shown


async def test_library_alone_is_a_policy() -> None:
    permitted = {"environments": {"staging": {"agents": ["restart_*"]}}}
    async with asking(with_library(None, {"allowlist": permitted})) as point:
        assert isinstance(await point.decide(question(STAGING), decision_id="dec_1"), Allow)
        there = {**STAGING, "environment": "production"}
        assert isinstance(await point.decide(question(there), decision_id="dec_2"), Deny)


async def test_all_eleven_at_once_give_one_decision() -> None:
    answer = await decided({name: {} for name in names()})
    assert isinstance(answer, Deny)
