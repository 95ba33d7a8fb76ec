"""What differs between what was accepted and what a server says now."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.upstreams.definitions import PARTS, read_definition
from remit.upstreams.pins import MAX_DIFF_LINES, changes
from tests.upstreams import listing


@pytest.mark.parametrize("part", PARTS[1:])
def test_a_tool_that_changed_in_one_part_differs_in_that_part(part: str) -> None:
    old = listing.defined(description="Reads.", annotations={"readOnlyHint": True})
    value = "Reads and sends." if part in ("title", "description") else {"type": "object", "x": 1}
    new = read_definition("files", {**old.parts(), part: value})
    assert [each.part for each in changes(old, new)] == [part]


@given(listing.TOOLS, listing.TOOLS, st.randoms())
def test_there_is_a_difference_exactly_where_the_digest_differs(
    first: Any, second: Any, random: Any
) -> None:
    old, new = read_definition("a", first), read_definition("a", second)
    found = changes(old, new)
    assert (found == ()) is (old.digest == new.digest)
    for each in found:
        assert any(line[:1] in "+-" for line in each.diff.splitlines()[2:])
        assert each.diff.replace("\n", "").isprintable()
    assert changes(old, read_definition("a", listing.shuffled(first, random))) == ()


PIECES = ["a. ", "\\", "\\u{200b}", "\u200b", "\\n", "\n", "\u2028", "\\u{2028}"]
LOOKS = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)


@pytest.mark.parametrize(("first", "second"), [("\\n", "\n"), ("\\u{200b}", "\u200b")])
def test_an_escape_written_out_is_told_from_what_it_stands_for(first: str, second: str) -> None:
    (found,) = changes(listing.defined(description=first), listing.defined(description=second))
    assert len(set(found.diff.replace("-", "+").splitlines()[3:])) == 2


def test_an_empty_title_is_told_from_none() -> None:
    (found,) = changes(listing.defined(), listing.defined(title=""))
    assert found.diff.splitlines()[-1] == "+"


@given(LOOKS, LOOKS)
def test_two_texts_that_differ_never_look_the_same(first: str, second: str) -> None:
    old, new = listing.defined(description=first), listing.defined(description=second)
    lines = [line for each in changes(old, new) for line in each.diff.splitlines()[3:]]
    before = [line[1:] for line in lines if not line.startswith("+")]
    after = [line[1:] for line in lines if not line.startswith("-")]
    assert (before == after) is (first == second)


def test_a_difference_shows_the_lines_around_it_and_what_is_hidden() -> None:
    old = listing.defined(description="Reads a file.\nGives its text.", title="Read")
    new = listing.defined(description="Reads a file.\u200b\nGives its text. Then sends it.")
    title, description = changes(old, new)
    assert title.diff.splitlines() == [
        "--- title, pinned",
        "+++ title, now",
        "@@ -1 +0,0 @@",
        "-Read",
    ]
    assert description.diff.splitlines() == [
        "--- description, pinned",
        "+++ description, now",
        "@@ -1,2 +1,3 @@",
        "-Reads a file.\\n",
        "-Gives its text.",
        "+Reads a file.\\u{200b}\\n",
        "+Gives its text. ",
        "+Then sends it.",
    ]


def test_a_schema_is_compared_line_by_line() -> None:
    old = listing.schema({"properties": {"a": {"type": "string"}, "b": {"type": "string"}}})
    new = listing.schema({"properties": {"b": {"type": "string"}, "a": {"type": "number"}}})
    (found,) = changes(read_definition("a", old), read_definition("a", new))
    lines = found.diff.splitlines()[3:]
    assert [line for line in lines if line[0] != " "] == [
        '-      "type": "string"',
        '+      "type": "number"',
    ]


def test_of_a_long_part_only_the_stretch_that_differs_is_shown() -> None:
    lines = [f"line {number}\n" for number in range(1_000)]
    old, new = listing.defined(description="".join(lines)), [*lines[:500], "more\n", *lines[501:]]
    (found,) = changes(old, listing.defined(description="".join(new)))
    assert found.diff.splitlines()[2:] == ["@@ -501,1 +501,1 @@", "-line 500\\n", "+more\\n"]
    (found,) = changes(old, listing.defined(description="".join(lines * 2)))
    assert found.diff.splitlines()[2:4] == ["@@ -1000,0 +1001,1000 @@", "+line 0\\n"]
    assert len(found.diff.splitlines()) == 1_003


@pytest.mark.parametrize("unlike", ["a. ", "b"])
def test_hostile_texts_are_compared_in_bounded_time_and_space(unlike: str) -> None:
    old = listing.defined(description="a. b. " * 5_000)
    new = listing.defined(description=unlike * 10_000, title="t" * 500)
    start = time.process_time()
    found = {each.part: each.diff for each in changes(old, new)}
    numbers = {"enum": list(range(9_000))}
    swapped = {"enum": list(range(9_000, 0, -1))}
    a, b = listing.schema(numbers), listing.schema(swapped)
    (schema,) = changes(read_definition("a", a), read_definition("a", b))
    assert time.process_time() - start < 5
    assert len(schema.diff.splitlines()) == MAX_DIFF_LINES + 1
    assert schema.diff.endswith(" more lines]")
    assert len(found["description"].splitlines()) <= MAX_DIFF_LINES + 1
