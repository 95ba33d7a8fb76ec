"""Canonical bytes are RFC 8785's on the fast way too, and what has no form is refused on both."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from remit.canonical import encode
from remit.errors import InputError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**60), max_value=2**60)
    | st.floats()
    | st.text()
    | st.text(alphabet=st.characters(min_codepoint=0xD000, max_codepoint=0x10FFFF), max_size=3)
    | st.characters(categories=["Cs"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


def _ours(value: Any) -> bytes | None:
    try:
        return encode(value)
    except InputError:
        return None


def _reference(value: Any) -> bytes | None:
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        return None


@pytest.mark.threat("T-06")
@given(VALUES)
def test_bytes_are_those_of_the_reference_encoder(value: Any) -> None:
    assert _ours(value) == _reference(value)


@pytest.mark.parametrize(
    "value",
    [
        {"\ue000": 1, "\U00010000": 2},  # UTF-16 and code points order these differently
        {"a": 1.0, "b": 1e30, "c": 2.5},
        {"a": (1, 2)},
        {'\x7f\x1f"\\/': "\u2028"},
        [True, 1, 1.0],
    ],
)
def test_where_the_encoders_could_differ_they_agree(value: Any) -> None:
    assert encode(value) == rfc8785.dumps(value)


def test_what_has_no_form_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    for value in ({1: 2}, {"a": 2**53}, {"a": float("nan")}, "\ud800", {"a": {1}}, loop):
        with pytest.raises(InputError):
            encode(value)
