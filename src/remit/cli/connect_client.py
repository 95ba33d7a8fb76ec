"""`remit connect CLIENT`: the entry by which an agent's client uses the gateway, or into its file.

The key is never read here, and so can be neither printed nor written.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import click

from remit.cli.client_entry import CLIENTS, VARIABLE, AgentClient, Door
from remit.cli.client_file import install, undo
from remit.cli.client_text import with_pieces
from remit.cli.output import note
from remit.visible import visible


def point(name: str, door: Door, *, install_in: str | None, undo_in: str | None) -> None:
    """Print a client's entry, put it into the client's file, or take it out again.

    Args:
        name: one of `CLIENTS`.
        install_in: the file to edit; empty for the client's own; None to edit none.
        undo_in: the file to put back, likewise.

    Raises:
        ConfigError: the entry cannot be made, or the file is not one that is edited.
        Conflict: the file has another entry of the name, or is not as it was left.
    """
    client = CLIENTS[name]
    pieces = client.pieces(door)
    edit = partial(with_pieces, pieces=pieces, form=client.form)
    if undo_in is not None:
        path = _file(client, undo_in)
        was_there = undo(path, edit)
        note(f"{_shown(path)} is as it was before" if was_there else f"removed {_shown(path)}")
        return
    if install_in is None:
        click.echo(edit(None).decode("utf-8"), nl=False)
        note(f"Put this into {_shown(_file(client, ''))} for {client.title}, or use --install.")
    else:
        path = _file(client, install_in)
        kept = install(path, edit)
        note(f"{client.title} uses the gateway: the entry is in {_shown(path)}")
        if kept is not None:
            note(f"Before it was as {_shown(kept)}, which may hold secrets: commit it nowhere.")
    say_where_the_key_is(client, door)


def _file(client: AgentClient, named: str) -> Path:
    return (Path(named) if named else client.file()).absolute()


def _shown(path: Path) -> str:
    return visible(str(path))


def say_where_the_key_is(client: AgentClient, door: Door) -> None:
    """Tell the person how the client gets the agent's key."""
    if door.key_file is not None:
        found = shutil.which("remit")
        where = f" (here {_shown(Path(found).absolute())})" if found else ""
        note(
            f"{client.title} must find `remit` on its own PATH; if not, write the whole path{where}."
        )
    elif client.asks:
        note(f"{client.title} asks for the agent's key and keeps it; the file does not hold it.")
    else:
        note(f"Start {client.title} with the agent's key in the environment variable {VARIABLE}.")
