"""Requests to a lending system: where they go, when they are sent again, and what is believed."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.errors import ConfigError
from remit.runners.credentials import http
from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.http import Service, bounded
from tests.policy.opa.certificates import Authority
from tests.ports import free_port
from tests.runners.credentials.fakes import Reply, Request, Scripted, serving

pytestmark = pytest.mark.anyio


class Plain(Scripted):
    def answer(self, request: Request) -> Reply:
        return Reply(200, {"ok": True})


@pytest.fixture
def other() -> Plain:
    return Plain()


@pytest.fixture
def address(other: Plain) -> Iterator[str]:
    with serving(other) as url:
        yield url


def service(url: str, *, ca: bytes | None = None) -> Service:
    return Service(url, name="the server", ca=ca, place="address")


async def asked(url: str, *, again: bool = False, ca: bytes | None = None) -> str:
    """What the fault says."""
    made = service(url, ca=ca)
    with pytest.raises(BrokerFault) as caught:
        await made.ask("POST", "/x", json={"a": 1}, again=again)
    await made.aclose()
    return caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "http://vault.example.com:8200",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "https://user:pass@vault.example.com",
        "https://vault.example.com/?a=b",
        "https://vault.example.com/#a",
        "https://vault.example.com:port",
        "ftp://vault.example.com",
        "https://",
    ],
)
def test_an_address_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        service(url)
    assert caught.value.place == "address"
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"])
def test_http_is_for_this_machine(url: str) -> None:
    service(url)


async def test_a_redirect_is_an_answer_and_is_not_followed(address: str, other: Plain) -> None:
    other.first = [Reply(307, {}, {"location": "/elsewhere"})]
    made = service(address)
    assert (await made.ask("POST", "/x", json={"token": "t"})).status == 307
    assert [request.path for request in other.seen] == ["/x"]
    await made.aclose()


async def test_no_proxy_of_the_environment_is_used(
    address: str, other: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    made = service(address)
    assert (await made.ask("GET", "/x")).ok
    await made.aclose()


async def test_a_cookie_of_one_answer_does_not_go_with_the_next(address: str, other: Plain) -> None:
    other.first = [Reply(200, {}, {"set-cookie": "who=ada; Path=/"})]
    made = service(address)
    await made.ask("GET", "/x")
    await made.ask("GET", "/x")
    assert "cookie" not in other.seen[-1].headers
    await made.aclose()


async def test_an_answer_that_is_too_long_or_compressed_is_refused(
    address: str, other: Plain
) -> None:
    other.first = [Reply(200, b"x" * (http.MAX_ANSWER + 1))]
    assert "more than" in await asked(address)
    other.first = [Reply(200, b"x", {"content-encoding": "gzip"})]
    assert "compresses" in await asked(address)


async def test_a_request_that_may_have_been_done_is_not_sent_again(
    address: str, other: Plain
) -> None:
    other.first = [Reply(200, broken=True)]
    assert "broke off" in await asked(address)
    assert len(other.seen) == 1
    made = service(address)
    for status in (500, 502, 504):
        other.first, other.seen = [Reply(status)], []
        assert (await made.ask("POST", "/x", json={})).status == status
        assert len(other.seen) == 1
    await made.aclose()


async def test_one_that_can_be_done_twice_is_sent_again_three_times_at_most(
    address: str, other: Plain
) -> None:
    other.first = [Reply(200, broken=True)] * 9
    assert "broke off" in await asked(address, again=True)
    assert len(other.seen) == http.TRIES


async def test_an_answer_that_says_not_done_is_asked_for_again(address: str, other: Plain) -> None:
    other.first = [Reply(503), Reply(429, headers={"retry-after": "0"})]
    made = service(address)
    assert (await made.ask("POST", "/x", json={})).ok
    assert len(other.seen) == 3
    await made.aclose()


@pytest.mark.parametrize("wait", ["3600", "Fri, 31 Dec 1999 23:59:59 GMT", "-1", "9" * 400])
async def test_a_long_wait_is_not_waited_for(address: str, other: Plain, wait: str) -> None:
    other.first = [Reply(429, headers={"retry-after": wait})]
    made = service(address)
    assert (await made.ask("POST", "/x", json={})).status == 429
    assert len(other.seen) == 1
    await made.aclose()


async def test_a_server_that_is_not_there_is_tried_and_then_said(other: Plain) -> None:
    assert await asked(f"http://127.0.0.1:{free_port()}") == "the server takes no connections"


async def test_one_that_does_not_answer_is_given_up_in_time(
    address: str, other: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TRY_S", 0.2)
    held = threading.Event()
    other.first = [Reply(200, {}, held=held)]
    try:
        assert await asked(address) == "the server does not answer in time"
    finally:
        held.set()


async def test_an_answer_that_comes_a_byte_at_a_time_is_given_up_in_time(
    address: str, other: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TRY_S", 0.3)
    other.first = [Reply(200, b" " * 200, drips=True)]
    assert await asked(address) == "the server does not answer in time"


async def test_all_of_a_loan_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TOTAL_S", 0.05)
    with pytest.raises(BrokerFault, match="the server did not answer"):
        async with bounded("the server"):
            await asyncio.Event().wait()


@pytest.mark.threat("T-33")
async def test_nothing_that_is_sent_or_answered_is_logged_or_shown(
    address: str, other: Plain, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = ("s.header-secret", "s.body-secret", "s.answer-secret")
    made = service(address)
    with caplog.at_level(logging.DEBUG):
        for reply in (Reply(200, {"token": secrets[2]}), Reply(200, broken=True)):
            other.first = [reply]
            shown = ""
            try:
                answer = await made.ask(
                    "POST", "/x", headers={"x-vault-token": secrets[0]}, json={"jwt": secrets[1]}
                )
                shown = repr(answer) + repr(answer.content == b"")
            except BrokerFault as fault:
                shown = "".join(traceback.format_exception(fault)) + repr(vars(fault))
            assert not any(secret in shown + repr(made) for secret in secrets)
    assert other.seen[0].headers["x-vault-token"] == secrets[0]
    assert not any(secret in caplog.text for secret in secrets)
    await made.aclose()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


def tls(authority: Authority, name: str, address: str | None) -> ssl.SSLContext:
    pair = authority.issue(name, address=address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


async def test_only_certificates_of_the_named_authorities_are_trusted(
    authority: Authority, other: Plain, tmp_path: Path
) -> None:
    ours = authority.path.read_bytes()
    theirs = Authority(tmp_path, "theirs").path.read_bytes()
    with serving(other, tls=tls(authority, "good", "127.0.0.1")) as url:
        made = service(url, ca=ours)
        assert (await made.ask("GET", "/x")).ok
        await made.aclose()
        assert "is not trusted" in await asked(url, ca=theirs)
        assert "is not trusted" in await asked(url)
    with serving(other, tls=tls(authority, "other-name", None)) as url:
        assert "is not trusted" in await asked(url, ca=ours)
    assert len(other.seen) == 1


def test_a_file_without_certificates_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        service("https://vault.example.com", ca=b"nothing")
    assert caught.value.place == "ca_file"
