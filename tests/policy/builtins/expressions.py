"""Expressions that ask each builtin of the profile for usual and for odd things.

They stand in `expressions.rego.txt`, one a line, below a line `# name` for each builtin. The first
of each builtin is also asked with every argument replaced by each odd value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def _read(path: Path) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# "):
            name = line.removeprefix("# ")
            found[name] = []
        else:
            found[name].append(line)
    return found


EXPRESSIONS = _read(Path(__file__).with_name("expressions.rego.txt"))
