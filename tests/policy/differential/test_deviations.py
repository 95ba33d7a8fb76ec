"""Where the engines are known to differ inside the portable profile: named, loud, and never apart
in what they allow. A deviation that goes away, or turns silent, fails here."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import Code
from remit.model import Deny
from remit.policy.bundle import bundle_of
from tests.policy.differential.answers import decided
from tests.policy.differential.engines import both
from tests.policy.world import HEAD

pytestmark = [pytest.mark.anyio, pytest.mark.needs("opa")]

SOME_IN = """
decision := answer("allow", {}) if {
    some group in input.caller.groups
    group == "sre"
}
"""


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("groups", ["sre", 7, None, True])
async def test_some_in_what_is_no_collection_is_an_error_here_and_nothing_in_opa(
    groups: object, tmp_path: Path
) -> None:
    """The gateway gives a list; were it anything else, the embedded engine would deny loudly."""
    bundle = bundle_of({"policy.rego": HEAD + SOME_IN}, {})
    question = {"caller": {"groups": groups}}
    async with both(bundle, tmp_path) as (embedded, opa):
        here = await decided(embedded, "remit", question)
        there = await decided(opa, "remit", question)
    assert isinstance(here, Deny)
    assert here.code is Code.POLICY_ERROR
    assert isinstance(there, Deny)
    assert there.code is Code.POLICY_DENIED
