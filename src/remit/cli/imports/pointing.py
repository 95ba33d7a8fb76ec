"""After an import: which clients still reach servers past the gateway, and pointing them at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remit.cli.client_entry import CLIENTS, Door
from remit.cli.client_file import install
from remit.cli.connect import USUAL_URL
from remit.cli.connect_client import say_where_the_key_is
from remit.cli.imports.changes import Rewritten, note_rewritten
from remit.cli.imports.sources import ClientFile
from remit.cli.imports.taken_out import only_remit
from remit.cli.output import note, print_error
from remit.errors import RemitError
from remit.upstreams.found import FoundServer
from remit.upstreams.secretlike import shown
from remit.visible import visible

if TYPE_CHECKING:
    from remit.config import Settings


def point_clients(
    record: Path,
    taken: Sequence[tuple[ClientFile, FoundServer]],
    settings: Settings,
    *,
    rewrite: bool,
) -> None:
    """Rewrite each client's file so that it names the gateway and none of what was imported.

    A file that cannot be rewritten is left as it is, and said; the import stands.

    Args:
        record: the import's record, to which each rewriting is added before it is done.
        rewrite: False: only say which clients still reach them directly.
    """
    for file in {id(file): file for file, _ in taken}.values():
        names = tuple(
            server.name for of, server in taken if of is file and server.place.project is None
        )
        if file.client is None:
            continue
        if not rewrite or file.client.value not in CLIENTS:
            _say_direct(file, [server for of, server in taken if of is file])
            continue
        client = CLIENTS[file.client.value]
        door = _door(settings, stdio_only=client.http is None)
        one = Rewritten(client=file.client.value, path=file.path, names=names, door=door)
        try:
            edit = only_remit(one.client, one.names, one.door)
            edit(file.path.read_bytes())  # refused before anything of it is recorded
            note_rewritten(record, one)
            kept = install(file.path, edit)
        except (RemitError, OSError) as error:
            note(f"{client.title} still reaches them directly:")
            if isinstance(error, RemitError):
                print_error(error)
            continue
        note(f"{client.title} uses the gateway now: {visible(str(file.path))}")
        if kept is not None:
            note(
                f"Before it was as {visible(str(kept))}, which holds its secrets: commit it nowhere."
            )
        say_where_the_key_is(client, door)


def _door(settings: Settings, *, stdio_only: bool) -> Door:
    url = f"http://{settings.listen}/mcp" if settings.listen.loopback else USUAL_URL
    key = settings.data_dir / "keys" / "agent.token" if stdio_only else None
    return Door(url=url, usual_url=url == USUAL_URL, plain=False, key_file=key)


def _say_direct(file: ClientFile, servers: Sequence[FoundServer]) -> None:
    names = ", ".join(shown(server.name) for server in servers)
    secrets = sum(len(server.secrets) for server in servers)
    many = "a secret" if secrets == 1 else f"{secrets} secrets"
    also = f", and the file still holds {many}" if secrets else ""
    note(f"{visible(str(file.path))} still lets its client reach {names} directly{also}.")
    if file.client is not None and file.client.value in CLIENTS:
        note("  the same again with --rewrite has it speak to Remit only")
    else:
        note("  take them out there: claude mcp remove NAME")
