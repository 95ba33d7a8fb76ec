"""The starter policy never hides what it would permit; a policy that does is found out."""

from __future__ import annotations

import pytest

from remit.policy.bundle import load_bundle
from tests.policy.visibility_property import Names, check
from tests.policy.world import STARTER, policy

NAMES = Names(
    tools=("read_status", "restart_service", "apply_infra", "rotate_root_key"),
    groups=("agents", "key-custodians"),
    environments=("staging", "production"),
)

pytestmark = [pytest.mark.threat("T-03"), pytest.mark.slow]


@pytest.mark.parametrize("seed", range(3))
def test_starter_policy_never_hides_what_it_would_permit(seed: int) -> None:
    found = check(load_bundle(STARTER), NAMES, seed=seed)
    assert min(found[what] for what in ("seen", "hidden", "permitted")) > 10, found


@pytest.mark.parametrize("verdict", ["allow", "require_approval"])
def test_policy_that_hides_what_it_permits_is_found_out(verdict: str) -> None:
    more = {"allow": "{}", "require_approval": '{"approvals": {"required": 1}}'}[verdict]
    rego = f"""decision := answer("{verdict}", {more})
visible[t.name] := true if {{ some t in input.tools; t.effect == "read" }}
visible := {{}} if every t in input.tools {{ t.effect != "read" }}
"""
    with pytest.raises(AssertionError):
        check(policy(rego), NAMES, seed=1)
