"""What servers say of how they want to be asked is read strictly, and none of it trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import challenge
from remit.challenge import MAX_HEADER, MAX_SCOPES, Challenge, bearer_challenge, scopes_in

URL = "https://mcp.example/.well-known/oauth-protected-resource"


SEVERAL = (
    'Basic realm="a, Bearer x", Bearer scope="b a" , error = "insufficient_scope",'
    f' resource_metadata="{URL}", Digest scope=other'
)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", None),
        ("Basic realm=x", None),
        ("Bearer", Challenge()),
        ("bearer", Challenge()),
        (f'Bearer resource_metadata="{URL}"', Challenge(metadata=URL)),
        (f"Bearer resource_metadata={URL}", Challenge(metadata=URL)),
        (
            SEVERAL,
            Challenge(error="insufficient_scope", scopes=("a", "b"), metadata=URL),
        ),
        (r'Bearer error="in\valid"', Challenge(error="invalid")),
        ('Bearer scope="a", scope="b", error=x', Challenge(error="x")),
        ('Bearer scope="a \x01"', Challenge()),
        ('Bearer scope="', Challenge()),
    ],
)
def test_a_challenge_is_what_its_first_bearer_part_says(
    header: str, found: Challenge | None
) -> None:
    assert bearer_challenge(header) == found


@given(st.text(max_size=300))
def test_no_header_breaks_it(header: str) -> None:
    found = bearer_challenge(header)
    assert found is None or scopes_in(found.scopes) == found.scopes


def test_scopes_are_all_plain_and_not_too_many_or_there_are_none() -> None:
    assert scopes_in(["b", "a", "", "a"]) == ("a", "b")
    for words in (
        ["a", 'b"'],
        ["a b"],
        ["a", 7],
        [f"s{n}" for n in range(MAX_SCOPES + 1)],
        ["x" * 257],
    ):
        assert scopes_in(words) == ()


@pytest.mark.parametrize("filler", [" ", ",", "\t", " ,"])
def test_what_stands_between_its_parts_is_gone_through_once(filler: str) -> None:
    assert challenge._PART.match(filler + "error=x") is None  # else it begins at each of them
    header = "Bearer" + filler * 4_000 + "error=x"
    assert bearer_challenge(header[:MAX_HEADER]) in (Challenge(), Challenge(error="x"))
