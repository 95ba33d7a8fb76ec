"""What a run may reach, as sets that only shrink: destinations, and credentials by their scopes.

A list of rules stands for all that any of them lets through. `meet` gives what two lists both let
through, in one normal form: two lists that let the same through have the same form, so that a
list met with itself, in any order and any number of times, stays as it is.

Nothing here opens a connection or reads a secret. A rule that is not plain (see `plain_host`,
`plain_path`, `plain_method`) lets nothing through.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from remit.model import CredentialRule, EgressRule

MAX_SEGMENTS = 32
"""Longest path prefix, in segments."""

MAX_HOST = 253
"""Longest host, in characters; nothing longer is looked at, or kept."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_METHOD = re.compile(r"[A-Z]{1,16}")
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")

_ANY = ""
"""Stands for every method."""

_Place = tuple[str, int, tuple[str, ...]]
_Destinations = Mapping[_Place, frozenset[str]]
_Terms = frozenset[tuple[str | None, int | None]]
_Scopes = Mapping[tuple[str, str], _Terms]


# ------------------------------------------------------------------------------- destinations


def plain_host(host: str) -> bool:
    """Whether a host is one exact name in lower case, or an IP address in its usual spelling."""
    return len(host) <= MAX_HOST and _spelt_plainly(host)


@lru_cache(maxsize=4096)  # the same few hosts are looked at several times for each call
def _spelt_plainly(host: str) -> bool:
    try:
        return str(ipaddress.ip_address(host)) == host
    except ValueError:
        labels = host.split(".")
        # A name whose last part is a number would be read as an address by some parsers.
        return (
            all(_LABEL.fullmatch(label) is not None for label in labels)
            and not labels[-1].isdigit()
            and re.fullmatch(r"0x[0-9a-f]*", labels[-1]) is None
        )


def plain_method(method: str) -> bool:
    """Whether a method is in capital letters."""
    return _METHOD.fullmatch(method) is not None


def plain_path(prefix: str) -> bool:
    """Whether a path prefix is one that every server reads the same way: no `..`, no `%`, no `//`."""
    if not prefix.startswith("/"):
        return False
    segments = prefix.removesuffix("/").split("/")[1:]
    return len(segments) <= MAX_SEGMENTS and all(
        _SEGMENT.fullmatch(segment) and segment.strip(".") for segment in segments
    )


def plain(rule: EgressRule) -> bool:
    """Whether a rule names one destination in one way only."""
    return (
        plain_host(rule.host)
        and 1 <= rule.port <= 65_535
        and (rule.methods is None or all(map(plain_method, rule.methods)))
        and (rule.path_prefix is None or plain_path(rule.path_prefix))
    )


def normal_egress(rules: Iterable[EgressRule]) -> tuple[EgressRule, ...]:
    """The same destinations in normal form: sorted, and nothing said twice."""
    return _rules(_least(_destinations(rules)))


def meet_egress(
    left: Iterable[EgressRule] | None, right: Iterable[EgressRule] | None
) -> tuple[EgressRule, ...] | None:
    """What both let through, in normal form; None is no opinion.

    Hosts and ports have to be equal; methods None is any; a path prefix covers whole segments.
    """
    if left is None or right is None:
        said = right if left is None else left
        return None if said is None else normal_egress(said)
    mine, theirs = _destinations(left), _destinations(right)
    found: dict[_Place, frozenset[str]] = defaultdict(frozenset)
    for one, other in ((mine, theirs), (theirs, mine)):
        for (host, port, path), methods in one.items():
            for length in range(len(path) + 1):
                outer = other.get((host, port, path[:length]))
                if outer is not None:
                    found[host, port, path] |= _both(methods, outer)
    return _rules(_least(found))


def _destinations(rules: Iterable[EgressRule]) -> _Destinations:
    found: dict[_Place, frozenset[str]] = defaultdict(frozenset)
    for rule in rules:
        if plain(rule):
            path = tuple(part for part in (rule.path_prefix or "").split("/") if part)
            methods = {_ANY} if rule.methods is None else rule.methods
            found[rule.host, rule.port, path] |= frozenset(methods)
    return found


def _both(left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
    if _ANY in left:
        return right
    return left if _ANY in right else left & right


def _least(found: _Destinations) -> dict[_Place, frozenset[str]]:
    """Without what a shorter prefix, or any method, lets through already."""
    kept: dict[_Place, frozenset[str]] = {}
    for (host, port, path), methods in found.items():
        outer = frozenset[str]().union(
            *(found.get((host, port, path[:length]), ()) for length in range(len(path)))
        )
        left = frozenset() if _ANY in outer else methods - outer
        if left:
            kept[host, port, path] = frozenset({_ANY}) if _ANY in left else left
    return kept


def _rules(found: _Destinations) -> tuple[EgressRule, ...]:
    return tuple(
        EgressRule(
            host=host,
            port=port,
            methods=None if _ANY in methods else tuple(sorted(methods)),
            path_prefix="/" + "/".join(path) if path else None,
        )
        for (host, port, path), methods in sorted(found.items(), key=lambda item: item[0])
    )


def egress_facts(rules: Iterable[EgressRule]) -> list[dict[str, Any]]:
    """Destinations as plans and policy documents name them; what is any is left out."""
    return [
        {
            "host": rule.host,
            "port": rule.port,
            **({} if rule.methods is None else {"methods": list(rule.methods)}),
            **({} if rule.path_prefix is None else {"path_prefix": rule.path_prefix}),
        }
        for rule in rules
    ]


# -------------------------------------------------------------------------------- credentials


def credential_facts(rules: Iterable[CredentialRule]) -> list[dict[str, Any]]:
    """Credentials as plans and policy documents name them: handles, never a secret."""
    return [
        {
            "ref": rule.ref,
            "scopes": list(rule.scopes),
            **({} if rule.ttl_s is None else {"ttl_s": rule.ttl_s}),
            **({} if rule.audience is None else {"audience": rule.audience}),
        }
        for rule in rules
    ]


def normal_credentials(rules: Iterable[CredentialRule]) -> tuple[CredentialRule, ...]:
    """The same credentials in normal form: one for each name, audience and life."""
    return _credentials(_scopes(rules))


def meet_credentials(
    left: Iterable[CredentialRule] | None, right: Iterable[CredentialRule] | None
) -> tuple[CredentialRule, ...] | None:
    """What both give, in normal form; None is no opinion.

    A credential without scopes meets only one without scopes: taking the last scope away takes
    the credential. Audience None is any, a life of None as long as its issuer gives it.
    """
    if left is None or right is None:
        said = right if left is None else left
        return None if said is None else normal_credentials(said)
    mine, theirs = _scopes(left), _scopes(right)
    met: dict[tuple[str, str], _Terms] = {}
    for key in mine.keys() & theirs.keys():
        pairs = ((one, other) for one in mine[key] for other in theirs[key])
        met[key] = frozenset(
            (one[0] if other[0] is None else other[0], _shorter(one[1], other[1]))
            for one, other in pairs
            if one[0] is None or other[0] is None or one[0] == other[0]
        )
    return _credentials(met)


def _scopes(rules: Iterable[CredentialRule]) -> _Scopes:
    found: dict[tuple[str, str], _Terms] = defaultdict(frozenset)
    for rule in rules:
        for scope in rule.scopes or ("",):
            found[rule.ref, scope] |= {(rule.audience, rule.ttl_s)}
    return found


def _shorter(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)


def _covers(outer: tuple[str | None, int | None], inner: tuple[str | None, int | None]) -> bool:
    return (outer[0] is None or outer[0] == inner[0]) and (
        outer[1] is None or (inner[1] is not None and inner[1] <= outer[1])
    )


def _credentials(found: _Scopes) -> tuple[CredentialRule, ...]:
    grouped: dict[tuple[str, str | None, int | None, bool], set[str]] = defaultdict(set)
    for (ref, scope), terms in found.items():
        for term in terms:
            if not any(other != term and _covers(other, term) for other in terms):
                grouped[ref, *term, scope == ""].add(scope)
    rules = (
        CredentialRule(
            ref=ref, scopes=() if bare else tuple(sorted(scopes)), ttl_s=ttl_s, audience=audience
        )
        for (ref, audience, ttl_s, bare), scopes in grouped.items()
    )
    return tuple(sorted(rules, key=_order))


def _order(rule: CredentialRule) -> tuple[str, str, int, tuple[str, ...]]:
    return rule.ref, rule.audience or "", rule.ttl_s or 0, rule.scopes
