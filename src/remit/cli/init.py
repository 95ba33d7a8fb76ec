"""`remit init`: a configuration that works, a starter policy, an example to act on, and keys.

Nothing that is there already is changed. Keys are made last but for the configuration, which
names their hashes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from importlib import resources
from pathlib import Path

import click

from remit.cli.output import note
from remit.errors import Code, ConfigError
from remit.identity.keys import NewKey, new_key
from remit.ledger.signer import FileSigner
from remit.visible import visible

DATA_DIR = ".remit"
_SERVICES = {"web": "2.4.1", "checkout": "1.9.0", "search": "3.0.2"}


@click.command()
@click.argument(
    "directory", type=click.Path(path_type=Path, file_okay=False), default=".", required=False
)
@click.option(
    "--import",
    "sources",
    metavar="[CLIENT|FILE]",
    is_flag=False,
    flag_value="",
    multiple=True,
    help="Take over the MCP servers of clients: claude-code, claude-code-user, claude-desktop, "
    "cursor, vscode, codex, or a file, such as a publisher's server.json; without a word, of all "
    "that are found.",
)
@click.option("--server", "servers", metavar="NAME", multiple=True, help="Import only this server.")
@click.option(
    "--install",
    is_flag=True,
    help="Install servers that npx, uvx or bunx fetch at each start; without --import, those that "
    "a `definition` of remit.yaml names.",
)
@click.option(
    "--choice", metavar="N", type=int, help="Take this way to have the server of a server.json."
)
@click.option(
    "--answer",
    "answers",
    metavar="NAME=VALUE",
    multiple=True,
    help="Answer what a server.json leaves open; a secret by env:NAME or file:PATH alone.",
)
@click.option(
    "--writable",
    metavar="DIRECTORY",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Let imported servers write to this directory; others they only read.",
)
@click.option(
    "--accept-hints", is_flag=True, help="Take tools for reads whose server says that they are."
)
@click.option(
    "--no-start", is_flag=True, help="Start and ask no server; `remit serve` sees their tools."
)
@click.option("--rewrite", is_flag=True, help="Have the clients speak to Remit only.")
@click.option("--dry-run", is_flag=True, help="Print what would be imported, and write nothing.")
@click.option("--undo", is_flag=True, help="Take back the last import, and what it rewrote.")
def init(
    directory: Path,
    sources: tuple[str, ...],
    servers: tuple[str, ...],
    writable: tuple[Path, ...],
    answers: tuple[str, ...],
    *,
    choice: int | None,
    install: bool,
    accept_hints: bool,
    no_start: bool,
    rewrite: bool,
    dry_run: bool,
    undo: bool,
) -> None:
    """Write a configuration, a starter policy and keys.

    They go into DIRECTORY (by default here); the keys into .remit/keys, for you alone to read.
    Nothing that is there already is overwritten.

    With --import it also takes over the MCP servers that clients on this machine use, and adds
    them to remit.yaml, which may be there already. Secrets go into files of their own; programs
    that a registry would be asked for at each start are installed once. docs/import.md has all
    of it.
    """
    directory = directory.resolve()
    config = directory / "remit.yaml"
    texts = any((servers, writable, answers, choice is not None))
    options = any((texts, accept_hints, no_start, rewrite, dry_run))
    if undo and (sources or options or install):
        raise click.UsageError("--undo takes no other option")
    if options and not sources:
        raise click.UsageError("these options need --import")
    if undo:
        _undo(config)
    elif sources:
        from remit.cli.imports.command import Wanted, import_servers

        writable = tuple(path.resolve() for path in writable)
        wanted = Wanted(
            sources, servers, writable, choice, answers, install=install, rewrite=rewrite,
            dry_run=dry_run, accept_hints=accept_hints, start=not no_start,
        )  # fmt: skip
        sys.exit(import_servers(config, wanted, lambda: make(directory)))
    elif install:
        from remit.cli.imports.standing import install_definitions

        sys.exit(install_definitions(config))
    else:
        make(directory)


def _undo(config: Path) -> None:
    from remit.cli.imports.changes import undo
    from remit.config import load

    for line in undo(load(config).data_dir):
        note(visible(line))


def make(directory: Path) -> None:
    """Write a configuration and what belongs to it into a directory, which need not be there.

    Raises:
        ConfigError: `config_invalid`: one is there already, or it cannot be written.
    """
    data_dir, config = directory / DATA_DIR, directory / "remit.yaml"
    _refuse_what_is_there(config, data_dir / "keys")
    try:
        agent, operator, log_key = _write(directory, data_dir)
        text = (resources.files("remit") / "templates" / "remit.yaml").read_text("utf-8")
        values = {
            "schema": f"{DATA_DIR}/remit.yaml.schema.json",
            "data_dir": DATA_DIR,
            "example": str(directory / "example"),
            "origin": log_key.origin,
            "agent_sha256": agent.sha256,
            "operator_sha256": operator.sha256,
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        write_new(config, text, 0o644)
    except OSError as exc:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"could not write: {exc.strerror}",
            place=str(exc.filename or directory),
            hint="choose a directory that you may write to: remit init DIRECTORY",
        ) from None
    _say_what_is_next(directory, config, log_key.verifier_key)


def _refuse_what_is_there(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise ConfigError(
                Code.CONFIG_INVALID,
                "this is here already, and nothing is overwritten",
                place=str(path),
                hint="choose another directory: remit init DIRECTORY",
            )


def _write(directory: Path, data_dir: Path) -> tuple[NewKey, NewKey, FileSigner]:
    directory.mkdir(parents=True, exist_ok=True)
    data_dir.mkdir(mode=0o700, exist_ok=True)
    keys = data_dir / "keys"
    keys.mkdir(mode=0o700)
    write_new(data_dir / ".gitignore", "*\n", 0o600)
    package = resources.files("remit")
    schema = (package / "schemas" / "remit.yaml.json").read_text("utf-8")
    write_new(data_dir / "remit.yaml.schema.json", schema, 0o600)
    if (directory / "policy").exists():
        note("kept policy/ as it is")
    else:
        with resources.as_file(package / "templates" / "policy") as starter:
            shutil.copytree(starter, directory / "policy")
    if (directory / "example").exists():
        note("kept example/ as it is")
    else:
        _example(directory / "example")
    log_key = FileSigner.create(keys / "log.key", f"remit-{secrets.token_hex(4)}")
    agent, operator = new_key("agent"), new_key("operator")
    write_new(keys / "agent.token", agent.token + "\n", 0o600)
    write_new(keys / "operator.token", operator.token + "\n", 0o600)
    return agent, operator, log_key


def _example(example: Path) -> None:
    """A few services as files, for the starter tools to act on."""
    for kind in ("live", "desired"):
        (example / kind).mkdir(parents=True)
        for environment in ("staging", "production"):
            behind = kind == "live" and environment == "production"
            services = {**_SERVICES, "web": "2.4.0"} if behind else _SERVICES
            lines = [f"{name} {version}\n" for name, version in services.items()]
            write_new(example / kind / environment, "".join(lines), 0o644)
    if os.geteuid() == 0:
        # Runs of a gateway started by root have a user of their own, who must write here.
        (example / "live").chmod(0o777)
        for file in (example / "live").iterdir():
            file.chmod(0o666)


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that must not be there yet, with exactly this mode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)


def _say_what_is_next(directory: Path, config: Path, verifier_key: str) -> None:
    here = Path.cwd() == directory
    flag = "" if here else f" --config {config}"
    click.echo(f"wrote {config}, policy/, example/ and keys in {DATA_DIR}/keys")
    for command, what in (
        (f"remit{flag} check", "is everything well?"),
        (f"remit{flag} doctor", "can this machine run tools in a sandbox?"),
        (f"remit{flag} serve", "then connect an agent to http://127.0.0.1:8700/mcp"),
        (f"remit{flag} approvals list", "what waits for you"),
    ):
        note(f"  {command:<32} {what}")
    keys = f"{DATA_DIR}/keys"
    note(f"The agent's key is in {keys}/agent.token, yours in {keys}/operator.token.")
    note("Whoever can read operator.token can approve: keep agents from running as your user.")
    note("Keep this line somewhere else; with it anyone can verify the log (remit audit verify):")
    note(f"  {verifier_key}")
