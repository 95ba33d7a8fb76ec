"""What cannot be taken of a found server: one error for each, with its place in its file."""

from __future__ import annotations

from remit.errors import Code, ConfigError
from remit.upstreams.found import FoundServer
from remit.upstreams.secretlike import shown


def refused(server: FoundServer, part: str, why: str, hint: str) -> ConfigError:
    """An error about one server of a file.

    Args:
        part: JSON pointer inside the server's entry; "" is all of it.
        why: the end of a sentence about the server; it never holds a value of the file.
    """
    return ConfigError(
        Code.CONFIG_INVALID,
        f"the server {shown(server.name)} {why}",
        place=f"{server.place.path}#{server.place.pointer}{part}",
        hint=hint,
    )
