"""A report in words: what held, what did not, and what was not proved at all."""

from __future__ import annotations

from typing import Any

from remit.errors import Code
from remit.ledger.verify import Report

SCHEMA = "remit.verification/1"

RULES = (
    "each intent after a decision for the same plan, and its approval where one is named; "
    "no run with two outcomes; fences growing"
)


def held(report: Report) -> list[str]:
    """What was checked and holds; if there is a problem, up to it."""
    if report.entries == 0:
        return []
    runs = f"{_count(report.intents, 'intent')} and {_count(report.outcomes, 'outcome')}"
    signed = f"the last over {_of(report.signed, report.entries)} entries"
    found = [
        f"{report.entries:,} entries, each in its place and as it was written",
        f"{_count(report.checkpoints, 'checkpoint')} signed by {report.key}"
        + (f", {signed}" if report.checkpoints else ""),
        f"{runs}: {RULES}",
    ]
    if report.opened:
        found.append(f"{_count(report.opened, 'value')} that the log only commits to, unchanged")
    if report.plans:
        found.append(f"{_count(report.plans, 'plan')} with the text of its hash")
    if report.outside:
        found.append(f"agreement with what was kept outside, over {report.outside:,} entries")
    return found


def remarks(report: Report) -> list[str]:
    """What holds and still wants attention."""
    found = [
        f"run {run} has an intent (entry {index}) and no outcome yet"
        for run, index in report.open_runs
    ]
    found += [f"run {run} has an unknown outcome" for run in report.unresolved]
    if report.live and report.entries > report.signed:
        found.append(
            f"{_count(report.entries - report.signed, 'newer entry', 'newer entries')} not under "
            "a checkpoint yet: a change to them would not be noticed"
        )
    return found


def not_proved(report: Report) -> list[str]:
    """What this verification cannot show, whatever its result."""
    if report.outside is None:
        cut = (
            "that nothing was cut off the end, and that others were not shown another log: "
            "give a checkpoint or a receipt that was kept elsewhere"
        )
    elif report.outside < report.entries:
        cut = (
            f"that nothing was cut off after entry {report.outside - 1}, the last that the "
            "checkpoint or receipt from outside covers"
        )
    else:
        cut = "that nothing was written after what the checkpoint or receipt from outside covers"
    found = [
        cut,
        "that the gateway told the truth when it wrote, and that nobody else had its log key",
        "that the times are right: they are the gateway's clock",
    ]
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
            lines += [title, *(f"  - {each}" for each in found), ""]
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


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _of(part: int, whole: int) -> str:
    return f"all {whole:,}" if part == whole else f"{part:,} of {whole:,}"
