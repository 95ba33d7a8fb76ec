"""What `remit tools servers` says beside its table."""

from __future__ import annotations

from typing import Any

import pytest

from remit.cli.server_text import notes_of

ROW: dict[str, Any] = {
    "name": "crm", "why": None, "mode": "enforce", "waiting": 0, "calls": "up", "fault": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, []),
        ({"calls": None}, []),
        (
            {"calls": "failing", "fault": "upstream_gone"},
            ["crm: calls fail (upstream_gone)"],
        ),
        (
            {"calls": "down", "fault": "upstream_timeout"},
            ["crm: calls fail (upstream_timeout); none is let through for a while"],
        ),
    ],
)
def test_a_server_whose_calls_fail_is_told_with_the_code(
    more: dict[str, Any], said: list[str]
) -> None:
    assert notes_of([{**ROW, **more}]) == said
