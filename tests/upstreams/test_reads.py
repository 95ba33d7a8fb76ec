"""Prompts and resources of servers that are started: compared first, asked by their own method."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from remit.model import Ending, Frozen, Method, RunResult, RunSpec, SessionMode
from remit.upstreams.definitions import read_definition
from remit.upstreams.lists import prompt_item
from remit.upstreams.runner import SessionSettings, UpstreamRunner
from tests.servers.make import Time
from tests.upstreams.played import Message, Program, Server, World, call_spec, world

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-50")]

GREET: dict[str, Any] = {"name": "greet", "arguments": [{"name": "who"}]}
ANSWERS: dict[str, Any] = {
    "prompts/get": {"messages": []},
    "resources/read": {"contents": []},
    "completion/complete": {"completion": {"values": []}},
}


@dataclass
class Reader(Program):
    """A server that has more than tools."""

    prompts: list[Message] = field(default_factory=lambda: [GREET])

    async def _answer(self, server: Server, message: Message) -> int | None:
        method = message["method"]
        result = {"prompts": self.prompts} if method == "prompts/list" else ANSWERS.get(method)
        if result is None:
            return await super()._answer(server, message)
        await server.say(id=message["id"], result=result)
        return None

    @property
    def asked(self) -> list[str]:
        """Which methods it was asked by, after it was opened."""
        heard = [each["method"] for server in self.servers for each in server.heard]
        return [each for each in heard if each.partition("/")[0] in ("prompts", "resources", "tools")
                or each in ANSWERS]  # fmt: skip


def made(program: Program) -> World:
    def build(inner: Any, seen: Any) -> UpstreamRunner:
        kept = SessionSettings(clock=Time(), gateway="gw")
        return UpstreamRunner(inner, asked=None, seen=seen, sessions=kept)

    return world(program, build)


def reading(method: Method, tool: str, arguments: dict[str, Any], session: SessionMode) -> RunSpec:
    spec = call_spec()
    assert spec.upstream is not None
    pinned = read_definition("files", prompt_item(GREET)).digest
    call = replace(
        spec.upstream,
        method=method,
        tool=tool,
        definition=pinned,
        arguments=Frozen(json.dumps(arguments).encode()),
        session=session,
    )
    return replace(spec, fence_key="", upstream=call)


async def ran(program: Program, spec: RunSpec) -> RunResult:
    it = made(program)
    try:
        own = await it.begin(spec)
        result = await it.runner.collect(own)
        await it.runner.destroy(own)
        return result
    finally:
        assert isinstance(it.runner, UpstreamRunner)
        await it.runner.aclose()


SESSIONS = pytest.mark.parametrize("session", [SessionMode.PER_CALL, SessionMode.SHARED])


@SESSIONS
async def test_a_prompt_is_asked_for_once_it_was_found_to_be_as_planned(
    session: SessionMode,
) -> None:
    program = Reader()
    spec = reading(Method.PROMPTS_GET, "prompts/get:greet", {"who": "Ada"}, session)
    result = await ran(program, spec)
    assert (result.ending, json.loads(result.stdout)) == (Ending.ANSWERED, {"messages": []})
    assert program.asked[-2:] == ["prompts/list", "prompts/get"]
    (server,) = program.servers
    params = next(each["params"] for each in server.heard if each["method"] == "prompts/get")
    assert (params["name"], params["arguments"]) == ("greet", {"who": "Ada"})


@SESSIONS
@pytest.mark.parametrize(
    "prompts", [[], [GREET | {"description": "Other."}], [GREET | {"arguments": []}]]
)
async def test_a_prompt_that_is_another_than_planned_is_not_asked_for(
    session: SessionMode, prompts: list[Message]
) -> None:
    program = Reader(prompts=prompts)
    spec = reading(Method.PROMPTS_GET, "prompts/get:greet", {"who": "Ada"}, session)
    result = await ran(program, spec)
    assert result.ending is Ending.UNASKED
    assert result.limits_hit[0] == "tool_changed"
    assert "prompts/get" not in program.asked


@SESSIONS
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        (Method.RESOURCES_READ, {"uri": "a:b"}),
        (Method.COMPLETE, {"ref": {"type": "ref/resource", "uri": "a:{b}"}, "argument": {}}),
    ],
)
async def test_a_resource_is_read_by_its_uri_and_by_nothing_else(
    session: SessionMode, method: Method, arguments: dict[str, Any]
) -> None:
    program = Reader()
    result = await ran(program, reading(method, method.value, arguments, session))
    assert (result.ending, json.loads(result.stdout)) == (Ending.ANSWERED, ANSWERS[method.value])
    (server,) = program.servers
    params = next(each["params"] for each in server.heard if each["method"] == method.value)
    assert {name: params[name] for name in params if name != "_meta"} == arguments
    assert program.calls == []
