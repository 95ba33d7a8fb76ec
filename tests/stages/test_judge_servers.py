"""What the ending of a call of an MCP server says about its effect."""

from __future__ import annotations

import pytest

from remit.errors import Code
from remit.model import Effect, Ending, RunResult, RunState
from remit.stages.settle import judge

WRITES = (Effect.WRITE, Effect.DESTRUCTIVE)


@pytest.mark.parametrize("effect", list(Effect))
def test_an_answer_is_success_and_an_error_for_an_answer_is_failure(effect: Effect) -> None:
    assert judge(effect, RunResult(ending=Ending.ANSWERED)) == (RunState.SUCCEEDED, None)
    said = RunResult(ending=Ending.ANSWERED, limits_hit=("upstream_error",))
    assert judge(effect, said) == (RunState.FAILED, Code.UPSTREAM_ERROR)


@pytest.mark.parametrize("effect", WRITES)
@pytest.mark.parametrize("code", ["upstream_gone", "upstream_timeout", "upstream_invalid"])
def test_silence_after_a_write_was_asked_for_is_unknown(effect: Effect, code: str) -> None:
    silent = RunResult(ending=Ending.UNANSWERED, limits_hit=(code,))
    assert judge(effect, silent) == (RunState.UNKNOWN, Code(code))
    assert judge(Effect.READ, silent) == (RunState.FAILED, Code(code))


@pytest.mark.parametrize("effect", list(Effect))
def test_what_was_never_asked_for_did_not_happen(effect: Effect) -> None:
    unasked = RunResult(ending=Ending.UNASKED, limits_hit=("tool_changed",))
    assert judge(effect, unasked) == (RunState.FAILED, Code.TOOL_CHANGED)
    assert judge(effect, RunResult(ending=Ending.UNASKED)) == (
        RunState.FAILED,
        Code.UPSTREAM_GONE,
    )
