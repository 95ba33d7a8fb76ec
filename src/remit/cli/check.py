"""`remit check`: everything that can be told without starting anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from remit.cli.invocation import Invocation
from remit.cli.output import Exit, note, output_option, print_one
from remit.errors import RemitError
from remit.visible import visible


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@output_option
@click.pass_obj
def check(invocation: Invocation, file: Path | None, form: str) -> None:
    """Check configuration, tools and policy without starting anything.

    FILE is the configuration; by default that of --config. Ends 0 if all is well, 2 if not.
    """
    from remit.config import examine

    path = file or invocation.config
    settings, problems = examine(path)
    lines: list[dict[str, Any]] = [_line("configuration", str(path), problems)]
    if settings is not None:
        lines.append(_line("catalog", f"{len(settings.tools)} tools", []))
        lines.append(_policy(settings.policy_path))
        for warning in settings.warnings():
            note(f"warning: {warning}")
    good = all(line["ok"] for line in lines)
    print_one(form, {"ok": good, "checks": lines}, lambda: "\n".join(map(_text, lines)))
    sys.exit(Exit.YES if good else Exit.USAGE)


def _policy(path: Path) -> dict[str, Any]:
    from remit.policy.bundle import load_bundle

    try:
        bundle = load_bundle(path)
    except RemitError as error:
        return _line("policy", str(path), [error])
    return _line("policy", f"{len(bundle.modules)} modules, revision {bundle.revision}", [])


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
        lines.append(f"      {visible(problem['place'] or '')}: {visible(problem['message'])}")
        if problem["hint"]:
            lines.append(f"        hint: {visible(problem['hint'])}")
    return "\n".join(lines)
