"""`after_untrusted` over the real path: one agent goes from a ticket to CI, the cloud and the chat.

The policy of the tools allows everything; what is refused here is the library's doing. The ledger,
the pipeline and the embedded engine are real; only the runner is scripted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from remit.model import Reply, Verdict
from remit.policy.bundle import bundle_of
from remit.policy.layers import MAIN
from remit.policy.library import with_library
from tests.path.conftest import ALLOW, OLGA, MakePath, Path_, make_path, tool

__all__ = ["make_path"]

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-30")]

TOOLS = [
    tool("read_ticket", "read", system="tickets", returns=["untrusted"]),
    tool("comment_ticket", system="tickets"),
    tool("read_build", "read", system="ci"),
    tool("rerun_build", system="ci"),
    tool("read_secrets", "read", system="cloud", returns=["sensitive"]),
    tool("scale", system="cloud"),
    tool("destroy", "destructive", system="cloud"),
    tool("post", system="chat", open_world=True),
    tool("fetch_page", "read", system="web", open_world=True),
]


def code(reply: Reply) -> str:
    return str(reply.decision["code"])


async def driven(make: MakePath, **settings: Any) -> Path_:
    data: Mapping[str, Any] = {"after_untrusted": settings}
    policy = with_library(bundle_of({"test.rego": ALLOW}, {}), data)
    path: Path_ = await make(layers={MAIN: policy}, tools=TOOLS)
    return path


async def answers(path: Path_, *names: str, **more: Any) -> list[str]:
    return [code(await path.call(name, **more)) for name in names]


async def test_agent_that_read_nothing_of_the_kind_is_free(make_path: MakePath) -> None:
    path = await driven(make_path)
    names = ("read_build", "rerun_build", "scale", "destroy", "post", "fetch_page")
    assert await answers(path, *names) == ["ok"] * 6


async def test_from_ticket_to_ci_to_cloud_to_chat_needs_a_person_at_every_step(
    make_path: MakePath,
) -> None:
    path = await driven(make_path)
    assert await answers(path, "read_ticket", "comment_ticket", "read_build") == ["ok"] * 3
    elsewhere = ("rerun_build", "scale", "destroy", "post", "fetch_page")
    assert await answers(path, *elsewhere) == ["approval_required"] * 5
    assert path.runner.times("start") == 3


async def test_person_lets_one_step_go_and_no_other(make_path: MakePath) -> None:
    path = await driven(make_path)
    await path.call("read_ticket")
    asked = await path.call("rerun_build")
    approval = await path.administration.approval(OLGA, asked.decision["approval_id"])
    await path.administration.vote(OLGA, approval.id, approval.plan_hash, Verdict.APPROVE, None)
    assert await answers(path, "rerun_build", "scale") == ["ok", "approval_required"]


async def test_what_was_sensitive_leaves_by_no_system_unseen(make_path: MakePath) -> None:
    path = await driven(make_path)
    assert await answers(path, "read_secrets", "scale") == ["ok", "ok"]
    elsewhere = ("comment_ticket", "rerun_build", "post", "fetch_page")
    assert await answers(path, *elsewhere) == ["approval_required"] * 4


async def test_new_session_does_not_make_it_clean(make_path: MakePath) -> None:
    path = await driven(make_path)
    await path.call("read_ticket", session="one")
    assert await answers(path, "scale", session="two") == ["approval_required"]


async def test_record_says_why(make_path: MakePath) -> None:
    path = await driven(make_path)
    await path.call("read_ticket")
    await path.call("post")
    (*_, decision) = [entry for entry in await path.entries() if entry["event"] == "decision"]
    assert "after_untrusted.untrusted" in json.dumps(decision)


async def test_settings_of_the_operator_hold(make_path: MakePath) -> None:
    path = await driven(make_path, except_tools=["rerun_*"], taints=["untrusted"])
    assert await answers(path, "read_secrets", "post") == ["ok", "ok"]
    await path.call("read_ticket")
    assert await answers(path, "rerun_build", "scale") == ["ok", "approval_required"]
