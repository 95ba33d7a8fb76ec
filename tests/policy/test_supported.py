"""Each part of a decision is enforced, or the decision denies: every row of the table, both ways."""

from __future__ import annotations

import re
from typing import Any

import pytest

from remit.errors import PolicyFault
from remit.model import Deny
from remit.policy.supported import ENFORCED
from remit.policy.verdict import judge
from remit.testing.policy import allow, require_approval
from tests.house.source import DOCS
from tests.policy.world import EVALUATION


def arguments(**more: Any) -> Any:
    return allow(constraints={"arguments": more})


def runner(**more: Any) -> Any:
    return allow(constraints={"runner": more})


def output(**more: Any) -> Any:
    return allow(constraints={"output": more})


def egress(**more: Any) -> Any:
    return allow(constraints={"egress": [{"host": "api.example.com", "port": 443, **more}]})


def credential(**more: Any) -> Any:
    return allow(constraints={"credentials": [{"ref": "vault:ci", **more}]})


def oblige(type_: str, **properties: Any) -> Any:
    return allow(obligations=[{"id": "a", "type": type_, "properties": properties}])


HOLDS: dict[str, list[Any]] = {
    "constraints.arguments.bounds": [arguments(bounds={"n": {"maximum": 3}})],
    "constraints.arguments.force": [arguments(force={"n": 3})],
    "constraints.arguments.redact": [arguments(redact=[])],
    "constraints.runner.profile": [runner(profile="sandbox"), runner(profile="gvisor-small")],
    "constraints.runner.min_tier": [
        runner(min_tier=tier) for tier in ("none", "degraded", "sandbox", "gvisor", "remote")
    ],
    "constraints.runner.wall_s": [runner(wall_s=1)],
    "constraints.runner.memory_mb": [runner(memory_mb=1)],
    "constraints.egress": [
        allow(constraints={"egress": []}),
        egress(),
        egress(host="10.0.0.1", methods=["GET", "POST"], path_prefix="/v1/repos"),
    ],
    "constraints.credentials": [
        allow(constraints={"credentials": []}),
        credential(),
        credential(scopes=["read"], ttl_s=60, audience="api"),
        credential(audience=""),
    ],
    "constraints.output.max_bytes": [output(max_bytes=1)],
    "constraints.output.redact": [output(redact=["/token", "/items/*/key"])],
    "constraints.output.content_types": [
        output(content_types=[]),
        output(content_types=["text/plain", "image/svg+xml"]),
    ],
    "approvals.required": [require_approval(2)],
    "approvals.groups": [require_approval(groups=["sre"])],
    "approvals.exclude": [require_approval(exclude=["max"])],
    "approvals.separation_of_duties": [require_approval(separation_of_duties=False)],
    "approvals.ttl_s": [require_approval(ttl_s=60)],
    "approvals.reason_required": [require_approval(reason_required=True)],
    "approvals.on_timeout": [require_approval(on_timeout="deny")],
    "limits.budget": [allow(limits={"budget": {}})],
    "limits.cache_ttl_s": [allow(limits={"cache_ttl_s": 0})],
    "obligations.log": [oblige("log"), oblige("log", whatever=1)],
    "obligations.notify": [
        oblige("notify", channel="oncall"),
        oblige("notify", channel="oncall", message="look at this"),
    ],
    "obligations.step_up": [
        oblige("step_up", acr="high"),
        oblige("step_up", amr=["hwk"], max_age_s=300),
    ],
}

DENIES: dict[str, list[Any]] = {
    "constraints.arguments.redact": [arguments(redact=["/token"])],
    "constraints.runner.profile": [runner(profile="Sand Box"), runner(profile="-x")],
    "constraints.egress": [
        egress(host="*.example.com"),
        egress(host="API.example.com"),
        egress(host="example.com."),
        egress(methods=["get"]),
        egress(path_prefix="/a/../b"),
        egress(path_prefix="a"),
        egress(path_prefix=""),
    ],
    "constraints.credentials": [credential(scopes=[""])],
    "constraints.output.content_types": [
        output(content_types=["text/*"]),
        output(content_types=["Text/plain"]),
        output(content_types=["text/plain; charset=utf-8"]),
        output(content_types=["text/plain", "text"]),
    ],
    "limits.budget": [allow(limits={"budget": {"tokens": 5}})],
    "limits.cache_ttl_s": [allow(limits={"cache_ttl_s": 5})],
    "obligations.notify": [
        oblige("notify"),
        oblige("notify", channel=""),
        oblige("notify", channel="On Call"),
        oblige("notify", channel=["oncall"]),
        oblige("notify", channel="oncall", message=1),
        oblige("notify", channel="oncall", message="x" * 1025),
        oblige("notify", channel="oncall", urgent=True),
    ],
    "obligations.step_up": [
        oblige("step_up"),
        oblige("step_up", acr=""),
        oblige("step_up", acr=1),
        oblige("step_up", amr=[]),
        oblige("step_up", amr=[""]),
        oblige("step_up", amr="hwk"),
        oblige("step_up", max_age_s=0),
        oblige("step_up", max_age_s=True),
        oblige("step_up", acr="high", level=2),
    ],
}

HAS_NO_ROW: list[Any] = [
    runner(cpu_ms=100),
    allow(limits={"calls_per_minute": 5}),
    allow(limits={"concurrent": 5}),
    oblige("quarantine"),
    require_approval(assurance={"acr": "high"}),
]

ALWAYS = {
    "constraints.arguments.bounds",
    "constraints.arguments.force",
    "constraints.runner.min_tier",
    "constraints.runner.wall_s",
    "constraints.runner.memory_mb",
    "constraints.output.max_bytes",
    "constraints.output.redact",
    "approvals.required",
    "approvals.groups",
    "approvals.exclude",
    "approvals.separation_of_duties",
    "approvals.ttl_s",
    "approvals.reason_required",
    "obligations.log",
}
ONLY_DENY_IS_SHAPED = {"approvals.on_timeout"}
"""Another value than deny is no decision of the schema at all."""


def _each(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(document, id=f"{row}-{n}")
        for row, documents in table.items()
        for n, document in enumerate(documents)
    ]


@pytest.mark.parametrize("document", _each(HOLDS))
def test_what_can_be_enforced_is_taken(document: Any) -> None:
    assert not isinstance(judge(document, EVALUATION), Deny)


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("document", [*_each(DENIES), *HAS_NO_ROW])
def test_what_cannot_be_enforced_denies(document: Any) -> None:
    with pytest.raises(PolicyFault) as caught:
        judge(document, EVALUATION)
    assert caught.value.code.value == "policy_unsupported"


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    "document",
    [
        oblige("page_somebody"),
        require_approval(on_timeout="allow"),
        allow(constraints={"mood": "good"}),
        runner(colour="green"),
    ],
)
def test_what_the_schema_does_not_know_denies(document: Any) -> None:
    with pytest.raises(PolicyFault) as caught:
        judge(document, EVALUATION)
    assert caught.value.code.value == "policy_bad_decision"


def test_each_row_of_the_table_is_tested_both_ways() -> None:
    assert set(HOLDS) == set(ENFORCED)
    assert set(DENIES) == set(ENFORCED) - ALWAYS - ONLY_DENY_IS_SHAPED


def test_document_for_authors_lists_what_is_enforced_and_nothing_else() -> None:
    text = (DOCS / "policy-input.md").read_text(encoding="utf-8")
    section = text.partition("## What Remit can enforce")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", section, flags=re.MULTILINE)
    assert sorted(row for row, _ in rows) == sorted(ENFORCED)
    assert {row for row, when in rows if when.startswith("always")} == ALWAYS
