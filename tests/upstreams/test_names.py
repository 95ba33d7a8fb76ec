"""Tools whose names would be confused are told, within a server and across servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.upstreams.names import Confusion, collisions, offered_name, skeleton
from tests.upstreams import listing

TOOLS = st.lists(
    st.builds(
        lambda server, name: listing.defined(server, name=name),
        st.sampled_from(["s", "t", "u"]),
        listing.NAMES,
    ),
    max_size=8,
)
PREFIXES = st.dictionaries(st.sampled_from(["s", "t", "u"]), st.sampled_from(["", "a", "a_b", "A"]))


def _told(*tools: tuple[str, str], **prefixes: str) -> list[tuple[str, list[str]]]:
    found = collisions((listing.defined(server, name=name) for server, name in tools), prefixes)
    return [(each.confusion.value, [one.name for one in each.offered]) for each in found]


def test_a_prefix_that_runs_into_a_name_collides() -> None:
    assert _told(("one", "c"), ("two", "b_c"), one="a_b", two="a") == [("same", ["a_b_c"] * 2)]


def test_servers_without_prefixes_collide_on_the_bare_name() -> None:
    assert _told(("one", "read"), ("two", "read")) == [("same", ["read"] * 2)]
    assert _told(("one", "read"), ("two", "read"), one="x", two="y") == []


@pytest.mark.parametrize("other", ["Read_File", "read-file", "read.file", "READ-FILE"])
def test_names_that_only_look_alike_are_told(other: str) -> None:
    assert _told(("one", "read_file"), ("one", other)) == [("alike", sorted(["read_file", other]))]
    assert _told(("one", "file"), ("two", other), one="read") != []
    assert _told(("one", "read_file"), ("one", "readfile")) == []


def test_the_same_name_is_told_also_where_others_are_alike() -> None:
    assert _told(("one", "a"), ("two", "a"), ("two", "A")) == [
        ("same", ["a", "a"]),
        ("alike", ["A", "a", "a"]),
    ]


@given(TOOLS, PREFIXES)
def test_exactly_the_tools_that_share_a_name_are_told_as_the_same(tools: Any, by: Any) -> None:
    found = collisions(tools, by)
    keys = {(each.server, each.name) for each in tools}
    names = [offered_name(by.get(server, ""), name) for server, name in keys]
    same = {each.offered[0].name for each in found if each.confusion is Confusion.SAME}
    assert same == {name for name in names if names.count(name) > 1}
    alike = {skeleton(each.offered[0].name) for each in found if each.confusion is Confusion.ALIKE}
    shapes = [skeleton(name) for name in set(names)]
    assert alike == {shape for shape in shapes if shapes.count(shape) > 1}
    assert collisions(reversed(tools), by) == found
