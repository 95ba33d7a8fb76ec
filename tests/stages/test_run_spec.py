"""What a runner is told, from the bytes of a plan."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remit.canonical import digest, encode
from remit.errors import Code, Refused
from remit.model import SHOWN_AS
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


def test_a_plan_without_a_header_shows_a_bearer_token() -> None:
    upstream = {
        "server": "crm", "tool": "find", "definition": "sha256:0", "authorization": "crm",
        "url": "https://crm.example/mcp", "session": "per_call", "idle_s": 1, "age_s": 1,
    }  # fmt: skip
    whole = {**json.loads(_plan("read")), "arguments": {}, "tenant": "t", "caller": {}}
    found = []
    for more in ({}, {"header": "X-Api-Key: {token}"}):
        text = encode({**whole, "upstream": {**upstream, **more}})
        call = run_spec(text, digest(PLAN, text)).upstream
        assert call is not None
        found.append(call.header)
    assert found == [SHOWN_AS, "X-Api-Key: {token}"]


@pytest.mark.threat("T-07")
def test_bytes_that_the_hash_does_not_name_are_no_spec() -> None:
    text = _plan("read")
    with pytest.raises(Refused) as refused:
        run_spec(text + b" ", digest(PLAN, text))
    assert refused.value.code is Code.APPROVAL_MISMATCH
