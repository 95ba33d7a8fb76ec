"""One agent drives ticket, CI, cloud and chat: what it read first decides what it may do then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from remit.backends import PathSettings
from remit.model import (
    Actor,
    CallerKind,
    Ending,
    Reply,
    RunResult,
    RunSpec,
    Verdict,
)
from remit.pipeline import Pipeline
from remit.testing.scripted import ends
from tests.path.conftest import AGENT, HEAD, OLGA, MakePath, Path_, tool

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-30")]

TOOLS = [
    tool("ticket_read", "read", system="tickets", returns=["untrusted"]),
    tool("ticket_comment", system="tickets"),
    tool("ci_log", "read", system="ci"),
    tool("ci_rerun", system="ci"),
    tool("cloud_scale", system="cloud"),
    tool("vault_read", "read", system="vault", returns=["sensitive"]),
    tool("chat_post", system="chat", open_world=True),
    tool(
        "ticket_close",
        system="tickets",
        returns=["untrusted"],
        preview={"command": {"argv": ["/bin/echo", "--count={count}"]}},
    ),
]

# After untrusted content, writes to another system need a person; after sensitive content, so
# does whatever reaches outside.
CROSS = (
    HEAD
    + """
tainted if {
    some system in input.history.untrusted_from
    system != input.tool.system
    input.tool.effect != "read"
}
leaking if { input.history.sensitive; input.tool.open_world }
ask := answer("require_approval", {"approvals": {"required": 1, "ttl_s": 600}})
decision := ask if { input.phase == "call"; tainted }
decision := ask if { input.phase == "call"; leaking }
decision := answer("allow", {}) if { not tainted; not leaking }
decision := answer("allow", {}) if input.phase == "preview"
"""
)


def code(reply: Reply) -> str:
    return str(reply.decision["code"])


@pytest.fixture
async def path(make_path: MakePath) -> Path_:
    made: Path_ = await make_path(CROSS, tools=TOOLS)
    return made


async def test_ticket_to_ci_to_cloud_to_chat_needs_people_after_untrusted_content(
    path: Path_,
) -> None:
    assert code(await path.call("ci_rerun")) == "ok"
    assert code(await path.call("ticket_read")) == "ok"
    assert code(await path.call("ci_log")) == "ok"
    assert code(await path.call("ticket_comment")) == "ok"
    asked = [await path.call(name, count=2) for name in ("ci_rerun", "cloud_scale", "chat_post")]
    assert [code(reply) for reply in asked] == ["approval_required"] * 3
    assert path.runner.times("start") == 4


async def test_a_person_can_let_the_write_go(path: Path_) -> None:
    await path.call("ticket_read")
    asked = await path.call("cloud_scale")
    approval = await path.administration.approval(OLGA, asked.decision["approval_id"])
    await path.administration.vote(OLGA, approval.id, approval.plan_hash, Verdict.APPROVE, None)
    assert code(await path.call("cloud_scale")) == "ok"


async def test_sensitive_content_does_not_go_outside_unseen(path: Path_) -> None:
    assert code(await path.call("chat_post")) == "ok"
    await path.call("vault_read")
    assert code(await path.call("cloud_scale")) == "ok"
    assert code(await path.call("chat_post", count=2)) == "approval_required"


Escape = Callable[[Path_], Awaitable[Reply]]


async def _session(path: Path_) -> Reply:
    return await path.call("cloud_scale", session="a-new-one")


async def _chain(path: Path_) -> Reply:
    other = replace(AGENT, chain=(Actor(subject="hal", kind=CallerKind.HUMAN),))
    return await path.call("cloud_scale", caller=other)


async def _no_chain(path: Path_) -> Reply:
    return await path.call("cloud_scale", caller=replace(AGENT, chain=()))


async def _key(path: Path_) -> Reply:
    return await path.call("cloud_scale", caller=replace(AGENT, key_id="k2"))


async def _restart(path: Path_) -> Reply:
    await path.pipeline.drain(5)
    path.pipeline = Pipeline(path.pipeline.backends, PathSettings(gateway="gw", hold_s=0))
    return await path.call("cloud_scale")


@pytest.mark.parametrize("escape", [_session, _chain, _no_chain, _key, _restart])
async def test_no_way_of_calling_resets_what_was_read(path: Path_, escape: Escape) -> None:
    await path.call("ticket_read", session="one")
    assert code(await escape(path)) == "approval_required"


async def test_another_subject_read_nothing(path: Path_) -> None:
    await path.call("ticket_read")
    assert code(await path.call("cloud_scale", caller=replace(AGENT, subject="else"))) == "ok"


async def test_what_a_preview_read_counts_though_the_call_never_ran(path: Path_) -> None:
    path.runner.behave = ends(exit_code=1)
    assert code(await path.call("ticket_close")) == "preview_failed"
    path.runner.behave = ends(b"")
    assert code(await path.call("cloud_scale")) == "approval_required"


async def test_from_its_intent_on_a_running_read_is_told_to_every_decision(path: Path_) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def behave(_: RunSpec) -> RunResult:
        running.set()
        await go_on.wait()
        return RunResult(ending=Ending.EXIT, exit_code=0)

    path.runner.behave = behave
    reading = asyncio.ensure_future(path.call("ticket_read"))
    await running.wait()
    assert code(await path.call("cloud_scale")) == "approval_required"
    go_on.set()
    assert code(await reading) == "ok"


async def test_a_stored_result_that_is_handed_out_again_counts_as_read_again(
    make_path: MakePath,
) -> None:
    path: Path_ = await make_path(CROSS, tools=TOOLS, history_s=60)
    assert code(await path.call("ticket_read", key="once")) == "ok"
    later: Any = path.pipeline
    later.histories._window_ms = 0  # as if its own time had passed out of the window
    again = await path.call("ticket_read", key="once")
    assert again.replayed
    later.histories._window_ms = 60_000
    assert code(await path.call("cloud_scale")) == "approval_required"


async def test_the_recorded_input_holds_the_history_that_was_told(path: Path_) -> None:
    await path.call("ticket_read", session="one")
    await path.call("ci_log", session="two")
    entries = [entry for entry in await path.entries() if entry["event"] == "decision"]
    recorded = await path.ledger.value(entries[-1]["commitments"]["input"])
    assert recorded is not None
    assert b'"untrusted_from":["tickets"]' in recorded
    assert b'"session":{"calls":0' in recorded
