"""Files that a run leaves: named in the record and the reply by digest, kept apart from both."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from remit.errors import Code, NotFound, Refused
from remit.model import Ending, Operator, RunResult, RunSpec
from remit.testing.artifacts import MemoryArtifacts
from tests.path.conftest import ALLOW, HEAD, OLGA, MakePath, Path_, tool
from tests.path.test_path import code

pytestmark = pytest.mark.anyio

LEFT = {"out/plan.json": b'{"n":1}\n', "log.txt": b"line\n"}
TOOLS = [
    tool("leave", result_files=["out/plan.json", "log.txt"]),
    tool("shape", result="json", result_files=["log.txt"]),
    tool("once", idempotent=True, result_files=["log.txt"]),
]


def leaving(*, exit_code: int = 0, stdout: bytes = b"", **more: Any) -> Any:
    async def behave(spec: RunSpec) -> RunResult:
        files = {path: LEFT[path] for path in spec.collect}
        return RunResult(
            ending=Ending.EXIT, exit_code=exit_code, stdout=stdout, files=files, **more
        )

    return behave


def facts(path: str, *, kept: bool = True) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(LEFT[path]).hexdigest()
    return {"path": path, "digest": digest, "bytes": len(LEFT[path]), "kept": kept}


async def outcome(path: Path_) -> dict[str, Any]:
    return [each for each in await path.entries() if each["event"] == "call.outcome"][-1]


async def test_plan_says_which_files_are_taken_back(make_path: MakePath) -> None:
    path = await make_path(ALLOW, tools=TOOLS)
    path.runner.behave = leaving()
    run = (await path.call("leave")).decision["run_id"]
    assert path.runner.specs[run].collect == ("log.txt", "out/plan.json")


async def test_record_and_reply_name_what_was_left(make_path: MakePath) -> None:
    path = await make_path(ALLOW, tools=TOOLS)
    path.runner.behave = leaving()
    reply = await path.call("leave")
    expected = [facts("log.txt"), facts("out/plan.json")]
    assert reply.decision["files"] == expected
    assert (await outcome(path))["files"] == expected
    run = reply.decision["run_id"]
    for name, data in LEFT.items():
        assert await path.administration.run_file(OLGA, run, name) == data


async def test_run_that_leaves_none_names_none(make_path: MakePath) -> None:
    path = await make_path(ALLOW, tools=TOOLS)
    reply = await path.call("leave")
    assert "files" not in reply.decision
    assert "files" not in await outcome(path)


async def test_files_of_a_failed_run_are_kept_too(make_path: MakePath) -> None:
    path = await make_path(ALLOW, tools=TOOLS)
    path.runner.behave = leaving(exit_code=3)
    reply = await path.call("leave")
    assert (code(reply), len(reply.decision["files"])) == ("run_failed", 2)


async def test_replayed_reply_names_them_again(make_path: MakePath) -> None:
    path = await make_path(ALLOW, tools=TOOLS)
    path.runner.behave = leaving()
    first = await path.call("once", key="k")
    again = await path.call("once", key="k")
    assert again.replayed
    assert again.decision["files"] == first.decision["files"]


async def test_file_that_could_not_be_kept_is_named_and_the_outcome_stands(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MemoryArtifacts, "put", full)
    path = await make_path(ALLOW, tools=TOOLS)
    path.runner.behave = leaving()
    reply = await path.call("leave")
    assert code(reply) == "ok"
    assert [each["kept"] for each in reply.decision["files"]] == [False, False]
    with pytest.raises(NotFound):
        await path.administration.run_file(OLGA, reply.decision["run_id"], "log.txt")


@pytest.mark.threat("T-14")
async def test_where_policy_redacts_no_file_is_kept(make_path: MakePath) -> None:
    rego = HEAD + 'decision := answer("allow", {"constraints": {"output": {"redact": ["/key"]}}})\n'
    path = await make_path(rego, tools=TOOLS)
    path.runner.behave = leaving(stdout=b'{"key":"hunter2"}')
    reply = await path.call("shape")
    assert code(reply) == "ok"
    assert "files" not in reply.decision
    assert path.artifacts.kept == {}
    assert "redacted" in (await outcome(path))["limits_hit"]


@pytest.mark.threat("T-22")
async def test_only_who_may_read_gets_a_file_and_only_of_its_run(make_path: MakePath) -> None:
    path = await make_path(ALLOW, tools=TOOLS)
    path.runner.behave = leaving()
    first = (await path.call("leave", count=1)).decision["run_id"]
    path.runner.behave = leaving(exit_code=0)
    other = (await path.call("shape")).decision["run_id"]
    with pytest.raises(NotFound) as absent:
        await path.administration.run_file(OLGA, other, "out/plan.json")
    assert absent.value.code is Code.NOT_FOUND
    with pytest.raises(Refused):
        await path.administration.run_file(Operator(subject="nobody"), first, "log.txt")
    for call in (path.administration.run_end, lambda o, r: path.administration.run_stream(o, r, 0)):
        with pytest.raises(Refused):
            await call(Operator(subject="nobody"), first)
