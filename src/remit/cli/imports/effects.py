"""What imported servers' tools are taken for: shown to the operator, who has the last word.

A server's word that a tool only reads counts for nothing until the operator takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import click

from remit.cli.imports.discovery import Seen, SeenTool
from remit.cli.imports.proposal import Proposal
from remit.cli.output import note, table
from remit.visible import shown, visible


def with_effects(
    proposals: Sequence[Proposal],
    seen: Mapping[str, Seen],
    agreed: Callable[[str], bool],
) -> list[Proposal]:
    """The proposals with `effect: read` for the tools that say so, if the operator agrees.

    Args:
        agreed: asks the operator, or says what they said beforehand.
    """
    listed = [(each, tool) for each in proposals for tool in _tools(each, seen)]
    if listed:
        click.echo(table(["tool", "its server says", ""], [_row(tool) for _, tool in listed]))
    for each in proposals:
        why = seen[each.name].why if each.name in seen else None
        if why is not None:
            done = "asked" if "url" in each.entry else "started"
            note(f"{each.name} was {done} and gave no list of tools: {visible(why)}")
    reads = {(each.name, tool.name) for each, tool in listed if tool.says_read}
    if not reads:
        return list(proposals)
    if not agreed(
        f"Take the {len(reads)} tools that say they only read for reads? (the others: destructive)"
    ):
        note(
            "Nobody took a server's word for it, so all of them count as destructive; `effect: read`"
        )
        note("of a server's tool in remit.yaml says otherwise, or --accept-hints when importing.")
        return list(proposals)
    return [_with_reads(each, sorted(tool for name, tool in reads if name == each.name))
            for each in proposals]  # fmt: skip


def offered(proposals: Sequence[Proposal], seen: Mapping[str, Seen]) -> list[str]:
    """The names of tools that will be offered without anyone looking at them again."""
    return [tool.offered_as for each in proposals for tool in _tools(each, seen) if not tool.odd]


def _tools(proposal: Proposal, seen: Mapping[str, Seen]) -> tuple[SeenTool, ...]:
    return seen[proposal.name].tools if proposal.name in seen else ()


def _row(tool: SeenTool) -> list[str]:
    says = "only reads" if tool.says_read else "-"
    return [shown(tool.offered_as), says, f"held back: {tool.odd}" if tool.odd else ""]


def _with_reads(proposal: Proposal, reads: Sequence[str]) -> Proposal:
    if not reads:
        return proposal
    tools = [{"name": name, "effect": "read"} for name in reads]
    return replace(proposal, entry={**proposal.entry, "tools": tools})
