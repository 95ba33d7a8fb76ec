"""Exports as lists of lines, and what someone who wants to change one would do to them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from remit.canonical import encode
from remit.errors import Code
from remit.ledger.checkpoint import VerifierKey, sign_checkpoint
from remit.ledger.merkle import Frontier, leaf_hash
from remit.ledger.records import read_export
from remit.ledger.signer import FileSigner
from remit.ledger.verify import Report, verify
from remit.model import Checkpoint, Receipt

Lines = list[bytes]


def check(
    lines: Sequence[bytes],
    key: VerifierKey,
    *,
    checkpoint: Checkpoint | None = None,
    receipt: Receipt | None = None,
) -> Report:
    file = io.BytesIO(b"".join(lines))
    return verify(read_export(file), key, checkpoint=checkpoint, receipt=receipt)


def broken(lines: Sequence[bytes], key: VerifierKey, code: Code, index: int | None) -> None:
    problem = check(lines, key).problem
    assert problem is not None
    assert (problem.code, problem.index) == (code, index)


def where(lines: Lines, index: int) -> int:
    """The line of an entry."""
    start = f'"index":{index},'.encode()
    return next(n for n, line in enumerate(lines) if start in line)


def edit(lines: Lines, index: int, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Change an entry's text, and its leaf with it; give the new text."""
    at = where(lines, index)
    line = json.loads(lines[at])
    entry = json.loads(line["entry"])
    change(entry)
    text = encode(entry)
    leaf = base64.b64encode(leaf_hash(text)).decode()
    lines[at] = encode(line | {"entry": text.decode(), "leaf": leaf}) + b"\n"
    return text


def texts(lines: Lines) -> list[bytes]:
    return [json.loads(line)["entry"].encode() for line in lines if b'"entry":' in line]


def resign(entries: Sequence[bytes], signer: FileSigner) -> Lines:
    """What a forger who has the key, or another gateway, would make of these entries."""
    tree = Frontier()
    out: Lines = []
    for index, text in enumerate(entries):
        leaf = leaf_hash(text)
        tree, _ = tree.append(leaf)
        fields = {"index": index, "leaf": base64.b64encode(leaf).decode(), "entry": text.decode()}
        out.append(encode(fields) + b"\n")
    last = sign_checkpoint(signer, signer.origin, tree.size, tree.root())
    name, _, rest = signer.verifier_key.partition("+")
    header = {"schema": "remit.export/1", "origin": name, "key": rest[:8], "size": tree.size}
    return [encode(header) + b"\n", *out, encode({"checkpoint": last.note}) + b"\n"]
