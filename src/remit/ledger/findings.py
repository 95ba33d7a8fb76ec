"""A report in words: what held, what did not, and what was not proved at all."""

from __future__ import annotations

import textwrap
from typing import Any

from remit.errors import Code
from remit.ledger.verify import Report

SCHEMA = "remit.verification/1"

WIDTH = 100


def held(report: Report) -> list[str]:
    """What was checked and holds; if there is a problem, up to it."""
    found = []
    if report.signed:
        found += [
            f"{_entries(report.signed)}, each in its place and as it was signed",
            f"{_count(report.checkpoints, 'checkpoint')} signed by {report.key}",
        ]
    if report.entries > report.signed:
        newer = _entries(report.entries - report.signed)
        more = " more" if report.signed else ""
        found.append(f"{newer}{more} that match their own hashes, under no checkpoint")
    if report.intents:
        found.append(
            f"{_count(report.intents, 'intent')} and {_count(report.outcomes, 'outcome')} in an "
            "order that the rules allow: the decision for that plan, the approval where there is "
            "one, the intent, at most one outcome"
        )
    if report.unenforced > report.unshown:
        shown = _count(report.unenforced - report.unshown, "run")
        found.append(f"{shown} let go in shadow mode, of plans that say so")
    if report.opened:
        found.append(f"{_count(report.opened, 'value')} that entries commit to, unchanged")
    if report.plans:
        found.append(f"{_count(report.plans, 'plan')} with the text of its hash")
    if report.outside:
        found.append(f"agreement with what was kept elsewhere, over {_entries(report.outside)}")
    return found


def remarks(report: Report) -> list[str]:
    """What holds and still wants attention."""
    found = [
        f"run {run} has an intent (entry {index}) and no outcome yet"
        for run, index in report.open_runs
    ]
    found += [f"run {run} has an unknown outcome" for run in report.unresolved]
    if report.unenforced:
        found.append(
            f"{_count(report.unenforced, 'run')} on which policy was not enforced (shadow mode)"
        )
    if report.live and report.entries > report.signed:
        found.append(
            f"{_entries(report.entries - report.signed)} at the end under no checkpoint yet: a "
            "change to them would not be noticed"
        )
    return found


def not_proved(report: Report) -> list[str]:
    """What this verification cannot show, whatever its result."""
    if report.outside is None:
        cut = (
            "that nothing was cut off the end, and that others were not shown another log: "
            "--checkpoint and --receipt take what was kept elsewhere"
        )
    elif report.outside < report.entries:
        cut = (
            f"that nothing was cut off after entry {report.outside - 1}, the last that what was "
            "kept elsewhere covers"
        )
    else:
        cut = "that nothing was written since: what was kept elsewhere ends where this ends"
    found = [
        cut,
        "that the gateway told the truth when it wrote, and that nobody else had its log key",
        "that the times are right: they are the gateway's clock",
    ]
    if report.unshown:
        found.append(
            f"that the plans of {_count(report.unshown, 'run')} on which policy was not enforced "
            "say so: an export made with --with-plans shows it"
        )
    if report.sealed:
        found.append(f"{_count(report.sealed, 'value')} that only the log's commitments stand for")
    return found


def as_text(report: Report, source: str) -> str:
    """The report for people."""
    problem = report.problem
    lines = [f"{'OK' if problem is None else 'BROKEN'}  {source}", ""]
    if problem is not None:
        lines += ["First problem", f"  {_problem(report)}", f"  [{problem.code}]", ""]
    parts = {
        "What held" if problem is None else "What held before it": held(report),
        "Worth a look": remarks(report),
        "Not proved": not_proved(report),
    }
    for title, found in parts.items():
        if found:
            lines += [title, *(_item(each) for each in found), ""]
    return "\n".join(lines).rstrip()


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    problem = report.problem
    return {
        "schema": SCHEMA,
        "ok": report.ok,
        "key": report.key,
        "entries": report.entries,
        "signed": report.signed,
        "checkpoints": report.checkpoints,
        "outside": report.outside,
        "problem": None
        if problem is None
        else {
            "code": problem.code.value,
            "message": problem.message,
            "index": problem.index,
            "place": problem.place,
        },
        "open_runs": [{"run": run, "intent": index} for run, index in report.open_runs],
        "unresolved_runs": report.unresolved,
        "unenforced_runs": report.unenforced,
        "held": held(report),
        "not_proved": not_proved(report),
    }


def _problem(report: Report) -> str:
    problem = report.problem
    if problem is None:
        return ""
    where = [] if problem.index is None else [f"entry {problem.index}"]
    if problem.place is not None:
        where.append(problem.place)
    cut = problem.code is Code.LOG_TRUNCATED
    prefix = "" if not where else f"{', '.join(where)}{' is missing' if cut else ''}: "
    return prefix + problem.message


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}" + ("" if number == 1 else "s")


def _entries(number: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def _item(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
