"""A head that may have no value for one way in which its body holds: refused, with its mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.policy.bundle import bundle_of
from remit.policy.heads import about_heads
from remit.policy.lint import modules_of
from tests.policy.differential.answers import decided
from tests.policy.differential.engines import both
from tests.policy.world import HEAD

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-12")]


def refused(body: str, name: str = "policy.rego") -> bool:
    modules, findings = modules_of(bundle_of({name: HEAD + body}, {}))
    assert findings == []
    return any(list(about_heads(module, modules)) for module in modules)


@pytest.mark.parametrize(
    "body",
    [
        "d contains o.code if some o in input.xs",
        'd contains {"code": o.code} if some o in input.xs',
        "d contains [o.code] if { o := input.xs[_] }",
        "d contains input.xs[_].code",
        'd contains sprintf("%s", [o.code]) if some o in input.xs',
        "d contains upper(o.code) if some o in input.xs",
        "d contains o.size + 1 if some o in input.xs",
        'd contains o.code == "a" if some o in input.xs',
        "d[o.code] := 1 if some o in input.xs",
        "d[k] := o.size if { some o in input.xs; k := o.code }",
        "d[k] contains o.size if { some o in input.xs; k := o.code }",
        "d contains data.names[k] if some k in input.xs",
        "f(x) := x.code\nd contains f(o) if some o in input.xs",
        "f(x) := x.code\nd contains f(value) if { walk(input, [_, value]) }",
        "d := o.size if some o in input.xs",
        "f(x) := y if { y := x.code }\nd contains f(o) if some o in input.xs",
        'f("a") := 1\nd contains f(o) if some o in input.xs',
        'f(x) := x.a if { x.b } else := ""\nd contains f(o) if some o in input.xs',
        "g(x) := x.code\nf(x) := g(x)\nd contains f(o) if some o in input.xs",
        "o := 1\nf(o) := o.code\nd contains f(p) if some p in input.xs",
        "tool := 1\nd contains tool.name if some tool in input.xs",
        "d contains tool.colour if some tool in input.tools",
        "d := 1 if { input.no } else := o.size if { some o in input.xs }",
    ],
)
def test_head_that_may_lack_a_value_for_one_way_is_refused(body: str) -> None:
    assert refused(body)


@pytest.mark.parametrize(
    "body",
    [
        "d contains code if { some o in input.xs; code := o.code }",
        'd contains {"code": code, "at": [code]} if { some o in input.xs; code := o.code }',
        'd contains "fixed" if some o in input.xs',
        "d contains input.request_id if some o in input.xs",
        'd contains sprintf("%s", [code]) if { some o in input.xs; code := o.code }',
        'd contains object.get(o, "code", "none") if some o in input.xs',
        'f(x) := {"code": x}\nd contains f("fixed") if some o in input.xs',
        "d contains {c | c := o.code} if some o in input.xs",
        "d := [o.code | some o in input.xs]",
        "d[k] := size if { some o in input.xs; k := o.code; size := o.size }",
        "f(x) := x.code\nd := f(one) if { one := input.xs }",
        "d if { every o in input.xs { o.code } }",
        'f(x, y) := {"code": x, "at": y}\nd contains f("a", o) if some o in input.xs',
        'f(x) := y if { y := x.code } else := ""\nd contains f(o) if some o in input.xs',
        "default f(_) := 1\nf(x) := y if { y := x.code }\nd contains f(o) if some o in input.xs",
        "g(x) := {1: x}\nf(x) := g(x)\nd contains f(o) if some o in input.xs",
        "d[tool.name] := true if some tool in input.tools",
    ],
)
def test_head_that_always_has_a_value_is_taken(body: str) -> None:
    assert not refused(body)


def test_tests_of_a_policy_may_write_it() -> None:
    assert not refused("d contains o.code if some o in input.xs", "policy_test.rego")


LOST = """
decision := answer("deny", {}) if count(denials) > 0
decision := answer("allow", {}) if count(denials) == 0
denials contains o.code if some o in input.xs
"""

BOUND = LOST.replace("denials contains o.code if some o in input.xs",
                     "denials contains code if { some o in input.xs; code := o.code }")  # fmt: skip


@pytest.mark.needs("opa")
async def test_why_one_element_without_the_field_turns_a_denial_into_an_allow(
    tmp_path: Path,
) -> None:
    """What the profile refuses here, shown on the engine: should it be mended, this fails."""
    question = {"xs": [{"code": "forbidden"}, {"other": 1}]}
    async with both(bundle_of({"p.rego": HEAD + LOST}, {}), tmp_path / "a") as (embedded, opa):
        assert type(await decided(embedded, "remit", question)).__name__ == "Allow"
        assert type(await decided(opa, "remit", question)).__name__ == "Deny"
    async with both(bundle_of({"p.rego": HEAD + BOUND}, {}), tmp_path / "b") as (embedded, opa):
        assert type(await decided(embedded, "remit", question)).__name__ == "Deny"
        assert await decided(embedded, "remit", question) == await decided(opa, "remit", question)
