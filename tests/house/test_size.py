"""A file or a function that outgrows a reader's head hides a second thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house.source import modules, name, tree

FILE_LINES = 400
FUNCTION_LINES = 40

LONG_FILES = {
    "src/remit/ports.py": "every protocol that a backend implements, on one page",
    "src/remit/model.py": "only values, no decisions: the words of the project on one page",
}
LONG_FUNCTIONS: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(path: Path) -> Iterator[tuple[str, Function]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name(path)}:{node.name}", node


def _code_lines(path: Path, function: Function) -> int:
    """Lines from `def` to the end, without docstring, comments and blank lines."""
    text = path.read_text(encoding="utf-8").splitlines()
    lines = set(range(function.lineno, (function.end_lineno or function.lineno) + 1))
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return sum(1 for n in lines if (line := text[n - 1].strip()) and not line.startswith("#"))


def test_files_over_the_ceiling_are_those_with_a_reason() -> None:
    long = {
        name(path): count
        for path in modules("src/")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    }
    assert set(LONG_FILES) == set(long), long


def test_functions_over_the_ceiling_are_those_with_a_reason() -> None:
    long = {
        where: count
        for path in modules("src/")
        for where, function in _functions(path)
        if (count := _code_lines(path, function)) > FUNCTION_LINES
    }
    assert set(LONG_FUNCTIONS) == set(long), long
