"""Log lines: one JSON object each, with ids, and never a secret or a caller's value."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import Code, LedgerFault
from remit.identity.keys import new_key
from remit.telemetry import MASK, configure_logs, logger, mask, mask_event
from tests.cli.serving import Serving, configure, serving
from tests.doors.serving import LEGACY, call_body, modern_headers

pytestmark = pytest.mark.slow

KEY = "remit_intruder_" + "K" * 43
PRIVATE = "-----BEGIN PRIVATE " + "KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE " + "KEY-----"

ECHO = {
    "name": "echo",
    "description": "Says it.",
    "effect": "read",
    "input_schema": {
        "type": "object",
        "properties": {"text": {"type": "string", "maxLength": 200}},
        "required": ["text"],
        "additionalProperties": False,
    },
    "command": {"argv": ["/bin/sh", "-c", 'echo "$1"; echo "$1" >&2', "sh", "{text}"]},
}

ALLOW = """package remit

import rego.v1
import future.keywords.not

default decision := {
    "schema": "remit.decision/1", "decision": "deny",
    "reasons": [{"code": "no_rule", "message": "no rule", "audience": "user"}],
}

decision := {
    "schema": "remit.decision/1", "decision": "allow",
    "reasons": [{"code": "test", "message": "a test", "audience": "user"}],
} if input.tool.name

visible := {tool.name: true | some tool in input.tools}
"""


@pytest.fixture
def echoing(home: Path) -> Iterator[tuple[Serving, str]]:
    """A gateway that allows a tool which says its argument back, and its caller's token."""
    (home / "policy/remit.rego").write_text(ALLOW)
    (home / "policy/remit_test.rego").unlink()
    config = configure(home, catalog={"tools": [ECHO]}, telemetry={"log_level": "debug"})
    with serving(config) as gateway:
        yield gateway, (home / ".remit/keys/agent.token").read_text().strip()


def post(at: str, bodies: list[tuple[dict[str, str], Any]]) -> list[httpx2.Response]:
    async def all_of_them() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(timeout=20) as client:
            return [await client.post(at, headers=h, json=b) for h, b in bodies]

    return anyio.run(all_of_them)


@pytest.mark.needs("bwrap", "userns", "cgroup")
@pytest.mark.threat("T-26")
def test_key_in_arguments_output_claims_and_headers_never_reaches_a_line(
    echoing: tuple[Serving, str],
) -> None:
    gateway, token = echoing
    at = gateway.until("serving")["mcp"]
    headers = modern_headers("tools/call", "echo", key=token)
    meta = {"dev.remit/purpose": {"purpose": f"because {KEY}", "ticket": KEY}}
    good = call_body("echo", {"text": KEY}, meta)
    stranger = modern_headers("tools/call", "echo", key=KEY)
    answers = post(
        at,
        [
            (headers, good),
            (headers, call_body("echo", {KEY: KEY})),
            (headers, call_body("echo", {"text": KEY * 5})),
            (modern_headers("tools/call", KEY, key=token), call_body(KEY)),
            (stranger, good),
            (headers | {"mcp-method": KEY}, good),
        ],
    )
    assert answers[0].json()["result"]["isError"] is False
    assert answers[4].status_code == 401
    assert gateway.stop() == 0
    said = "".join(gateway.raw)
    assert len(gateway.lines) > 6
    assert KEY not in said
    assert "K" * 43 not in said
    assert token not in said


@pytest.mark.needs("bwrap", "userns", "cgroup")
def test_line_of_a_call_has_the_ids_that_the_caller_was_given(
    echoing: tuple[Serving, str],
) -> None:
    gateway, token = echoing
    at = gateway.until("serving")["mcp"]
    headers = modern_headers("tools/call", "echo", key=token)
    (answer,) = post(at, [(headers, call_body("echo", {"text": "hello"}))])
    decision = answer.json()["result"]["_meta"]["dev.remit/decision"]
    line = gateway.until("call", run=decision["run_id"])
    assert (line["decision"], line["code"], line["tool"]) == (
        decision["decision_id"], "ok", "echo",
    )  # fmt: skip
    assert gateway.stop() == 0
    assert [line for line in gateway.lines if line["event"] is None] == []
    for entry in gateway.lines[:-1]:
        assert {"event", "level", "timestamp"} <= entry.keys()


@pytest.mark.threat("T-26")
def test_words_in_messages_that_libraries_complain_of_stay_out_of_the_log(
    echoing: tuple[Serving, str],
) -> None:
    gateway, token = echoing
    at = gateway.until("serving")["mcp"]
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": LEGACY,
    }
    hello = {
        "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "CALLERSWORD", "version": "1"},
    }  # fmt: skip
    (opened,) = post(at, [(headers, _rpc("initialize", hello, 1))])
    inside = headers | {"mcp-session-id": opened.headers["mcp-session-id"]}
    post(
        at,
        [
            (inside, _rpc("notifications/initialized")),
            (inside, _rpc("notifications/progress", {"progressToken": ["CALLERSWORD"]})),
            (inside, _rpc("notifications/CALLERSWORD", {"_meta": "CALLERSWORD"})),
            (inside, _rpc("CALLERSWORD", {"x": "CALLERSWORD"}, "CALLERSWORD")),
            (inside, _rpc("tools/call", {"name": ["CALLERSWORD"]}, 3)),
        ],
    )
    assert gateway.stop() == 0
    assert "CALLERSWORD" not in "".join(gateway.raw)
    assert {line["event"] for line in gateway.lines} >= {"serving", "stopped"}


def _rpc(method: str, params: Any = None, id_: Any = None) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    return body if id_ is None else body | {"id": id_}


# ------------------------------------------------------------------------------------ in this process


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged from here on, as JSON."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    handlers, level = list(logging.root.handlers), logging.root.level
    configure_logs("json", "info")
    yield text
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


@pytest.mark.threat("T-26")
@pytest.mark.parametrize("secret", [KEY, f"Bearer {KEY}", "bearer abcdefghijk", PRIVATE])
def test_what_looks_like_a_credential_is_masked_wherever_it_stands(
    said: io.StringIO, secret: str
) -> None:
    structlog.get_logger("x").info(
        f"event {secret}", plain=f"a {secret} b", deep={"list": [secret, {"more": secret}]}
    )
    assert secret not in said.getvalue()
    assert secret.rsplit(maxsplit=1)[-1] not in said.getvalue()
    (line,) = lines(said)
    assert line["plain"] == f"a {MASK} b"
    assert line["deep"] == {"list": [MASK, {"more": MASK}]}


@pytest.mark.threat("T-26")
@pytest.mark.parametrize("name", ["token", "Authorization", "password", "api_key", "secret", "key"])
def test_field_named_like_a_secret_is_masked_whatever_it_holds(
    said: io.StringIO, name: str
) -> None:
    structlog.get_logger("x").info("event", **{name: "hunter2"}, nested={name: ["hunter2"]})
    assert "hunter2" not in said.getvalue()


@pytest.mark.threat("T-26")
@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True), st.text(), st.text())
def test_every_key_that_remit_makes_is_masked_in_any_text(
    key_id: str, before: str, after: str
) -> None:
    token = new_key(key_id).token
    assert token not in mask(f"{before} {token} {after}")
    assert token not in str(mask_event(None, "", {"event": f"{before} {token} {after}"}))


@pytest.mark.threat("T-26")
def test_exception_that_was_not_foreseen_is_named_and_placed_but_not_quoted(
    said: io.StringIO,
) -> None:
    try:
        raise ValueError("CALLERSWORD")
    except ValueError as error:
        logger().error("one", exc_info=error)
        logger().exception("two")
    first, second = lines(said)
    assert first["exception"]["type"] == second["exception"]["type"] == "ValueError"
    assert "telemetry/test_logs.py:" in first["exception"]["at"][-1]
    assert "CALLERSWORD" not in said.getvalue()


def test_fault_of_remits_own_keeps_its_words(said: io.StringIO) -> None:
    try:
        raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the ledger could not be read")
    except LedgerFault:
        logger().exception("failed")
    (line,) = lines(said)
    assert line["exception"]["says"] == "the ledger could not be read [ledger_unavailable]"


@pytest.mark.threat("T-26")
def test_line_of_a_library_is_json_without_the_values_it_is_about(said: io.StringIO) -> None:
    library = logging.getLogger("some.library")
    library.warning("dropped %r: malformed params", "CALLERSWORD")
    try:
        raise RuntimeError("CALLERSWORD")
    except RuntimeError:
        library.exception("crashed\nfuture: CALLERSWORD")
    library.info("not said at all")
    first, second = lines(said)
    assert (first["from"], first["says"]) == ("some.library", "dropped %r: malformed params")
    assert (second["says"], second["exception"]["type"]) == ("crashed", "RuntimeError")
    assert "CALLERSWORD" not in said.getvalue()


def test_level_is_the_least_that_is_said(said: io.StringIO) -> None:
    structlog.get_logger("y").debug("quiet")
    structlog.get_logger("y").info("loud")
    assert [line["event"] for line in lines(said)] == ["loud"]
