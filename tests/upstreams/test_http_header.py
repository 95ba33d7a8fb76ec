"""In which header a server is shown a credential, and in which none ever stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.model import SHOWN_AS
from remit.upstreams.http_header import header_fault, header_line, shown_as

GOOD = {
    SHOWN_AS: b"Authorization: Bearer t\r\n",
    "Authorization: {token}": b"Authorization: t\r\n",
    "Authorization: Token {token}": b"Authorization: Token t\r\n",
    "authorization: Basic {token}": b"authorization: Basic t\r\n",
    "X-Api-Key: {token}": b"X-Api-Key: t\r\n",
    "Ocp-Apim-Subscription-Key: {token}": b"Ocp-Apim-Subscription-Key: t\r\n",
    "x!#$%&'*+-.^_`|~: {token}": b"x!#$%&'*+-.^_`|~: t\r\n",
}


@pytest.mark.parametrize("header", sorted(GOOD))
def test_a_token_stands_in_the_header_that_was_written(header: str) -> None:
    assert header_fault(header) is None
    assert header_line(header, b"t") == GOOD[header]


@pytest.mark.threat("T-33")
@pytest.mark.parametrize(
    "name",
    [
        "Host", "HOST", "Content-Length", "content-type", "Transfer-Encoding", "Connection",
        "Mcp-Session-Id", "Mcp-Anything", "mcp_session_id", "Accept", "Accept-Encoding", "Cookie",
        "Proxy-Authorization", "Origin", "Upgrade", "TE", "Expect", "Keep-Alive", "Trailer",
        "Sec-Fetch-Mode", "User-Agent", "Last-Event-ID", "X-Forwarded-For", "X_Forwarded_For",
        "Forwarded", "traceparent", "X-HTTP-Method-Override", "If-None-Match",
    ],
)  # fmt: skip
def test_a_header_that_says_something_else_of_a_request_is_none(name: str) -> None:
    fault = header_fault(f"{name}: {{token}}")
    assert fault is not None
    assert name in fault
    with pytest.raises(ValueError, match="no header"):
        header_line(f"{name}: {{token}}", b"t")


@pytest.mark.parametrize(
    "header",
    [
        "", "X-Api-Key", "X-Api-Key: ", "X-Api-Key:{token}", "X-Api-Key: {token} ", ": {token}",
        "X-Api-Key: {token}{token}", "X-Api-Key: {token} a", "X-Api-Key: a{token}", "A B: {token}",
        "X-Api-Key: a b {token}", "X-Api-Key: a\r\nB: {token}", "X: {token}\r\n", "X: {token}\n",
        "X\n: {token}", "X: a\t{token}", "É: {token}", "X: É {token}", "X(: {token}", "X: {other}",
        f"{'X' * 65}: {{token}}", f"X: {'a' * 33} {{token}}", "X: 1 {token}",
    ],
)  # fmt: skip
def test_what_is_no_header_with_one_token_is_refused(header: str) -> None:
    assert header_fault(header) is not None


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_whatever_is_written_makes_one_line_or_none(name: str, scheme: str) -> None:
    for header in (shown_as(name, scheme), f"{name}: {scheme}{{token}}"):
        if header_fault(header) is None:
            line = header_line(header, b"!~")
            assert line.endswith(b"!~\r\n")
            assert line.count(b"\r") == line.count(b"\n") == 1
            assert line.count(b"!~\r\n") == 1
            assert not line.startswith((b" ", b":"))


def test_what_a_client_sent_is_shown_as_it_was() -> None:
    assert shown_as("authorization", "bearer \t") == SHOWN_AS
    assert shown_as("Authorization", "Token ") == "Authorization: Token {token}"
    assert shown_as("X-Api-Key", "") == "X-Api-Key: {token}"
