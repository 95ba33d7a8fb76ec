"""Decisions are numbered once, are a page each, and are all in the list."""

from __future__ import annotations

import re
from collections import Counter

from tests.house.source import DOCS

FOLDER = DOCS / "decisions"


def test_numbers_are_unique_and_have_no_gap() -> None:
    names = [path.name for path in FOLDER.glob("*.md") if path.name != "README.md"]
    bad = [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)]
    assert bad == []
    numbers = Counter(int(name[:4]) for name in names)
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert [n for n, times in numbers.items() if times > 1] == []


def test_each_decision_has_its_parts_and_stands_in_the_list() -> None:
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.glob("[0-9]*.md"):
        text = path.read_text(encoding="utf-8")
        assert f"({path.name})" in listed, path.name
        for part in ("## Context", "## Decision", "## Consequences"):
            assert part in text, (path.name, part)
        assert len(text.splitlines()) <= 70, path.name
