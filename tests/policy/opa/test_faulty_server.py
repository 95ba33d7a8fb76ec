"""Whatever a server sends, it ends in a denial with its own code, and nothing raises."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from remit.model import Deny
from remit.policy.opa.client import OpaEngine
from tests.policy.opa.world import (
    DECIDE,
    VERSION,
    Handler,
    always,
    answering,
    asking,
    decided,
    fault_of,
    http,
    misbehaving,
    pointing,
    request_of,
    said,
)
from tests.policy.world import ask, code_of

pytestmark = pytest.mark.anyio

GOOD = http(said(decided()))
MIB = 1024 * 1024

ERRORS = {
    "code": "internal_error",
    "message": "error(s) occurred",
    "errors": [
        {
            "code": "eval_conflict_error",
            "message": "hunter2 and hunter3",
            "location": {"file": "remit.rego", "row": 7},
        }
    ],
}


def _provenance(provenance: Any) -> bytes:
    return http(json.dumps({"result": decided(), "provenance": provenance}).encode())


def _status(status: str, body: bytes = b"{}", *fields: str) -> bytes:
    return http(body, status=status, fields=("Content-Type: application/json", *fields))


CLOSING: dict[str, tuple[str, bytes]] = {
    # no answer
    "nothing": ("policy_unavailable", b""),
    "head_only": ("policy_unavailable", b"HTTP/1.1 200 OK\r\nContent-Type: applic"),
    "truncated": ("policy_unavailable", GOOD[:-9]),
    "length_too_long": ("policy_unavailable", http(said(decided()), length=5_000)),
    "until_it_closes": (
        "policy_unavailable",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + said(decided()),
    ),
    "unfinished_chunks": (
        "policy_unavailable",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ),
}

ROWS: dict[str, tuple[str, bytes]] = {
    # it has no value
    "no_result": ("policy_undefined", http(said())),
    "no_result_and_more": ("policy_undefined", http(said(warning={"code": "api_usage_warning"}))),
    "empty_result": ("policy_undefined", http(said({}))),
    # it failed
    "error": ("policy_error", _status("500 Internal Server Error", json.dumps(ERRORS).encode())),
    "error_without_words": ("policy_error", _status("500 Internal Server Error", b"")),
    "error_with_odd_words": ("policy_error", _status("500 Oh", b'{"errors": [7], "code": {}}')),
    "bad_request": ("policy_error", _status("400 Bad Request", b'{"code":"invalid_parameter"}')),
    # it is not there now
    "bad_gateway": ("policy_unavailable", _status("502 Bad Gateway")),
    "overloaded": ("policy_unavailable", _status("503 Service Unavailable")),
    "too_many": ("policy_unavailable", _status("429 Too Many Requests")),
    # it is not the server that is meant
    "unauthorized": ("policy_not_ready", _status("401 Unauthorized")),
    "forbidden": ("policy_not_ready", _status("403 Forbidden")),
    "not_found": ("policy_not_ready", _status("404 Not Found")),
    "no_content": ("policy_not_ready", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "continue": ("policy_not_ready", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "moved": ("policy_not_ready", _status("301 Moved", b"{}", "Location: http://127.0.0.1:1/")),
    "redirect": ("policy_not_ready", _status("307 Temporary", b"{}", "Location: /v1/data/x")),
    # it is no HTTP answer, or more than one
    "garbage": ("policy_unavailable", b"\x00\xff\xfe not http \r\n\r\n"),
    "tls_greeting": ("policy_unavailable", b"\x16\x03\x01\x02\x00\x01\x00"),
    "two_answers": ("policy_unavailable", GOOD + GOOD),
    "length_too_short": ("policy_unavailable", http(said(decided()), length=20)),
    "two_lengths": ("policy_unavailable", GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n", 1)),
    "length_and_chunks": (
        "policy_unavailable",
        GOOD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 1),
    ),
    "bad_chunk": (
        "policy_unavailable",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    ),
    "upgrade": (
        "policy_unavailable",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ),
    # it is not JSON as it has to be
    "no_json": ("policy_bad_decision", http(b"<html>hello</html>")),
    "half_json": ("policy_bad_decision", http(said(decided())[:-1])),
    "trailing": ("policy_bad_decision", http(said(decided()) + b"{}")),
    "trailing_comma": ("policy_bad_decision", http(said(decided())[:-1] + b",}")),
    "list": ("policy_bad_decision", http(b"[" + said(decided()) + b"]")),
    "empty_body": ("policy_bad_decision", http(b"")),
    "not_utf8": ("policy_bad_decision", http(b'{"result": "\xff"}')),
    "two_results": ("policy_bad_decision", http(said(decided())[:-1] + b', "result": {}}')),
    "too_deep": ("policy_bad_decision", http(b'{"result": ' + b"[" * 200_000)),
    "long_number": ("policy_bad_decision", http(b'{"result": ' + b"9" * 9_000 + b"}")),
    "text": ("policy_bad_decision", http(said(decided()), fields=("Content-Type: text/plain",))),
    "no_type": ("policy_bad_decision", http(said(decided()), fields=())),
    "compressed": (
        "policy_bad_decision",
        http(
            said(decided()), fields=("Content-Type: application/json", "Content-Encoding: gzip")
        ),
    ),
    "huge": ("policy_bad_decision", http(said(decided(), pad="x" * MIB))),
    "huge_head": ("policy_bad_decision", http(b"{}", fields=[f"X-{n}: {'y' * 990}" for n in range(1_100)])),
    # it does not say under which policy, or the version is none that is known
    "no_provenance": ("policy_not_ready", http(json.dumps({"result": decided()}).encode())),
    "odd_provenance": ("policy_not_ready", _provenance([VERSION])),
    "no_version": ("policy_not_ready", _provenance({"bundles": {"a": {"revision": "r1"}}})),
    "old_version": (
        "policy_not_ready",
        _provenance({"version": "1.17.0", "bundles": {"a": {"revision": "r1"}}}),
    ),
    "no_bundles": ("policy_not_ready", _provenance({"version": VERSION})),
    "empty_bundles": ("policy_not_ready", _provenance({"version": VERSION, "bundles": {}})),
    "no_revision": ("policy_not_ready", _provenance({"version": VERSION, "bundles": {"a": {}}})),
    "empty_revision": (
        "policy_not_ready",
        _provenance({"version": VERSION, "bundles": {"a": {"revision": ""}}}),
    ),
    "one_without_revision": (
        "policy_not_ready",
        _provenance({"version": VERSION, "bundles": {"a": {"revision": "r1"}, "b": {}}}),
    ),
    # it is no decision
    "null": ("policy_bad_decision", http(said()[:-1] + b', "result": null}')),
    "boolean": ("policy_bad_decision", http(said(True))),
    "other_schema": ("policy_bad_decision", http(said(decided(schema="remit.decision/2")))),
    "unknown_field": ("policy_bad_decision", http(said(decided(allowed=True)))),
    "unknown_verdict": ("policy_bad_decision", http(said(decided("permit")))),
    "key_twice": (
        "policy_bad_decision",
        http(said()[:-1] + b', "result": {"decision": "deny", "decision": "allow"}}'),
    ),
    "contradiction": ("policy_inconsistent", http(said(decided("require_approval")))),
    # and what does work
    "allowed": ("none", GOOD),
    "denied": ("policy_denied", http(said(decided("deny")))),
    "oldest_version": (
        "none",
        _provenance({"version": "1.17.1", "bundles": {"a": {"revision": "r1"}}}),
    ),
    "charset": (
        "none",
        http(said(decided()), fields=("content-type: application/json; charset=utf-8",)),
    ),
    "chunks": (
        "none",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(said(decided())):x}\r\n".encode()
        + said(decided())
        + b"\r\n0\r\n\r\n",
    ),
}  # fmt: skip


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("case", [*ROWS, *CLOSING])
async def test_answer_is_denied_with_its_code_or_is_a_decision(case: str, tmp_path: Path) -> None:
    expected, answer = ROWS[case] if case in ROWS else CLOSING[case]
    async with asking(always(answer, close=case in CLOSING), tmp_path) as point:
        decision = await ask(point, case)
        assert code_of(decision) == expected
        if isinstance(decision, Deny):
            assert decision.reasons[0].message
            assert decision.retriable is (expected == "policy_unavailable")
            assert "hunter" not in str(decision)


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    for byte in GOOD:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await writer.drain()


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("handler", [_silent, _dripping])
async def test_answer_that_is_not_whole_by_the_deadline_is_denied_at_the_deadline(
    handler: Handler, tmp_path: Path
) -> None:
    async with asking(handler, tmp_path, deadline_ms=200) as point:
        started = asyncio.get_running_loop().time()
        decision = await ask(point, "slow")
        took = asyncio.get_running_loop().time() - started
        assert code_of(decision) == "policy_unavailable"
        assert 0.19 < took < 1.5


@pytest.mark.threat("T-12")
async def test_answer_without_end_is_cut_off_at_one_mebibyte(tmp_path: Path) -> None:
    async with asking(_endless, tmp_path) as point:
        assert code_of(await ask(point, "endless")) == "policy_bad_decision"


@pytest.mark.threat("T-12")
async def test_error_names_its_kind_and_place_but_no_value(tmp_path: Path) -> None:
    answer = _status("500 Internal Server Error", json.dumps(ERRORS).encode())
    async with asking(always(answer), tmp_path) as point:
        decision = await ask(point, "error")
        told = str(decision)
        assert "eval_conflict_error" in told
        assert "remit.rego:7" in told
        assert "hunter" not in told


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_refusal_is_told_apart_from_a_server_that_is_no_opa(
    status: str, tmp_path: Path
) -> None:
    async with asking(always(_status(status)), tmp_path) as point:
        assert "refuses Remit" in str(await ask(point, "any"))


@pytest.mark.threat("T-12", "T-29")
async def test_redirect_is_not_followed(tmp_path: Path) -> None:
    asked: list[str] = []

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await request_of(reader))[0])
        writer.write(GOOD)

    async with misbehaving(other) as target:
        moved = _status("302 Found", b"{}", f"Location: {target}/v1/data/remit/decision")
        async with asking(always(moved), tmp_path) as point:
            assert code_of(await ask(point, "moved")) == "policy_not_ready"
    assert asked == []


@pytest.mark.threat("T-29")
async def test_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with misbehaving(answering()) as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        async with pointing(engine) as point:
            assert code_of(await ask(point, "any")) == "none"


async def test_request_is_what_opa_asks_for_and_the_document_is_not_encoded_anew(
    tmp_path: Path,
) -> None:
    seen: list[tuple[str, bytes]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(GOOD)

    document = b'{"b": 1.0,   "a":"\\u00e9"}'
    async with misbehaving(handler, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        answer = await engine.evaluate([DECIDE], document)
        await engine.aclose()
    path = "/v1/data/remit/decision?strict-builtin-errors=true&provenance=true"
    assert seen == [(f"POST {path} HTTP/1.1", b'{"input":' + document + b"}")]
    assert answer.values == (json.dumps(decided()).encode(),)
    assert (answer.revision, engine.name, engine.revision) == ("r1", "opa 1.22.2", "r1")


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("rule", ["remit/decision", "remit.decision?x", "remit", "a..b", "é.b", ""])
async def test_rule_that_is_no_plain_name_is_never_part_of_a_path(
    rule: str, tmp_path: Path
) -> None:
    engine = await OpaEngine.connect(f"unix:{tmp_path}/none.sock")
    assert (await fault_of(engine.evaluate([rule], b"{}"))).code == "policy_error"
    await engine.aclose()


async def test_decision_id_of_opa_is_kept(tmp_path: Path) -> None:
    async with misbehaving(answering(decision_id="4ca6-12"), tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        assert (await engine.evaluate([DECIDE], b"{}")).decision_id == "4ca6-12"
        await engine.aclose()
