"""A configuration whose write tool leaves a mark on the host, and a look at what runs leave."""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path

from remit.ledger.signer import FileSigner
from tests.chaos.leftovers import about, adopted

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
} if input.caller.tenant == "chaos"

visible := {tool.name: true | some tool in input.tools}
"""

APPEND = "import sys; open('/mnt/marks/marks', 'a').write(sys.argv[1] + chr(10))"


def make_world(root: Path) -> Path:
    """Write a configuration, its policy and its log key; give the configuration's path."""
    root.chmod(0o755)
    marks = root / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    (root / "policy").mkdir()
    (root / "policy" / "policy.rego").write_text(POLICY)
    keys = root / "data" / "keys"
    keys.mkdir(parents=True)
    FileSigner.create(keys / "log.key", "remit.chaos/log")
    number = {
        "type": "object",
        "properties": {"number": {"type": "integer"}},
        "required": ["number"],
    }
    mount = {"name": "marks", "source": str(marks), "writable": True}
    write = {
        "argv": ["/usr/bin/python3", "-I", "-S", "mark.py", "{number}"],
        "files": [{"path": "mark.py", "content": APPEND}],
        "mounts": [mount],
    }
    look = {"argv": ["/bin/echo", "number={number}"]}
    common = {"description": "for a test", "input_schema": number}
    config = {
        "server": {"data_dir": "data"},
        "identity": {
            "tenant": "chaos",
            "keys": [{"id": "bot", "sha256": "0" * 64, "subject": "bot", "kind": "agent"}],
        },
        "catalog": {
            "tools": [
                {"name": "mark", "effect": "write", "command": write, **common},
                {"name": "look", "effect": "read", "command": look, **common},
                {
                    "name": "mark_previewed",
                    "effect": "destructive",
                    "command": write,
                    "preview": {"command": look},
                    **common,
                },
            ]
        },
        "policy": {"path": "policy", "deadline_ms": 5000},
        "approvals": {"hold_s": 0},
        "ledger": {"origin": "remit.chaos/log"},
    }
    path = root / "remit.yaml"
    path.write_text(json.dumps(config, indent=1))
    return path


PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of whatever a killed gateway leaves, so that it can be seen."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans(ours: frozenset[int], *, within_s: float) -> list[str]:
    """The adopted processes that still live after so long; dead ones are reaped.

    Args:
        ours: children that are no gateway's: what other tests of this process keep running.
    """
    until = time.monotonic() + within_s
    while (left := adopted(ours)) and time.monotonic() < until:
        time.sleep(0.01)
    return sorted(map(about, left))


def groups(gateway: str) -> list[Path]:
    """The control groups of runs of this gateway, wherever they are."""
    found: list[Path] = []
    for folder, below, _ in os.walk("/sys/fs/cgroup"):
        if Path(folder).name == f"remit-{gateway}":
            found += [Path(folder) / name for name in below]
    return found


def mounts(word: str) -> list[str]:
    """The lines of this host's mount table that hold a word."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if word in line]
