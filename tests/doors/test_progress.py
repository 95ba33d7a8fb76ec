"""Progress of a call: a server's numbers as they are, and always growing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.doors.mcp import mcp_app
from remit.doors.progress import MOST, Count
from remit.doors.settings import DoorSettings
from remit.model import Amount
from tests.doors.fake import FakeGateway
from tests.doors.serving import MODERN, client, served

Heard = list[tuple[float, float | None, str | None]]

NUMBERS = st.floats(width=64) | st.integers(-(2**70), 2**70)
AMOUNTS = st.builds(Amount, progress=NUMBERS, total=st.none() | NUMBERS)


async def heard_of(reports: list[tuple[str, Amount | None]], mode: str) -> Heard:
    """What a client of this era hears of a call on which this is reported."""
    gateway, heard = FakeGateway(), []

    async def reporting(call: Any, progress: Any) -> Any:
        for report in reports:
            await progress.report(*report)
        return await gateway._echo(call, progress)

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    gateway.answers["echo"] = reporting
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, mode) as c:
        await c.call_tool("echo", {"text": "x"}, progress_callback=on_progress)
    return heard


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_a_servers_numbers_reach_the_client_as_numbers(mode: str) -> None:
    reports: list[tuple[str, Amount | None]] = [
        ("", Amount(progress=0, total=1.5)),
        ("half", Amount(progress=0.75, total=1.5)),
        ("", Amount(progress=2)),
    ]
    assert await heard_of(reports, mode) == [(0, 1.5, None), (0.75, 1.5, "half"), (2, None, None)]


def test_what_was_told_before_a_servers_numbers_is_counted_into_them() -> None:
    count = Count()
    assert count.next(None) == (1, None)
    assert count.next(Amount(progress=0.5, total=10)) == (1.5, 11)
    assert count.next(Amount(progress=10, total=10)) == (11, 11)


def test_a_call_that_is_made_again_goes_on_from_what_was_told() -> None:
    count = Count()
    assert count.next(Amount(progress=3, total=4)) == (3, 4)
    count.again()
    assert count.next(Amount(progress=1, total=4)) == (4, 7)


@given(st.lists(st.none() | AMOUNTS | st.just("again")))
def test_numbers_always_grow_and_stay_what_every_client_can_read(steps: list[Any]) -> None:
    count, last = Count(), None
    for step in steps:
        if step == "again":
            count.again()
            continue
        progress, total = count.next(step)
        assert last is None or progress > last
        assert abs(progress) <= len(steps) * (MOST + 1)
        assert total is None or abs(total) <= len(steps) * (MOST + 1)
        last = progress
