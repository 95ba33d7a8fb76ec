"""For any plan and any section: what is asked for is in both. For any bytes: an answer, or a fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from remit.runners.credentials import aws, github, vault
from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.http import Answer
from tests.runners.credentials.test_aws import ROLE
from tests.runners.credentials.test_github import pem
from tests.runners.credentials.world import TokenIssuer, kit, section

KEY = pem(rsa.generate_private_key(public_exponent=65_537, key_size=2_048))
ISSUER = TokenIssuer()
LEVELS = github.LEVELS

names = st.sampled_from(["a", "b", "c", "d"])
levels = st.sampled_from(LEVELS)
permissions = st.dictionaries(names, levels, min_size=1)
scopes = st.lists(
    st.builds("repository:{}".format, names) | st.builds("permission:{}={}".format, names, levels),
    max_size=8,
)


def most(named: list[str]) -> dict[str, int]:
    """The highest level that these scopes name for each permission."""
    found: dict[str, int] = {}
    for scope in named:
        kind, _, what = scope.partition(":")
        if kind == "permission":
            name, _, level = what.partition("=")
            found[name] = max(found.get(name, 0), LEVELS.index(level))
    return found


@given(repositories=st.lists(names, min_size=1), allowed=permissions, named=scopes)
def test_a_github_token_is_never_asked_for_more_than_both_name(
    repositories: list[str], allowed: dict[str, Any], named: list[str]
) -> None:
    found = section(
        broker="github", app_id="1", installation_id="1", private_key="env:KEY",
        repositories=repositories, permissions=allowed,
    )  # fmt: skip
    broker = github.GithubBroker(kit(found, secrets={"private_key": KEY}))
    try:
        got, levels = broker._meet(named)
    except BrokerFault:
        both = {s.partition(":")[2] for s in named if s.startswith("repository:")}
        assert not both & set(repositories) or not most(named).keys() & allowed.keys()
        return
    assert got
    assert levels
    assert got <= set(repositories)
    assert all(LEVELS.index(level) <= LEVELS.index(allowed[name]) for name, level in levels.items())
    if named:
        assert got <= {s.partition(":")[2] for s in named if s.startswith("repository:")}
        assert all(LEVELS.index(level) <= most(named)[name] for name, level in levels.items())


sids = st.lists(st.text("abcAB1", min_size=1, max_size=3), unique=True, max_size=5)


@given(allow=sids, deny=sids, named=st.lists(st.text("abcAB1", min_size=1, max_size=3), max_size=4))
def test_an_aws_scope_leaves_every_deny_and_adds_no_allow(
    allow: list[str], deny: list[str], named: list[str]
) -> None:
    deny = [sid for sid in deny if sid not in allow]
    statements = [{"Sid": s, "Effect": "Allow", "Action": "x:y", "Resource": "*"} for s in allow]
    statements += [{"Sid": s, "Effect": "Deny", "Action": "x:y", "Resource": "*"} for s in deny]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    broker = aws.AwsBroker(kit(section(broker="aws", role_arn=ROLE, policy=policy), ISSUER))
    try:
        chosen = broker._chosen(named)
    except BrokerFault:
        assert set(named) - set(allow)
        return
    kept = {each["Sid"] for each in chosen if each["Effect"] == "Allow"}
    assert kept == (set(named) if named else set(allow))
    assert {each["Sid"] for each in chosen if each["Effect"] == "Deny"} == set(deny)


PIECES = """<a> </a> <b/> <!DOCTYPE~a> <!ENTITY~x~'y'> &x; &#65; text <?xml~version='1.0'?> <!--
--> <![CDATA[ ]]> \xff \x00 <a:b>"""
pieces = st.sampled_from([piece.replace("~", " ").encode("latin-1") for piece in PIECES.split()])


@given(st.binary(max_size=200) | st.lists(pieces, max_size=12).map(b"".join))
def test_whatever_aws_answers_is_read_or_refused(content: bytes) -> None:
    answer = Answer(name="AWS STS", status=200, content=content)
    try:
        found = aws._texts(answer)
    except BrokerFault:
        return
    assert b"<!DOCTYPE" not in content or b"<!--" in content or b"<![CDATA[" in content
    assert found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)  # fmt: skip


@given(json_values)
def test_whatever_vault_keeps_becomes_fields_of_text_or_is_refused(data: Any) -> None:
    try:
        fields = vault._fields(data)
    except BrokerFault:
        return
    assert fields
    assert all(isinstance(value, str) for value in fields.values())
    assert set(vault._secrets(fields)) <= set(fields.values())


@given(st.binary(max_size=100))
def test_whatever_is_answered_is_an_object_or_refused(content: bytes) -> None:
    answer = Answer(name="the server", status=200, content=content)
    try:
        found = answer.facts()
    except BrokerFault:
        return
    assert isinstance(found, dict)


def test_what_is_no_text_is_no_token() -> None:
    answer = Answer(name="the server", status=200, content=b"")
    values: list[Any] = [None, 1, True, [], {}, "", "a b", "a\n", "a\x7f", "é", "x" * 70_000]
    for value in values:
        with pytest.raises(BrokerFault):
            answer.text({"token": value}, "token")
    assert answer.text({"token": "s.abc"}, "token") == "s.abc"
