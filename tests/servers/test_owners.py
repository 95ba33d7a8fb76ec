"""Whose a URI is, worked out for what is new alone, is what looking at everything would say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.servers.owners import Owners
from remit.upstreams.templates import Template

pytestmark = pytest.mark.threat("T-44")

URIS = ["a:1", "a:2", "a:b/1", "ab:1", "b:1", "a:{x}", "b:{+x}"]
TEMPLATES = ["a:{x}", "a:b/{x}", "a:{+x}", "ab:{x}", "b:{+x}", "c:{x}"]
Lists = tuple[list[str], list[str]]
LISTS = st.tuples(
    st.lists(st.sampled_from(URIS), unique=True), st.lists(st.sampled_from(TEMPLATES), unique=True)
)


def looked_at(has: Mapping[str, tuple[Collection[str], Collection[str]]]) -> set[str]:
    """What more than one server has, by holding everything against everything."""
    whose: dict[str, set[str]] = defaultdict(set)
    for name, (uris, _) in has.items():
        for uri in uris:
            whose[uri].add(name)
    for name, (_, texts) in has.items():
        for uri, owners in whose.items():
            if any(Template(text).covers(uri) for text in texts):
                owners.add(name)
    for name, (_, texts) in has.items():
        for text in texts:
            whose[text].add(name)
    return {uri for uri, owners in whose.items() if len(owners) > 1}


@given(st.lists(st.tuples(st.sampled_from("pqr"), LISTS), max_size=8))
def test_after_any_lists_the_same_is_found_as_by_looking_at_all(
    listed: list[tuple[str, Lists]],
) -> None:
    owners, has = Owners(), {}
    for server, (uris, texts) in listed:
        owners.put(server, uris, texts)
        has[server] = (uris, texts)
        assert owners.twice() & _listed(has) == looked_at(has) & _listed(has)


def _listed(has: Mapping[str, Lists]) -> set[str]:
    return {each for uris, texts in has.values() for each in (*uris, *texts)}


def test_templates_are_held_against_what_they_may_cover_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = 0
    covers = Template.covers

    def counted(self: Template, uri: str) -> bool:
        nonlocal held
        held += 1
        return covers(self, uri)

    monkeypatch.setattr(Template, "covers", counted)
    owners = Owners()
    for number in range(50):
        uris = [f"s{number}://{each}" for each in range(20)]
        owners.put(f"s{number}", uris, [f"s{number}://" + "{x}", f"t{number}://" + "{x}"])
    # Each server's own twenty, once as new and once for its template.
    assert held <= 50 * 20 * 2
    assert owners.twice() == set()


def test_what_a_server_had_is_forgotten() -> None:
    owners = Owners()
    for number in range(100):
        owners.put("p", [f"a:{number}"], ["b:" + f"{number}" + "{x}"])
    owners.put("p", [], [])
    assert (owners._whose, dict(owners._texts), dict(owners._listers)) == ({}, {}, {})
