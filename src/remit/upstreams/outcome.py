"""What came of asking an MCP server, and what that makes of the run that asked it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from remit.canonical import encode
from remit.errors import Code, InputError, UpstreamFault
from remit.model import Ending, RunResult
from remit.upstreams.questions import checked

MAX_ERROR_BYTES = 16_384
"""How much of a JSON-RPC error of a server is kept, whatever the limit on output."""

_BY_FORCE: Mapping[Ending, Code] = {
    Ending.OUT_OF_MEMORY: Code.RUN_OUT_OF_MEMORY,
    Ending.TIMED_OUT: Code.RUN_TIMED_OUT,
    Ending.OUTPUT_LIMIT: Code.OUTPUT_TOO_LARGE,
    Ending.LOST: Code.RUNNER_UNAVAILABLE,
}
"""How the environment ends a server, and what a caller hears of a question never sent for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """How asking ended: `answered`, `unanswered` or `unasked`.

    `stdout` is the server's answer as canonical JSON, of an error its JSON-RPC error object; where
    there is no answer, words of Remit's own on why. `code` is None for a result.
    """

    ending: Ending
    stdout: bytes = b""
    truncated: bool = False
    code: Code | None = None


def answered(
    result: Mapping[str, Any], *, output_bytes: int, capabilities: Mapping[str, Any]
) -> Heard:
    """What a result object is: an answer, unless it is of a kind that was not asked for.

    A server that wants input (MCP 2026-07-28, `input_required`) says that it did not do it, also
    where it asks what its caller cannot be asked. A kind that is not known here may mean anything,
    also that it is being done.

    Args:
        capabilities: what the server was told that its caller's client can do.
    """
    kind = result.get("resultType", "complete")
    if kind == "input_required":
        try:
            result = checked(result, capabilities)
        except UpstreamFault as fault:
            told = encode({"message": fault.message})
            return Heard(ending=Ending.ANSWERED, stdout=told, code=fault.code)
    elif kind != "complete":
        return _unanswered(
            Code.UPSTREAM_INVALID, "the server gave a kind of result never asked for"
        )
    try:
        text = encode(dict(result))
    except InputError:
        return _unanswered(Code.UPSTREAM_INVALID, "the server's result has no canonical JSON form")
    truncated = len(text) > output_bytes
    return Heard(ending=Ending.ANSWERED, stdout=text[:output_bytes], truncated=truncated)


def failed(fault: UpstreamFault, *, output_bytes: int) -> Heard:
    """What a fault says of the call: whether it was sent, and whether the server refused it."""
    if fault.sent and fault.code is Code.UPSTREAM_ERROR:
        text = encode(dict(fault.answer or {}))[: min(output_bytes, MAX_ERROR_BYTES)]
        return Heard(ending=Ending.ANSWERED, stdout=text, code=fault.code)
    ending = Ending.UNANSWERED if fault.sent else Ending.UNASKED
    if fault.sent and fault.code is Code.UPSTREAM_UNAUTHORIZED:
        ending = Ending.ANSWERED  # with a refusal, which is as good as an error
    words = fault.message if fault.hint is None else f"{fault.message} ({fault.hint})"
    return Heard(ending=ending, stdout=words.encode(), code=fault.code)


def _unanswered(code: Code, message: str) -> Heard:
    return Heard(ending=Ending.UNANSWERED, stdout=message.encode(), code=code)


def result_of(heard: Heard, process: RunResult) -> RunResult:
    """The result of a run whose process, which existed for the call alone, ended so.

    What was answered was answered, however the process ended after it. Where there is no answer,
    what the environment itself enforced says more than what the conversation saw of it.
    """
    if process.ending is Ending.NOT_STARTED and heard.ending is Ending.UNASKED:
        return process
    ending, forced = heard.ending, _BY_FORCE.get(process.ending)
    code = heard.code
    if ending is Ending.UNANSWERED and forced is not None:
        ending = process.ending
    elif ending is Ending.UNASKED and forced is not None and code is not Code.TOOL_CHANGED:
        code = forced
    result = replace(
        process,
        ending=ending,
        stdout=heard.stdout,
        stdout_truncated=heard.truncated,
        limits_hit=(*(() if code is None else (code.value,)), *process.limits_hit),
    )
    return result if heard.code else replace(result, exit_code=None, signal=None)


def bare_result(heard: Heard, *, wall_ms: int, runner: Mapping[str, str]) -> RunResult:
    """The result of a call that had no process of its own."""
    return RunResult(
        ending=heard.ending,
        stdout=heard.stdout,
        stdout_truncated=heard.truncated,
        limits_hit=() if heard.code is None else (heard.code.value,),
        wall_ms=wall_ms,
        runner=runner,
    )
