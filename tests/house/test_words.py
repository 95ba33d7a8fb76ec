"""Nothing that a clone holds names one machine, a package registry, or how the work was done."""

from __future__ import annotations

import re

import pytest

from tests.house.source import name, tracked

# Written in two halves so that this file does not hold what it forbids.
FORBIDDEN = {
    "a machine's path": r"/wor" r"k/(?:main|shared)\b|/tm" r"p/w/|/roo" r"t/\.pyenv",
    "a registry's host": r"\bpy"
    r"pi\.org|python"
    r"hosted\.org|registry\.npm"
    r"js|"
    r"deb\.debian"
    r"\.org|proxy\.golang"
    r"\.org",
    "how the work was done": r"\bsub"
    r"-?agents?\b|\bissue "
    r"[0-9]\b|\bthis se"
    r"ssion's brief|"
    r"\bhelper "
    r"(?:session|agent)|\bagent "
    r"wrote\b",
    "a private key": r"BEGIN (?:[A-Z]+ )?PRIVATE " r"KEY-----\n[A-Za-z0-9+/]",
}


@pytest.mark.parametrize("what", sorted(FORBIDDEN))
def test_no_tracked_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what], re.IGNORECASE)
    found = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [
            f"{name(path)}:{text.count(chr(10), 0, hit.start()) + 1}"
            for hit in pattern.finditer(text)
        ]
    assert found == []


def test_each_locked_requirement_has_a_hash() -> None:
    for path in tracked():
        if not re.fullmatch(r"requirements/\w+\.txt", name(path)):
            continue
        blocks = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip())
        packages = [block for block in blocks if not block.startswith("#")]
        assert packages
        assert [b.splitlines()[0] for b in packages if "--hash=sha256:" not in b] == []
