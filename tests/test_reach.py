"""What a run may reach only shrinks, and is written in one way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import reach
from remit.model import CredentialRule, EgressRule
from remit.reach import (
    meet_credentials,
    meet_egress,
    normal_credentials,
    normal_egress,
    plain_host,
    plain_path,
)

pytestmark = pytest.mark.threat("T-13")

HOSTS, PORTS = ["api.example.com", "db.internal"], [443, 8080]
METHODS = ["GET", "POST", "PUT"]
PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/b"]

egress = st.lists(
    st.builds(
        EgressRule,
        host=st.sampled_from(HOSTS),
        port=st.sampled_from(PORTS),
        methods=st.none() | st.lists(st.sampled_from(METHODS), max_size=3).map(tuple),
        path_prefix=st.none() | st.sampled_from(PATHS),
    ),
    max_size=5,
).map(tuple)
credentials = st.lists(
    st.builds(
        CredentialRule,
        ref=st.sampled_from(["vault:ci", "vault:cloud"]),
        scopes=st.lists(st.sampled_from(["read", "write", "admin"]), max_size=3).map(tuple),
        ttl_s=st.none() | st.sampled_from([60, 300]),
        audience=st.none() | st.sampled_from(["a", "b"]),
    ),
    max_size=5,
).map(tuple)


def lets(rules: Sequence[EgressRule], host: str, port: int, method: str, path: str) -> bool:
    """What a list of rules means, said as plainly as can be."""
    wanted = [part for part in path.split("/") if part]
    for rule in rules:
        prefix = [part for part in (rule.path_prefix or "").split("/") if part]
        if (
            (rule.host, rule.port) == (host, port)
            and (rule.methods is None or method in rule.methods)
            and wanted[: len(prefix)] == prefix
        ):
            return True
    return False


def gives(
    rules: Sequence[CredentialRule], ref: str, scope: str | None, ttl_s: int, audience: str
) -> bool:
    return any(
        rule.ref == ref
        and (scope in rule.scopes if rule.scopes else scope is None)
        and (rule.ttl_s is None or ttl_s <= rule.ttl_s)
        and (rule.audience is None or rule.audience == audience)
        for rule in rules
    )


requests = st.tuples(
    st.sampled_from(HOSTS),
    st.sampled_from(PORTS),
    st.sampled_from([*METHODS, "TRACE"]),
    st.sampled_from([*PATHS, "/c", "/a/b/c/d"]),
)
uses = st.tuples(
    st.sampled_from(["vault:ci", "vault:cloud"]),
    st.sampled_from([None, "read", "write", "admin"]),
    st.sampled_from([1, 60, 61, 300, 301]),
    st.sampled_from(["a", "b", "c"]),
)


@given(egress, egress, requests)
def test_a_request_passes_both_lists_or_not_at_all(
    left: tuple[EgressRule, ...], right: tuple[EgressRule, ...], request: tuple[str, int, str, str]
) -> None:
    met = meet_egress(left, right)
    assert met is not None
    assert lets(met, *request) == (lets(left, *request) and lets(right, *request))
    assert lets(normal_egress(left), *request) == lets(left, *request)


@given(credentials, credentials, uses)
def test_a_credential_is_given_by_both_lists_or_not_at_all(
    left: tuple[CredentialRule, ...],
    right: tuple[CredentialRule, ...],
    use: tuple[str, str | None, int, str],
) -> None:
    met = meet_credentials(left, right)
    assert met is not None
    assert gives(met, *use) == (gives(left, *use) and gives(right, *use))
    assert gives(normal_credentials(left), *use) == gives(left, *use)


@given(egress, egress, egress)
def test_the_order_and_number_of_lists_changes_no_destination(
    a: tuple[EgressRule, ...], b: tuple[EgressRule, ...], c: tuple[EgressRule, ...]
) -> None:
    assert meet_egress(a, b) == meet_egress(b, a)
    assert meet_egress(meet_egress(a, b), c) == meet_egress(a, meet_egress(b, c))
    assert meet_egress(a, a) == normal_egress(a) == normal_egress(reversed(a))
    assert meet_egress(meet_egress(a, b), b) == meet_egress(a, b)
    assert meet_egress(a, None) == normal_egress(a)


@given(credentials, credentials, credentials)
def test_the_order_and_number_of_lists_changes_no_credential(
    a: tuple[CredentialRule, ...], b: tuple[CredentialRule, ...], c: tuple[CredentialRule, ...]
) -> None:
    assert meet_credentials(a, b) == meet_credentials(b, a)
    assert meet_credentials(meet_credentials(a, b), c) == meet_credentials(
        a, meet_credentials(b, c)
    )
    assert meet_credentials(a, a) == normal_credentials(a) == normal_credentials(reversed(a))
    assert meet_credentials(meet_credentials(a, b), b) == meet_credentials(a, b)
    assert meet_credentials(a, None) == normal_credentials(a)


@given(egress, egress, st.data())
def test_lists_that_let_the_same_through_are_written_the_same(
    left: tuple[EgressRule, ...], right: tuple[EgressRule, ...], data: st.DataObject
) -> None:
    everything = [
        (host, port, method, path)
        for host in HOSTS
        for port in PORTS
        for method in [*METHODS, "TRACE"]
        for path in [*PATHS, "/c", "/a/b/c/d", "/a/c"]
    ]
    same = all(lets(left, *each) == lets(right, *each) for each in everything)
    assert same == (normal_egress(left) == normal_egress(right))
    shuffled = data.draw(st.permutations(left))
    assert normal_egress(shuffled) == normal_egress(left)


def test_a_prefix_covers_whole_segments_only() -> None:
    repos = EgressRule(host="api.example.com", port=443, path_prefix="/repos")
    other = EgressRule(host="api.example.com", port=443, path_prefix="/repository")
    assert meet_egress([repos], [other]) == ()


@pytest.mark.parametrize("scopes", [(), ("admin",)])
def test_losing_the_last_scope_loses_the_credential(scopes: tuple[str, ...]) -> None:
    declared = CredentialRule(ref="vault:ci", scopes=("read",))
    assert meet_credentials([declared], [CredentialRule(ref="vault:ci", scopes=scopes)]) == ()


@pytest.mark.parametrize(
    "host",
    ["API.example.com", "*.example.com", "example.com.", "", "a b", "127.1", "0x7f.1", "1.2.3.256",
     "127.0.0.01", "::01", "exa_mple.com", "-a.com", "a..b", "ex\u0430mple.com", "[::1]", "0x7f000001",
     "2130706433"],
)  # fmt: skip
def test_host_that_could_be_read_in_two_ways_is_not_plain(host: str) -> None:
    assert not plain_host(host)
    assert normal_egress([EgressRule(host=host, port=443)]) == ()


@pytest.mark.parametrize(
    "host", ["localhost", "api.example.com", "127.0.0.1", "::1", "xn--e1a.com"]
)
def test_exact_name_or_address_is_plain(host: str) -> None:
    assert plain_host(host)


@pytest.mark.parametrize(
    "path", ["", "a", "/a/../b", "/./a", "/a//b", "/a%2fb", "/a?b", "/a#b", "/a\\b", "/" * 40,
             "/a" * 33, "/a b", "/\u00e9"],
)  # fmt: skip
def test_path_that_could_be_read_in_two_ways_is_not_plain(path: str) -> None:
    assert not plain_path(path)
    rule = EgressRule(host="localhost", port=1, path_prefix=path)
    assert normal_egress([rule]) == ()


def test_host_longer_than_any_can_be_is_not_plain_and_not_kept() -> None:
    before = reach._spelt_plainly.cache_info().currsize
    for number in range(3):
        assert not plain_host(f"{number}x." + "a." * reach.MAX_HOST + "example")
    assert reach._spelt_plainly.cache_info().currsize == before
    longest = ".".join(["a" * 49] * 5) + ".abc"
    assert len(longest) == reach.MAX_HOST
    assert plain_host(longest)
    assert not plain_host("b" + longest)
