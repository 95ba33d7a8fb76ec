"""What servers list beside tools: read strictly, asked only where they say that they have it."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import UpstreamFault
from remit.model import PROMPT, Frozen, Method, UpstreamCall
from remit.upstreams.definitions import read_definition
from remit.upstreams.lists import Kind, Wanted, Words, prompt_item, words_of
from remit.upstreams.methods import header_name, params_of

pytestmark = pytest.mark.anyio

GREET: dict[str, Any] = {
    "name": "greet",
    "title": "Greeting",
    "description": "Greets.",
    "icons": [{"src": "https://a.example/i.png"}],
    "_meta": {"a": 1},
    "arguments": [
        {"name": "who", "title": "Who", "description": "Whom.", "required": True},
        {"name": "how"},
    ],
}


def test_a_prompt_is_pinned_with_all_its_words_and_the_arguments_that_it_takes() -> None:
    item = prompt_item(GREET)
    definition = read_definition("notes", item)
    assert definition.parts() == item
    assert item == {
        "name": "prompts/get:greet",
        "title": "Greeting",
        "description": "Greets.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "who": {"type": "string", "title": "Who", "description": "Whom."},
                "how": {"type": "string"},
            },
            "required": ["who"],
            "additionalProperties": False,
        },
    }
    for part in ("title", "description"):
        other = read_definition("notes", prompt_item(GREET | {part: "Other."}))
        assert other.digest != definition.digest
    another = prompt_item(GREET | {"arguments": [{"name": "who", "description": "Other."}]})
    assert read_definition("notes", another).digest != definition.digest


@pytest.mark.parametrize(
    "arguments",
    [{}, "who", ["who"], [{}], [{"name": ""}], [{"name": 1}], [{"name": "a"}, {"name": "a"}],
     [{"name": f"a{n}"} for n in range(101)]],
)  # fmt: skip
def test_a_prompt_whose_arguments_are_no_list_of_names_is_refused(arguments: object) -> None:
    with pytest.raises(UpstreamFault):
        prompt_item({"name": "greet", "arguments": arguments})


async def test_only_what_is_wanted_and_what_the_server_says_it_has_is_asked_for() -> None:
    asked: list[Kind] = []

    async def ask(kind: Kind) -> list[dict[str, Any]]:
        asked.append(kind)
        return []

    both = Wanted(prompts=True, resources=True)
    assert await words_of(ask, {"tools": {}}, both) == Words()
    assert await words_of(ask, {"prompts": {}, "resources": {}}, Wanted()) == Words()
    assert asked == []
    found = await words_of(ask, {"prompts": {}, "resources": {}, "completions": {}}, both)
    assert found == Words(prompts=[], resources=[], templates=[], completes=True)
    assert asked == [Kind.PROMPTS, Kind.RESOURCES, Kind.TEMPLATES]


def call(method: Method, tool: str, arguments: bytes) -> UpstreamCall:
    return UpstreamCall(
        server="notes",
        tool=tool,
        definition="sha256:0",
        arguments=Frozen(arguments),
        caller="sha256:1",
        method=method,
    )


def test_each_method_is_asked_with_its_own_parameters_and_named_in_the_header() -> None:
    values = {"who": "Ada"}
    assert params_of(Method.TOOLS_CALL, "t", values) == {"name": "t", "arguments": values}
    named = params_of(Method.PROMPTS_GET, f"{PROMPT}greet", values)
    assert named == {"name": "greet", "arguments": values}
    assert params_of(Method.RESOURCES_READ, "resources/read", {"uri": "a:b"}) == {"uri": "a:b"}
    assert header_name(call(Method.PROMPTS_GET, f"{PROMPT}greet", b"{}")) == "greet"
    read = call(Method.RESOURCES_READ, "resources/read", b'{"uri":"a:b"}')
    assert header_name(read) == "a:b"
    assert header_name(call(Method.COMPLETE, "completion/complete", b"{}")) is None
