"""Following a page as a reader would: writing its files, making its edits, running its commands.

A fenced block says what it is by its first line:

    ```rego policy/x.rego     the whole of that file
    ```diff policy/x.rego     an edit: the lines with ` ` and `-` become those with ` ` and `+`
    ```console                commands after `$ `, each with what it prints below it
    ```rego                   to read only
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)[ ]?([\w./]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `target` is the file that it is about."""

    kind: str
    target: str
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """A command and the lines that the page shows below it."""

    command: str
    shown: Sequence[str]


def blocks(page: str) -> list[Block]:
    return [Block(*found.groups()) for found in BLOCK.finditer(page)]


def steps(block: Block) -> Iterator[Step]:
    """The commands of a console block."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield Step(command, shown)


def edited(text: str, edit: str) -> str:
    """A text after an edit that fits it in one place only."""
    lines = edit.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    assert text.count(before) == 1, before
    return text.replace(before, after)


def fits(printed: str, shown: Sequence[str]) -> bool:
    """Whether this was printed; `…` stands for any rest of a line, or on its own for any lines."""
    pattern = ""
    for line in shown:
        part = re.escape(line).replace("…", "[^\n]*")
        pattern += r"(?:[^\n]*\n)*?" if line == "…" else f"{part}\n"
    return re.fullmatch(pattern, printed) is not None


class Reader:
    """Someone who follows a page in a directory."""

    def __init__(self, folder: Path, path: str) -> None:
        self._folder = folder
        self._environment = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8"}
        self._ended = 0

    def follow(self, block: Block) -> None:
        match block:
            case Block("console", ""):
                for step in steps(block):
                    printed = self._run(step.command)
                    assert fits(printed, step.shown), f"$ {step.command}\n{printed}"
            case Block("diff", target):
                file = self._folder / target
                file.write_text(edited(file.read_text("utf-8"), block.text), "utf-8")
            case Block(_, target) if target:
                (self._folder / target).write_text(block.text, "utf-8")

    def _run(self, command: str) -> str:
        if command == "echo $?":
            return f"{self._ended}\n"
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
        )
        self._ended = done.returncode
        return done.stdout


def search_path(programs: Path) -> str:
    """A PATH on which the command of this installation comes first."""
    return f"{programs}{os.pathsep}{os.environ['PATH']}"
