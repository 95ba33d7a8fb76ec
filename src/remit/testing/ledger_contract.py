"""What every `Ledger` must do: subclass `LedgerContract` and override its `ledger` fixture.

`SetClock` and `signer` come with it; the ledger must use both, and `gw-1` as its gateway.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from remit.errors import NotFound
from remit.ledger.checkpoint import VerifierKey, open_checkpoint
from remit.ledger.merkle import leaf_hash, verify_inclusion
from remit.ledger.records import read_export
from remit.ledger.signer import FileSigner
from remit.ledger.verify import verify
from remit.model import EntryDraft
from remit.ports import Ledger, Signer
from remit.testing import ledger_samples as sample
from remit.testing.ledger_approval_contract import ApprovalContract
from remit.testing.ledger_history_contract import RequestContract, TouchContract
from remit.testing.ledger_run_contract import (
    IntentContract,
    RunContract,
    StartWithIntentContract,
)
from remit.testing.ledger_samples import SetClock, document, events


class LogContract:
    """The log: numbered, committed to, provable."""

    async def test_entries_are_numbered_in_the_order_given(self, ledger: Ledger) -> None:
        first = await ledger.append([EntryDraft(event="a", public={}), _draft("b")])
        second = await ledger.append([_draft("c")])
        assert [*first, *second] == [0, 1, 2]
        assert await events(ledger) == ["a", "b", "c"]

    async def test_an_entry_is_a_leaf_with_its_own_number_time_and_gateway(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        await ledger.append([EntryDraft(event="a", public={"tool": {"name": "x"}})])
        entry = (await ledger.entries(0, 1))[0]
        assert entry.leaf_hash == leaf_hash(entry.text)
        assert json.loads(entry.text) == {
            "schema": "remit.entry/1",
            "seq": 0,
            "time": "2026-09-21T14:13:20.000Z",
            "gateway": "gw-1",
            "event": "a",
            "tool": {"name": "x"},
        }

    async def test_a_public_field_cannot_take_the_name_of_an_own_one(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="reserved"):
            await ledger.append([_draft("fine"), EntryDraft(event="a", public={"seq": 9})])
        assert await events(ledger) == []

    async def test_a_sealed_value_is_committed_to_and_kept_apart(self, ledger: Ledger) -> None:
        long = b"long" * 2000
        sealed = {"stdout": b"secret output", "long": long}
        await ledger.append([EntryDraft(event="a", public={}, sealed=sealed)])
        text = (await ledger.entries(0, 1))[0].text
        commitments = json.loads(text)["commitments"]
        assert b"secret output" not in text
        assert await ledger.value(commitments["stdout"]) == b"secret output"
        assert await ledger.value(commitments["long"]) == long
        assert await ledger.value("sha256:" + "0" * 64) is None

    async def test_equal_values_have_different_commitments(self, ledger: Ledger) -> None:
        for _ in range(2):
            await ledger.append([EntryDraft(event="a", public={}, sealed={"v": b"yes"})])
        found = [json.loads(e.text)["commitments"]["v"] for e in await ledger.entries(0, 2)]
        assert found[0] != found[1]
        opened = await ledger.opening(found[0])
        assert opened is not None
        assert len(opened[0]) == 16

    async def test_a_receipt_proves_each_entry(self, ledger: Ledger, signer: Signer) -> None:
        await ledger.append([_draft(f"e{n}") for n in range(11)])
        for index in range(11):
            receipt = await ledger.receipt(index)
            head = open_checkpoint(receipt.checkpoint.note, VerifierKey.parse(signer.verifier_key))
            verify_inclusion(index, head.size, receipt.leaf_hash, receipt.proof, head.root)
        with pytest.raises(NotFound):
            await ledger.receipt(11)

    async def test_one_checkpoint_serves_until_more_is_written(self, ledger: Ledger) -> None:
        await ledger.append([_draft("a")])
        first = await ledger.checkpoint()
        assert await ledger.checkpoint() == first
        await ledger.append([_draft("b")])
        assert [c.size for c in (first, await ledger.checkpoint())] == [1, 2]
        assert [c.size for c in await ledger.checkpoints()] == [1, 2]

    async def test_an_export_verifies_with_the_key(
        self, active: Ledger, clock: SetClock, signer: Signer
    ) -> None:
        plan, decision = sample.plan(), sample.allow(clock)
        intent = sample.intent(clock, plan=plan, decision=decision)
        grant = await active.commit_intent(intent, [sample.decision_entry(plan, decision)])
        lines = b"".join([line async for line in active.export()])
        assert active.verifier_key == signer.verifier_key
        report = verify(read_export(io.BytesIO(lines)), VerifierKey.parse(signer.verifier_key))
        assert report.problem is None
        assert (report.entries, report.signed) == (3, 3)
        assert report.open_runs == [(grant.run_id, grant.intent_index)]

    async def test_search_finds_the_newest_with_all_of_these_fields(self, ledger: Ledger) -> None:
        for n in range(6):
            public = {"tool": {"name": f"t{n % 2}"}, "n": n, "who": "name"}
            await ledger.append([EntryDraft(event="e", public=public)])
        found = await ledger.search({"tool.name": "t1", "event": "e"}, limit=2)
        assert [each.index for each in found] == [5, 3]
        assert [each.index for each in await ledger.search({"n": "4"}, limit=9)] == [4]
        assert await ledger.search({"name": "t1"}, limit=9) == []

    async def test_refusals_are_counted_by_source_code_and_minute(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        for _ in range(3):
            await ledger.count_refusal("10.0.0.9", "unauthenticated", clock.now_ms())
        await ledger.count_refusal("10.0.0.9", "rate_limited", clock.now_ms())
        assert await events(ledger) == []
        clock.move(60_000)
        await ledger.count_refusal("10.0.0.9", "unauthenticated", clock.now_ms())
        counted = [await document(ledger, index) for index in range(2)]
        assert sorted((e["code"], e["count"]) for e in counted) == [
            ("rate_limited", 1),
            ("unauthenticated", 3),
        ]


class LedgerContract(
    LogContract,
    IntentContract,
    RunContract,
    StartWithIntentContract,
    ApprovalContract,
    TouchContract,
    RequestContract,
):
    """All of it. `active` is the ledger with `sample.activation()` in force."""

    @pytest.fixture
    def clock(self) -> SetClock:
        return SetClock()

    @pytest.fixture
    def signer(self, tmp_path: Path) -> Signer:
        return FileSigner.create(tmp_path / "log.key", "gateway.example/log")

    @pytest.fixture
    async def ledger(self) -> Ledger:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    async def active(self, ledger: Ledger, clock: SetClock) -> Ledger:
        await ledger.activate(sample.activation(), clock.now_ms())
        return ledger

    async def test_it_says_that_it_is_ready(self, ledger: Ledger) -> None:
        assert await ledger.ready() is None


def _draft(event: str) -> EntryDraft:
    return EntryDraft(event=event, public={})
