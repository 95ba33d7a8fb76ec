"""`remit tools`: the catalog, read from the configuration; needs no gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from remit import canonical
from remit.canonical import short
from remit.catalog.arguments import SchemaCheck
from remit.cli.invocation import pass_settings
from remit.cli.output import Exit, block, output_option, print_list, print_one, table
from remit.command import render_command, render_consequence
from remit.config import Settings
from remit.doors.admin_json import tool_json
from remit.errors import Code, NotFound
from remit.model import Frozen, Tool
from remit.visible import literal, visible


@click.group()
def tools() -> None:
    """The tools of the catalog."""


@tools.command("list")
@output_option
@pass_settings
def list_tools(settings: Settings, form: str) -> None:
    """List the tools in the configuration."""
    rows = [tool_json(tool) for tool in sorted(settings.tools, key=lambda tool: tool.name)]
    print_list(
        form,
        "tools",
        rows,
        {
            "NAME": lambda row: str(row["name"]),
            "EFFECT": lambda row: str(row["effect"]),
            "RISK": lambda row: str(row["risk"]),
            "ENVIRONMENTS": lambda row: ", ".join(row["environment"]["names"]) or "-",
            "PREVIEW": lambda row: "yes" if row["preview"] else "no",
            "DIGEST": lambda row: short(row["digest"]),
        },
    )


@tools.command()
@click.argument("name")
@output_option
@pass_settings
def show(settings: Settings, name: str, form: str) -> None:
    """Show all that the digest of the tool NAME covers."""
    tool = _find(settings, name)
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

    If the tool has a preview, it is run twice in the sandbox, without policy and without a
    record: this is you trying out what you wrote. A preview whose digests differ could never be
    approved, and is an error (exit 1).
    """
    if arguments is None:
        chosen = settings.tools if name is None else (_find(settings, name),)
        facts = {"tools": [{"name": t.name, "digest": t.digest, "ok": True} for t in chosen]}
        print_one(
            form, facts, lambda: table([f"{len(chosen)} ok"], [[f"ok  {t.name}"] for t in chosen])
        )
        return
    if name is None:
        raise click.UsageError("--arguments needs the NAME of a tool")
    tool = _find(settings, name)
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


def _find(settings: Settings, name: str) -> Tool:
    for tool in settings.tools:
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
    return {
        "name": tool.name,
        "arguments": arguments.value(),
        "argv": list(rendered.argv),
        "env": dict(rendered.env),
        "consequence": render_consequence(tool, arguments.value()),
    }


def _preview_twice(settings: Settings, tool: Tool, arguments: Frozen) -> dict[str, Any]:
    from remit.toolcheck import as_facts, check_tool

    return dict(as_facts(check_tool(settings, tool, arguments)))


def _dry_text(seen: Mapping[str, Any]) -> str:
    lines = [visible(seen["consequence"])] if seen["consequence"] else []
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
