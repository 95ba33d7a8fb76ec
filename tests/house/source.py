"""The project's own text, for tests that read it: tracked files, syntax trees, calls."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.plugins.machine import ROOT

SRC = ROOT / "src" / "remit"
DOCS = ROOT / "docs"


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Every file that a clone would hold: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted(set(filter(None, listed.stdout.split("\0"))))
    return tuple(path for name in names if (path := ROOT / name).is_file())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules(*tops: str) -> list[Path]:
    """The tracked Python files under these directories of the project."""
    return [p for p in tracked() if p.suffix == ".py" and name(p).startswith(tops)]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name(path))


def called(node: ast.Call) -> tuple[str, str]:
    """What is called, as (owner, name): `a.runner.start(...)` gives ("runner", "start")."""
    match node.func:
        case ast.Name(id=plain):
            return "", plain
        case ast.Attribute(value=ast.Name(id=owner), attr=attr):
            return owner, attr
        case ast.Attribute(value=ast.Attribute(attr=owner), attr=attr):
            return owner, attr
        case ast.Attribute(attr=attr):
            return "?", attr
        case _:
            return "?", "?"


def calls(*tops: str) -> Iterator[tuple[str, ast.Call]]:
    """Each call in these directories, with the name of its file."""
    for path in modules(*tops):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                yield name(path), node
