"""`remit tools`: the catalog, from the configuration and what was accepted, or from a gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from remit import canonical
from remit.catalog.arguments import SchemaCheck
from remit.cli.invocation import Invocation, maybe_admin, pass_settings
from remit.cli.output import Exit, block, note, output_option, print_list, print_one, table
from remit.cli.server_text import TOOL_COLUMNS, held_rows, offered_rows
from remit.cli.servers import diff, look, pin, servers
from remit.command import render_command, render_consequence
from remit.config import Settings
from remit.doors.admin_json import tool_json
from remit.doors.admin_servers import server_json
from remit.doors.client import AdminClient
from remit.errors import Code, NotFound
from remit.model import Frozen, ServerStatus, Tool, ToolState
from remit.visible import literal, visible


@click.group()
def tools() -> None:
    """The tools of the catalog."""


for command in (servers, diff, pin, look):
    tools.add_command(command)


@tools.command("list")
@click.option("--server", metavar="NAME", help="Only those of this MCP server.")
@click.option("--state", type=click.Choice([str(each) for each in ToolState]), help="Only these.")
@output_option
@maybe_admin
def list_tools(
    client: AdminClient | None,
    invocation: Invocation,
    server: str | None,
    state: str | None,
    form: str,
) -> None:
    """List the tools: commands, and those of MCP servers with whether they are offered.

    With --url or --token-file as the gateway has them; else from the configuration and what was
    accepted before, without asking anyone.
    """
    if client is not None:
        known, behind = client.tools(), client.servers()
    else:
        catalog, statuses = _on_disk(invocation.settings())
        known = [tool_json(tool) for tool in catalog]
        behind = [server_json(each) for each in statuses]
    if server is not None and server not in [each["name"] for each in behind]:
        raise NotFound(
            Code.NOT_FOUND, "there is no server of that name", hint="remit tools servers"
        )
    rows = [*offered_rows(known), *held_rows(behind)]
    rows = [row for row in rows if server in (None, row["server"])]
    rows = [row for row in rows if state in (None, row["state"])]
    print_list(form, "tools", sorted(rows, key=lambda row: str(row["name"])), TOOL_COLUMNS)
    unseen = [
        each["name"] for each in behind if not each["tools"] and server in (None, each["name"])
    ]
    if form == "text" and client is None and unseen:
        note(f"not seen yet, and so without tools here: {', '.join(unseen)}")


def _on_disk(settings: Settings) -> tuple[Sequence[Tool], Sequence[ServerStatus]]:
    """The catalog as it would be offered now, and the servers as they were seen last."""
    from remit.app import oversight_of  # takes a while, which `remit --help` need not
    from remit.clock import SystemClock

    oversight = oversight_of(settings, SystemClock())
    return oversight.catalog.tools(), oversight.statuses()


@tools.command()
@click.argument("name")
@output_option
@pass_settings
def show(settings: Settings, name: str, form: str) -> None:
    """Show all that the digest of the tool NAME covers."""
    tool = _find(_on_disk(settings)[0], name)
    print_one(form, tool_json(tool), lambda: _text(tool_json(tool)))


@tools.command()
@click.argument("name", required=False)
@click.option(
    "--arguments", metavar="JSON", help="With NAME: what these arguments would run, and a preview."
)
@output_option
@pass_settings
def check(settings: Settings, name: str | None, arguments: str | None, form: str) -> None:
    """Check all tools, or NAME; with --arguments, show what would run.

    The tools of MCP servers are checked as they were accepted; no server is asked.

    If the tool has a preview, it is run twice in the sandbox, without policy and without a
    record: this is you trying out what you wrote. A preview whose digests differ could never be
    approved, and is an error (exit 1).
    """
    if arguments is None:
        catalog = _on_disk(settings)[0]
        chosen = catalog if name is None else (_find(catalog, name),)
        facts = {"tools": [{"name": t.name, "digest": t.digest, "ok": True} for t in chosen]}
        print_one(
            form, facts, lambda: table([f"{len(chosen)} ok"], [[f"ok  {t.name}"] for t in chosen])
        )
        return
    if name is None:
        raise click.UsageError("--arguments needs the NAME of a tool")
    tool = _find(_on_disk(settings)[0], name)
    frozen = _schema_check(settings).normalise(tool, _object(arguments))
    seen = _dry(tool, frozen)
    if tool.preview is not None:
        seen["preview"] = _preview_twice(settings, tool, frozen)
    print_one(form, seen, lambda: _dry_text(seen))
    if tool.preview is not None and not seen["preview"]["same"]:
        sys.exit(Exit.NO)


def _schema_check(settings: Settings) -> SchemaCheck:
    limits = settings.sections.limits
    return SchemaCheck(max_bytes=limits.arguments_bytes, max_depth=limits.arguments_depth)


def _find(known: Sequence[Tool], name: str) -> Tool:
    for tool in known:
        if tool.name == name:
            return tool
    raise NotFound(Code.NOT_FOUND, "there is no tool of that name", hint="remit tools list")


def _object(text: str) -> Mapping[str, Any]:
    value = canonical.parse(text.encode("utf-8", "surrogateescape"))
    if not isinstance(value, dict):
        raise click.UsageError("--arguments takes a JSON object")
    return value


def _dry(tool: Tool, arguments: Frozen) -> dict[str, Any]:
    rendered = render_command(tool.command, arguments.value())
    asked = tool.upstream
    return {
        "name": tool.name,
        "arguments": arguments.value(),
        "server": None if asked is None else asked.server,
        "tool": None if asked is None else asked.tool,
        "argv": list(rendered.argv),
        "env": dict(rendered.env),
        "consequence": render_consequence(tool, arguments.value()),
    }


def _preview_twice(settings: Settings, tool: Tool, arguments: Frozen) -> dict[str, Any]:
    from remit.toolcheck import as_facts, check_tool

    return dict(as_facts(check_tool(settings, tool, arguments)))


def _dry_text(seen: Mapping[str, Any]) -> str:
    lines = [visible(seen["consequence"])] if seen["consequence"] else []
    if seen["server"] is not None:
        asked = json.dumps(seen["arguments"], sort_keys=True)
        lines.append(visible(f"{seen['server']} is asked for {seen['tool']} with {asked}"))
    lines += [f"  {literal(element)}" for element in seen["argv"]]
    lines += [f"  with {name}={literal(value)}" for name, value in seen["env"].items()]
    if "preview" in seen:
        preview = seen["preview"]
        lines.append("preview:")
        lines.append(block(preview["text"].rstrip("\n")))
        if preview["same"]:
            lines.append("run twice, it gave the same digest")
        else:
            lines.append("run twice, it gave DIFFERENT digests: it could never be approved")
            lines.append(block(preview["difference"]))
            lines.append("digest a file or a normalised output instead; see docs/tools.md")
    return "\n".join(lines)


def _text(tool: Mapping[str, Any]) -> str:
    lines = []
    for name, value in tool.items():
        if value not in (None, "", [], {}):
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{name + ':':<15}{visible(said)}")
    return "\n".join(lines)
