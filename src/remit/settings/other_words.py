"""Keys of other programs' files, by what Remit has in their place.

People write what they know: an entry of a client's `mcpServers`, pasted. The nearest key by its
letters would lead them astray.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from remit.catalog.server_spec import (
    DefinitionSpec,
    ServerCommandSpec,
    ServerSpec,
    ServerToolSpec,
)
from remit.settings.sections import CatalogSection, Sections

_ARGV = "command: {argv: [PROGRAM, ARGUMENT, …], env: {NAME: VALUE}, mounts: […]}"
_IN_COMMAND = f"it belongs into the command: {_ARGV}"
_TRANSPORT = (
    "leave it out: `command` is stdio, `url` is Streamable HTTP, and `sse: true` beside `url` is the "
    "older HTTP+SSE"
)
_SHOWN = (
    "Remit shows a server one header: authorization: HANDLE, with the credential under "
    'runners.credentials; and header: "X-Api-Key: {token}" where it is no bearer token'
)
_APPROVED = (
    "whether a person is asked first is for policy to say; with the starter policy a tool with "
    "`effect: read` needs nobody"
)
_OFF = "take the entry out to switch the server off; `hidden: true` of one of its tools hides that"
_TIME = "write limits: {wall_s: SECONDS}"
_ONLY = "write `unlisted: hide`, and the tools to offer under `tools: [{name: NAME}, …]`"
_NOT = "write `hidden: true` for each: tools: [{name: NAME, hidden: true}, …]"
_PACKAGES = "write `definition: ./server.json` to take the server from a publisher's document"
_THEIRS = "leave it out: it is the server's own, and kept as it was accepted"
_READS = "write `effect: read`; what the server says of itself does not lower it"
_SERVERS = "write catalog: {servers: [{name: NAME, command: {argv: […]}}, …]}; `remit init --import FILE` does it"

_OF_SERVER = {
    **dict.fromkeys(("args", "argv", "env", "envFile", "mounts", "environment_variables"), _IN_COMMAND),
    "cwd": "start the program with it: argv: [/usr/bin/env, -C, /mnt/NAME, PROGRAM, …]",
    **dict.fromkeys(("type", "transport", "transportType", "protocol"), _TRANSPORT),
    **dict.fromkeys(
        ("headers", "http_headers", "env_http_headers", "bearer_token_env_var", "token", "apiKey",
         "api_key", "auth", "oauth", "bearer", "credential"),
        _SHOWN,
    ),
    **dict.fromkeys(
        ("autoApprove", "alwaysAllow", "always_allow", "auto_approve", "allow", "trust", "approval",
         "require_approval", "requireApproval"),
        _APPROVED,
    ),
    **dict.fromkeys(("disabled", "enabled"), _OFF),
    **dict.fromkeys(
        ("timeout", "requestTimeout", "tool_timeout_sec", "startup_timeout_sec", "timeout_s"), _TIME
    ),
    **dict.fromkeys(("includeTools", "enabled_tools", "allowedTools", "allowed_tools"), _ONLY),
    **dict.fromkeys(("excludeTools", "disabled_tools", "disabledTools", "blockedTools"), _NOT),
    **dict.fromkeys(("packages", "remotes", "server.json", "package", "image"), _PACKAGES),
    "serverUrl": "write `url`",
    "httpUrl": "write `url`",
    "profile": "write `runner`",
    "sandbox": "write `runner`",
    "network": "write what it may reach: egress: [{host: HOST, port: 443}]",
    "hosts": "write what it may reach: egress: [{host: HOST, port: 443}]",
    "shadow": "write `mode: shadow`; `shadow: true` is of one destructive tool, under `tools`",
}  # fmt: skip
_OF_COMMAND = {
    **dict.fromkeys(("command", "args", "program"), "program and arguments are one list: argv: [PROGRAM, ARGUMENT, …]"),
    "cwd": _OF_SERVER["cwd"],
    "volumes": "write mounts: [{name: NAME, source: /DIRECTORY}]; it appears at /mnt/NAME",
    **dict.fromkeys(("input", "files", "stdin"), "a server is spoken to over its standard input; leave it out"),
}  # fmt: skip
_OF_TOOL = {
    **dict.fromkeys(("readOnly", "read_only", "readOnlyHint", "annotations", "destructive", "destructiveHint"), _READS),
    **dict.fromkeys(("description", "title", "inputSchema", "input_schema", "outputSchema"), _THEIRS),
    **dict.fromkeys(
        ("autoApprove", "alwaysAllow", "approval", "require_approval", "approvals", "allow", "policy"), _APPROVED
    ),
    **dict.fromkeys(("disabled", "enabled"), "write `hidden: true` for a tool that nobody is to be offered"),
    "mode": "the mode is the server's; with `mode: shadow` there, `shadow: true` here takes a destructive tool in",
    "timeout": _TIME,
}  # fmt: skip
_OF_DEFINITION = {
    **dict.fromkeys(("path", "url"), "write `file`: the document is fetched by you, and kept beside remit.yaml"),
    **dict.fromkeys(("env", "environmentVariables", "headers", "inputs", "variables"), "write answers: {NAME: VALUE}"),
    "digest": "write `sha256`",
    "choice": "write `package: N` or `remote: N`",
}  # fmt: skip

_HINTS: Mapping[type[BaseModel], Mapping[str, str]] = {
    ServerSpec: _OF_SERVER,
    ServerCommandSpec: _OF_COMMAND,
    ServerToolSpec: _OF_TOOL,
    DefinitionSpec: _OF_DEFINITION,
    CatalogSection: dict.fromkeys(("mcpServers", "mcp_servers", "mcp"), _SERVERS),
    Sections: dict.fromkeys(("mcpServers", "mcp_servers", "servers", "mcp"), _SERVERS),
}

_SHAPES: Mapping[type[BaseModel], str] = {
    ServerCommandSpec: f"write {_ARGV}",
    ServerSpec: "write servers: [{name: NAME, command: {argv: […]}}, …]: a list, each with its name",
    ServerToolSpec: "write tools: [{name: NAME, effect: read}, …]: a list, each with its name",
    DefinitionSpec: "write definition: ./server.json, or {file: ./server.json, package: 1, answers: {…}}",
}  # fmt: skip


def meant(model: object, key: str) -> str | None:
    """What Remit has in the place of a key that others know; None where nothing is known of it.

    Args:
        model: the part of the configuration in which the key stands.
    """
    return _HINTS.get(model, {}).get(key) if isinstance(model, type) else None


def shape(model: object) -> str | None:
    """How a part is written that was given another form, such as a mapping for a list."""
    return _SHAPES.get(model) if isinstance(model, type) else None
