"""What is in force is written where it is another than before, and nowhere else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from remit.ledger.force import put_tools


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE active_tool (name TEXT PRIMARY KEY, digest TEXT NOT NULL)")
    yield connection
    connection.close()


def held(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT name, digest FROM active_tool").fetchall())


def test_only_rows_that_are_others_are_written(db: sqlite3.Connection) -> None:
    tools = {f"t{number}": "a" for number in range(1_000)}
    put_tools(db, tools)
    assert db.total_changes == 1_000
    put_tools(db, tools)
    assert db.total_changes == 1_000
    del tools["t7"]
    tools |= {"t8": "b", "new": "a"}
    put_tools(db, tools)
    assert db.total_changes == 1_003
    assert held(db) == tools


def test_what_is_not_in_force_any_more_is_gone(db: sqlite3.Connection) -> None:
    put_tools(db, {"a": "1", "b": "2"})
    put_tools(db, {})
    assert held(db) == {}
