"""A configuration with every kind of run: plain, with a way out, with what is put in or lent, cold,
in a slot, long. Its servers live with the test, and so outlive whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.ledger.signer import FileSigner
from tests.chaos.leftovers import Own, children
from tests.runners.credentials.fakes import FakeGithub, Reply, Request, serving
from tests.runners.credentials.keeping import APP_KEY, app_key
from tests.runners.egress.world import certificates

SECRET = "a-long-lived-secret-of-the-operator-4711"
SLOTS = 1
"""Slots of each class; see `waiting`."""

_PLACES = 64
"""At most so many users, each of a run's place, follow the first one."""

POLICY = """package remit

import rego.v1
import future.keywords.not

default decision := {
    "schema": "remit.decision/1", "decision": "deny",
    "reasons": [{"code": "no_rule", "message": "no rule", "audience": "user"}],
}

decision := {
    "schema": "remit.decision/1", "decision": "allow",
    "reasons": [{"code": "test", "message": "a test", "audience": "user"}],
    "constraints": {"egress": input.tool.egress, "credentials": input.tool.credentials},
} if input.caller.tenant == "chaos"

visible := {tool.name: true | some tool in input.tools}
"""

APPEND = "import sys; open('/mnt/marks/marks', 'a').write(sys.argv[1] + chr(10))"
# By the plain base address: TLS is the proxy's business, and importing it would be half the run.
ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", 3128), 20) as way:
    way.sendall(b"GET /localhost:%s%s HTTP/1.1\\r\\nHost: localhost:%s\\r\\nConnection: close\\r\\n\\r\\n"
        % tuple(each.encode() for each in (sys.argv[1], sys.argv[2], sys.argv[1])))
    said = b""
    while got := way.recv(65536):
        said += got
print(said.rpartition(b"\\r\\n\\r\\n")[2].decode())
sys.exit(0 if said.startswith(b"HTTP/1.1 200") else 7)
"""

TOOLS = ("look", "mark", "fetch", "ask", "lent", "long")
WRITES = frozenset({"mark", "ask", "lent", "long"})
SAYS = {"fetch": "nobody", "ask": "known", "lent": "lent 40"}
"""What a run of a tool that did its work says, where that is the same each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where it is, and what leftovers of its gateway are known by.

    Args:
        lost: tokens whose keeper was killed while it asked for them: nobody has them, and nobody
            can revoke them. The record has to say so of each.
        living: gateways that were started and not seen to end.
    """

    root: Path
    config: Path
    lender: FakeGithub
    own: Own
    lost: set[str]
    living: set[int]

    @property
    def waiting(self) -> int:
        """How many slots wait at most: a class of each for what goes out and what does not."""
        return 4 * SLOTS

    def effects(self) -> list[int]:
        """What `mark` has done, by its numbers."""
        marks = self.root / "marks" / "marks"
        return [int(line) for line in marks.read_text().split()] if marks.exists() else []


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Servers that run, and a configuration that names them; no gateway yet."""
    with tempfile.TemporaryDirectory(prefix="remit-chaos-") as folder:  # pytest's own are closed
        root = Path(folder)
        root.chmod(0o755)
        with _served(root) as made:
            yield made


@contextlib.contextmanager
def _served(root: Path) -> Iterator[World]:
    lost: set[str] = set()
    trusted = certificates(root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.chain)
    lender = FakeGithub(APP_KEY.public_key())
    app_key(root).chmod(0o600)
    with serving(lender) as api, serving(_who, tls=context) as there:
        port = int(there.rpartition(":")[2])
        users = _users()
        config = _write(root, trusted.authority, api=api, port=port, users=users)
        data = root / "data"
        (data / "gateway-id").write_text(f"chaos-{os.getpid()}-{users.start}\n")
        own = Own(
            data=data,
            gateway=(data / "gateway-id").read_text().strip(),
            users=users if os.geteuid() == 0 else range(0),
            lent=lambda: [f"{token[:8]}..." for token in set(lender.live) - lost],
            ours=children(),
        )
        made = World(root=root, config=config, lender=lender, own=own, lost=lost, living=set())
        try:
            yield made
        finally:
            for pid in made.living:
                os.kill(pid, signal.SIGKILL)


def _users() -> range:
    """Users that no other gateway of this machine has: those of this process alone."""
    first = 1_000_000 + os.getpid() * 2 * _PLACES
    return range(first, first + 2 * _PLACES)


def _who(request: Request) -> Reply:
    """Whoever asks is told whether he has the operator's secret."""
    known = request.bearer == SECRET
    return Reply(200, b"known" if known else b"nobody", {"Connection": "close"})


def _write(root: Path, authority: str, *, api: str, port: int, users: range) -> Path:
    marks = root / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    (root / "policy").mkdir()
    (root / "policy" / "policy.rego").write_text(POLICY)
    (root / "data" / "keys").mkdir(parents=True)
    FileSigner.create(root / "data/keys/log.key", "remit.chaos/log")
    (root / "authority.pem").write_text(authority)
    (root / "secret").write_text(SECRET)
    (root / "secret").chmod(0o600)
    config = {
        "server": {"data_dir": "data"},
        "identity": {
            "tenant": "chaos",
            "keys": [{"id": "bot", "sha256": "0" * 64, "subject": "bot", "kind": "agent"}],
        },
        "catalog": {"tools": _tools(marks, str(port))},
        "policy": {"path": "policy", "deadline_ms": 10_000},
        "approvals": {"hold_s": 0},
        "ledger": {"origin": "remit.chaos/log"},
        "limits": {"concurrent_runs": 12, "calls_per_minute": 1_000_000},
        "runners": {
            "sandbox": {"uid_base": users.start + 2},  # the proxy's and the keeper's are below
            "profiles": {"sandbox": {"warm": {"shell": SLOTS, "python": SLOTS}}},
            "egress": {"internal": [f"localhost:{port}"], "ca_file": "authority.pem"},
            "credentials": _credentials(api, port),
        },
    }
    path = root / "remit.yaml"
    path.write_text(json.dumps(config, indent=1))
    return path


def _credentials(api: str, port: int) -> dict[str, Any]:
    return {
        "fixed": {
            "broker": "static",
            "secret": "file:secret",
            "inject": [{"host": "localhost", "port": port, "value": "Bearer {token}"}],
        },
        "code": {
            "broker": "github",
            "app_id": "4711",
            "installation_id": "77",
            "private_key": "file:app.pem",
            "api": api,
            "repositories": ["site"],
            "permissions": {"contents": "read"},
            "file": {"name": "token"},
        },
    }


def _tools(marks: Path, port: str) -> list[dict[str, Any]]:
    asking = ["/usr/bin/python3", "-I", "ask.py", port, "/{number}"]
    ask = [{"path": "ask.py", "content": ASK}]
    mount = {"name": "marks", "source": str(marks), "writable": True}
    way = {"egress": [{"host": "localhost", "port": int(port), "methods": ["GET"]}]}
    size = 'echo lent $(wc -c <"$REMIT_CREDENTIAL_FILE_CODE")'
    return [
        _tool("look", "/bin/echo", "number={number}"),
        _tool(
            "mark", "/usr/bin/python3", "-I", "-S", "mark.py", "{number}",
            mounts=[mount], files=[{"path": "mark.py", "content": APPEND}],
        ),
        {**_tool("fetch", *asking, files=ask), **way},
        {**_tool("ask", *asking, files=ask), **way, "credentials": [{"ref": "fixed"}]},
        {**_tool("lent", "/bin/sh", "-c", size), "credentials": [{"ref": "code"}]},
        _tool("long", "/bin/sh", "-c", "sleep 0.3; echo slept"),
    ]  # fmt: skip


def _tool(name: str, *argv: str, **command: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"{name}, for a test",
        "effect": "write" if name in WRITES else "read",
        "input_schema": {
            "type": "object",
            "properties": {"number": {"type": "integer"}},
            "required": ["number"],
        },
        "command": {"argv": list(argv), **command},
        "limits": {"wall_s": 30, "memory_mb": 128, "pids": 32, "tmp_mb": 8},
    }
