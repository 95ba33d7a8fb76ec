"""`remit approvals`: the plan as approvers must see it, and their answer, over the admin API.

What is shown comes from the plan; what the agent says comes last and is named as that (T-24).
"""

from __future__ import annotations

import hmac
import sys
import time
from typing import Any

import click

from remit.canonical import short
from remit.cli.approval_text import approval_text
from remit.cli.invocation import admin_options
from remit.cli.output import (
    Exit,
    away,
    clock,
    note,
    output_option,
    print_list,
    print_one,
)
from remit.cli.request_text import requests_text
from remit.doors.client import AdminClient
from remit.errors import Code, Refused
from remit.model import ApprovalState

_STATES = click.Choice([state.value for state in ApprovalState])


@click.group()
def approvals() -> None:
    """Requests for people to agree, and your answer to them."""


@approvals.command("list")
@click.option("--state", type=_STATES, help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Most to show.")
@output_option
@admin_options
def list_approvals(client: AdminClient, state: str | None, limit: int, form: str) -> None:
    """List approvals, newest first, and then the requests for access that wait."""
    now = int(time.time() * 1000)
    found = client.approvals(state, limit)
    asked = client.access_requests("pending", limit) if state in (None, "pending") else []
    if form == "json":
        lists = {"approvals": found, "access_requests": asked}
        print_one(form, lists, lambda: "")
        return
    print_list(
        form,
        "approvals",
        found,
        {
            "ID": lambda row: str(row["id"]),
            "STATE": lambda row: str(row["state"]),
            "TOOL": lambda row: str(row["tool"]),
            "ENVIRONMENT": lambda row: str(row["environment"] or "-"),
            "ASKED BY": lambda row: str(row["caller"]["subject"]),
            "PLAN": lambda row: short(row["plan_hash"]),
            "EXPIRES": lambda row: (
                away(row["expires_ms"], now)
                if row["state"] == ApprovalState.PENDING
                else clock(row["expires_ms"])
            ),
        },
    )
    if form == "jsonl":
        for request in asked:
            print_one(form, {"access_request": request}, lambda: "")
    elif asked:
        click.echo(("\n" if found else "") + requests_text(asked, now))


@approvals.command()
@click.argument("approval_id", metavar="ID")
@output_option
@admin_options
def show(client: AdminClient, approval_id: str, form: str) -> None:
    """Show what would run, for whom, and what policy asks of you."""
    found = client.approval(approval_id)
    print_one(form, found, lambda: approval_text(found, int(time.time() * 1000)))


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option(
    "--plan-hash",
    metavar="HASH",
    help="The plan hash you looked at: its first 12 hex digits, or all of it.",
)
@click.option("--reason", help="Why you agree; some policies require it.")
@output_option
@admin_options
def approve(
    client: AdminClient, approval_id: str, plan_hash: str | None, reason: str | None, form: str
) -> None:
    """Agree to exactly the plan whose hash you name.

    Without --plan-hash, on a terminal, the plan is shown and its short hash must be typed.
    Ends 4 if more people have to agree.
    """
    found = client.approval(approval_id)
    if plan_hash is None:
        plan_hash = _ask_for_hash(found)
    if not _is_hash_of(plan_hash, found["plan_hash"]):
        raise Refused(
            Code.APPROVAL_MISMATCH,
            "that is not the hash of the plan that would run",
            hint=f"look again: remit approvals show {approval_id}",
        )
    after = client.vote(approval_id, found["plan_hash"], "approve", _reason(found, reason))
    _print_after(after, form)
    if after["state"] == ApprovalState.PENDING:
        note(f"{after['rule']['required'] - len(after['votes'])} more must agree")
        sys.exit(Exit.WAITING)


def _ask_for_hash(found: dict[str, Any]) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("name the plan you looked at: --plan-hash HASH")
    click.echo(approval_text(found, int(time.time() * 1000)), err=True)
    typed: str = click.prompt("To agree, type the 12 digits of the plan hash", err=True)
    return typed


def _is_hash_of(typed: str, plan_hash: str) -> bool:
    typed = typed.strip().lower()
    whole = plan_hash if typed.startswith("sha256:") else short(plan_hash)
    return hmac.compare_digest(typed.encode(), whole.encode())


def _reason(found: dict[str, Any], given: str | None) -> str | None:
    """The reason given, or asked for on a terminal where policy wants one."""
    if given is None and found["rule"]["reason_required"] and sys.stdin.isatty():
        asked: str = click.prompt("Reason", err=True)
        return asked
    return given


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", help="Why not; the caller is told.")
@output_option
@admin_options
def deny(client: AdminClient, approval_id: str, reason: str | None, form: str) -> None:
    """Refuse; one denial is enough."""
    found = client.approval(approval_id)
    after = client.vote(approval_id, found["plan_hash"], "deny", _reason(found, reason))
    _print_after(after, form)


@approvals.command()
@click.argument("approval_id", metavar="ID")
@output_option
@admin_options
def revoke(client: AdminClient, approval_id: str, form: str) -> None:
    """Withdraw an approval that no run has spent yet."""
    _print_after(client.revoke_approval(approval_id), form)


@approvals.command()
@click.argument("request_id", metavar="ID")
@click.option("--note", "text", required=True, help="What became of it, for the record.")
@output_option
@admin_options
def close(client: AdminClient, request_id: str, text: str, form: str) -> None:
    """Close a request for access that was dealt with. This grants nothing."""
    after = client.close_request(request_id, text)
    print_one(form, after, lambda: f"{after['id']} {after['state']}")


def _print_after(after: dict[str, Any], form: str) -> None:
    print_one(form, after, lambda: f"{after['id']} {after['state']}")
