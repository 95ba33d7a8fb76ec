"""`remit policy diff --recorded`: what another policy would have decided of what really was asked."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from remit.canonical import digest
from remit.cli.audit import audit
from remit.cli.invocation import Invocation
from remit.cli.main import cli
from remit.cli.policy.recorded import history
from remit.errors import Unverified
from remit.gateway import Gateway
from remit.ledger.decisions import Kept, find_decision, last_decisions
from remit.ledger.entry import RESERVED
from remit.model import Call, Claims, EntryDraft
from remit.policy.bundle import read_bundle
from tests.path.conftest import AGENT, ALLOW, MakePath, Path_
from tests.path.replaying import (
    LOOSER,
    MANY,
    calls,
    commit_anew,
    commitment,
    copied,
    erase,
    folder,
    put_in_place,
    recorded,
    rewrite,
    run,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COUNTS = (10, 70, 70, 90)
"""Of these calls the two in the middle are denied by `MANY` and asked about by `LOOSER`."""


@pytest.fixture
async def path(make_path: MakePath) -> Path_:
    made: Path_ = await make_path(MANY)
    for number, count in enumerate(COUNTS):
        await made.call("act", service=f"web{number}", count=count)
    return made


@pytest.fixture
def policies(tmp_path: Path) -> tuple[Path, Path]:
    return folder(tmp_path / "old", MANY), folder(tmp_path / "new", LOOSER)


async def diff(policies: tuple[Path, Path], store: Path, *words: str) -> Result:
    return await run("diff", *policies, "--recorded", "--ledger", store, *words)


async def test_changes_over_recorded_decisions_are_named_by_their_ids(
    path: Path_, policies: tuple[Path, Path]
) -> None:
    _, first, second, _ = recorded(path.store)
    done = await diff(policies, path.store)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:3] == [
        "2 of 4 decisions differ",
        "  asked again: 4 of the 4 newest recorded decisions",
        "       2  deny -> require_approval",
    ]
    assert f"{first.id}: deny -> require_approval  call bot act" in done.stdout
    assert "  - too_many: too_many for act, 70 times" in done.stdout
    machine = json.loads((await diff(policies, path.store, "-o", "json")).stdout)
    assert machine["asked"] == 4
    assert [each["decision_id"] for each in machine["examples"]] == [first.id, second.id]
    assert machine["examples"][0]["input"]["arguments"] == {"count": 70, "service": "web1"}
    assert machine["recorded"] == {
        "decisions": 4, "erased": 0, "altered": [], "unreadable": [], "not_under_old": 0,
    }  # fmt: skip


async def test_same_policy_differs_in_nothing_and_a_third_is_said_not_to_be_the_recorded_one(
    path: Path_, policies: tuple[Path, Path]
) -> None:
    same = await diff((policies[0], policies[0]), path.store)
    assert (same.exit_code, same.stdout.splitlines()[0]) == (0, "0 of 4 decisions differ")
    third = await diff((policies[1], policies[1]), path.store)
    assert third.exit_code == 0
    assert "       4  decided under another revision than OLD's" in third.stdout


async def test_only_the_newest_are_asked_again(path: Path_, policies: tuple[Path, Path]) -> None:
    done = await diff(policies, path.store, "--last", "2")
    assert done.stdout.startswith(
        "1 of 2 decisions differ\n  asked again: 2 of the 2 newest recorded decisions\n"
    )


async def test_questions_that_never_reached_policy_take_no_place(
    make_path: MakePath, policies: tuple[Path, Path]
) -> None:
    path = await make_path(MANY)
    await calls(path, 40)
    for number in range(9):
        await Gateway(path.pipeline).call(
            Call(
                id=path.clock.new_id("call"),
                caller=AGENT,
                tool_name="remit_can_i",
                arguments={"tool": f"none{number}"},
                received_ms=path.clock.now_ms(),
                claims=Claims(),
            ),
            path.heard,
        )
    assert (await path.events())[-9:] == ["question"] * 9
    before = recorded(path.store)
    assert {each.id for each in last_decisions(path.store, 7)} == {each.id for each in before[-7:]}
    for each in before[::9]:
        assert find_decision(path.store, each.id) == each


async def test_erased_inputs_are_counted_and_the_others_asked(
    path: Path_, policies: tuple[Path, Path], tmp_path: Path
) -> None:
    erased = tmp_path / "erased.db"
    db = copied(path.store, erased)
    for each in recorded(path.store)[:2]:
        erase(db, each)
    done = await diff(policies, erased)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:3] == [
        "1 of 2 decisions differ",
        "  asked again: 2 of the 4 newest recorded decisions",
        "       2  inputs erased or left out",
    ]
    for each in recorded(path.store)[2:]:
        erase(db, each)
    db.close()
    nothing = await diff(policies, erased)
    assert nothing.exit_code == 3
    assert "none of the 4 recorded decisions here has an input" in nothing.stderr


ALTER: dict[str, Callable[..., None]] = {
    "another value under the old commitment": lambda db, one: put_in_place(db, one, b'{"a":1}'),
    "another value with its own commitment": lambda db, one: commit_anew(db, one, b'{"a":1}'),
    "the same, spelt otherwise": lambda db, one: commit_anew(db, one, one.input + b" "),
    "the same value, another salt": lambda db, one: db.execute(
        "UPDATE sealed SET salt = zeroblob(16) WHERE commitment = ?", (commitment(db, one),)
    ),
    "what cannot be unpacked": lambda db, one: db.execute(
        "UPDATE sealed SET packed = 1, value = X'00'"
    ),
    "what is no bytes": lambda db, one: db.execute("UPDATE sealed SET packed = 1, value = 'text'"),
}


@pytest.mark.threat("T-21")
@pytest.mark.parametrize("how", ALTER)
async def test_altered_input_is_refused_by_name_and_never_asked(
    path: Path_, policies: tuple[Path, Path], tmp_path: Path, how: str
) -> None:
    altered = tmp_path / "altered.db"
    decision = recorded(path.store)[1]
    db = copied(path.store, altered)
    ALTER[how](db, decision)
    db.close()
    found = find_decision(altered, decision.id)
    assert found is not None
    assert (found.kept, found.input) == (Kept.ALTERED, b"")
    done = await run("explain", decision.id, policies[0], "--ledger", altered)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "error[log_tampered]: the input that is kept for this decision is not" in done.stderr
    past = history(altered, 100)
    assert decision.id in past.altered
    assert decision.id not in past.ids
    done = await diff((policies[0], policies[0]), altered)
    assert done.exit_code == (1 if past.ids else 3)
    assert f"  at {decision.id}" in done.stderr
    if past.ids:
        assert "       1  inputs that are not what was recorded, refused" in done.stdout


async def test_entry_that_is_none_is_refused_and_not_passed_over(
    path: Path_, policies: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.db"
    decision = recorded(path.store)[1]
    db = copied(path.store, broken)
    rewrite(db, decision, '"verdict":"deny"', '"verdict":{"a":1}')
    db.close()
    with pytest.raises(Unverified, match=f"entry {decision.index}"):
        last_decisions(broken, 10)
    done = await diff(policies, broken)
    assert done.exit_code == 3
    assert "error[log_malformed]" in done.stderr


async def test_policy_that_failed_before_there_was_an_input_is_counted(
    make_path: MakePath, policies: tuple[Path, Path]
) -> None:
    path = await make_path(ALLOW)
    await path.call("act", service="web", count=1)
    public = {
        name: value
        for name, value in (await path.entries())[1].items()
        if name not in RESERVED
    } | {"decision": "dec_0", "verdict": "deny", "code": "policy_error"}  # fmt: skip
    public["input_digest"] = digest("remit.input/1", b"null")  # as where an input has no bytes
    await path.ledger.append(
        [EntryDraft(event="decision", public=public, sealed={"input": b"null"})]
    )
    assert history(path.store, 10).unreadable == ("dec_0",)
    done = await diff(policies, path.store)
    assert "       1  without an input that can be asked" in done.stdout
    explained = await run("explain", "dec_0", policies[0], "--ledger", path.store)
    assert explained.exit_code == 3
    assert "policy failed before there was an input" in explained.stderr


async def exported(path: Path_, out: Path, *words: str) -> Path:
    await path.ledger.aclose()
    done = await _audit("export", str(path.store), str(out), *words)
    assert done.exit_code == 0, done.output
    return out


async def _audit(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, audit, list(words))


async def test_export_with_values_gives_the_same_as_the_ledger_and_one_without_says_so(
    path: Path_, policies: tuple[Path, Path], tmp_path: Path
) -> None:
    from_store = recorded(path.store)
    whole = await exported(path, tmp_path / "whole.jsonl", "--with-values")
    bare = await exported(path, tmp_path / "bare.jsonl")
    assert last_decisions(whole, 100) == from_store
    assert last_decisions(whole, 2) == from_store[-2:]
    assert (await diff(policies, whole)).stdout == (await diff(policies, path.store)).stdout
    explained = await run("explain", from_store[1].id, policies[0], "--ledger", whole)
    assert explained.exit_code == 0
    assert "the same revision and gives the same answer" in explained.stdout
    without = await diff(policies, bare)
    assert without.exit_code == 3
    assert "made with --with-values" in without.stderr
    left_out = await run("explain", from_store[1].id, policies[0], "--ledger", bare)
    assert left_out.exit_code == 3


@pytest.mark.threat("T-21")
@pytest.mark.parametrize("part", ["salt", "value"])
async def test_altered_opening_in_an_export_is_refused(
    path: Path_, policies: tuple[Path, Path], tmp_path: Path, part: str
) -> None:
    whole = await exported(path, tmp_path / "whole.jsonl", "--with-values")
    lines = whole.read_bytes().split(b"\n")
    swapped: list[dict[str, Any]] = [json.loads(line) for line in lines if b'"input"' in line]
    first, second = (each["openings"]["input"][part] for each in swapped[:2])
    whole.write_bytes(b"\n".join(line.replace(first.encode(), second.encode()) for line in lines))
    past = history(whole, 100)
    assert (len(past.altered), len(past.ids)) == (1, 3)
    other = tmp_path / "other"
    other.write_text("no ledger\n")
    done = await diff(policies, other)
    assert done.exit_code == 3
    assert "error[log_malformed]" in done.stderr


async def test_ledger_of_the_configuration_is_read_when_none_is_named(
    path: Path_, policies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    assert CliRunner().invoke(cli, ["init", str(home)]).exit_code == 0
    copied(path.store, home / ".remit" / "ledger.db").close()
    argv = ["--config", str(home / "remit.yaml"), "policy", "diff", *map(str, policies)]
    done = await asyncio.to_thread(
        CliRunner().invoke, cli, [*argv, "--recorded"], obj=Invocation(home / "remit.yaml")
    )
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("2 of 4 decisions differ")
    monkeypatch.chdir(tmp_path)
    nowhere = await run("diff", *policies, "--recorded")
    assert nowhere.exit_code == 2
    assert "name the ledger's file or an export with --ledger" in nowhere.stderr


async def test_options_that_contradict_each_other_are_wrong_usage(
    path: Path_, policies: tuple[Path, Path]
) -> None:
    inputs = str(policies[0] / "test.rego")
    assert (await diff(policies, path.store, "--inputs", inputs)).exit_code == 2
    assert (await run("diff", *policies, "--ledger", path.store)).exit_code == 2
    assert read_bundle(policies[0]).revision == path.policy.revision


async def test_another_process_asks_again_while_the_gateway_goes_on_writing(
    path: Path_, policies: tuple[Path, Path]
) -> None:
    argv = [sys.executable, "-m", "remit", "policy", "diff", *map(str, policies)]
    argv += ["--recorded", "--ledger", str(path.store)]
    asking = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    for count in range(40):
        await path.call("act", service="web", count=count)
    out, _ = await asking.communicate()
    assert asking.returncode == 1
    assert b"decisions differ" in out
    assert len(recorded(path.store)) == 44
