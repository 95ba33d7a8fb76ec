"""`remit tools servers`, `diff`, `pin` and `look`: MCP servers, and what is accepted of them.

To accept a definition is to name its digest, whole: its author could make another whose first digits
are the same.
"""

from __future__ import annotations

import hmac
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from remit.canonical import short
from remit.cli.invocation import admin_options
from remit.cli.output import Exit, note, output_option, print_list, print_one
from remit.cli.server_text import (
    SERVER_COLUMNS,
    difference_text,
    notes_of,
    server_rows,
    set_digest,
    together_text,
)
from remit.doors.client import AdminClient
from remit.errors import Code, Conflict, NotFound
from remit.visible import visible

Json = Mapping[str, Any]


@click.command()
@output_option
@admin_options
def servers(client: AdminClient, form: str) -> None:
    """List MCP servers: how they are, what they speak, and how many of their tools are offered."""
    rows = server_rows(client.servers())
    print_list(form, "servers", rows, SERVER_COLUMNS)
    if form == "text":
        for said in notes_of(rows):
            note(said)


@click.command()
@click.argument("server")
@output_option
@admin_options
def look(client: AdminClient, server: str, form: str) -> None:
    """Ask SERVER for its tools now; ends 3 if it cannot be asked."""
    _server(client, server)
    found = client.look(server)
    (row,) = server_rows([found])
    print_list(form, "servers", [row], SERVER_COLUMNS)
    if form == "text":
        for said in notes_of([row]):
            note(said)
    if found["health"] != "ready":
        sys.exit(Exit.UNKNOWN)


@click.command()
@click.argument("server", required=False)
@click.argument("tool", required=False)
@output_option
@admin_options
def diff(client: AdminClient, server: str | None, tool: str | None, form: str) -> None:
    """Show what servers say of their tools that nobody has accepted: all of it, or TOOL of SERVER.

    Ends 1 if something of what is shown waits for a decision.
    """
    if tool is not None and server is not None:
        chosen = [_tool(_server(client, server), tool)]
    else:
        found = client.servers() if server is None else [_server(client, server)]
        chosen = [each for one in found for each in one["tools"] if _held(each)]
    seen = [client.differences(each["server"], each["name"]) for each in chosen]
    if form == "json":
        print_one(form, {"tools": seen}, lambda: "")
    elif form == "jsonl":
        for each in seen:
            print_one(form, each, lambda: "")
    else:
        _print_differences(seen)
    if any(each["tool"]["waits"] for each in seen):
        sys.exit(Exit.NO)


def _held(tool: Json) -> bool:
    return tool["state"] not in ("offered", "hidden", "gone")


def _print_differences(seen: Sequence[Json]) -> None:
    if not seen:
        note("nothing is held back")
    for each in seen:
        click.echo(difference_text(each) + "\n")
    of_server: dict[str, list[Json]] = {}
    for each in seen:
        if each["tool"]["waits"]:
            of_server.setdefault(each["tool"]["server"], []).append(each["tool"])
    for name, waiting in of_server.items():
        if len(waiting) > 1:
            click.echo(together_text(name, waiting))


@click.command()
@click.argument("server")
@click.argument("tool", required=False)
@click.option("--digest", metavar="DIGEST", help="The digest you looked at, whole.")
@click.option("--all", "every", is_flag=True, help="Everything of SERVER that waits.")
@output_option
@admin_options
def pin(
    client: AdminClient,
    *,
    server: str,
    tool: str | None,
    digest: str | None,
    every: bool,
    form: str,
) -> None:
    """Accept what SERVER says its TOOL is, so that it is offered as that and as nothing else.

    `remit tools diff` shows it, with its digest. Without --digest, on a terminal, it is shown here
    and the first 12 digits must be typed.
    """
    if every == (tool is not None):
        raise click.UsageError("name one TOOL of the server, or --all")
    found = _server(client, server)
    chosen = [each for each in found["tools"] if each["waits"]] if every else [_tool(found, tool)]
    if not chosen:
        note("nothing of this server waits for a decision")
    again = f"remit tools diff {server}" + (f" {tool}" if tool else "")
    if not every and not chosen[0]["waits"]:
        _must_be_offered(chosen[0])
        _check(digest, chosen[0]["digest"], again)
        note("it is accepted as it is")
    elif chosen:
        chosen = _accept(client, chosen, digest, again, every=every)
    _print_pinned(form, chosen)


def _accept(
    client: AdminClient, chosen: Sequence[Json], digest: str | None, again: str, *, every: bool
) -> list[Json]:
    """Accept what is shown, if its digest is named; gives the tools as they are then."""
    seen = [client.differences(each["server"], each["name"]) for each in chosen]
    tools = [each["tool"] for each in seen]
    wanted = set_digest(tools) if every else str(tools[0]["digest"])
    if digest is None:
        _ask(seen, wanted, again)
    else:
        _check(digest, wanted, again)
    return [client.pin(each["server"], each["name"], each["digest"]) for each in tools]


def _print_pinned(form: str, tools: Sequence[Json]) -> None:
    if form == "json":
        print_one(form, {"tools": list(tools)}, lambda: "")
        return
    for each in tools:
        said = f"{each['server']} {each['name']} {each['state']}"
        if each["state"] != "offered" and each["why"]:
            said += f": {each['why']}"
        print_one(form, each, lambda said=said: visible(said))  # type: ignore[misc]  # bound now


def _must_be_offered(tool: Json) -> None:
    if tool["state"] != "offered":
        raise Conflict(
            Code.WRONG_STATE,
            f"this tool is {tool['state']}, which nobody can accept"
            + (f": {tool['why']}" if tool["why"] else ""),
            hint=f"remit tools diff {tool['server']} {tool['name']}",
        )


def _ask(seen: Sequence[Json], wanted: str, again: str) -> None:
    """Show what would be accepted, and have its digest typed."""
    if not sys.stdin.isatty():
        raise click.UsageError("name the digest you looked at: --digest DIGEST (remit tools diff)")
    for each in seen:
        click.echo(difference_text(each) + "\n", err=True)
    what = "it" if len(seen) == 1 else f"all {len(seen)}"
    click.echo(f"Digest: {wanted}", err=True)
    typed: str = click.prompt(f"To accept {what}, type its first 12 digits", err=True)
    if not hmac.compare_digest(typed.strip().lower().encode(), short(wanted).encode()):
        raise _another(again)


def _check(given: str | None, wanted: str, again: str) -> None:
    if given is None:
        return
    digits = given.strip().lower().removeprefix("sha256:")
    if len(digits) != len(wanted.removeprefix("sha256:")):
        raise click.UsageError("--digest takes the whole digest: sha256: and 64 digits")
    if not hmac.compare_digest(digits.encode(), wanted.removeprefix("sha256:").encode()):
        raise _another(again)


def _another(look_again: str) -> Conflict:
    return Conflict(
        Code.WRONG_STATE,
        "that is not the digest of what would be accepted",
        hint=f"look again: {look_again}",
    )


def _server(client: AdminClient, name: str) -> dict[str, Any]:
    found = client.servers()
    for each in found:
        if each["name"] == name:
            return each
    whose = next((s for s in found for each in s["tools"] if each["offered_as"] == name), None)
    raise NotFound(
        Code.NOT_FOUND,
        "there is no server of that name",
        hint="remit tools servers"
        if whose is None
        else f"that is a tool: name its server first, {whose['name']}",
    )


def _tool(server: Json, name: str | None) -> dict[str, Any]:
    """A tool of a server, by its name there or by what agents call it."""
    for key in ("name", "offered_as"):
        for each in server["tools"]:
            if each[key] == name:
                return dict(each)
    raise NotFound(
        Code.NOT_FOUND,
        "this server has no tool of that name that is known",
        hint=f"remit tools list --server {server['name']}; or ask it: remit tools look {server['name']}",
    )
