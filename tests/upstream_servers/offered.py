"""What the everything-server offers besides tools: resources, prompts, completion, levels."""

from __future__ import annotations

import json
from typing import Any

import mcp_types as types
from mcp.server.caching import CacheableMethod
from mcp.shared.exceptions import MCPError

from tests.conformance.contents import IMAGE
from tests.upstream_servers.asking import answers, field, form, invalid, unfinished

PNG: str = IMAGE["data"]
TEMPLATE = "test://template/{id}/data"
CACHED: tuple[CacheableMethod, ...] = (
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "server/discover",
)
CONTENTS: dict[str, types.TextResourceContents | types.BlobResourceContents] = {
    "test://static-text": types.TextResourceContents(
        uri="test://static-text",
        mime_type="text/plain",
        text="This is the content of the static text resource.",
    ),
    "test://static-binary": types.BlobResourceContents(
        uri="test://static-binary", mime_type="image/png", blob=PNG
    ),
    "test://watched-resource": types.TextResourceContents(
        uri="test://watched-resource", mime_type="text/plain", text="Watched."
    ),
}


async def list_resources(_: Any, __: Any) -> types.ListResourcesResult:
    """The direct resources."""
    return types.ListResourcesResult(
        resources=[
            types.Resource(
                uri=uri,
                name=uri.removeprefix("test://"),
                description=f"The resource {uri}.",
                mime_type=contents.mime_type,
            )
            for uri, contents in CONTENTS.items()
        ]
    )


async def list_templates(_: Any, __: Any) -> types.ListResourceTemplatesResult:
    """The one template."""
    template = types.ResourceTemplate(
        uri_template=TEMPLATE,
        name="template",
        description="Data for each id.",
        mime_type="application/json",
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(_: Any, params: Any) -> types.ReadResourceResult:
    """A direct resource, or one of the template."""
    uri = str(params.uri)
    if uri in CONTENTS:
        return types.ReadResourceResult(contents=[CONTENTS[uri]])
    before, after = TEMPLATE.split("{id}")
    wanted = uri.removeprefix(before).removesuffix(after)
    if uri != f"{before}{wanted}{after}" or not wanted or "/" in wanted:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    data = {"id": wanted, "templateTest": True, "data": f"Data for ID: {wanted}"}
    text = types.TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(data))
    return types.ReadResourceResult(contents=[text])


async def accept(_: Any, __: Any) -> types.EmptyResult:
    """Take note; nothing of it is kept."""
    return types.EmptyResult()


QUESTION = {"user_context": form("What context should the prompt use?", context="string")}
PROMPTS: dict[str, dict[str, str]] = {
    "test_simple_prompt": {},
    "test_prompt_with_arguments": {"arg1": "First test argument", "arg2": "Second test argument"},
    "test_prompt_with_embedded_resource": {"resourceUri": "URI of the resource to embed"},
    "test_prompt_with_image": {},
    "test_input_required_result_prompt": {},
}


async def list_prompts(_: Any, __: Any) -> types.ListPromptsResult:
    """All prompts, on one page."""
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description=f"What the suite expects of {name}.",
                arguments=[
                    types.PromptArgument(name=each, description=what, required=True)
                    for each, what in arguments.items()
                ],
            )
            for name, arguments in PROMPTS.items()
        ]
    )


def _prompt(*contents: Any) -> types.GetPromptResult:
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=each) for each in contents]
    )


def _text(said: str) -> types.TextContent:
    return types.TextContent(type="text", text=said)


async def get_prompt(_: Any, params: Any) -> types.GetPromptResult | types.InputRequiredResult:
    """The messages of a prompt; one of them asks its client first."""
    given = params.arguments or {}
    if params.name not in PROMPTS or PROMPTS[params.name].keys() - given.keys():
        raise invalid(f"Unknown prompt, or an argument lacks: {params.name}")
    match params.name:
        case "test_simple_prompt":
            return _prompt(_text("This is a simple prompt for testing."))
        case "test_prompt_with_arguments":
            values = f"arg1='{given['arg1']}', arg2='{given['arg2']}'"
            return _prompt(_text(f"Prompt with arguments: {values}"))
        case "test_prompt_with_embedded_resource":
            embedded = types.TextResourceContents(
                uri=given["resourceUri"],
                mime_type="text/plain",
                text="Embedded resource content for testing.",
            )
            return _prompt(
                types.EmbeddedResource(type="resource", resource=embedded),
                _text("Please process the embedded resource above."),
            )
        case "test_prompt_with_image":
            return _prompt(
                types.ImageContent.model_validate(IMAGE), _text("Please analyze the image above.")
            )
        case _:
            found = answers(params, QUESTION)
            if found is None:
                return unfinished(QUESTION)
            return _prompt(_text(f"In the context of {field(found['user_context'], 'context')}."))


async def complete(_: Any, params: Any) -> types.CompleteResult:
    """The known words that begin as the argument does."""
    words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return types.CompleteResult(
        completion=types.Completion(values=words, total=len(words), has_more=False)
    )


HANDLERS: dict[str, Any] = {
    "on_list_resources": list_resources,
    "on_list_resource_templates": list_templates,
    "on_read_resource": read_resource,
    "on_subscribe_resource": accept,
    "on_unsubscribe_resource": accept,
    "on_list_prompts": list_prompts,
    "on_get_prompt": get_prompt,
    "on_completion": complete,
    "on_set_logging_level": accept,
}
