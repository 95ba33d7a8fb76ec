"""Under which name a tool is offered, and which names count as one."""

from __future__ import annotations

import pytest
from hypothesis import given

from remit.upstreams.names import offered_name, skeleton
from tests.upstreams import listing

pytestmark = pytest.mark.threat("T-44")


def test_a_prefix_stands_before_the_name_and_may_run_into_it() -> None:
    assert offered_name("files", "read") == "files_read"
    assert offered_name("", "read") == "read"
    assert offered_name("a_b", "c") == offered_name("a", "b_c")


@pytest.mark.parametrize("other", ["Read_File", "read-file", "read.file", "READ-FILE"])
def test_names_that_only_look_alike_count_as_one(other: str) -> None:
    assert skeleton(other) == skeleton("read_file")
    assert skeleton("readfile") != skeleton("read_file")


@given(listing.NAMES)
def test_what_is_left_of_a_name_is_left_of_it_again(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)
    assert len(skeleton(name)) == len(name)
