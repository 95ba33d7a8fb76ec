"""`remit consents`: what people let Remit do for them at MCP servers, over the admin API."""

from __future__ import annotations

import time

import click

from remit.cli.invocation import admin_options
from remit.cli.output import away, clock, note, output_option, print_list, print_one
from remit.doors.client import AdminClient
from remit.errors import Code, NotFound
from remit.visible import visible


@click.group()
def consents() -> None:
    """What people let Remit do for them at MCP servers, and ending it."""


@consents.command("list")
@output_option
@admin_options
def list_consents(client: AdminClient, form: str) -> None:
    """List consents, by credential and person."""
    now = int(time.time() * 1000)
    print_list(
        form,
        "consents",
        client.consents(),
        {
            "CREDENTIAL": lambda row: str(row["credential"]),
            "SUBJECT": lambda row: str(row["subject"]),
            "TENANT": lambda row: str(row["tenant"]),
            "GIVEN": lambda row: clock(row["given_ms"]),
            "ENDS": lambda row: (
                "renewed"
                if row["renewable"]
                else "-"
                if row["expires_ms"] is None
                else away(row["expires_ms"], now)
            ),
            "SCOPES": lambda row: visible(" ".join(row["scopes"]) or "-"),
        },
    )


@consents.command()
@click.argument("credential")
@click.argument("subject")
@click.option("--tenant", default="default", show_default=True, help="Theirs.")
@output_option
@admin_options
def ask(client: AdminClient, credential: str, subject: str, tenant: str, form: str) -> None:
    """Give a link on which SUBJECT, and nobody else, can consent to the use of CREDENTIAL.

    Good for ten minutes, once. A call that needs the consent gives such a link by itself.
    """
    asked = client.ask_consent(credential, tenant, subject)
    ends = away(asked["ends_ms"], int(time.time() * 1000))
    where = visible(asked["authorization_server"])
    print_one(form, asked, lambda: asked["url"])
    if form == "text":
        note(f"for {subject}, who shows a Remit key there and signs in at {where}; ends {ends}")


@consents.command()
@click.argument("credential")
@click.argument("subject")
@click.option("--tenant", help="Theirs, where consents of several have this subject.")
@output_option
@admin_options
def revoke(
    client: AdminClient, credential: str, subject: str, tenant: str | None, form: str
) -> None:
    """End what SUBJECT consented to for CREDENTIAL. They are asked again when it is next needed."""
    found = {
        str(each["tenant"])
        for each in client.consents()
        if (each["credential"], each["subject"]) == (credential, subject)
        and tenant in (None, each["tenant"])
    }
    if not found:
        raise NotFound(
            Code.NOT_FOUND, "there is no such consent", hint="list them: remit consents list"
        )
    if len(found) > 1:
        raise click.UsageError("several tenants have that subject: name one with --tenant")
    after = client.revoke_consent(credential, found.pop(), subject)
    print_one(form, after, lambda: f"{credential} of {subject} revoked")
    if not after["confirmed"]:
        note("the authorization server did not confirm it; Remit holds nothing of it any more")
