"""What tests of recorded decisions share: a policy with many answers, calls, and the command line."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from remit.cli.policy import policy
from remit.gateway import Gateway
from remit.ledger.decisions import RecordedDecision, last_decisions
from remit.ledger.entry import seal
from remit.model import Call, Claims
from tests.path.conftest import AGENT, HEAD, Path_

MANY = (
    HEAD
    + """
noted := {"id": "n", "type": "log", "properties": {}}

because(code) := {"reasons": [{
    "code": code,
    "message": sprintf("%s for %s, %d times", [code, input.tool.name, input.arguments.count]),
    "audience": "user",
}]}

decision := object.union(answer("deny", because("too_many")), {"obligations": [noted]}) if {
    input.arguments.count > 60
}

decision := object.union(answer("require_approval", because("asks")), {
    "approvals": {"required": 1, "ttl_s": 600},
}) if {
    input.arguments.count <= 60
    input.arguments.count > 40
    input.phase == "call"
}

decision := object.union(answer("allow", because("few")), {
    "constraints": {"arguments": {"bounds": {"count": {"maximum": 60}}}},
}) if {
    input.arguments.count <= 40
    input.arguments.service != "odd"
}

decision := answer("allow", {"approvals": {"required": 1}}) if {
    input.arguments.count <= 40
    input.arguments.service == "odd"
}
"""
)
"""Allows, asks, denies, gives a faulty answer and none, by what a call says."""

LOOSER = MANY.replace("count > 60", "count > 80").replace("count <= 60", "count <= 80")
SERVICES = ("web", "db", "odd", "Ünïcode \U0001f98b", "")


def folder(place: Path, rego: str, **modules: str) -> Path:
    """A policy in a directory, of the same module as the pipeline's own."""
    place.mkdir()
    (place / "test.rego").write_text(rego, "utf-8")
    for name, text in modules.items():
        (place / f"{name}.rego").write_text(text, "utf-8")
    return place


async def calls(path: Path_, count: int, seed: int = 7) -> None:
    """So many random calls, one in five only a question whether it may be made."""
    chance = random.Random(seed)
    gateway = Gateway(path.pipeline)
    names = ["look", "act", "act_idempotent", "destroy", "previewed", "as_json"]
    for _ in range(count):
        name = chance.choice(names)
        said = {"service": chance.choice(SERVICES), "count": chance.randint(0, 100)}
        if chance.random() < 0.2:
            name, said = "remit_can_i", {"tool": name, "arguments": said}
        call = Call(
            id=gateway.new_call_id(),
            caller=AGENT,
            tool_name=name,
            arguments=said,
            received_ms=path.clock.now_ms(),
            claims=Claims(purpose="who knows"),
        )
        await gateway.call(call, path.heard)


def recorded(store: Path) -> list[RecordedDecision]:
    return last_decisions(store, 10_000)


async def run(*words: str | Path) -> Result:
    """A command in a thread of its own, since this one has a loop."""
    argv = [str(word) for word in words]
    return await asyncio.to_thread(CliRunner().invoke, policy, argv, catch_exceptions=False)


def copied(store: Path, to: Path) -> sqlite3.Connection:
    """A copy of a store that is being written, to be changed as whoever has the file can."""
    db = sqlite3.connect(to, isolation_level=None)
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as source:
        source.backup(db)
    source.close()
    return db


def erase(db: sqlite3.Connection, decision: RecordedDecision, name: str = "input") -> None:
    db.execute("DELETE FROM sealed WHERE commitment = ?", (commitment(db, decision, name),))


def commitment(db: sqlite3.Connection, decision: RecordedDecision, name: str = "input") -> str:
    (text,) = db.execute("SELECT text FROM entry WHERE seq = ?", (decision.index,)).fetchone()
    found: dict[str, Any] = json.loads(text)["commitments"]
    return str(found[name])


def rewrite(db: sqlite3.Connection, decision: RecordedDecision, old: str, new: str) -> None:
    """Change the text of an entry, past the trigger that keeps the log append-only."""
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f'DROP TRIGGER "{name}"')
    (text,) = db.execute("SELECT text FROM entry WHERE seq = ?", (decision.index,)).fetchone()
    assert old.encode() in text
    changed = text.replace(old.encode(), new.encode())
    db.execute("UPDATE entry SET text = ? WHERE seq = ?", (changed, decision.index))


def put_in_place(db: sqlite3.Connection, decision: RecordedDecision, value: bytes) -> None:
    """Keep another input for a decision, under the old commitment."""
    found = commitment(db, decision)
    db.execute("UPDATE sealed SET packed = 0, value = ? WHERE commitment = ?", (value, found))


def commit_anew(db: sqlite3.Connection, decision: RecordedDecision, value: bytes) -> None:
    """Keep another input with a commitment of its own, to which the entry is changed."""
    old = commitment(db, decision)
    salt, new = seal(value)
    rewrite(db, decision, old, new)
    db.execute(
        "UPDATE sealed SET commitment = ?, salt = ?, packed = 0, value = ? WHERE commitment = ?",
        (new, salt, value, old),
    )
