"""Secrets by reference: the file says where a secret is, never what it is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes

from remit.errors import Code, ConfigError

MAX_BYTES = 65_536
KEY_BYTES = 32
EXEC_SECONDS = 10
_FORM = re.compile(r"(env|file|exec):(.+)", re.DOTALL)


class Secret:
    """A secret that was read; it prints as `***`, and only `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "***"

    def reveal(self) -> str:
        return self._text


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is: `env:NAME`, `file:PATH` or `exec:PROGRAM ARGUMENT…` (never a shell).

    A relative file is beside remit.yaml. One newline at the end is not part of the secret.
    """

    kind: str
    where: str

    @classmethod
    def parse(cls, text: object) -> SecretRef:
        """Raises ValueError if the text is no reference; the message never echoes it."""
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                "a secret is given by reference only: env:NAME, file:PATH or exec:COMMAND"
            )
        return cls(match.group(1), match.group(2))

    def __repr__(self) -> str:
        return f"SecretRef({self.kind}:***)"

    def read(self, base: Path, environ: Mapping[str, str], *, lines: bool = False) -> Secret:
        """The secret itself; of more than one line only where `lines` says so, as keys in PEM are.

        Raises:
            ConfigError: `secret_unavailable`, saying which reference and what to do.
        """
        match self.kind:
            case "env":
                text = self._from_env(environ)
            case "file":
                text = self._from_file(base)
            case _:
                text = self._from_program(base)
        text = text.removesuffix("\n")
        if not text or ("\n" in text and not lines) or "\0" in text:
            raise self._unavailable("is empty or has more than one line", "give one line of text")
        return Secret(text)

    def _from_env(self, environ: Mapping[str, str]) -> str:
        if self.where not in environ:
            raise self._unavailable("is not set", f"set the environment variable {self.where}")
        return environ[self.where]

    def _from_file(self, base: Path) -> str:
        try:
            data = (base / self.where).read_bytes()
        except OSError as exc:
            why = f"cannot be read: {exc.strerror}"
            raise self._unavailable(why, "check the path and who may read it") from None
        return self._decoded(data)

    def _from_program(self, base: Path) -> str:
        try:
            argv = shlex.split(self.where)
            done = subprocess.run(
                argv, cwd=base, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=EXEC_SECONDS, check=True,
            )  # fmt: skip
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as exc:
            why = f"failed ({type(exc).__name__})"
            raise self._unavailable(why, "run the command by hand and see what it says") from None
        return self._decoded(done.stdout)

    def _decoded(self, data: bytes) -> str:
        try:
            if len(data) <= MAX_BYTES:
                return data.decode()
        except UnicodeDecodeError:
            pass
        raise self._unavailable("is not one line of UTF-8 text", "point at the secret alone")

    def _unavailable(self, why: str, hint: str) -> ConfigError:
        shown = self.where if self.kind != "exec" else self.where.split(" ", 1)[0]
        return ConfigError(
            Code.SECRET_UNAVAILABLE, f"the secret {self.kind}:{shown} {why}", hint=hint
        )


def kept_key(path: Path) -> bytes:
    """The 32 bytes of a key of the gateway's own, made at random where there is none yet.

    Raises:
        ConfigError: `secret_unavailable`: it cannot be read or made, or is not 32 bytes.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
        else:
            key = token_bytes(KEY_BYTES)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise _no_key(path, error.strerror or "it cannot be read") from None
    if len(key) != KEY_BYTES:
        raise _no_key(path, f"it is not {KEY_BYTES} bytes")
    return key


def _no_key(path: Path, why: str) -> ConfigError:
    return ConfigError(
        Code.SECRET_UNAVAILABLE,
        f"a key of the gateway's own cannot be had: {why}",
        place=str(path),
        hint="move it away; a new one is made, and what was sealed with the old one is refused",
    )
