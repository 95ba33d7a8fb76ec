"""Receipts: the proof of one entry, as JSON in `_meta["dev.remit/receipt"]`.

Whoever keeps a receipt can show later, without the gateway, that this entry was in the log when
the checkpoint was signed; a log that was cut or forked afterwards no longer agrees with it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from remit.canonical import MAX_SAFE_INTEGER
from remit.errors import Code, Unverified
from remit.ledger.checkpoint import VerifierKey, open_checkpoint
from remit.ledger.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from remit.model import Receipt

SCHEMA = "remit.receipt/1"
MAX_PROOF = 64

_FIELDS = {"schema", "index", "leaf", "proof", "checkpoint"}
_UNSAFE = "unsafe"


def receipt_json(receipt: Receipt, unsafe: Sequence[str] = ()) -> dict[str, Any]:
    """The receipt as a JSON object; hashes are base64.

    `unsafe` names what was unsafe about the gateway that gave it (threat T-01). The proof does
    not cover that: it is for whoever reads the receipt, not for whoever verifies it.
    """
    value = {
        "schema": SCHEMA,
        "index": receipt.index,
        "leaf": _text(receipt.leaf_hash),
        "proof": [_text(step) for step in receipt.proof],
        "checkpoint": receipt.checkpoint.note,
    }
    return value | ({_UNSAFE: list(unsafe)} if unsafe else {})


def open_receipt(value: Any, key: VerifierKey, *, entry: bytes | None = None) -> Receipt:
    """Read a receipt and verify it with the log's key from outside.

    Args:
        value: the JSON object.
        key: the log's verifier key.
        entry: the entry's exact bytes; without them only its hash is proved to be in the log.

    Raises:
        Unverified: what does not hold. Does not tell whether the log has changed since: for
            that, give the receipt to the verifier together with the log.
    """
    receipt = _read(value, key)
    if entry is not None and leaf_hash(entry) != receipt.leaf_hash:
        raise Unverified(
            Code.LOG_TAMPERED, "the entry is not the one of the receipt", index=receipt.index
        )
    verify_inclusion(
        receipt.index,
        receipt.checkpoint.size,
        receipt.leaf_hash,
        receipt.proof,
        receipt.checkpoint.root,
    )
    return receipt


def _read(value: Any, key: VerifierKey) -> Receipt:
    if not isinstance(value, Mapping) or set(value) - {_UNSAFE} != _FIELDS:
        raise _malformed(f"this is not a {SCHEMA} object")
    unsafe = value.get(_UNSAFE, [])
    named = isinstance(unsafe, list) and all(isinstance(name, str) for name in unsafe)
    if value["schema"] != SCHEMA or not named:
        raise _malformed(f"this is not a {SCHEMA} object")
    index, proof, note = value["index"], value["proof"], value["checkpoint"]
    if type(index) is not int or not 0 <= index <= MAX_SAFE_INTEGER:
        raise _malformed("the receipt's index is not a number that a log can have")
    if not isinstance(proof, list) or len(proof) > MAX_PROOF or not isinstance(note, str):
        raise _malformed("the receipt's proof is not a list, or its checkpoint not a text")
    return Receipt(
        index=index,
        leaf_hash=_hash(value["leaf"]),
        proof=tuple(_hash(step) for step in proof),
        checkpoint=open_checkpoint(note, key),
    )


def _hash(text: Any) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != HASH_BYTES or _text(data) != text:
        raise _malformed("a hash in the receipt is not base64 of 32 bytes")
    return data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _malformed(why: str) -> Unverified:
    return Unverified(Code.LOG_MALFORMED, why)
