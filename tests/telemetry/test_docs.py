"""docs/observability.md names each event that is logged, and no other."""

from __future__ import annotations

import ast
import re

from tests.house.source import DOCS, called, calls

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def _logged() -> set[str]:
    """The first argument of each call of a structured logger; both sides of a conditional one."""
    found: set[str] = set()
    for _, node in calls("src/"):
        owner, method = called(node)
        if method in LEVELS and owner in ("log", "logger()", "logger", "") and node.args:
            found |= {
                word.value
                for word in ast.walk(node.args[0])
                if isinstance(word, ast.Constant) and isinstance(word.value, str)
            }
    return found


def test_each_event_that_is_logged_has_its_line_and_each_line_its_event() -> None:
    page = (DOCS / "observability.md").read_text(encoding="utf-8")
    section = page.partition("## Log lines")[2].partition("## Spans")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", section, flags=re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`([^`]+)`", row)}
    assert told - {"library", "no_tracing"} == _logged() - {"no_tracing"}
    assert "`no_tracing`" in page
