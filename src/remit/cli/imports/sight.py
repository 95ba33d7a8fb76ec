"""What of this machine a server's command names, and the mounts by which it can see just that.

A path that exists becomes a read-only mount at /mnt/<name>, unless the operator said that the
server may write there. The host's own /usr is in every sandbox and needs none.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from remit.errors import ConfigError
from remit.upstreams.found import FoundServer
from remit.upstreams.refused import refused

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
_NEVER = ("/proc", "/sys", "/dev", "/run", "/boot", "/etc")
_KEYS = frozenset(
    {".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store", "gcloud"}
)
"""Where programs keep what lets them in elsewhere. A file that came with a project may name them."""
_ROOTS = ("package.json", "pyproject.toml", "pyvenv.cfg", "Cargo.toml", "go.mod", ".git")
_OPTION = re.compile(r"(-{1,2}[A-Za-z][\w.-]*=|[A-Za-z_]\w*=)?(.+)", re.DOTALL)


class Sight:
    """The mounts of one server, and its words rewritten to what it sees.

    Args:
        home: the directory that relative paths are beside.
        private: Remit's own files, which no run may see.
        writable: directories that the operator lets servers write to.
    """

    def __init__(
        self,
        server: FoundServer,
        *,
        home: Path,
        private: Sequence[Path],
        writable: Collection[Path] = (),
    ) -> None:
        self._server = server
        self._home = home
        self._private = private
        self._writable = {path.resolve() for path in writable}
        self._mounts: dict[Path, str] = {}
        self._written: set[Path] = set()
        self._shown: dict[Path, None] = {}
        self._absent: list[tuple[str, Path]] = []

    def notes(self) -> list[str]:
        """What an operator has to know of the paths that the server was given."""
        said = [
            f"{part}: {path} is not there, so no run sees it; make it, import again, and give "
            "--writable with its directory if the server writes to it"
            for part, path in self._absent
        ]
        only_read = [str(path) for path in self._shown if not self._open(path)]
        if only_read:
            said.append(f"it may only read {', '.join(only_read)}; --writable lets it write there")
        closed = [str(path) for path in self._mounts if self._open(path) and not _for_all(path)]
        if closed:
            said.append(f"runs are of a user of their own: let others write to {', '.join(closed)}")
        return said

    def entries(self) -> list[dict[str, Any]]:
        """The mounts as remit.yaml has them."""
        return [
            {"name": name, "source": str(path)} | ({"writable": True} if self._open(path) else {})
            for path, name in self._mounts.items()
        ]

    def _open(self, path: Path) -> bool:
        return path in self._writable or path in self._written

    def started(self, word: str, part: str) -> list[str]:
        """The words that start a program in the sandbox: itself, and before it what it is written
        in, where its first line names that by a path that only this machine has.

        Raises:
            ConfigError: as `program` has it.
        """
        program = self._program(word, part)
        written_in = _interpreter(program)
        seen = self.program(str(program), part)
        if written_in is None or _of_system(written_in):
            return [seen]
        return [self.program(str(written_in), part), seen]

    def program(self, word: str, part: str) -> str:
        """Where the program is, for the sandbox.

        Raises:
            ConfigError: it is not on this machine, is a link to where nothing of it is seen, or lies
                where nothing can be mounted from.
        """
        path = self._program(word, part)
        if _of_system(path):
            return str(path)
        root = path.parent.parent if path.parent.name == "bin" else _project(path)
        real = path.resolve()
        if not real.is_relative_to(root.resolve()) and not _of_system(real):
            raise self._refused(
                part,
                f"names a link to {real}, which is not seen in a sandbox beside it",
                "give it a program that is no such link; a Python environment of the system's "
                "own: /usr/bin/python3 -m venv DIRECTORY",
            )
        return self._seen(path, root, part)

    def _program(self, word: str, part: str) -> Path:
        path = Path(word).expanduser()
        if os.sep not in word:
            found = shutil.which(word)
            if found is None:
                raise refused(
                    self._server,
                    part,
                    "names a program that is not on this machine's PATH",
                    "install it, or write its whole path",
                )
            path = Path(found)
        path = Path(os.path.normpath(self._home / path))
        if not path.is_file() or not os.access(path, os.X_OK):
            raise refused(
                self._server,
                part,
                "names a program that is not there, or that cannot be run",
                "install it, or correct its path",
            )
        return path

    def word(self, text: str, part: str, *, after: str = "") -> str:
        """One argument or variable; a path in it that exists here becomes the one that is seen.

        Args:
            after: the word before it. What follows an option and is the name of something here is
                a path too; anywhere else a bare word is none.

        Raises:
            ConfigError: the path is Remit's own, or holds more than a server should see.
        """
        match = _OPTION.fullmatch(text)
        if match is None:
            return text
        before, value = match[1] or "", match[2]
        named = after.startswith("-") and "=" not in after and not value.startswith("-")
        plain = value.startswith(("/", "~/", "./", "../")) or value in (".", "..")
        if not plain and not (before or named):
            return text
        path = Path(os.path.normpath(self._home / Path(value).expanduser()))
        try:
            there, whole = path.exists(), path.is_dir()
        except OSError:
            return text
        if not there and plain and path.parent.is_dir() and not _of_system(path):
            given = self._given(path.parent.resolve())
            if given is not None:
                return before + self._seen(path, given, part, shown=True)
            self._absent.append((part, path))
        if not there or _of_system(path):
            return text
        return before + self._seen(path, path if whole else _project(path), part, shown=True)

    def directory(self, text: str, part: str) -> str:
        """The directory that a server starts in, as it is seen.

        Raises:
            ConfigError: there is no such directory.
        """
        path = Path(os.path.normpath(self._home / Path(text).expanduser()))
        if not path.is_dir():
            raise refused(
                self._server, part, "starts in a directory that is not there", "correct `cwd`"
            )
        return str(path) if _of_system(path) else self._seen(path, path, part, shown=True)

    def add(self, path: Path, name: str) -> str:
        """Mount a directory under a name of one's choice, and say where it is seen."""
        self._mounts[path] = self._free(name)
        return f"/mnt/{self._mounts[path]}"

    def _seen(self, path: Path, root: Path, part: str, *, shown: bool = False) -> str:
        root, path = root.resolve(), path.parent.resolve() / path.name
        if not path.is_relative_to(root):
            root = path.parent
        given = self._given(path) if shown else None
        if given is not None and not root.is_relative_to(given):
            root = given
        outers = [each for each in self._mounts if path.is_relative_to(each)]
        # What may be written below a directory that is only read has to be a mount of its own.
        outer = next((each for each in outers if given is None or self._open(each)), root)
        if given is not None and outer == root:
            self._written.add(root)
        if outer not in self._mounts:
            self._check(outer, part)
            self._mounts[outer] = self._free(re.sub(r"[^a-z0-9]+", "-", outer.name.lower()))
        if shown:
            self._shown[outer] = None
        inside = path.relative_to(outer)
        return f"/mnt/{self._mounts[outer]}" + (f"/{inside}" if inside.parts else "")

    def _given(self, path: Path) -> Path | None:
        """The directory that is `--writable` and has this path in it, or is it."""
        return next((each for each in self._writable if path.is_relative_to(each)), None)

    def _check(self, root: Path, part: str) -> None:
        wide = root in (Path("/"), Path.home().resolve()) or len(root.parts) == 2
        if wide or any(root.is_relative_to(each) for each in _NEVER):
            raise self._refused(
                part,
                "would see a whole home or a directory of the system",
                "name a directory that holds only what the server is for",
            )
        if _KEYS & set(root.parts) or any((root / name).is_dir() for name in (".ssh", ".gnupg")):
            raise self._refused(
                part,
                "would see where a person's keys are",
                "give it a credential of its own under `runners.credentials`; or write the server "
                "and the mount into remit.yaml yourself",
            )
        if any(_overlap(root, each.resolve()) for each in self._private):
            raise self._refused(
                part,
                "would see Remit's own keys, which lie below a directory that it is given",
                "keep Remit elsewhere: remit init DIRECTORY --import FILE",
            )

    def _refused(self, part: str, why: str, hint: str) -> ConfigError:
        return refused(self._server, part, why, hint)

    def _free(self, wanted: str) -> str:
        stem = wanted.strip("-")[:56] or "data"
        taken, name, number = set(self._mounts.values()), stem, 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        return name


def _for_all(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IWOTH)


def _interpreter(path: Path) -> Path | None:
    """What a script's first line says that it is started with (execve(2)); None of a program."""
    try:
        with path.open("rb") as file:
            first = file.readline(512)
    except OSError:
        return None
    words = first[2:].split() if first.startswith(b"#!") else []
    return Path(os.fsdecode(words[0])) if words else None


def _of_system(path: Path) -> bool:
    """Whether it is in the host's own system, also after its links."""
    return all(
        any(each.is_relative_to(system) for system in _SYSTEM) for each in (path, path.resolve())
    )


def _project(path: Path) -> Path:
    """The directory of the program or file that a path names, with what belongs to it."""
    for folder in path.parents:
        if folder == Path.home() or len(folder.parts) <= 2:
            break
        if any((folder / name).exists() for name in _ROOTS):
            return folder
    return path.parent


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
