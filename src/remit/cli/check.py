"""`remit check`: everything that can be told without starting anything."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remit.cli.invocation import Invocation
from remit.cli.output import Exit, note, output_option, print_one
from remit.cli.server_doubts import accepted, server_doubts
from remit.errors import RemitError
from remit.visible import visible

if TYPE_CHECKING:
    from remit.config import Settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@output_option
@click.pass_obj
def check(invocation: Invocation, file: Path | None, form: str) -> None:
    """Check configuration, tools and policy without starting anything.

    FILE is the configuration; by default that of --config. Ends 0 if all is well, 2 if not.
    """
    from remit.cli.doubts import doubts
    from remit.config import examine

    path = file or invocation.config
    settings, problems = examine(path)
    lines: list[dict[str, Any]] = [_line("configuration", str(path), problems)]
    if settings is not None:
        lines += [*_catalog(settings), *_policy(settings), *_opa(settings), *_egress(settings)]
        for warning in (*settings.warnings(), *doubts(settings)):
            note(f"warning: {warning}")
    good = all(line["ok"] for line in lines)
    print_one(form, {"ok": good, "checks": lines}, lambda: "\n".join(map(_text, lines)))
    sys.exit(Exit.YES if good else Exit.USAGE)


def _catalog(settings: Settings) -> Iterator[dict[str, Any]]:
    """A line about the command tools, and one about MCP servers, none of which is asked."""
    yield _line("catalog", f"{len(settings.tools)} tools", [])
    if not settings.servers:
        return
    many = len(settings.servers)
    about = "1 server" if many == 1 else f"{many} servers"
    try:
        known = accepted(settings)
    except RemitError as error:
        yield _line("servers", about, [error])
        return
    about += f", {sum(map(len, known.values()))} tools of them known"
    unseen = [name for name, tools in known.items() if not tools]
    yield _line("servers", about + (f"; never seen: {', '.join(unseen)}" if unseen else ""), [])
    for doubt in server_doubts(settings, known):
        note(f"warning: {doubt}")


def _policy(settings: Settings) -> Iterator[dict[str, Any]]:
    """A line for each layer and for what is on trial.

    A layer that is not on this machine is looked at when it is served.
    """
    from remit.enforcement import load_candidate, load_layer

    several = len(settings.policy.layers) > 1
    for layer in settings.policy.layers:
        name = f"policy {layer.name}" if several else "policy"
        try:
            bundle = asyncio.run(load_layer(settings, layer))
        except RemitError as error:
            yield _line(name, layer.place or "library", [error])
            continue
        if bundle is None:
            about = f"from {layer.place}, not asked" if layer.place else "the OPA server's own"
        else:
            about = f"{len(bundle.modules)} modules, revision {bundle.revision}"
        yield _line(name, about, [])
    trial = settings.policy.trial
    if trial is None or trial.candidate is None:
        return
    try:
        bundle = load_candidate(settings, trial.candidate)
    except RemitError as error:
        yield _line("policy.shadow", str(trial.candidate), [error])
    else:
        yield _line("policy.shadow", f"revision {bundle.revision}", [])


def _opa(settings: Settings) -> Iterator[dict[str, Any]]:
    """A line about the `opa` that Remit is to run; one that others run is not asked."""
    from remit.policy.opa.process import check_binary

    binary = settings.policy.opa.binary
    if binary is None:
        return
    try:
        check_binary(binary)
    except RemitError as error:
        yield _line("opa", str(binary), [error])
    else:
        yield _line("opa", f"{binary}, not run", [])


def _egress(settings: Settings) -> Iterator[dict[str, Any]]:
    """A line about the authorities that destinations are held to, where a file names some."""
    from remit.processes import authorities

    named = settings.sections.runners.egress.ca_file
    if named is None:
        return
    try:
        authorities(settings)
    except RemitError as error:
        yield _line("egress", named, [error])
    else:
        yield _line("egress", f"authorities of {named}", [])


def _line(name: str, about: str, problems: Sequence[RemitError]) -> dict[str, Any]:
    return {
        "check": name,
        "ok": not problems,
        "about": about,
        "problems": [
            {"code": p.code.value, "message": p.message, "place": p.place, "hint": p.hint}
            for p in problems
        ],
    }


def _text(line: dict[str, Any]) -> str:
    lines = [f"{'ok' if line['ok'] else 'fail':<5} {line['check']}: {visible(line['about'])}"]
    for problem in line["problems"]:
        place = f"{problem['place']}: " if problem["place"] else ""
        lines.append(f"      {visible(place + problem['message'])}")
        if problem["hint"]:
            lines.append(f"        hint: {visible(problem['hint'])}")
    return "\n".join(lines)
