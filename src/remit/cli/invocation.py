"""What every command is given: which configuration to use, read only if the command needs it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remit.errors import Code, ConfigError

if TYPE_CHECKING:
    from remit.config import Settings
    from remit.doors.client import AdminClient

TOKEN_VARIABLE = "REMIT_OPERATOR_TOKEN"  # noqa: S105 - a name, not a secret


@dataclass(slots=True)
class Invocation:
    """The file that `--config` names; `settings` reads it once."""

    config: Path
    _settings: Settings | None = None

    def settings(self, **flags: Any) -> Settings:
        """The checked settings.

        Raises:
            ConfigError: what is wrong with the file.
        """
        from remit.config import load

        if self._settings is None or flags:
            self._settings = load(self.config, flags=flags)
        return self._settings

    def admin(self, url: str | None, token_file: Path | None) -> AdminClient:
        """A client of the admin API, with the operator's token from where it is kept.

        The token is looked for in `token_file`, then REMIT_OPERATOR_TOKEN, then where `remit
        init` put it.

        Raises:
            ConfigError: `secret_unavailable` if there is none; what is wrong with the file, if
                it is needed.
        """
        from remit.doors.client import AdminClient

        token = os.environ.get(TOKEN_VARIABLE)
        if token_file is not None or token is None:
            token = _token(token_file or self.settings().operator_token_file)
        return AdminClient(url or _local(self.settings()), token.strip())


def _token(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            Code.SECRET_UNAVAILABLE,
            "the operator's token cannot be read",
            place=str(path),
            hint=f"give --token-file FILE, or set {TOKEN_VARIABLE}",
        ) from None


def _local(settings: Settings) -> str:
    """Where this machine reaches the admin API: an address for all interfaces is also loopback."""
    host, port = settings.admin.host, settings.admin.port
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not binding
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def pass_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the checked settings as its first argument."""

    @click.pass_obj
    @functools.wraps(command)
    def with_settings(invocation: Invocation, *args: Any, **kwargs: Any) -> Any:
        return command(invocation.settings(), *args, **kwargs)

    return with_settings


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--url` and `--token-file`, and the command gets the client as its first argument."""

    @click.option("--url", metavar="URL", help="Where the admin API is; by default server.admin.")
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"File with the operator's token; else {TOKEN_VARIABLE}, else where init put it.",
    )
    @click.pass_obj
    @functools.wraps(command)
    def with_client(invocation: Invocation, *args: Any, **kwargs: Any) -> Any:
        client = invocation.admin(kwargs.pop("url"), kwargs.pop("token_file"))
        return command(client, *args, **kwargs)

    return with_client


def maybe_admin(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `admin_options`, for a command that asks a gateway only where one is named.

    The command gets the client, or None, and the invocation, as its first arguments.
    """

    @click.option("--url", metavar="URL", help="Ask the gateway whose admin API is there.")
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Ask the gateway, with the operator's token in this file.",
    )
    @click.pass_obj
    @functools.wraps(command)
    def with_either(invocation: Invocation, *args: Any, **kwargs: Any) -> Any:
        url, token_file = kwargs.pop("url"), kwargs.pop("token_file")
        asked = url is not None or token_file is not None
        client = invocation.admin(url, token_file) if asked else None
        return command(client, invocation, *args, **kwargs)

    return with_either
