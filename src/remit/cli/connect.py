"""`remit connect`: lets a client that speaks only stdio use the gateway.

With the name of a client it says instead how that client is pointed at the gateway.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import click

from remit.cli.client_entry import CLIENTS, Door
from remit.errors import Code, ConfigError, RemitError
from remit.loopback import is_loopback

MAX_LINE = 4 * 1024 * 1024
"""Longest message a client may send, in bytes."""

CONNECT_S = 10.0
USUAL_URL = "http://127.0.0.1:8700/mcp"
BAD_USAGE, UNKNOWN = 2, 3


@click.command()
@click.argument("client", type=click.Choice(list(CLIENTS)), metavar="[CLIENT]", required=False)
@click.option(
    "--url",
    envvar="REMIT_URL",
    default=USUAL_URL,
    show_default=True,
    help="The gateway's MCP endpoint.",
)
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that holds the API key; without it, REMIT_KEY does.",
)
@click.option(
    "--unsafe-plain-http",
    is_flag=True,
    help="Send the key unencrypted to another machine.",
)
@click.option(
    "--install",
    metavar="[PATH]",
    is_flag=False,
    flag_value="",
    help="Put the entry into CLIENT's file, or into PATH; a backup is kept beside it.",
)
@click.option(
    "--undo",
    metavar="[PATH]",
    is_flag=False,
    flag_value="",
    help="Put the backup back, if the file is still what --install with these options wrote.",
)
def connect(
    client: str | None,
    url: str,
    key_file: Path | None,
    *,
    unsafe_plain_http: bool,
    install: str | None,
    undo: str | None,
) -> None:
    """Speak MCP over standard input and output, and HTTP to the gateway.

    Put this command where a client wants the command of a stdio server. It ends when the client
    closes its side; messages for people go to standard error.

    With CLIENT (claude-code, claude-desktop, cursor, vscode or codex) it speaks to nobody: it
    prints the entry by which that client uses the gateway, and says which file it goes into. An
    entry never holds a key. With --key-file the client starts this command over stdio, else it
    speaks HTTP itself, with the key in REMIT_TOKEN (VS Code asks for it).
    """
    if client is not None:
        from remit.cli.connect_client import point

        if install is not None and undo is not None:
            raise click.UsageError("--install and --undo exclude each other")
        check_url(url, plain=unsafe_plain_http)
        usual = url == USUAL_URL
        door = Door(url=url, usual_url=usual, plain=unsafe_plain_http, key_file=key_file)
        point(client, door, install_in=install, undo_in=undo)
        return
    if install is not None or undo is not None:
        raise click.UsageError("--install and --undo need a CLIENT, before them")
    carry(url, key_file, plain=unsafe_plain_http)


def carry(url: str, key_file: Path | None, *, plain: bool) -> None:
    """Bridge standard input and output to the gateway, and exit by what became of it."""
    try:
        check_url(url, plain=plain)
        key = read_key(key_file)
    except RemitError as error:
        say(f"{error.message}; {error.hint}" if error.hint else error.message)
        sys.exit(BAD_USAGE)
    try:
        asyncio.run(bridge(url, key, sys.stdin.buffer, sys.stdout.buffer))
    except BrokenPipeError:
        sys.exit(0)  # the client is gone: there is nobody to tell
    except KeyboardInterrupt:
        sys.exit(UNKNOWN)


def check_url(url: str, *, plain: bool) -> None:
    """Refuse an address to which a key must not be sent.

    Raises:
        ConfigError: `config_invalid` or `address_refused`.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "the gateway's address is not one of http or https",
            hint="give it as http://127.0.0.1:8700/mcp",
        )
    if parts.scheme == "http" and not plain and not is_loopback(parts.hostname):
        raise ConfigError(
            Code.ADDRESS_REFUSED,
            "the key would cross the network unencrypted",
            hint="use https, or say --unsafe-plain-http",
        )


def read_key(key_file: Path | None) -> str:
    """The API key, from the file or from `REMIT_KEY`; never from the command line.

    Raises:
        ConfigError: `secret_unavailable`: there is none, or it is not one line.
    """
    try:
        key = key_file.read_text("utf-8") if key_file else os.environ.get("REMIT_KEY", "")
    except (OSError, ValueError):
        key = ""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            Code.SECRET_UNAVAILABLE,
            "there is no API key",
            hint="set REMIT_KEY, or name a file that holds nothing else with --key-file",
        )
    return key


async def bridge(url: str, key: str, source: BinaryIO, sink: BinaryIO) -> None:
    """Carry messages between a stdio client and the gateway until the client is done."""
    import httpx2  # takes a tenth of a second, which `remit --help` need not

    from remit.doors.bridge import Bridge

    def write(line: bytes) -> None:
        sink.write(line)
        sink.flush()

    timeout = httpx2.Timeout(None, connect=CONNECT_S)
    headers = {"authorization": f"Bearer {key}", "user-agent": "remit-connect"}
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as client:
        await Bridge(url, client, write, say).run(lines_of(source))


async def lines_of(source: BinaryIO) -> AsyncIterator[bytes]:
    """The lines of a blocking stream; a longer one than is allowed ends them.

    A thread that dies with the process reads them, so that nothing waits for it at the end.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=64)

    def read() -> None:
        try:
            while True:
                line = source.readline(MAX_LINE + 1)
                asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
                if not line or len(line) > MAX_LINE:
                    return
        except (RuntimeError, ValueError, OSError):
            return  # the loop or the stream has been closed

    threading.Thread(target=read, daemon=True, name="stdin").start()
    while line := await queue.get():
        if len(line) > MAX_LINE:
            say(f"a message is longer than {MAX_LINE} bytes")
            return
        yield line


def say(text: str) -> None:
    """Tell the person; standard output belongs to the protocol."""
    click.echo(f"remit connect: {text}", err=True)
