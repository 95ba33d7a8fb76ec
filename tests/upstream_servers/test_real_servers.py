"""Servers that people have, from the registries, are understood as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.upstreams.conversation import Conversation
from remit.upstreams.definitions import read_definition
from tests.upstream_servers.real import SERVERS, Real, outside
from tests.upstreams.process_stream import started

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("git"),
    pytest.mark.needs("upstream-servers"),
]


@pytest.mark.parametrize("real", SERVERS, ids=lambda real: real.name)
async def test_a_real_server_lists_and_answers(real: Real, files: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", **outside(dict(real.env), files)}
    async with (
        started(*real.on_this_machine(files), env=env) as stream,
        await Conversation.open(stream, capabilities={}) as conversation,
    ):
        assert conversation.opened.revision.value == real.revision
        listed = await conversation.list_tools()
        assert len(listed) == real.tools
        definitions = [read_definition(real.name, each) for each in listed]
        assert {asked.tool for asked in real.asked} <= {each.name for each in definitions}
        for asked in real.asked:
            result = await conversation.call(asked.tool, outside(asked.arguments, files))
            assert asked.told in _texts(result), result
        assert conversation.live


def _texts(result: dict[str, object]) -> str:
    contents = result["content"]
    assert isinstance(contents, list)
    return "\n".join(each.get("text") or json.dumps(each) for each in contents)
