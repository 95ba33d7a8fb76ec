"""MCP servers in the files of clients: Claude Code and Desktop, Cursor, VS Code and Codex.

Pure readers over text: no file is opened, nothing is started, no variable expanded. A file that
is not what it should be is a fault that is raised; one server that is not is a fault beside the
others, so that it hides none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from remit.upstreams.definition_text import DefinitionText, at, unknown
from remit.upstreams.entries import Entries, codex_entry, json_entry
from remit.upstreams.found import Found, FoundServer, Question, Source, value

MAX_DESCRIPTION = 1000


class Client(StrEnum):
    """Whose file it is."""

    CLAUDE_CODE = "claude-code"
    CLAUDE_CODE_USER = "claude-code-user"
    CLAUDE_DESKTOP = "claude-desktop"
    CURSOR = "cursor"
    VSCODE = "vscode"
    CODEX = "codex"


_FILES = {
    Client.CLAUDE_CODE: "Claude Code's .mcp.json",
    Client.CLAUDE_CODE_USER: "Claude Code's ~/.claude.json",
    Client.CLAUDE_DESKTOP: "Claude Desktop's claude_desktop_config.json",
    Client.CURSOR: "Cursor's mcp.json",
    Client.VSCODE: "VS Code's mcp.json",
    Client.CODEX: "Codex's config.toml",
}


def read_client_file(client: Client, text: str, *, path: str) -> Found:
    """The servers that a client's file defines, in its order.

    Args:
        client: whose file it is; this decides its format and its keys.
        text: what the file holds: at most 8 MiB of JSON, or 512 KiB of TOML.
        path: shown in faults and kept as the place of each server; it is not opened.

    Returns:
        The servers; a fault for each entry that is none, or is defined in a way that Remit does
        not take; and the keys beside the servers that are not taken (none are named for files
        that hold a client's other settings too). At most 512 servers, and 512 arguments,
        variables and headers of each; 32 KiB for one text.

    Raises:
        ConfigError: `config_invalid` if the file is not of its format, or has no place for servers.

    It is not checked whether a command exists, a url answers, or a variable has a value.
    """
    source = DefinitionText(file=_FILES[client], path=path)
    if client is Client.CODEX:
        entries = Entries(source, codex_entry)
        entries.add(source.toml(text).get("mcp_servers", {}), "/mcp_servers")
        return entries.found()
    tree = source.json(text, comments=client in (Client.VSCODE, Client.CURSOR))
    if client is Client.VSCODE:
        return _vscode(source, tree)
    entries = Entries(source, json_entry)
    if client in (Client.CLAUDE_CODE_USER, Client.CLAUDE_DESKTOP):
        entries.add(tree.get("mcpServers", {}), "/mcpServers")
        if client is Client.CLAUDE_CODE_USER:
            _add_projects(source, tree.get("projects", {}), entries)
        return entries.found()
    entries.add(_required(source, tree, "mcpServers", "servers"), "/mcpServers")
    return entries.found(unknown(tree, frozenset({"mcpServers", "$schema"})))


def _required(source: DefinitionText, tree: Mapping[str, Any], key: str, other: str) -> object:
    if key in tree:
        return tree[key]
    hint = f"put the servers under `{key}`, each by its name"
    if other in tree:
        hint = f"this client reads `{key}`, not `{other}`: rename the key"
    raise source.fault("", f"has no `{key}`", hint)


def _add_projects(source: DefinitionText, node: object, entries: Entries) -> None:
    for path, project in source.table(node, "/projects").items():
        pointer = at("/projects", path)
        servers = source.table(project, pointer).get("mcpServers", {})
        entries.add(servers, f"{pointer}/mcpServers", project=path)


def _vscode(source: DefinitionText, tree: Mapping[str, Any]) -> Found:
    servers = _required(source, tree, "servers", "mcpServers")
    questions: dict[str, Question] = {}
    for place, node in enumerate(source.items(tree.get("inputs", []), "/inputs")):
        question = _input(source, node, at("/inputs", place))
        questions[question.name] = question
    entries = Entries(source, json_entry)
    entries.add(servers, "/servers")
    found = entries.found(unknown(tree, frozenset({"servers", "inputs", "$schema"})))
    asked = tuple(_with_questions(server, questions) for server in found.servers)
    return replace(found, servers=asked)


def _input(source: DefinitionText, node: object, pointer: str) -> Question:
    """One of `inputs`; only its texts are taken, never the command that some of them name."""
    table = source.table(node, pointer)
    key = source.name(source.text(table.get("id"), f"{pointer}/id"), f"{pointer}/id")
    secret = source.flag(table.get("password", False), f"{pointer}/password")
    about, default = table.get("description", ""), table.get("default")
    if default is not None:
        text = source.text(default, f"{pointer}/default", lines=True, empty=True)
        default = value(text, name=key, secret=secret)
    choices = []
    for place, option in enumerate(source.items(table.get("options", []), f"{pointer}/options")):
        here = at(f"{pointer}/options", place)
        choice = option.get("value") if isinstance(option, dict) else option
        choices.append(source.text(choice, here, empty=True))
    about = source.text(about, f"{pointer}/description", lines=True, empty=True)
    return Question(
        name=key,
        description=about[:MAX_DESCRIPTION],
        secret=secret,
        default=default,
        choices=tuple(choices),
    )


def _with_questions(server: FoundServer, questions: Mapping[str, Question]) -> FoundServer:
    """The server with the questions it refers to; one that `inputs` lacks is taken for a secret."""
    names = dict.fromkeys(
        reference.name
        for _, one in server.values()
        for reference in one.references
        if reference.source is Source.ASKED
    )
    asked = (questions.get(name, Question(name=name, secret=True)) for name in names)
    return replace(server, questions=tuple(asked))
