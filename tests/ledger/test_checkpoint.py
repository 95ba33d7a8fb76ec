"""Checkpoints and receipts: one way to write them, and nothing else is read."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from remit.errors import Code, ConfigError, Unverified
from remit.ledger.checkpoint import (
    VerifierKey,
    open_checkpoint,
    sign_checkpoint,
    signature_line,
    signed_by,
)
from remit.ledger.merkle import Frontier, inclusion_proof, leaf_hash
from remit.ledger.receipt import open_receipt, receipt_json
from remit.ledger.signer import FileSigner
from remit.model import Receipt

ROOT = leaf_hash(b"entry")
SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
"""The public verifier key of a log that others run: checks that key ids are made alike."""


def test_a_signed_checkpoint_is_read_back(signer: FileSigner, key: VerifierKey) -> None:
    made = sign_checkpoint(signer, signer.origin, 7, ROOT)
    assert made.note.startswith("gateway.example/log\n7\n")
    assert open_checkpoint(made.note, key) == made
    assert signed_by(made.note) == (key.name, key.id.hex())


def test_verifier_keys_are_those_of_signed_notes(signer: FileSigner) -> None:
    assert str(VerifierKey.parse(SUMDB)) == SUMDB
    assert str(VerifierKey.parse(f" {signer.verifier_key}\n")) == signer.verifier_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sum.golang.org",
        SUMDB.replace("033de0ae", "033de0af"),
        SUMDB.replace("sum.", "som."),
        SUMDB[:-4],
        SUMDB.replace("+Ac4", "+As4"),
        SUMDB.replace("sum.golang.org", "sum golang"),
    ],
)
def test_a_verifier_key_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(Unverified) as caught:
        VerifierKey.parse(text)
    assert caught.value.code is Code.SIGNATURE_INVALID


@pytest.mark.threat("T-22")
@given(
    at=st.integers(0, 10_000), other=st.characters(codec="utf-8") | st.sampled_from("\n +=AQgw—")
)
def test_any_changed_character_of_a_note_is_refused(at: int, other: str) -> None:
    signer = FileSigner("gateway.example/log", Ed25519PrivateKey.from_private_bytes(b"s" * 32))
    note = sign_checkpoint(signer, signer.origin, 1234, ROOT).note
    at %= len(note)
    assume(note[at] != other)
    with pytest.raises(Unverified):
        open_checkpoint(note[:at] + other + note[at + 1 :], VerifierKey.parse(signer.verifier_key))


def _spellings(note: str) -> dict[str, str]:
    text, _, signature = note.partition("\n\n")
    return {
        "no end": note[:-1],
        "more after it": note + "\n",
        "text after it": note + "more\n",
        "no signature": text + "\n",
        "an empty signature line": f"{text}\n\n\n",
        "two of one key": note + signature,
        "a carriage return": note.replace("\n", "\r\n"),
        "a tab": note.replace("— ", "—\t"),
        "a hyphen for the dash": note.replace("—", "-"),
        "too many": note + "".join(f"— k{n} AAAAAAAA\n" for n in range(40)),
        "too long": note + "— k " + "A" * 70_000 + "\n",
    }


@pytest.mark.parametrize("name", sorted(_spellings("a\n\nb")))
def test_another_spelling_of_a_note_is_refused(
    signer: FileSigner, key: VerifierKey, name: str
) -> None:
    note = sign_checkpoint(signer, signer.origin, 7, ROOT).note
    with pytest.raises(Unverified) as caught:
        open_checkpoint(_spellings(note)[name], key)
    assert caught.value.code is Code.LOG_MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        "gateway.example/log\n07\n{root}\n",
        "gateway.example/log\n+7\n{root}\n",
        "gateway.example/log\n-1\n{root}\n",
        "gateway.example/log\n٧\n{root}\n",
        "gateway.example/log\n99999999999999999\n{root}\n",
        "gateway.example/log\n7\nAAAA\n",
        "gateway.example/log\n7\n{root}\nextension\n",
        "gateway.example/log\n7\n",
        "gateway.example/log\n0\n{root}\n",
        "other.example/log\n7\n{root}\n",
    ],
)
def test_a_signed_text_that_is_not_a_checkpoint_of_this_log_is_refused(
    signer: FileSigner, key: VerifierKey, text: str
) -> None:
    body = text.format(root=base64.b64encode(ROOT).decode())
    with pytest.raises(Unverified):
        open_checkpoint(f"{body}\n{signer.sign(body.encode())}\n", key)


def test_signatures_of_others_are_passed_over(signer: FileSigner, key: VerifierKey) -> None:
    note = sign_checkpoint(signer, signer.origin, 7, ROOT).note
    witness = signature_line("witness.example", b"abcd", b"w" * 64) + "\n"
    assert open_checkpoint(note + witness, key).size == 7
    with pytest.raises(Unverified) as caught:
        open_checkpoint(note.partition("\n\n")[0] + "\n\n" + witness, key)
    assert caught.value.code is Code.SIGNATURE_INVALID


def test_a_key_file_is_its_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    made = FileSigner.create(path, "gateway.example/log")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileSigner.load(path).verifier_key == made.verifier_key
    with pytest.raises(ConfigError):
        FileSigner.create(path, "gateway.example/log")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="by others"):
        FileSigner.load(path)


@pytest.mark.parametrize("damage", ["", "x", "PRIVATE+KEY+a+00000000+AAAA", "hash", "name"])
def test_a_damaged_key_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.key"
    FileSigner.create(path, "gateway.example/log")
    text = path.read_text()
    if damage == "hash":
        text = text.replace(text.split("+")[3], "00000000")
    elif damage == "name":
        text = text.replace("gateway.", "gatewax.")
    else:
        text = damage
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        FileSigner.load(path)
    assert caught.value.code is Code.SECRET_UNAVAILABLE
    assert text.strip()[-8:] not in str(caught.value) or not text
    with pytest.raises(ConfigError):
        FileSigner.load(tmp_path / "none")


def test_an_origin_that_a_note_cannot_name_is_refused(tmp_path: Path) -> None:
    for origin in ("", "two words", "a+b", "tab\tbed"):
        with pytest.raises(ConfigError):
            FileSigner.create(tmp_path / "k", origin)
    assert os.listdir(tmp_path) == []


def _receipt(signer: FileSigner) -> tuple[Receipt, bytes]:
    tree, nodes = Frontier(), []
    for n in range(5):
        tree, made = tree.append(leaf_hash(b"entry %d" % n))
        nodes.append(made)
    proof = inclusion_proof(3, 5, lambda level, index: nodes[((index + 1) << level) - 1][level])
    return Receipt(
        index=3,
        leaf_hash=leaf_hash(b"entry 3"),
        proof=tuple(proof),
        checkpoint=sign_checkpoint(signer, signer.origin, 5, tree.root()),
    ), b"entry 3"


@pytest.mark.threat("T-22")
def test_a_receipt_is_checked_offline(signer: FileSigner, key: VerifierKey) -> None:
    receipt, entry = _receipt(signer)
    assert open_receipt(receipt_json(receipt), key, entry=entry) == receipt
    with pytest.raises(Unverified):
        open_receipt(receipt_json(receipt), key, entry=b"entry 4")


@pytest.mark.threat("T-22")
@pytest.mark.parametrize(
    "change",
    [
        {"index": 2},
        {"index": 5},
        {"index": -1},
        {"index": True},
        {"index": "3"},
        {"leaf": base64.b64encode(leaf_hash(b"entry 2")).decode()},
        {"leaf": "AAAA"},
        {"leaf": 3},
        {"proof": []},
        {"proof": "x"},
        {"proof": ["AAAA"]},
        {"proof": ["A" * 43 + "="] * 99},
        {"checkpoint": None},
        {"schema": "remit.receipt/2"},
        {"more": 1},
    ],
)
def test_a_changed_receipt_is_refused(
    signer: FileSigner, key: VerifierKey, change: dict[str, object]
) -> None:
    value = receipt_json(_receipt(signer)[0])
    with pytest.raises(Unverified):
        open_receipt(value | change, key)


def test_a_hash_with_stray_bits_is_refused(signer: FileSigner, key: VerifierKey) -> None:
    value = receipt_json(_receipt(signer)[0])
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = value["leaf"][-2]
    stray = value["leaf"][:-2] + letters[letters.index(last) | 1] + "="
    assert base64.b64decode(stray) == base64.b64decode(value["leaf"])
    with pytest.raises(Unverified):
        open_receipt(value | {"leaf": stray}, key)


def test_what_is_no_receipt_at_all_is_refused(key: VerifierKey) -> None:
    values: list[object] = [None, [], "x", {}, 3]
    for value in values:
        with pytest.raises(Unverified):
            open_receipt(value, key)
