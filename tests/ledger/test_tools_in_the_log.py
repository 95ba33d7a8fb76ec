"""What the log says of the tools of MCP servers, written for real and verified offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remit.canonical import encode
from remit.errors import Code, Conflict, LedgerFault, NotFound
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.export import export_store
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.model import Operator, ToolState
from remit.stages.quarantine import AT_ONCE, Quarantine
from remit.testing.ledger_samples import SetClock
from remit.testing.servers import ODD, MemoryServers, item
from tests.ledger.conftest import Reopen
from tests.ledger.forging import check, resign, texts

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-43")]

OLGA = Operator(subject="olga")


class House:
    """A server, what is held back of it, and the log."""

    def __init__(self, ledger: SqliteLedger, servers: MemoryServers) -> None:
        self.ledger = ledger
        self.servers = servers
        self.quarantine = Quarantine(servers, ledger)

    async def see(self, *items: Any) -> None:
        self.servers.lists("files", *items)
        await self.servers.look("files")
        await self.quarantine.write()

    def digest(self, tool: str = "read") -> str:
        (found,) = [t for t in self.servers.statuses()[0].tools if t.name == tool]
        return found.digest or ""

    async def told(self) -> list[dict[str, Any]]:
        found = [json.loads(each.text) for each in await self.ledger.entries(0, 10_000)]
        return [each for each in found if each["event"].startswith("tool.")]

    async def events(self) -> list[str]:
        return [each["event"].removeprefix("tool.") for each in await self.told()]


@pytest.fixture
def house(ledger: SqliteLedger) -> House:
    return House(ledger, MemoryServers())


async def test_tool_that_changed_is_told_once_with_both_digests_and_its_words_sealed(
    house: House,
) -> None:
    await house.see(item("read"), item("write"))
    assert await house.events() == []
    was = house.digest()
    await house.see(item("read", "Reads. Secretly."), item("write"))
    await house.quarantine.write()
    (entry,) = await house.told()
    said = {name: entry[name] for name in ("event", "server", "tool", "state", "accepted")}
    assert said == {
        "event": "tool.quarantined",
        "server": "files",
        "tool": "read",
        "state": "changed",
        "accepted": was,
    }
    assert entry["digest"] == house.digest() != was
    assert "Secretly" not in json.dumps(entry)
    kept = await house.ledger.value(entry["commitments"]["definition"])
    assert kept is not None
    (difference,) = json.loads(kept)["differences"]
    assert "+Secretly." in difference["diff"]


async def test_who_accepts_what_is_told_before_it_is_done(house: House) -> None:
    await house.see(item("read", ODD))
    (held,) = await house.told()
    assert (held["state"], held["accepted"]) == ("new", None)
    assert {"instruction", "zero_width"} <= set(held["signs"])
    after = await house.quarantine.pin(OLGA, "files", "read", house.digest())
    assert after.state is ToolState.OFFERED
    assert house.servers.accepted_by == {("files", "read"): "olga"}
    pinned = (await house.told())[1]
    assert {name: pinned[name] for name in ("event", "operator", "digest", "accepted")} == {
        "event": "tool.pinned",
        "operator": "olga",
        "digest": house.digest(),
        "accepted": None,
    }
    await house.quarantine.write()
    assert len(await house.told()) == 2


async def test_another_digest_than_the_one_seen_is_refused_and_nothing_is_told(
    house: House,
) -> None:
    await house.see(item("read"))
    was = house.digest()
    await house.see(item("read", "Other."))
    for digest in (was, "sha256:0", ""):
        with pytest.raises(Conflict) as refused:
            await house.quarantine.pin(OLGA, "files", "read", digest)
        assert refused.value.code is Code.WRONG_STATE
    for server, tool in (("other", "read"), ("files", "other")):
        with pytest.raises(NotFound):
            await house.quarantine.pin(OLGA, server, tool, house.digest())
    assert await house.events() == ["quarantined"]
    assert house.servers.accepted_by == {}


async def test_tool_that_is_offered_already_is_not_accepted_again(house: House) -> None:
    await house.see(item("read"))
    status = await house.quarantine.pin(OLGA, "files", "read", house.digest())
    assert status.state is ToolState.OFFERED
    assert await house.told() == []
    assert house.servers.accepted_by == {}


async def test_nothing_is_accepted_that_cannot_be_written_down(house: House) -> None:
    await house.see(item("read", ODD))
    await house.ledger.aclose()
    with pytest.raises(LedgerFault):
        await house.quarantine.pin(OLGA, "files", "read", house.digest())
    assert house.servers.accepted_by == {}


async def test_acceptance_that_failed_after_it_was_told_is_told_too(
    house: House, store: Path, key: VerifierKey
) -> None:
    await house.see(item("read", ODD))
    house.servers.refuses = Conflict(Code.WRONG_STATE, "the server lists another one meanwhile")
    with pytest.raises(Conflict):
        await house.quarantine.pin(OLGA, "files", "read", house.digest())
    await house.quarantine.pin(OLGA, "files", "read", house.digest())
    assert await house.events() == ["quarantined", "pinned", "pin_failed", "pinned"]
    await house.ledger.aclose()
    assert check(list(export_store(store)[0]), key).problem is None


async def test_what_was_seen_last_is_told_before_it_is_accepted(
    house: House, store: Path, key: VerifierKey
) -> None:
    await house.see(item("read"))
    await house.see(item("read", "Second."))
    house.servers.lists("files", item("read", "Third."))
    await house.servers.look("files")
    await house.quarantine.pin(OLGA, "files", "read", house.digest())
    assert await house.events() == ["quarantined", "quarantined", "pinned"]
    await house.ledger.aclose()
    assert check(list(export_store(store)[0]), key).problem is None


async def test_tool_that_is_held_back_no_more_without_a_person_is_told_as_that(
    house: House,
) -> None:
    await house.see(item("read", ODD), item("write"))
    await house.see(item("write"))
    assert await house.events() == ["quarantined", "released"]
    assert (await house.told())[1]["state"] == "gone"


async def test_next_life_of_a_gateway_tells_only_what_is_new(house: House, reopen: Reopen) -> None:
    await house.see(item("read", ODD), item("write", ODD), item("gone", ODD))
    await house.quarantine.pin(OLGA, "files", "write", house.digest("write"))
    await house.ledger.aclose()
    again = House(reopen(), house.servers)
    try:
        await again.quarantine.write()
        assert await again.events() == ["quarantined"] * 3 + ["pinned"]
        house.servers.lists("files", item("read", ODD), item("write", ODD))
        await house.servers.look("files")
        await again.quarantine.write()
        last = (await again.told())[-1]
        assert (last["event"], last["tool"]) == ("tool.released", "gone")
        await again.quarantine.pin(OLGA, "files", "read", again.digest("read"))
        assert (await again.events())[-1] == "pinned"
    finally:
        await again.ledger.aclose()


async def test_server_with_many_odd_tools_is_told_a_part_at_a_time(house: House) -> None:
    names = [f"t{number}" for number in range(AT_ONCE + 5)]
    await house.see(*(item(name, ODD) for name in names))
    assert len(await house.told()) == AT_ONCE
    last = names[-1]
    await house.quarantine.pin(OLGA, "files", last, house.digest(last))
    told = await house.told()
    assert [each["tool"] for each in told[-2:]] != [last, last]
    assert [each["event"] for each in told if each["tool"] == last] == [
        "tool.quarantined",
        "tool.pinned",
    ]
    await house.quarantine.write()
    assert len({each["tool"] for each in await house.told()}) == len(names)


# ---------------------------------------------------------------------------------- the verifier

Entries = list[dict[str, Any]]
HELD, PINNED = 0, 1


def setting(index: int, **fields: Any) -> Callable[[Entries], object]:
    return lambda entries: entries[index].update(fields)


BROKEN: dict[str, tuple[Callable[[Entries], object], int, Code]] = {
    "another definition is accepted than was seen": (
        setting(PINNED, digest="sha256:other"),
        1,
        Code.LOG_INCONSISTENT,
    ),
    "nobody is named who accepted": (
        lambda entries: entries[PINNED].pop("operator"),
        1,
        Code.LOG_MALFORMED,
    ),
    "no definition is named that was accepted": (
        lambda entries: entries[PINNED].pop("digest"),
        1,
        Code.LOG_MALFORMED,
    ),
    "a digest that is none": (setting(HELD, digest=7), 0, Code.LOG_MALFORMED),
    "a failure of what nobody tried": (
        setting(HELD, event="tool.pin_failed", operator="olga"),
        0,
        Code.LOG_INCONSISTENT,
    ),
    "a failure of another definition": (
        lambda entries: entries.append(
            {**entries[PINNED], "event": "tool.pin_failed", "digest": "sha256:other"}
        ),
        2,
        Code.LOG_INCONSISTENT,
    ),
    "another one is accepted after that failed": (
        lambda entries: entries.extend(
            [
                {**entries[PINNED], "event": "tool.pin_failed"},
                {**entries[PINNED], "digest": "sha256:other"},
            ]
        ),
        3,
        Code.LOG_INCONSISTENT,
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_story_of_a_tool_that_cannot_be_is_found_offline(
    house: House, store: Path, signer: FileSigner, key: VerifierKey, clock: SetClock, broken: str
) -> None:
    await house.see(item("read", ODD))
    await house.quarantine.pin(OLGA, "files", "read", house.digest())
    await house.ledger.aclose()
    lines = list(export_store(store)[0])
    assert check(lines, key).problem is None
    entries = [json.loads(text) for text in texts(lines)]
    for each in entries:
        each.pop("commitments", None)
    change, index, code = BROKEN[broken]
    change(entries)
    for number, entry in enumerate(entries):
        entry["seq"] = number
    problem = check(resign([encode(each) for each in entries], signer), key).problem
    assert problem is not None
    assert (problem.index, problem.code) == (index, code)
