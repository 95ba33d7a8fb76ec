"""docs/policy.md, followed with the real command line; and what it lists is what there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remit.policy.builtins import CAVEATS
from tests.house.source import DOCS
from tests.library import guide

PAGE = (DOCS / "policy.md").read_text("utf-8")


@pytest.mark.slow
def test_page_works_as_it_stands(tmp_path: Path) -> None:
    reader = guide.Reader(tmp_path, guide.search_path(Path(sys.executable).parent))
    reader.follow(guide.Block("console", "", "$ remit init >/dev/null 2>&1\n"))
    assert (tmp_path / "policy/remit.rego").exists()
    followed = 0
    for block in guide.blocks(PAGE):
        if block.kind == "console" or block.target:
            reader.follow(block)
            followed += 1
    assert followed == 7


def test_page_has_every_difference_that_is_known() -> None:
    rows = [f"| `{name}` | {what} |" for name, what in sorted(CAVEATS.items())]
    assert "\n".join(rows) in PAGE
