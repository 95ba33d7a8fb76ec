"""What a run wrote, writes and left, on a terminal or in a pipe."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from remit.cli.output import note, print_one
from remit.doors.client import AdminClient
from remit.errors import Code, RemitError
from remit.visible import visible

TRIES = 3
"""How often a stream that broke off is taken up again before that is an error."""

Json = dict[str, Any]


def print_stored(found: Json, channel: str, form: str) -> None:
    """What is kept of one channel, exactly; notes about it go to standard error."""
    if form != "text":
        print_one(form, found, str)
        return
    _write(found[channel], sys.stdout)
    _notes(found)


def _notes(found: Json) -> None:
    if found.get("withheld"):
        note(f"not all of its output is here: {found['withheld']}")
    if found.get("truncated"):
        note("its output was cut: it wrote more than its limit")
    if found.get("blanked"):
        note(f"traces of credentials were blanked in it: {found['blanked']}")


def follow_run(client: AdminClient, run_id: str, channel: str | None, form: str) -> None:
    """Print what a run writes until it is over; of one that is over, what is kept.

    Each channel goes to the one of the same name, so that a pipe takes them apart.
    """
    end: Json = {}
    for line in _lines(client, run_id):
        if form != "text":
            if "silent" not in line:
                click.echo(json.dumps(line))
        elif "hidden" in line:
            note(str(line["hidden"]))
        elif "seq" in line and channel in (None, line["channel"]):
            _write(line, _stream(line["channel"]))
        end = line
    if form == "text":
        _ending(client, run_id, channel, end)


def _ending(client: AdminClient, run_id: str, channel: str | None, end: Json) -> None:
    found = client.run_output(run_id)
    if not end.get("live"):
        for name in ("stdout", "stderr"):
            if channel in (None, name):
                _write(found[name], _stream(name))
    _notes(found)
    run = end.get("end", {})
    note(f"{visible(run_id)} {visible(str(run.get('state')))}")


def _lines(client: AdminClient, run_id: str) -> Iterator[Json]:
    """The lines of a stream; one that breaks off is taken up again where it broke."""
    start, left = 0, TRIES
    while True:
        try:
            for line in client.follow(run_id, start):
                if "seq" in line:
                    start, left = line["seq"] + 1, TRIES
                yield line
                if "end" in line:
                    return
            raise RemitError(Code.SERVER_UNREACHABLE, "the stream broke off")
        except RemitError as fault:
            left -= 1
            if fault.code is not Code.SERVER_UNREACHABLE or left <= 0:
                raise


def _stream(channel: str) -> Any:
    return sys.stderr if channel == "stderr" else sys.stdout


def _write(said: Json, to: Any) -> None:
    if to.isatty():
        click.echo(visible(said["text"], keep="\n\t"), nl=False, file=to)
        return
    exact = base64.b64decode(said["base64"]) if "base64" in said else said["text"].encode()
    to.flush()
    to.buffer.write(exact)
    to.flush()


def print_files(listed: list[Json], *, as_json: bool) -> None:
    """The files that a run left, a line each."""
    if as_json:
        click.echo(json.dumps({"files": listed}))
        return
    for each in listed:
        gone = "" if each["kept"] else "  (not kept)"
        click.echo(f"{each['digest']}  {each['bytes']:>10}  {visible(each['path'])}{gone}")
