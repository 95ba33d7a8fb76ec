"""The same bundle, the same questions, the embedded engine and the real OPA: no decision differs.

Whole decisions are compared: verdict, reasons, constraints, approvals, limits, obligations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from bench.large_world import bundle as large
from bench.large_world import documents, tools

from remit.model import Decision
from remit.policy.bundle import PolicyBundle, bundle_of, load_bundle
from remit.policy.library import names, with_library
from tests.policy.differential.answers import decided, shown
from tests.policy.differential.engines import both
from tests.policy.differential.questions import Words, questions
from tests.policy.world import HEAD, STARTER

pytestmark = [pytest.mark.anyio, pytest.mark.needs("opa")]


async def differences(
    bundle: PolicyBundle,
    state: Path,
    *,
    seed: int,
    count: int,
    well_made: Iterable[dict[str, Any]] = (),
) -> tuple[list[tuple[Decision, Decision]], Counter[str]]:
    """Pairs of decisions that are not the same, and how often each kind of decision was given."""
    found: list[tuple[Decision, Decision]] = []
    kinds: Counter[str] = Counter()
    async with both(bundle, state) as (embedded, opa):
        for document in chain(well_made, questions(seed, count, Words.of(bundle))):
            for entry in bundle.entries:
                left = await decided(embedded, entry, document)
                right = await decided(opa, entry, document)
                kinds[type(left).__name__] += 1
                if left != right:
                    found.append((left, right))
                if document.get("phase") == "list":
                    assert await shown(embedded, entry, document) == await shown(
                        opa, entry, document
                    )
    return found, kinds


@pytest.mark.slow
@pytest.mark.threat("T-12")
async def test_no_decision_of_the_starter_policy_differs(tmp_path: Path, seed: int) -> None:
    found, kinds = await differences(load_bundle(STARTER), tmp_path, seed=seed, count=2_000)
    assert found == []
    assert min(kinds["Allow"], kinds["Deny"], kinds["RequireApproval"]) > 0, kinds


@pytest.mark.slow
@pytest.mark.threat("T-12")
@pytest.mark.parametrize("name", names())
async def test_no_decision_of_a_library_policy_differs(
    name: str, tmp_path: Path, seed: int
) -> None:
    bundle = with_library(None, {name: {}})
    found, _ = await differences(bundle, tmp_path, seed=seed, count=300)
    assert found == []


@pytest.mark.slow
@pytest.mark.threat("T-12")
async def test_no_decision_of_a_policy_of_two_hundred_lines_differs(
    tmp_path: Path, seed: int
) -> None:
    """Roles, globs, networks, secrets, clocks, budgets and people, as in `bench.policy`."""
    known = tools()
    made = documents(known, 1_000, seed)
    found, kinds = await differences(large(known), tmp_path, seed=seed, count=500, well_made=made)
    assert found == []
    assert min(kinds["Allow"], kinds["Deny"], kinds["RequireApproval"]) > 0, kinds


UNKNOWN_TO_OPA = """
denials contains "unlisted" if not startswith(data.prefixes[input.tool.name], "ok")
decision := answer("allow", {}) if count(denials) == 0
decision := answer("deny", {}) if count(denials) > 0
"""


async def test_a_lost_not_would_be_seen(tmp_path: Path, seed: int) -> None:
    """The second import is what makes the engines agree: without it OPA loses denials."""
    with_it = bundle_of({"policy.rego": HEAD + UNKNOWN_TO_OPA}, {"prefixes": {}})
    found, _ = await differences(with_it, tmp_path / "with", seed=seed, count=20)
    assert found == []
    text = (HEAD + UNKNOWN_TO_OPA).replace("import future.keywords.not\n", "")
    without = bundle_of({"policy.rego": text}, {"prefixes": {}})
    found, _ = await differences(without, tmp_path / "without", seed=seed, count=20)
    assert found != []
