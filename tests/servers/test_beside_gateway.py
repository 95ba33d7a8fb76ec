"""A whole gateway whose MCP server has resources, prompts and completion, from door to door."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError

from remit.model import Health, ToolState
from tests.doors.serving import served
from tests.path.conftest import HEAD
from tests.servers.test_gateway import World, call_tool, list_tools

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.threat("T-50")]

RULES = HEAD.replace('name != "hidden"', 'not endswith(name, "hidden")') + (
    'give := {"constraints": {"egress": input.tool.egress}}\n'
    'asked := {"approvals": {"required": 1, "ttl_s": 600}, "constraints": give.constraints}\n'
    'uri := object.get(input.arguments, "uri", "")\n'
    'decision := answer("allow", give) if not uri in {"note://kept", "note://asked"}\n'
    'decision := answer("deny", {}) if uri == "note://kept"\n'
    'decision := answer("require_approval", asked) if uri == "note://asked"\n'
)
URIS = ("note://a", "note://asked", "note://kept")


@dataclass
class Notes:
    """A server of notes; what it was asked to read, and what its prompt says of itself."""

    read: list[str] = field(default_factory=list)
    about: str = "Greets somebody."

    async def resources(self, _: Any, __: Any) -> types.ListResourcesResult:
        listed = [types.Resource(uri=uri, name=uri.removeprefix("note://")) for uri in URIS]
        return types.ListResourcesResult(resources=listed)

    async def templates(self, _: Any, __: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(uri_template="note://by/{id}", name="by id")
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def contents(self, _: Any, params: Any) -> types.ReadResourceResult:
        self.read.append(params.uri)
        if params.uri == "note://by/none":
            raise MCPError(types.INVALID_PARAMS, "no such note")
        text = types.TextResourceContents(
            uri=params.uri, text="A note. Authorization: Bearer abcdefgh.a1B2a1B2"
        )
        return types.ReadResourceResult(contents=[text])

    async def prompts(self, _: Any, __: Any) -> types.ListPromptsResult:
        who = types.PromptArgument(name="who", description="Whom.", required=True)
        return types.ListPromptsResult(
            prompts=[
                types.Prompt(name="greet", description=self.about, arguments=[who]),
                types.Prompt(name="hidden"),
            ]
        )

    async def prompt(self, _: Any, params: Any) -> types.GetPromptResult:
        said = types.TextContent(type="text", text=f"Greet {params.arguments['who']}.")
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=said)])

    async def complete(self, _: Any, params: Any) -> types.CompleteResult:
        words = [params.ref.name, params.argument.value + "da"]
        return types.CompleteResult(completion=types.Completion(values=words))

    def made(self) -> Server[Any]:
        return Server(
            "notes",
            on_list_tools=list_tools,
            on_call_tool=call_tool,
            on_list_resources=self.resources,
            on_list_resource_templates=self.templates,
            on_read_resource=self.contents,
            on_list_prompts=self.prompts,
            on_get_prompt=self.prompt,
            on_completion=self.complete,
        )


@asynccontextmanager
async def world(
    notes: Notes, folder: Path, name: str = "notes", **more: Any
) -> AsyncIterator[World]:
    app = notes.made().streamable_http_app(json_response=True, stateless_http=True)
    async with served(app) as url:
        server = {"name": name, "url": f"{url}/mcp", "effect": "read", **more}
        made = World(folder / "gateway", server)
        (folder / "gateway" / "policy" / "policy.rego").write_text(RULES)
        written = folder / "gateway" / "remit.yaml"
        whole = json.loads(written.read_text())
        written.write_text(json.dumps({**whole, "approvals": {"hold_s": 0}}))
        async with made.open():
            assert (await made.servers.look(name)).health is Health.READY
            yield made


OFFERED = {"resources": "offer", "prompts": "offer"}


def refused(fault: pytest.ExceptionInfo[MCPError]) -> tuple[int, str]:
    return fault.value.error.code, fault.value.error.data["code"]


async def test_resources_are_read_as_policy_says_and_each_read_is_recorded(tmp_path: Path) -> None:
    notes = Notes()
    async with world(notes, tmp_path, **OFFERED) as made:
        agent = made.agent
        listed = await agent.list_resources()
        assert [each.uri for each in listed.resources] == list(URIS)
        (template,) = (await agent.list_resource_templates()).resource_templates
        assert template.uri_template == "note://by/{id}"
        for uri in ("note://a", "note://by/7"):
            (content,) = (await agent.read_resource(uri)).contents
            assert isinstance(content, types.TextResourceContents)
            assert content.uri == uri
            assert content.text.startswith("A note. ")
            assert "a1B2a1B2" not in content.text  # what looks like a credential is masked
        assert notes.read == ["note://a", "note://by/7"]
        with pytest.raises(MCPError) as denied:
            await agent.read_resource("note://kept")
        assert refused(denied) == (4030, "policy_denied")
        assert denied.value.error.data["decision_id"]
        with pytest.raises(MCPError) as waits:
            await agent.read_resource("note://asked")
        assert refused(waits) == (4030, "approval_required")
        assert waits.value.error.data["approval_id"]
        for uri in ("note://other", "note://by/7/8", "file:///etc/passwd"):
            with pytest.raises(MCPError) as missing:
                await agent.read_resource(uri)
            assert refused(missing) == (-32602, "unknown_tool")
            assert missing.value.error.data["uri"] == uri
        with pytest.raises(MCPError) as failed:
            await agent.read_resource("note://by/none")
        assert refused(failed) == (4030, "upstream_error")
        assert notes.read[2:] == ["note://by/none"]
        entries = await made.log()
    names = [each["tool"]["name"] for each in entries if each["event"] == "call.intent"]
    assert names == ["resources/read:notes"] * 3
    assert [each["state"] for each in entries if each["event"] == "call.outcome"] == [
        "succeeded",
        "succeeded",
        "failed",
    ]


async def test_prompts_and_completion_are_calls_and_what_is_hidden_is_not_there(
    tmp_path: Path,
) -> None:
    async with world(Notes(), tmp_path, **OFFERED) as made:
        agent = made.agent
        (greet,) = (await agent.list_prompts()).prompts
        assert (greet.name, greet.description) == ("notes_greet", "Greets somebody.")
        (who,) = greet.arguments or []
        assert (who.name, who.description, who.required) == ("who", "Whom.", True)
        got = await agent.get_prompt("notes_greet", {"who": "Ada"})
        assert got.messages[0].content == types.TextContent(type="text", text="Greet Ada.")
        for name in ("notes_hidden", "notes_missing", "greet"):
            with pytest.raises(MCPError) as missing:
                await agent.get_prompt(name, {})
            assert refused(missing) == (-32602, "unknown_tool")
            assert missing.value.error.message == "Unknown prompt"
        with pytest.raises(MCPError) as wrong:
            await agent.get_prompt("notes_greet", {"who": "Ada", "more": "x"})
        assert refused(wrong) == (-32602, "invalid_arguments")
        ref = types.PromptReference(type="ref/prompt", name="notes_greet")
        found = await agent.complete(ref, {"name": "who", "value": "a"})
        assert found.completion.values == ["greet", "ada"]
        other = types.PromptReference(type="ref/prompt", name="notes_hidden")
        with pytest.raises(MCPError) as unseen:
            await agent.complete(other, {"name": "who", "value": "a"})
        assert refused(unseen) == (-32602, "unknown_tool")
        # no tools/call has a way to any of it, and no list of tools names it
        assert [tool.name for tool in await made.until("notes_find")] == ["notes_find"]
        for name in (
            "resources/read:notes",
            "prompts/get:notes_greet",
            "completion/complete:notes",
        ):
            with pytest.raises(MCPError) as no_tool:
                await agent.call_tool(name, {"uri": "note://a"})
            assert refused(no_tool) == (-32602, "unknown_tool")


async def test_a_prompt_that_changed_is_not_given_and_is_held_until_accepted(
    tmp_path: Path,
) -> None:
    notes = Notes()
    async with world(notes, tmp_path, **OFFERED) as made:
        assert (await made.agent.get_prompt("notes_greet", {"who": "Ada"})).messages
        notes.about = "Greets somebody, and more."
        with pytest.raises(MCPError) as changed:
            await made.agent.get_prompt("notes_greet", {"who": "Ada"})
        assert refused(changed) == (4030, "tool_changed")
        await made.servers.look("notes")
        assert made.state("prompts/get:greet") is ToolState.CHANGED
        assert made.state("find") is ToolState.OFFERED
        assert (await made.agent.list_prompts()).prompts == []
        (difference,) = made.servers.differences("notes", "prompts/get:greet")
        assert "+Greets somebody, and more." in difference.diff
        (status,) = made.servers.statuses()
        digest = next(each.digest for each in status.tools if each.name == "prompts/get:greet")
        assert digest is not None
        await made.servers.accept("notes", "prompts/get:greet", digest, operator="olga")
        assert (await made.agent.get_prompt("notes_greet", {"who": "Ada"})).messages
        await made.log()


async def test_what_is_not_offered_is_neither_declared_nor_served(tmp_path: Path) -> None:
    notes = Notes()
    async with world(notes, tmp_path) as made:
        assert made.agent.session.server_capabilities is not None
        found = made.agent.session.server_capabilities
        assert (found.resources, found.prompts, found.completions) == (None, None, None)
        for ask in (made.agent.list_resources, made.agent.list_prompts):
            with pytest.raises(MCPError) as missing:
                await ask()
            assert missing.value.error.code == types.METHOD_NOT_FOUND
        with pytest.raises(MCPError):
            await made.agent.read_resource("note://a")
        assert notes.read == []


async def test_resources_that_policy_hides_are_not_listed_and_not_there(tmp_path: Path) -> None:
    notes = Notes()
    async with world(notes, tmp_path, "hidden", **OFFERED) as made:
        assert (await made.agent.list_resources()).resources == []
        assert (await made.agent.list_resource_templates()).resource_templates == []
        with pytest.raises(MCPError) as missing:
            await made.agent.read_resource("note://a")
        assert refused(missing) == (-32602, "unknown_tool")
        ref = types.ResourceTemplateReference(type="ref/resource", uri="note://by/{id}")
        with pytest.raises(MCPError) as unseen:
            await made.agent.complete(ref, {"name": "id", "value": "7"})
        assert refused(unseen) == (-32602, "unknown_tool")
        assert notes.read == []
