"""`remit audit search` and `remit audit show` over a real gateway's admin API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.test_operators import HOSTILE, House, house

__all__ = ["house"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def entries(house: House, *words: str) -> list[dict[str, Any]]:
    ended = await house.remit("audit", "search", *words, "-o", "json")
    assert ended.code == 0, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)["entries"]
    return found


async def test_search_gives_the_newest_first_and_no_more_than_asked(house: House) -> None:
    await house.ask("read_status")
    everything = await entries(house)
    indices = [row["index"] for row in everything]
    assert indices == sorted(indices, reverse=True)
    assert [row["index"] for row in await entries(house, "--limit", "2")] == indices[:2]


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("event", ("event",)),
        ("tool", ("tool", "name")),
        ("caller", ("caller", "subject")),
        ("run", ("run",)),
        ("call", ("call",)),
        ("decision", ("decision",)),
        ("plan", ("plan_hash",)),
    ],
)
async def test_each_option_finds_the_entries_with_that_field_and_no_other(
    house: House, option: str, path: tuple[str, ...]
) -> None:
    await house.ask("read_status")
    await house.ask("read_status", environment="staging")
    everything = await entries(house)
    intent = next(row for row in everything if row["entry"]["event"] == "call.intent")
    wanted = _field(intent["entry"], path)
    found = await entries(house, f"--{option}", wanted)
    assert found == [row for row in everything if _field(row["entry"], path) == wanted]
    assert 0 < len(found) < len(everything)


def _field(entry: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        entry = entry.get(name) if isinstance(entry, dict) else None
    return entry


async def test_options_together_must_all_hold(house: House) -> None:
    await house.ask("read_status")
    await house.ask("apply_infra")
    asked = await entries(house, "--event", "approval.opened", "--tool", "apply_infra")
    assert len(asked) == 1
    assert await entries(house, "--event", "approval.opened", "--tool", "read_status") == []
    named = f"approval={asked[0]['entry']['approval']}"
    assert await entries(house, "--event", "approval.opened", "--match", named) == asked


async def test_refusal_is_found_by_its_code(house: House) -> None:
    await house.ask("read_status", environment="nowhere")
    (found,) = await entries(house, "--code", "invalid_arguments")
    assert found["entry"]["event"] == "call.refused"


async def test_table_says_who_what_and_how_it_went(house: House) -> None:
    await house.ask("read_status")
    ended = await house.remit("audit", "search", "--event", "call.outcome")
    heads, row = ended.out.splitlines()
    assert heads.split() == ["INDEX", "TIME", "EVENT", "CALLER", "TOOL", "WHAT", "RUN", "PLAN"]
    assert "read_status" in row
    assert "succeeded" in row


async def test_nothing_found_is_said_on_stderr_and_is_no_error(house: House) -> None:
    ended = await house.remit("audit", "search", "--run", "run_of_nobody")
    assert (ended.code, ended.out, ended.err.strip()) == (0, "", "no entries")


async def test_match_without_a_value_is_wrong_usage(house: House) -> None:
    ended = await house.remit("audit", "search", "--match", "tool.name")
    assert (ended.code, "FIELD=VALUE" in ended.err) == (2, True)


@pytest.mark.threat("T-24")
async def test_show_prints_every_field_of_one_entry_and_no_control_character(
    house: House,
) -> None:
    await house.ask("read_status")
    (intent,) = await entries(house, "--event", "call.intent")
    index = str(intent["index"])
    ended = await house.remit("audit", "show", index)
    assert ended.out.splitlines()[0] == f"entry {index}"
    assert "tool.name" in ended.out
    assert "commitments.claimed" in ended.out
    assert HOSTILE not in ended.out
    assert "\x1b" not in ended.out
    as_json = json.loads((await house.remit("audit", "show", index, "-o", "jsonl")).out)
    assert as_json["entry"] == intent["entry"]


@pytest.mark.threat("T-26")
async def test_arguments_and_output_are_shown_as_commitments_only(house: House) -> None:
    house.output = b"the secret of the tool\n"
    await house.ask("read_status")
    (outcome,) = await entries(house, "--event", "call.outcome")
    ended = await house.remit("audit", "show", str(outcome["index"]))
    assert "commitments.stdout" in ended.out
    assert "the secret of the tool" not in ended.out


async def test_entry_that_is_not_there_is_an_error(house: House) -> None:
    ended = await house.remit("audit", "show", "99999")
    assert (ended.code, "error[not_found]" in ended.err) == (1, True)
