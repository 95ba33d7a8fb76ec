"""What a runner is told, from the bytes of a plan."""

from __future__ import annotations

from typing import Any

import pytest

from remit.canonical import digest, encode
from remit.errors import Code, Refused
from remit.stages.plan import PLAN
from remit.stages.run_spec import run_spec


def _plan(effect: str) -> bytes:
    facts: dict[str, Any] = {
        "effect": effect,
        "call_digest": "sha256:call",
        "command": {"argv": ["true"], "env": {}, "stdin": "", "files": {}, "mounts": []},
        "collect": [],
        "limits": {},
        "runner": {"profile": "sandbox"},
        "egress": [],
        "credentials": [],
    }
    return encode(facts)


@pytest.mark.threat("T-35")
@pytest.mark.parametrize("effect", ["write", "destructive"])
def test_a_later_run_of_the_same_effect_shuts_the_older_out(effect: str) -> None:
    text = _plan(effect)
    assert run_spec(text, digest(PLAN, text)).fence_key == "sha256:call"


def test_equal_reads_may_run_side_by_side() -> None:
    text = _plan("read")
    assert run_spec(text, digest(PLAN, text)).fence_key == ""


@pytest.mark.threat("T-07")
def test_bytes_that_the_hash_does_not_name_are_no_spec() -> None:
    text = _plan("read")
    with pytest.raises(Refused) as refused:
        run_spec(text + b" ", digest(PLAN, text))
    assert refused.value.code is Code.APPROVAL_MISMATCH
