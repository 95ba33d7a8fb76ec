"""Approvals and runs over a real gateway's admin API, with the configuration of `remit init`."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import open_process, to_thread
from structlog.testing import capture_logs

from remit.app import door_settings, open_gateway
from remit.cli.approval_text import approval_text
from remit.config import load
from remit.doors.admin import admin_app
from remit.gateway import Gateway
from remit.model import Amount, Call, Claims, Ending, Reply, RunResult, RunSpec
from remit.testing.scripted import ScriptedRunner
from tests.cli.conftest import Ended, Remit
from tests.doors.serving import served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HOSTILE = "\x1b[2JApproved already.\u202e"
PREVIEW = "--- live\n+++ desired\n-web 2.4.0\n+web 2.4.1\n\x1b[31m\n"


class Silent:
    wanted = False

    async def report(self, message: str, amount: Amount | None = None) -> None: ...


class House:
    """A gateway with an agent at one door and the command line at the other."""

    def __init__(self, gateway: Gateway, url: str, token: str, remit: Remit) -> None:
        self._gateway = gateway
        self.url = url
        self._token = token
        self._remit = remit
        self.output = b"done\x1b[2J \xff\n"

    async def ask(self, tool: str = "apply_infra", **arguments: Any) -> Reply:
        return await self.call(tool, {"environment": "production", **arguments})

    async def call(self, tool: str, arguments: dict[str, Any]) -> Reply:
        caller = await self._gateway.authenticate(f"Bearer {self._token}", "127.0.0.1")
        call = Call(
            id=self._gateway.new_call_id(),
            caller=caller,
            tool_name=tool,
            arguments=arguments,
            received_ms=1_800_000_000_000,
            claims=Claims(purpose=HOSTILE),
        )
        return await self._gateway.call(call, Silent())

    async def remit(self, *words: str) -> Ended:
        return await to_thread.run_sync(partial(self._remit, *words, "--url", self.url))

    async def approval(self) -> dict[str, Any]:
        listed = json.loads((await self.remit("approvals", "list", "-o", "json")).out)
        newest: dict[str, Any] = listed["approvals"][0]
        return newest

    async def behave(self, spec: RunSpec) -> RunResult:
        text = PREVIEW.encode() if "preview" in spec.argv else self.output
        return RunResult(ending=Ending.EXIT, exit_code=0, stdout=text, stderr=b"warned\n")


@asynccontextmanager
async def quiet() -> AsyncIterator[None]:
    """The gateway's own log stays out of what the commands print in this process."""
    with capture_logs():
        yield


@pytest.fixture
async def house(home: Path, remit: Remit, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    text = (home / "remit.yaml").read_text()
    text = text.replace("hold_s: 50", "hold_s: 0").replace(
        "# on_behalf_of: [dana]", "on_behalf_of: [dana]"
    )
    (home / "remit.yaml").write_text(text)
    settings = load(home / "remit.yaml", environ={"REMIT_POLICY__DEADLINE_MS": "10000"})
    runner = ScriptedRunner()
    token = (home / ".remit/keys/agent.token").read_text().strip()
    async with (
        quiet(),
        open_gateway(settings, runner=runner) as gateway,
        served(admin_app(gateway, door_settings(settings))) as url,
    ):
        made = House(gateway, url, token, remit)
        runner.behave = made.behave
        yield made


@pytest.mark.threat("T-24")
async def test_show_leads_with_the_consequence_and_ends_with_what_the_agent_says(
    house: House,
) -> None:
    await house.ask()
    approval = await house.approval()
    ended = await house.remit("approvals", "show", approval["id"])
    lines = ended.out.splitlines()
    assert lines[0].startswith("Make the live state of production what is desired.")
    labels = (
        "Tool:",
        "Environment:",
        "Asked by:",
        "On behalf of:",
        "What would run",
        "Preview",
        "The agent says (unverified):",
    )
    at = [next(n for n, line in enumerate(lines) if line.startswith(label)) for label in labels]
    assert at == sorted(at)
    assert "dana (human)" in ended.out
    assert "  | +web 2.4.1" in lines
    assert "may read" not in ended.out
    assert "may change" in ended.out


@pytest.mark.threat("T-23")
@pytest.mark.threat("T-24")
async def test_nothing_an_agent_or_a_tool_says_moves_the_terminal(house: House) -> None:
    await house.ask()
    ended = await house.remit("approvals", "show", (await house.approval())["id"])
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out
    assert "\\u{1b}[2JApproved already." in ended.out


@pytest.mark.threat("T-07")
async def test_approving_takes_the_hash_of_the_plan_and_the_call_then_runs_once(
    house: House,
) -> None:
    await house.ask()
    approval = await house.approval()
    name, short = approval["id"], approval["plan_hash"].removeprefix("sha256:")[:12]
    wrong = await house.remit(
        "approvals", "approve", name, "--plan-hash", "0" * 12, "--reason", "x"
    )
    assert (wrong.code, (await house.approval())["state"]) == (1, "pending")
    assert "approval_mismatch" in wrong.err
    for part in (short[:11], short + "0", approval["plan_hash"][:-1], ""):
        assert (await house.remit("approvals", "approve", name, "--plan-hash", part)).code == 1
    right = await house.remit(
        "approvals", "approve", name, "--plan-hash", short, "--reason", "seen"
    )
    assert (right.code, right.out) == (0, f"{name} approved\n")
    assert not (await house.ask()).is_error
    assert (await house.approval())["state"] == "spent"


async def test_approving_without_a_hash_and_without_a_terminal_is_wrong_usage(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ask()
    ended = await house.remit("approvals", "approve", (await house.approval())["id"])
    assert ended.code == 2
    assert "--plan-hash" in ended.err


@pytest.mark.parametrize(
    ("words", "state"), [(["deny", "--reason", "no"], "denied"), (["revoke"], "withdrawn")]
)
async def test_saying_no_needs_no_hash(house: House, words: list[str], state: str) -> None:
    await house.ask()
    name = (await house.approval())["id"]
    ended = await house.remit("approvals", *words, name)
    assert (ended.code, ended.out, ended.err) == (0, f"{name} {state}\n", "")
    again = await house.remit("approvals", *words, name)
    assert again.code == 1
    assert f"remit approvals show {name}" in again.err


@pytest.mark.threat("T-07")
@pytest.mark.parametrize("typed_right", [True, False])
async def test_on_a_terminal_the_plan_is_shown_and_its_hash_must_be_typed(
    house: House, home: Path, typed_right: bool
) -> None:
    await house.ask()
    approval = await house.approval()
    short = approval["plan_hash"].removeprefix("sha256:")[:12]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "remit", "approvals", "approve", approval["id"]]
    process = await open_process([*command, "--url", house.url], stdin=theirs, cwd=home)
    os.close(theirs)
    os.write(ours, (short if typed_right else "y").encode() + b"\nlooked at it\n")
    assert process.stdout is not None
    assert process.stderr is not None
    out = b"".join([part async for part in process.stdout])
    shown = b"".join([part async for part in process.stderr]).decode()
    assert await process.wait() == (0 if typed_right else 1)
    os.close(ours)
    assert shown.startswith("Make the live state of production what is desired.")
    assert (b"approved" in out) is typed_right
    state = "approved" if typed_right else "pending"
    assert (await house.approval())["state"] == state


@pytest.mark.threat("T-09")
@pytest.mark.parametrize(
    "words", [["approvals", "list"], ["approvals", "show", "apr_x"], ["runs", "list"]]
)
async def test_agents_key_is_no_operators(
    house: House, home: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("REMIT_OPERATOR_TOKEN", (home / ".remit/keys/agent.token").read_text())
    ended = await house.remit(*words)
    assert ended.code == 1
    assert "error[unauthenticated]" in ended.err
    assert "--token-file" in ended.err


async def test_what_does_not_exist_is_said_to_be_so(house: House) -> None:
    for words in (
        ["approvals", "show", "apr_x"],
        ["runs", "show", "run_x"],
        ["runs", "logs", "run_x"],
        ["approvals", "revoke", "apr_x"],
        ["runs", "resolve", "run_x", "--failed", "--note", "looked"],
    ):
        ended = await house.remit(*words)
        assert (ended.code, ended.out) == (1, "")
        assert "error[not_found]" in ended.err
        assert f"remit {words[0]} list" in ended.err


async def test_runs_are_listed_shown_and_their_output_is_exact_in_a_pipe(house: House) -> None:
    await house.ask("read_status")
    listed = json.loads((await house.remit("runs", "list", "-o", "jsonl")).out)
    assert (listed["tool"], listed["state"]) == ("read_status", "succeeded")
    shown = await house.remit("runs", "show", listed["id"])
    assert f"id:               {listed['id']}" in shown.out
    assert "idempotent:       false" in shown.out
    assert re.search(r"^destroyed: +nothing is left", shown.out, re.MULTILINE)
    whole = json.loads((await house.remit("runs", "show", listed["id"], "-o", "json")).out)
    assert whole["destruction"]["complete"] is True
    assert re.search(r"^started: +20\d\d-", shown.out, re.MULTILINE)
    table = (await house.remit("runs", "list")).out
    assert "read_status" in table
    document = json.loads((await house.remit("runs", "logs", listed["id"], "-o", "json")).out)
    assert document["stdout"]["bytes"] == len(house.output)
    assert (await house.remit("runs", "logs", listed["id"], "--stderr")).out == "warned\n"


async def test_resolving_a_run_that_is_not_unknown_is_refused(house: House) -> None:
    await house.ask("read_status")
    listed = json.loads((await house.remit("runs", "list", "-o", "jsonl")).out)
    for words, code in ((["--succeeded"], 1), ([], 2)):
        ended = await house.remit("runs", "resolve", listed["id"], "--note", "looked", *words)
        assert ended.code == code
        assert code == 2 or f"remit runs show {listed['id']}" in ended.err


async def test_empty_lists_say_so_on_stderr(house: House) -> None:
    ended = await house.remit("approvals", "list")
    assert (ended.code, ended.out, "no approvals" in ended.err) == (0, "", True)


def test_no_gateway_ends_3(home: Path, remit: Remit) -> None:
    ended = remit("approvals", "list", "--url", "http://127.0.0.1:1")
    assert ended.code == 3
    assert "remit serve" in ended.err


def test_no_token_says_where_it_was_looked_for(home: Path, remit: Remit) -> None:
    (home / ".remit/keys/operator.token").unlink()
    ended = remit("approvals", "list")
    assert ended.code == 2
    assert "operator.token" in ended.err
    assert "--token-file" in ended.err


@pytest.mark.threat("T-24")
async def test_folded_text_is_said_to_be_folded(house: House) -> None:
    await house.ask()
    approval = await house.approval()
    approval["shown"]["command"]["argv"].append("x" * 10_000 + "END")
    text = approval_text(approval, 0)
    assert "END" in text
    assert "more characters" in text
    assert "all of it: -o json" in text


async def test_answers_to_a_server_stand_beside_the_arguments_as_the_callers(house: House) -> None:
    await house.ask()
    approval = await house.approval()
    assert "Answers" not in approval_text(approval, 0)
    approval["shown"]["answers"] = {"who": {"action": "accept", "content": {"name": "A\u202elice"}}}
    (line,) = [one for one in approval_text(approval, 0).splitlines() if "Answers" in one]
    assert "lice" in line
    assert "\u202e" not in line
    assert "caller's side" in line


async def _denied(house: House) -> dict[str, Any]:
    """A request for access to what the starter policy denies, with hostile words in it."""
    arguments = {"service": "db", "environment": "production", "replicas": 9}
    asked = {"tool": "restart_service", "arguments": arguments, "reason": HOSTILE}
    await house.call("remit_request_access", asked)
    listed = json.loads((await house.remit("approvals", "list", "-o", "json")).out)
    newest: dict[str, Any] = listed["access_requests"][0]
    return newest


@pytest.mark.threat("T-24")
async def test_requests_for_access_wait_in_a_section_with_the_agents_words_marked(
    house: House,
) -> None:
    request = await _denied(house)
    ended = await house.remit("approvals", "list")
    lines = ended.out.splitlines()
    assert lines[0].startswith("Requests for access. They grant nothing")
    assert any(line.startswith(f"{request['id']}  restart_service in production") for line in lines)
    assert any("denied for " in line and request["decision_id"] in line for line in lines)
    said = lines.index("  The agent says (unverified):")
    assert lines[said + 1].startswith('    reason: "\\u{1b}[2JApproved already.')
    assert lines[said + 2].startswith('    arguments: {"environment": "production", ')
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out
    assert "dana (human)" in ended.out


async def test_a_request_for_access_is_closed_with_a_note_and_grants_nothing(house: House) -> None:
    request = await _denied(house)
    without = await house.remit("approvals", "close", request["id"])
    assert without.code == 2
    ended = await house.remit("approvals", "close", request["id"], "--note", "ask the owner")
    assert (ended.code, ended.out.strip()) == (0, f"{request['id']} closed")
    assert "no approvals" in (await house.remit("approvals", "list")).err
    again = await house.remit("approvals", "close", request["id"], "--note", "x")
    assert (again.code, "wrong_state" in again.err) == (1, True)
    called = await house.ask("restart_service", service="db", replicas=9)
    assert called.decision["code"] == "policy_denied"


async def test_requests_for_access_stand_beside_approvals_in_every_form(house: House) -> None:
    await house.ask()
    request = await _denied(house)
    text = (await house.remit("approvals", "list")).out
    assert text.index("apply_infra") < text.index("Requests for access") < text.index(request["id"])
    rows = [
        json.loads(line)
        for line in (await house.remit("approvals", "list", "-o", "jsonl")).out.splitlines()
    ]
    assert [row.get("access_request", {}).get("id") for row in rows] == [None, request["id"]]
    approved = await house.remit("approvals", "list", "--state", "approved", "-o", "json")
    assert json.loads(approved.out)["access_requests"] == []


async def test_people_of_several_layers_are_named_and_who_is_still_missing(house: House) -> None:
    await house.ask()
    approval = await house.approval()
    approval["rule"] |= {
        "required": 2,
        "groups": ["sre"],
        "also": [{"required": 1, "groups": ["security"]}, {"required": 1, "groups": []}],
    }
    approval["missing"] = [{"required": 1, "groups": ["security"]}]
    vote = {"subject": "ann", "verdict": "approve", "voted_ms": 0, "groups": [], "reason": None}
    approval["votes"] = [vote]
    text = approval_text(approval, 0)
    assert "2 to agree of sre, and 1 of security, and 1 of anybody" in text
    assert re.search(r"still wants: +1 of security", text)
