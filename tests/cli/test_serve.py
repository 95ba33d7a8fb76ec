"""`remit serve`: how it begins, how it ends, and what it says when it cannot begin."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import pytest

from remit.app import DRAIN_S
from remit.cli.serve import uncollected
from remit.doors.client import AdminClient
from remit.ledger.signer import FileSigner
from remit.ledger.storage import Lock
from tests.cli.serving import Serving, configure, serving
from tests.doors.serving import call_body, http, modern_headers
from tests.runners.fixtures import reachable

pytestmark = pytest.mark.slow

__all__ = ["reachable"]

SLOW = {
    "name": "slow",
    "description": "Takes its time, then leaves a mark.",
    "effect": "write",
    "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
    "command": {"argv": ["/bin/sh", "-c", "sleep 2; echo done >/mnt/marks/mark"]},
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


def serve(config: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Serve, expecting that it ends by itself."""
    with Serving(config, env) as gateway:
        code = gateway.process.wait(40)
        gateway._reader.join(5)
    return subprocess.CompletedProcess([], code, "", "".join(gateway.raw))


def refused(done: subprocess.CompletedProcess[str], code: str, exit_code: int) -> str:
    """What it said, after the look that every refusal to start must stand."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error[")]
    assert [line.partition("]")[0] for line in errors] == [f"error[{code}"], done.stderr
    assert "  hint: " in done.stderr
    return done.stderr


def taken() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def get(url: str) -> tuple[int, Any]:
    connection = HTTPConnection(url.removeprefix("http://").partition("/")[0], timeout=9)
    connection.request("GET", "/" + url.removeprefix("http://").partition("/")[2])
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, json.loads(body)


def busy_home(home: Path, marks: Path) -> Path:
    """A home whose policy allows all, with a tool that takes two seconds and leaves a mark."""
    marks.chmod(0o777)
    (home / "policy" / "remit.rego").write_text(ALLOW)
    (home / "policy" / "remit_test.rego").unlink()
    mount = {"name": "marks", "source": str(marks), "writable": True}
    slow = SLOW | {"command": {**SLOW["command"], "mounts": [mount]}}  # type: ignore[dict-item]
    return configure(home, catalog={"tools": [slow]})


# ----------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_gateway_cleanly_and_at_once(home: Path, number: int) -> None:
    with serving(configure(home)) as gateway:
        at = gateway.until("serving")
        assert get(at["admin"] + "/healthz") == (200, {"ok": True})
        assert at["verifier"] == FileSigner.load(home / ".remit/keys/log.key").verifier_key
        began = time.monotonic()
        assert gateway.stop(number) == 0
        assert time.monotonic() - began < DRAIN_S
        assert [line["event"] for line in gateway.lines[-3:]] == ["stopping", "stopped", "ended"]
        assert {line["level"] for line in gateway.lines[:-1]} <= {"info", "warning"}


@pytest.mark.needs("bwrap", "userns", "cgroup")
def test_signal_lets_a_run_that_has_begun_finish_and_be_recorded(
    home: Path, reachable: Path
) -> None:
    with serving(busy_home(home, reachable)) as gateway:
        at = gateway.until("serving")
        caller = (home / ".remit/keys/agent.token").read_text().strip()
        admin = AdminClient(at["admin"], (home / ".remit/keys/operator.token").read_text().strip())

        async def call_and_stop() -> Any:
            headers = modern_headers("tools/call", "slow", key=caller)
            async with http() as session:
                calling = asyncio.ensure_future(
                    session.post(at["mcp"], headers=headers, json=call_body("slow"))
                )
                while not calling.done():
                    if await anyio.to_thread.run_sync(admin.runs, "started"):
                        break
                    await asyncio.sleep(0.02)
                gateway.process.send_signal(signal.SIGTERM)
                return (await calling).json()

        answer = anyio.run(call_and_stop)
        assert gateway.process.wait(20) == 0
    assert answer["result"]["isError"] is False
    assert (reachable / "mark").read_text() == "done\n"
    states = sqlite3.connect(home / ".remit/ledger.db").execute("SELECT state FROM run").fetchall()
    assert states == [("succeeded",)]


def test_connection_made_before_the_doors_are_open_waits_instead_of_being_refused(
    home: Path,
) -> None:
    with Serving(configure(home)) as gateway:
        at = gateway.until("serving")
        assert get(at["admin"] + "/healthz")[0] == 200
        gateway.stop()


def test_what_is_made_at_the_start_is_left_alone_later_and_nothing_else_is() -> None:
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
            stays = [[1]]
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
        assert not any(each is stays for each in gc.get_objects())
        with pytest.raises(KeyError), uncollected():
            raise KeyError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


# ------------------------------------------------------------------------------------ cannot begin


@pytest.mark.parametrize("setting", ["server.listen", "server.admin"])
def test_busy_port_is_an_error_with_its_setting_and_a_hint(home: Path, setting: str) -> None:
    config = configure(home)
    with taken() as other:
        port = other.getsockname()[1]
        variable = "REMIT_" + setting.upper().replace(".", "__")
        done = serve(config, **{variable: f"127.0.0.1:{port}"})
    said = refused(done, "address_refused", 2)
    assert f"cannot listen on 127.0.0.1:{port}: another program does already" in said
    assert f"  at {setting}\n" in said
    assert variable in said
    assert not (home / ".remit/ledger.db").exists()


def test_address_that_is_not_of_this_machine_is_an_error_with_a_hint(home: Path) -> None:
    config = configure(home, server={"allowed_hosts": ["gw:*"], "listen": "192.0.2.1:8700"})
    said = refused(serve(config), "address_refused", 2)
    assert "this machine has no such address" in said


def test_second_gateway_on_the_same_ledger_is_refused_and_the_first_goes_on(home: Path) -> None:
    config = configure(home)
    with serving(config) as first:
        said = refused(serve(config), "ledger_unavailable", 3)
        assert "another process has this ledger open" in said
        assert get(first.until("serving")["admin"] + "/healthz")[0] == 200
        assert first.stop() == 0


@pytest.mark.needs("bwrap", "userns", "cgroup")
def test_profile_in_which_nothing_runs_is_named_at_the_start_with_the_reason(home: Path) -> None:
    mounts = [{"name": "data", "source": str(home / "nowhere")}]
    config = configure(home, runners={"profiles": {"small": {"mounts": mounts}}})
    with serving(config) as gateway:
        told = gateway.until("profile_refused")
        assert told["profile"] == "small"
        assert told["why"].startswith("the mount data ")
        assert "remit.yaml" in told["hint"]
        token = (home / ".remit/keys/operator.token").read_text().strip()
        status = AdminClient(gateway.until("serving")["admin"], token).status()
        profiles = {each["name"]: each for each in status["profiles"]}
        assert profiles["small"]["fault"] == told["why"]
        assert profiles["sandbox"]["fault"] is None


def test_second_gateway_starts_no_process_that_the_first_could_take_for_a_leftover(
    home: Path,
) -> None:
    lock = Lock(home / ".remit/ledger.db.lock")
    try:
        refused(serve(configure(home)), "ledger_unavailable", 3)
    finally:
        lock.release()
    assert not (home / ".remit/keeper").exists()
    assert list((home / ".remit/runners").iterdir()) == []


def test_ledger_that_is_no_database_is_left_alone_and_named(home: Path) -> None:
    path = home / ".remit/ledger.db"
    path.write_bytes(b"this is no database, but somebody's notes\n" * 100)
    before = path.read_bytes()
    said = refused(serve(configure(home)), "ledger_unavailable", 3)
    assert f"  at {path}\n" in said
    assert path.read_bytes() == before


def test_ledger_of_a_newer_version_is_left_alone_and_named(home: Path) -> None:
    config = configure(home)
    with serving(config) as gateway:
        assert gateway.stop() == 0
    db = sqlite3.connect(home / ".remit/ledger.db")
    db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.commit()
    db.close()
    said = refused(serve(config), "ledger_unavailable", 3)
    assert "newer version of Remit" in said


@pytest.mark.threat("T-21")
def test_ledger_whose_last_entry_was_edited_does_not_serve(home: Path) -> None:
    config = configure(home)
    with serving(config) as gateway:
        assert gateway.stop() == 0
    db = sqlite3.connect(home / ".remit/ledger.db")
    guards = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in guards:
        db.execute(f"DROP TRIGGER {name}")
    db.execute(
        "UPDATE entry SET text = CAST(replace(text, 'gateway', 'gatewax') AS BLOB)"
        " WHERE seq = (SELECT max(seq) FROM entry)"
    )
    db.commit()
    db.close()
    said = refused(serve(config), "log_tampered", 3)
    assert "remit audit verify" in said


def test_log_key_that_others_can_read_is_refused_with_the_command_that_closes_it(
    home: Path,
) -> None:
    (home / ".remit/keys/log.key").chmod(0o644)
    said = refused(serve(configure(home)), "secret_unavailable", 2)
    assert "chmod 600" in said


def test_missing_log_key_is_an_error_with_its_path(home: Path) -> None:
    (home / ".remit/keys/log.key").unlink()
    said = refused(serve(configure(home)), "secret_unavailable", 2)
    assert f"  at {home}/.remit/keys/log.key\n" in said


def test_policy_with_a_syntax_error_is_named_with_file_and_line(home: Path) -> None:
    (home / "policy/remit.rego").write_text("package remit\n\nimport rego.v1\n\nallow if {\n")
    done = serve(configure(home))
    assert done.returncode in (2, 3)
    assert "  at " in done.stderr
    said = refused(done, "policy_invalid", done.returncode)
    assert "remit.rego:" in said


def test_policy_that_is_not_there_is_an_error_with_a_hint(home: Path) -> None:
    shutil.rmtree(home / "policy")
    refused(serve(configure(home)), "config_not_found", 2)


def test_data_directory_that_cannot_be_made_is_an_error_and_no_traceback(home: Path) -> None:
    (home / "file").write_text("")
    said = refused(serve(configure(home, server={"data_dir": "file/x"})), "config_invalid", 2)
    assert f"  at {home}/file/x\n" in said


def test_unsafe_choices_are_warnings_at_start_with_their_reason(home: Path) -> None:
    config = configure(home, identity={"unsafe_same_user": True})
    with serving(config) as gateway:
        line = gateway.until("unsafe", setting="unsafe_same_user")
        assert line["level"] == "warning"
        assert line["why"]
        assert "remit doctor" in line["hint"]
        assert gateway.stop() == 0
