"""Which URIs a template stands for, and that finding out takes no longer for a spiteful one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import InputError
from remit.upstreams.templates import MAX_EXPRESSIONS, MAX_URI, Template

pytestmark = pytest.mark.threat("T-50")


@pytest.mark.parametrize(
    ("template", "uri", "covered"),
    [
        ("note://by/{id}", "note://by/7", True),
        ("note://by/{id}", "note://by/", False),
        ("note://by/{id}", "note://by/7/8", False),
        ("note://by/{id}", "note://by/7?x=1", False),
        ("note://by/{id}", "NOTE://by/7", False),
        ("note://{a}/x/{b}", "note://1/x/2", True),
        ("note://{a}/x/{b}", "note://1/y/2", False),
        ("note://{a}{b}", "note://12", True),
        ("note://{a}{b}", "note://1", False),
        ("file:///{+path}", "file:///a/b/c", True),
        ("file:///{+path}", "files:///a", False),
        ("a:{x}b{y}b", "a:1b2b", True),
        ("a:{x}b{y}b", "a:1b2bc", False),
        ("note://all", "note://all", True),
        ("note://all", "note://all/", False),
    ],
)
def test_an_expression_stands_for_what_is_between_two_slashes_unless_it_says_more(
    template: str, uri: str, covered: bool
) -> None:
    assert Template(template).covers(uri) is covered


@pytest.mark.parametrize(
    "text",
    ["{+uri}", "{scheme}://x", "note://{", "note://}", "note://{a b}", "note://{}", "", "note",
     "n:" + "{a}" * (MAX_EXPRESSIONS + 1), "n:" + "a" * MAX_URI],
)  # fmt: skip
def test_a_template_without_a_scheme_of_its_own_or_that_is_not_understood_is_none(
    text: str,
) -> None:
    with pytest.raises(InputError):
        Template(text)


def test_nothing_that_is_longer_than_a_uri_may_be_is_covered() -> None:
    assert Template("n:{+a}").covers("n:" + "a" * (MAX_URI - 2))
    assert not Template("n:{+a}").covers("n:" + "a" * (MAX_URI - 1))


PART = st.text(alphabet="ab1", min_size=1, max_size=4)


@given(st.lists(st.tuples(PART, PART), min_size=1, max_size=6))
def test_whatever_is_put_in_for_the_expressions_is_covered(parts: list[tuple[str, str]]) -> None:
    template = "n:" + "".join(f"{literal}{{x}}" for literal, _ in parts)
    uri = "n:" + "".join(f"{literal}{value}" for literal, value in parts)
    assert Template(template).covers(uri)
    assert not Template(template).covers(uri + "/")
