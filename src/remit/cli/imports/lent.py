"""Where a server's secrets go: into files of Remit's own, lent to runs by handle.

A secret is never put into the environment of a run. Where it is known to which site a server
sends it, the egress proxy puts it into the requests and the server never has it. Otherwise the
run is lent a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remit.settings.definitions import PLACEHOLDER
from remit.stages.means import file_variable
from remit.upstreams.found import FoundServer, Source, Value, without_variables
from remit.upstreams.http_header import header_fault, shown_as
from remit.upstreams.refused import refused
from remit.upstreams.secretlike import names_a_secret

_SHOWN = re.compile(r"((?:[A-Za-z][A-Za-z0-9_.+-]{0,31}[ \t]+)?)(\S.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site to which a secret belongs, and how requests carry it there."""

    host: str
    header: str = "Authorization"
    value: str = "Bearer {token}"


_GITHUB, _GITLAB = Site(host="api.github.com"), Site(
    host="gitlab.com", header="PRIVATE-TOKEN", value="{token}"
)  # fmt: skip
SITES: Mapping[str, Site] = {
    "GITHUB_TOKEN": _GITHUB,
    "GH_TOKEN": _GITHUB,
    "GITHUB_PERSONAL_ACCESS_TOKEN": _GITHUB,
    "GITLAB_TOKEN": _GITLAB,
    "GITLAB_PERSONAL_ACCESS_TOKEN": _GITLAB,
    "SLACK_BOT_TOKEN": Site(host="slack.com"),
    "NOTION_TOKEN": Site(host="api.notion.com"),
    "NOTION_API_KEY": Site(host="api.notion.com"),
    "LINEAR_API_KEY": Site(host="api.linear.app", value="{token}"),
    "FIGMA_API_KEY": Site(host="api.figma.com", header="X-Figma-Token", value="{token}"),
    "BRAVE_API_KEY": Site(
        host="api.search.brave.com", header="X-Subscription-Token", value="{token}"
    ),
    "TAVILY_API_KEY": Site(host="api.tavily.com"),
    "STRIPE_SECRET_KEY": Site(host="api.stripe.com"),
    "OPENAI_API_KEY": Site(host="api.openai.com"),
    "ANTHROPIC_API_KEY": Site(host="api.anthropic.com", header="x-api-key", value="{token}"),
    "HF_TOKEN": Site(host="huggingface.co"),
}
"""Variables that name a secret of one well-known site; the others are nobody's to guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """One secret of a server: its handle, its section of `runners.credentials`, and its text.

    `secret` is None where the file does not hold it: it stays in an environment variable, or a
    person has yet to write it into its file.
    """

    handle: str
    section: Mapping[str, Any]
    secret: str | None
    file: str | None
    missing: str = ""

    def __repr__(self) -> str:
        return f"Loan({self.handle})"


def is_secret(name: str, one: Value, server: FoundServer) -> bool:
    """Whether a value is to be kept as a secret: by its form, its name, or what it refers to."""
    if one.sign is not None:
        return True
    asked = {question.name for question in server.questions if question.secret}
    return any(
        names_a_secret(name)
        or names_a_secret(each.name)
        or (each.source is Source.ASKED and each.name in asked)
        for each in one.references
    )


def of_variable(
    server: FoundServer, named: str, variable: str, one: Value
) -> tuple[Loan, Site | None]:
    """The loan for a secret that a server reads from a variable of its environment.

    Args:
        named: the server's name in remit.yaml.

    Raises:
        ConfigError: it is put together of several parts.
    """
    handle = _handle(named, variable)
    site = SITES.get(variable)
    if site is not None:
        how: dict[str, Any] = {
            "inject": [{"host": site.host, "header": site.header, "value": site.value}]
        }
    else:
        how = {"file": {"name": handle}}
    return _loan(server, handle, one, f"/env/{variable}", how), site


def of_header(
    server: FoundServer, named: str, header: str, part: str, one: Value
) -> tuple[Loan, str]:
    """The loan for what Remit itself shows a server, and the header in which it does.

    Raises:
        ConfigError: it is put together of several parts, or no credential stands in such a header.
    """
    match = _SHOWN.fullmatch(one.text.strip())
    form = shown_as(header, match[1] if match else "")
    literal = match is not None and not one.references
    fault = header_fault(form)
    if match is None or (literal and any(not "!" <= char <= "~" for char in match[2])):
        fault = "is no single word"
    if match is None or fault is not None:
        raise refused(
            server, part, f"has a secret that {fault}", "have another credential made for it"
        )
    handle = _handle(named, "token")
    how = {"file": {"name": handle, "content": "{token}"}}
    bare = Value(text=match[2].strip(), references=one.references, sign=one.sign)
    return _loan(server, handle, bare, part, how), form


def _loan(server: FoundServer, handle: str, one: Value, part: str, how: Mapping[str, Any]) -> Loan:
    if not one.references:
        if "\n" in one.text.removesuffix("\n") or not one.text.strip():
            raise refused(
                server,
                part,
                "has a secret of several lines or none",
                "leave it out, and write it under runners.credentials by hand",
            )
        return Loan(handle=handle, section=how, secret=one.text, file=handle)
    whole = len(one.references) == 1 and one.text.strip() == one.references[0].text
    if not whole or without_variables(one).strip():
        raise refused(
            server,
            part,
            "has a secret that is put together of several parts, or has a default",
            "write the secret alone, or the variable that holds it alone",
        )
    name = one.references[0].name
    match one.references[0].source:
        case Source.ENV:
            section = {"broker": "static", "secret": f"env:{name}", **how}
            return Loan(handle=handle, section=section, secret=None, file=None)
        case Source.FILE:
            section = {"broker": "static", "secret": f"file:{name}", **how}
            return Loan(handle=handle, section=section, secret=None, file=None)
        case Source.ASKED:
            return Loan(handle=handle, section=how, secret=None, file=handle, missing=handle)
        case _:
            raise refused(
                server, part, "has a secret that only its client knows", "write the secret itself"
            )


def said_of(loan: Loan, variable: str, site: Site | None) -> str:
    """What an operator has to know of a server whose variable is gone."""
    if site is not None:
        return (
            f"{variable}: put into requests to {site.host} by the egress proxy; the server "
            f"finds `{PLACEHOLDER}` in the variable"
        )
    return (
        f"{variable}: NOT in its environment any more; a run finds the path of a file with it in "
        f"{file_variable(loan.handle)} (docs/import.md says what to do)"
    )


def _handle(named: str, variable: str) -> str:
    return f"{named}-{re.sub(r'[^a-z0-9]+', '-', variable.lower()).strip('-')}"[:64].rstrip("-")
