"""`remit audit verify` and `export`: what they print and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from remit.cli.audit import audit
from remit.ledger.receipt import receipt_json
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.testing.ledger_samples import SetClock
from tests.ledger.conftest import tell_story

pytestmark = pytest.mark.anyio


def call(*arguments: object) -> Result:
    return CliRunner().invoke(audit, [str(each) for each in arguments], catch_exceptions=False)


@pytest.fixture
async def told(ledger: SqliteLedger, clock: SetClock, tmp_path: Path) -> Path:
    """A directory with a closed ledger, its key, a receipt and a checkpoint."""
    await tell_story(ledger, clock)
    (tmp_path / "receipt.json").write_text(json.dumps(receipt_json(await ledger.receipt(9))))
    (tmp_path / "checkpoint").write_text((await ledger.checkpoint()).note)
    (tmp_path / "vkey").write_text(ledger.verifier_key + "\n")
    await ledger.aclose()
    assert call("export", tmp_path / "ledger.db", tmp_path / "log.jsonl").exit_code == 0
    return tmp_path


@pytest.mark.parametrize("name", ["ledger.db", "log.jsonl"])
async def test_a_whole_log_ends_0_and_says_what_is_not_proved(told: Path, name: str) -> None:
    done = call("verify", told / name, "--key-file", told / "vkey")
    assert done.exit_code == 0
    assert done.stdout.startswith("OK ")
    assert "13 entries, each in its place" in done.stdout
    assert "Not proved" in done.stdout
    assert "kept elsewhere" in done.stdout
    assert "run_" in done.stdout  # the run that is still open


async def test_evidence_from_outside_says_more(told: Path, signer: FileSigner) -> None:
    done = call(
        "verify",
        told / "log.jsonl",
        "--key",
        signer.verifier_key,
        "--checkpoint",
        told / "checkpoint",
        "--receipt",
        told / "receipt.json",
        "-o",
        "json",
    )
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"], found["outside"]) == (0, True, 13)
    assert "--checkpoint" not in done.stdout


@pytest.mark.threat("T-21")
async def test_a_changed_byte_ends_1_and_names_the_entry(told: Path) -> None:
    path = told / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b"call.intent", b"call.intenT", 1))
    done = call("verify", path, "--key-file", told / "vkey")
    assert done.exit_code == 1
    assert done.stdout.startswith("BROKEN ")
    assert "entry 2:" in done.stdout
    lines = call("verify", path, "--key-file", told / "vkey", "-o", "jsonl").stdout.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["problem"]["index"] == 2


async def test_a_receipt_that_does_not_hold_ends_1(told: Path) -> None:
    value = json.loads((told / "receipt.json").read_text()) | {"index": 2}
    (told / "receipt.json").write_text(json.dumps(value))
    arguments = ("--key-file", told / "vkey", "--receipt", told / "receipt.json")
    assert call("verify", told / "log.jsonl", *arguments).exit_code == 1


async def test_wrong_usage_ends_2(told: Path, signer: FileSigner) -> None:
    path = told / "log.jsonl"
    assert call("verify", path).exit_code == 2
    assert call("verify", path, "--key", "x").exit_code == 2
    both = ("--key", signer.verifier_key, "--key-file", told / "vkey")
    assert call("verify", path, *both).exit_code == 2
    assert call("export", told / "ledger.db", path).exit_code == 2


async def test_what_cannot_be_read_ends_3(told: Path, signer: FileSigner) -> None:
    key = ("--key", signer.verifier_key)
    assert call("verify", told / "none", *key).exit_code == 3
    assert call("verify", told / "log.jsonl", "--key-file", told / "none").exit_code == 3
    (told / "half.db").write_bytes((told / "ledger.db").read_bytes()[:100])
    assert call("verify", told / "half.db", *key).exit_code == 3
    assert call("export", told / "vkey", told / "out").exit_code == 3


async def test_an_export_holds_values_and_plans_only_when_asked(told: Path) -> None:
    plain = (told / "log.jsonl").read_text()
    assert "openings" not in plain
    assert '"plan":' not in plain
    flags = ("--with-values", "--with-plans")
    assert call("export", told / "ledger.db", told / "all.jsonl", *flags).exit_code == 0
    assert call("verify", told / "all.jsonl", "--key-file", told / "vkey").exit_code == 0
    full = (told / "all.jsonl").read_text()
    assert '"openings"' in full
    assert '"plan":' in full
    assert (told / "all.jsonl").stat().st_mode & 0o077 == 0
