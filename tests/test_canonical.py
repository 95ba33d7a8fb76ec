"""RFC 8785 out, strict JSON in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from remit.canonical import MAX_SAFE_INTEGER, digest, encode, parse
from remit.errors import Code, InputError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


def vectors(shared_data: Path) -> list[dict[str, Any]]:
    path = shared_data / "jcs-vectors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_published_vectors_give_the_published_bytes(shared_data: Path) -> None:
    cases = vectors(shared_data)
    assert cases
    for case in cases:
        source = case["input"]
        value = json.loads(source) if isinstance(source, str) else source
        expected: str = case["output"]
        assert encode(value) == expected.encode()


@given(VALUES)
def test_fast_encoding_is_the_canonical_one(value: Any) -> None:
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        with pytest.raises(InputError):
            encode(value)
        return
    assert encode(value) == expected


@given(st.dictionaries(st.text(alphabet="\uffff\U00010000a\ue000\ud7ff", max_size=2), st.none()))
def test_keys_are_ordered_by_utf16_where_that_differs(value: dict[str, None]) -> None:
    assert encode(value) == rfc8785.dumps(value)


@given(VALUES)
def test_what_was_encoded_reads_back_to_the_same_bytes(value: Any) -> None:
    text = encode(value)
    assert encode(parse(text)) == text


@pytest.mark.threat("T-06")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"a":1,"a":2}', Code.DUPLICATE_KEY),
        (b'{"a":{"b":1,"b":1}}', Code.DUPLICATE_KEY),
        (b'{"a":1,"\\u0061":2}', Code.DUPLICATE_KEY),
        (b"9007199254740992", Code.NUMBER_OUT_OF_RANGE),
        (b"-9007199254740992", Code.NUMBER_OUT_OF_RANGE),
        (b"1" * 5000, Code.NUMBER_OUT_OF_RANGE),
        (b"NaN", Code.NUMBER_OUT_OF_RANGE),
        (b"-Infinity", Code.NUMBER_OUT_OF_RANGE),
        (b"9007199254740992.0", Code.NUMBER_OUT_OF_RANGE),
        (b"1e999", Code.NUMBER_OUT_OF_RANGE),
        (b'"\\ud800"', Code.INVALID_UNICODE),
        (b'{"\\udfff":1}', Code.INVALID_UNICODE),
        (b'"\xff"', Code.INVALID_UNICODE),
        (b"[" * 65 + b"]" * 65, Code.TOO_DEEP),
        (b"[" * 100_000, Code.TOO_DEEP),
        (b"{", Code.MALFORMED_JSON),
        (b"", Code.MALFORMED_JSON),
        (b'{"a":1} x', Code.MALFORMED_JSON),
        (b"[1,]", Code.MALFORMED_JSON),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(text: bytes, code: Code) -> None:
    with pytest.raises(InputError) as refused:
        parse(text)
    assert refused.value.code is code


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    assert parse(b'"' + b"[" * 1000 + b'"') == "[" * 1000
    assert parse(b'["\\"' + b"[" * 1000 + b'"]')


def test_surrogate_pair_is_one_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_input_over_the_size_is_refused_before_it_is_read() -> None:
    with pytest.raises(InputError) as refused:
        parse(b'"' + b"a" * 100 + b'"', max_bytes=50)
    assert refused.value.code is Code.TOO_LARGE


@pytest.mark.parametrize("value", [2**53, float("nan"), "\ud800", {1: 2}, {"a": object()}])
def test_value_without_a_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        encode(value)


def test_same_bytes_under_another_domain_have_another_digest() -> None:
    assert digest("remit.plan/1", b"x") != digest("remit.call/1", b"x")


@pytest.mark.parametrize("text", ["[" + "[]," * 50 + "1]", "[" + "0," * 50 + "0]", "{" * 52])
def test_more_values_than_are_borne_are_refused_before_they_are_made(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text.encode(), max_values=50)
    assert caught.value.code is Code.TOO_LARGE


@given(VALUES, st.integers(0, 40))
def test_text_in_strings_is_one_value_whatever_is_in_it(value: Any, more: int) -> None:
    def values(of: Any) -> int:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
        return 1 + sum(values(each) for each in inner)

    text = json.dumps([value, '[,"\\' * more]).encode()
    assert parse(text, max_values=2 * values(value) + 2) == json.loads(text)
