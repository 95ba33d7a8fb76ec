"""OPA's own compliance cases, as far as the portable profile covers them, on the embedded engine.

The bar is not that all pass: it is that what differs is known by name and, but for the one named
case, loud. A loud difference denies a call; a silent one could allow it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy.compliance.cases import Verdicts, judge, read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SILENT = {
    # The case's input holds a set. Remit's input is JSON, which has none.
    "inputvalues: inputvalues/input set",
}
"""Answers that differ from OPA's without an error."""

LOUD = {
    # OPA answers false or nothing to a wrong type here unless it is strict. Remit is always strict.
    "regexmatch: regexmatch/regex.match bad RE",
    "strings: strings/any_prefix_match/type_error_nostrict",
    "strings: strings/any_suffix_match/type_error_nostrict",
    # The syntax is refused by the profile; here it stands in the query, which the profile never sees.
    "stringinterpolation: string-interpolation/query/empty template string",
    "stringinterpolation: string-interpolation/query/non-empty template string with no expressions",
    "stringinterpolation: string-interpolation/query/template string with call expressions",
    "stringinterpolation: string-interpolation/query/template string with ref expressions (undefined)",
    # `with` may not replace a builtin by another. It stands in tests of policies only.
    "withkeyword: withkeyword/builtin-builtin: arity 1, replacement is compound",
    "withkeyword: withkeyword/builtin-builtin: arity 1, replacement is simple",
    "withkeyword: withkeyword/function: direct call, built-in replacement, arity 1",
    "withkeyword: withkeyword/function: direct call, built-in replacement, arity 1, result captured",
}
"""Errors of the embedded engine where OPA has an answer, or where OPA says nothing is true."""


@pytest.fixture(scope="module")
def verdicts(shared_data: Path) -> Verdicts:
    file = shared_data / "rego-compliance.jsonl"
    if not file.exists():
        pytest.skip("the compliance cases are not beside this clone: ../shared/data")
    return judge(read(file))


def test_no_covered_case_is_answered_wrongly_without_an_error_but_the_named_one(
    verdicts: Verdicts,
) -> None:
    assert set(verdicts.silent) == SILENT


def test_every_covered_case_that_fails_loudly_is_known_by_name(verdicts: Verdicts) -> None:
    assert set(verdicts.loud) == LOUD


def test_the_profile_covers_most_of_the_suite(verdicts: Verdicts) -> None:
    """So that a profile which covers nothing cannot pass."""
    assert verdicts.right >= 884
