"""Bundles to read: what the tests of archives, signatures and sources share."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.plugins.machine import opa_binary
from tests.policy.world import HEAD

MODULE = HEAD + "visible := {tool.name: true | some tool in input.tools}\n"
SECRET = "0123456789abcdef0123456789abcdef"

FILES: dict[str, bytes] = {
    "remit.rego": MODULE.encode(),
    "teams/web.rego": b"package remit.teams.web\n\nimport rego.v1\nimport future.keywords.not\n\nx := 1\n",
    "data.json": b'{"grants": {"ann": ["read"]}, "odd": 1.50}',
    "limits/daily/data.json": b'{"writes": 3}',
    ".manifest": b'{"revision": "r7", "roots": ["remit", "grants", "odd", "limits"]}',
    "README.md": b"words\n",
}


def tar_gz(files: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> bytes:
    """What `tar czf` would make of these, in this order, names as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """These files in a directory."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def opa(*arguments: str | Path, cwd: Path | None = None) -> str:
    """What the real `opa` prints, when it ends well."""
    binary = opa_binary()
    assert binary is not None
    done = subprocess.run([binary, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def opa_value(archive: Path, query: str, given: Any = None) -> Any:
    """The value of a query over a bundle, as the real `opa eval -b` finds it."""
    path = archive.parent / "input.json"
    path.write_text(json.dumps({} if given is None else given))
    found = json.loads(opa("eval", "-b", archive, "-i", path, query))
    return found["result"][0]["expressions"][0]["value"]


def _pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
) -> tuple[str, str]:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def key_pair(algorithm: str) -> tuple[str, str]:
    """A fresh key that fits: private and public, or the secret twice."""
    match algorithm:
        case "RS256":
            return _pem(rsa.generate_private_key(65537, 2048))
        case "ES256":
            return _pem(ec.generate_private_key(ec.SECP256R1()))
        case "EdDSA":
            return _pem(ed25519.Ed25519PrivateKey.generate())
        case _:
            return SECRET, SECRET
