"""A whole gateway that lends: what runs get, what the gateway never has, what the record says."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import pytest

from remit.doors.issuer import CONFIGURATION, KEYS
from tests.cli.conftest import home, remit
from tests.cli.serving import Serving, configure, serving
from tests.doors.serving import call_body, http, modern_headers
from tests.runners.credentials.issuing import verified

__all__ = ["home", "remit"]

pytestmark = [pytest.mark.slow, pytest.mark.needs("bwrap", "userns", "cgroup")]

SECRET = "kept-by-the-keeper-" + "0123456789abcdef"
POLICY = """package remit

import rego.v1
import future.keywords.not

default decision := {
    "schema": "remit.decision/1", "decision": "deny",
    "reasons": [{"code": "no_rule", "message": "no rule", "audience": "user"}],
}

decision := {
    "schema": "remit.decision/1", "decision": "allow",
    "reasons": [{"code": "test", "message": "a test", "audience": "user"}],
    "constraints": {"credentials": [{"ref": "key", "scopes": []}, {"ref": "there", "scopes": []}]},
} if input.tool.name

visible := {tool.name: true | some tool in input.tools}
"""


def tool(name: str, ref: str, script: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "Uses what it was lent.",
        "effect": "read",
        "environment": {"fixed": "staging"},
        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
        "command": {"argv": ["/bin/sh", "-c", script]},
        "credentials": [{"ref": ref}],
    }


TOOLS = [
    tool("digest", "key", 'sha256sum < "$REMIT_CREDENTIAL_FILE_KEY" | cut -c1-64'),
    tool(
        "leak", "key", 'base64 -w0 "$REMIT_CREDENTIAL_FILE_KEY"; cat "$REMIT_CREDENTIAL_FILE_KEY"'
    ),
    tool("who", "there", 'rev "$REMIT_CREDENTIAL_FILE_THERE"'),
]


@pytest.fixture
def gateway(home: Path) -> Iterator[Serving]:
    (home / "policy" / "remit.rego").write_text(POLICY)
    (home / "policy" / "remit_test.rego").unlink()
    (home / "key.secret").write_text(SECRET + "\n")
    (home / "key.secret").chmod(0o600)
    runners = {
        "issuer": {"url": "https://remit.example", "algorithm": "ES256"},
        "credentials": {
            "key": {"broker": "static", "secret": "file:key.secret", "file": {"name": "key"}},
            "there": {
                "broker": "oidc",
                "audience": "https://there.example",
                "file": {"name": "there"},
            },
        },
    }
    with serving(configure(home, catalog={"tools": TOOLS}, runners=runners)) as made:
        yield made


def call(gateway: Serving, home: Path, name: str) -> dict[str, Any]:
    key = (home / ".remit/keys/agent.token").read_text().strip()

    async def ask() -> dict[str, Any]:
        headers = modern_headers("tools/call", name, key=key)
        async with http() as session:
            url = gateway.until("serving")["mcp"]
            answer = await session.post(url, headers=headers, json=call_body(name))
            found: dict[str, Any] = answer.json()["result"]
            return found

    return anyio.run(ask)


def text(result: dict[str, Any]) -> str:
    return "\n".join(each["text"] for each in result["content"])


def get(gateway: Serving, path: str) -> dict[str, Any]:
    host = gateway.until("serving")["mcp"].split("/")[2]
    connection = HTTPConnection(host, timeout=9)
    connection.request("GET", path)
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@pytest.mark.threat("T-33")
def test_a_run_uses_a_secret_that_its_gateway_never_has(gateway: Serving, home: Path) -> None:
    result = call(gateway, home, "digest")
    assert hashlib.sha256(SECRET.encode()).hexdigest() in text(result), text(result)
    assert traces_in_memory(gateway.process.pid, SECRET) == 0
    if os.geteuid() == 0:  # who can look there finds it in the keeper, so looking works
        assert traces_in_memory(keeper_of(gateway.process.pid), SECRET) > 0
    assert SECRET not in "".join(gateway.raw)


@pytest.mark.threat("T-33")
def test_what_a_run_prints_of_it_is_blanked_before_anybody_has_it(
    gateway: Serving, home: Path
) -> None:
    result = call(gateway, home, "leak")
    assert SECRET[:12] not in json.dumps(result)
    assert text(result).count("*") > 2 * len(SECRET)
    gateway.stop()
    for path in (home / ".remit").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in "".join(gateway.raw)


def test_the_token_of_a_run_verifies_against_what_the_door_publishes(
    gateway: Serving, home: Path
) -> None:
    configuration = get(gateway, CONFIGURATION)
    assert configuration["issuer"] == "https://remit.example"
    keys = get(gateway, KEYS)["keys"]
    assert {key["alg"] for key in keys} == {"ES256"}
    result = call(gateway, home, "who")
    token = text(result).split()[0][::-1]  # written backwards it passes the search: T-33 says so
    claims = verified(token, {"keys": keys})
    assert claims["iss"] == configuration["issuer"]
    assert claims["sub"] == f"tenant:{claims['tenant']}:environment:staging:tool:who"


@pytest.mark.threat("T-34")
def test_the_record_says_how_each_loan_ended_and_nothing_is_left(
    gateway: Serving, home: Path
) -> None:
    call(gateway, home, "digest")
    gateway.stop()
    db = sqlite3.connect(home / ".remit/ledger.db")
    [outcome] = [
        found
        for (entry,) in db.execute("SELECT text FROM entry")
        if (found := json.loads(entry))["event"] == "call.outcome"
    ]
    [loan] = outcome["loans"]
    assert (loan["ref"], loan["broker"], loan["delivered"]) == ("key", "static", "file")
    assert loan["returned_ms"] >= loan["lent_ms"]
    assert outcome["destruction"]["credentials_left"] == 0
    assert list((home / ".remit/keeper/loans").iterdir()) == []


def keeper_of(pid: int) -> int:
    """The keeper among a gateway's children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    named = [p for p in children if b"keeper" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return int(named[0])


def traces_in_memory(pid: int, secret: str) -> int:
    """How often the secret stands in the memory of a process."""
    found = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            area, rights, *_, name = [*line.split(), ""][:7] if line else ["", "", ""]
            if not rights.startswith("rw") or name in ("[vvar]", "[vsyscall]"):
                continue
            start, end = (int(each, 16) for each in area.split("-"))
            try:
                memory.seek(start)
                found += memory.read(end - start).count(secret.encode())
            except OSError:
                continue
    return found
