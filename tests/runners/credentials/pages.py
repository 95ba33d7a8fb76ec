"""The snippets of docs/credentials, so that tests run exactly what a reader copies."""

from __future__ import annotations

import re

from tests.house.source import DOCS


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of that language, in order."""
    text = (DOCS / "credentials" / page).read_text(encoding="utf-8")
    found: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE
    )
    assert found, (page, language)
    return found
