"""Each hostile program comes to its end with nothing; where its wall is missing, it gets something.

`pytest tests/adversarial --threat T-16` runs those of one threat. What a program does is in
tests/adversarial/programs/, where none of it can hurt the machine that the tests are on.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

from remit.model import Ending, RunSpec
from tests.adversarial.conftest import Box
from tests.adversarial.hostile import Hostile, gains, given
from tests.adversarial.outside import run_at_terminal, run_without
from tests.adversarial.programs import PROGRAMS
from tests.requirements import THREATS
from tests.runners.support import LIMITS

pytestmark = [pytest.mark.slow, pytest.mark.needs("bwrap", "userns", "cgroup")]


def _parameters(programs: tuple[Hostile, ...]) -> list[Any]:
    return [
        pytest.param(each, id=each.name.replace(" ", "-"), marks=pytest.mark.threat(*each.threats))
        for each in programs
    ]


@pytest.mark.parametrize("program", _parameters(PROGRAMS))
def test_contained(program: Hostile, box: Box, facts: dict[str, Any]) -> None:
    result = box.run(RunSpec(argv=program.argv(), limits=LIMITS, stdin=given(facts)))
    told = (result.stdout + result.stderr).decode(errors="replace")
    assert gains(result.stdout) == [], told
    if program.signal is not None:
        assert (result.ending, result.signal) == (Ending.SIGNAL, program.signal), told
    else:
        assert (result.ending, result.exit_code) == (Ending.EXIT, 0), told
        assert result.stdout.endswith(b"END\n"), told


_ELSEWHERE = tuple(
    each for each in PROGRAMS if each.without and (os.geteuid() == 0 or not each.root)
)


@pytest.mark.parametrize("program", _parameters(_ELSEWHERE))
def test_it_would_notice_a_missing_wall(program: Hostile, facts: dict[str, Any]) -> None:
    told = run_without(program, facts)
    assert gains(told), told.decode(errors="replace")


@pytest.mark.threat("T-16")
def test_characters_do_get_into_a_terminal_that_is_there(facts: dict[str, Any]) -> None:
    (program,) = [each for each in PROGRAMS if "terminal" in each.name]
    assert gains(run_at_terminal(program, facts).replace(b"\r", b"")) != []


def test_there_are_enough_of_them_each_with_a_name_a_threat_and_a_reason() -> None:
    names = Counter(each.name for each in PROGRAMS)
    assert len(PROGRAMS) >= 60
    assert max(names.values()) == 1
    for each in PROGRAMS:
        assert set(each.threats) <= set(THREATS), each.name
        assert each.threats, each.name
        assert (each.without is None) == bool(each.why), each.name


def test_most_of_them_are_seen_to_succeed_without_the_wall() -> None:
    assert len([each for each in PROGRAMS if each.without]) >= len(PROGRAMS) * 3 // 4
