"""Skips are named, and in CI each must stand on a short list with its reason.

`@pytest.mark.needs("bwrap", "cgroup")` skips a test on a machine that lacks one of them. The end
of a run lists each skipped test with what would let it run. With REMIT_CI set, a skip that
`.ci/allowed-skips.txt` does not name makes the run fail: what is skipped in CI is tested nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.plugins.machine import NEEDS, ROOT, missing

ALLOWED = ROOT / ".ci" / "allowed-skips.txt"


def allowed(text: str) -> dict[str, str]:
    """Test id patterns and their reasons, from lines of `pattern  # reason`."""
    found = {}
    for line in text.splitlines():
        pattern, mark, reason = (part.strip() for part in line.partition(" # "))
        if not pattern or pattern.startswith("#"):
            continue
        if not mark or not reason:
            raise pytest.UsageError(f"{ALLOWED.name}: no reason is given for {pattern}")
        found[pattern] = reason
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("needs"):
            for tool in mark.args:
                if tool not in NEEDS:
                    raise pytest.UsageError(f"{item.nodeid}: needs({tool!r}) is not a known tool")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for tool in mark.args:
            if why := missing(tool):
                pytest.skip(why)


def _skipped(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, str]]:
    for report in reporter.stats.get("skipped", []):
        where = report.longrepr
        why = where[2] if isinstance(where, tuple) else str(where)
        yield report.nodeid, why.removeprefix("Skipped: ")


def _not_allowed(reporter: pytest.TerminalReporter) -> list[tuple[str, str]]:
    if not os.environ.get("REMIT_CI"):
        return []
    patterns = allowed(ALLOWED.read_text(encoding="utf-8"))
    return [
        (nodeid, why)
        for nodeid, why in _skipped(reporter)
        if not any(fnmatchcase(nodeid, pattern) for pattern in patterns)
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(reporter, pytest.TerminalReporter) and _not_allowed(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = sorted(set(_skipped(terminalreporter)))
    if skipped:
        terminalreporter.section("not run on this machine")
        for nodeid, why in skipped:
            terminalreporter.write_line(f"{nodeid}\n    {why}")
    refused = _not_allowed(terminalreporter)
    if refused:
        terminalreporter.section("skips that CI does not allow", red=True)
        for nodeid, _ in refused:
            terminalreporter.write_line(nodeid)
        terminalreporter.write_line(f"each fails the run: {Path('.ci') / ALLOWED.name} has no line")
