"""The results of a policy's tests as text, JSON and JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from remit.cli.output import SCHEMA_VERSION
from remit.visible import visible

if TYPE_CHECKING:
    from remit.policy.coverage import FileCoverage
    from remit.policy.finding import Finding
    from remit.policy.suite import Run, TestResult
    from remit.policy.why import Body

Why = Mapping[str, "Sequence[Body]"]
"""For each failed test, by its full name, what failed in its bodies."""


def as_text(
    run: Run, findings: Sequence[Finding], why: Why, coverage: Sequence[FileCoverage]
) -> str:
    """What a person reads: what is refused, what failed and why, coverage, and the count."""
    lines: list[str] = []
    for finding in findings:
        lines += [f"{visible(finding.place)}: {visible(finding.message)}", f"  {finding.mend}"]
    for each in run.failed:
        lines.append(f"{visible(each.place)}: {each.rule} {visible(each.problem or '')}")
        lines += [f"  {line}" for line in _reasons(why.get(each.rule, ()))]
        lines += [f"  print {visible(line)}" for line in each.prints]
    lines += list(_coverage(coverage))
    skipped = f", {len(run.skipped)} skipped" if run.skipped else ""
    lines.append(f"{len(run.passed)} passed, {len(run.failed) + len(findings)} failed{skipped}")
    return "\n".join(lines)


def _reasons(bodies: Sequence[Body]) -> Iterator[str]:
    for body in bodies:
        yield from body_lines(body)


def body_lines(body: Body) -> Iterator[str]:
    """Why one body does not hold, in a line or two; nothing if it does."""
    if body.holds:
        return
    if body.condition is None:
        yield visible(f"{body.failed_at or body.place}: {body.unknown}")
        return
    doubt = f" ({body.unknown})" if body.unknown else ""
    yield visible(f"{body.failed_at}: does not hold: {body.condition}{doubt}")
    names = ("left", "right") if len(body.sides) == 2 else ("value",)
    for name, values in zip(names, body.sides, strict=False):
        yield visible(f"  {name}: {' or '.join(values) if values else 'undefined'}"[:400])


def _coverage(coverage: Sequence[FileCoverage]) -> Iterator[str]:
    from remit.policy.coverage import percent_of, ranges

    for each in coverage:
        missed = f", not reached: {ranges(each.missed)}" if each.missed else ""
        yield f"{visible(each.name)}: {each.percent} % of lines{missed}"
    if coverage:
        yield f"coverage: {percent_of(coverage)} %"


def as_json(
    run: Run,
    findings: Sequence[Finding],
    why: Why,
    coverage: Sequence[FileCoverage],
    revision: str,
) -> str:
    """The same for programs."""
    from remit.policy.coverage import percent_of

    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "revision": revision,
        "passed": len(run.passed),
        "skipped": [each.rule for each in run.skipped],
        "failed": [_failed(each, why) for each in run.failed],
        "findings": [
            {"place": each.place, "problem": each.message, "mend": each.mend} for each in findings
        ],
    }
    if coverage:
        document["coverage"] = {
            "percent": percent_of(coverage),
            "files": [
                {"name": each.name, "percent": each.percent, "not_covered": list(each.missed)}
                for each in coverage
            ],
        }
    return json.dumps(document, indent=2)


def _failed(each: TestResult, why: Why) -> dict[str, Any]:
    return {
        "rule": each.rule,
        "place": each.place,
        "problem": each.problem,
        "conditions": [body_facts(body) for body in why.get(each.rule, ()) if not body.holds],
        "prints": list(each.prints),
    }


def body_facts(body: Body) -> dict[str, Any]:
    """One body for programs; values are JSON."""
    return {
        "place": body.place,
        "holds": body.holds,
        "failed_at": body.failed_at,
        "condition": body.condition,
        "values": [[json.loads(value) for value in values] for values in body.sides],
        "unknown": body.unknown,
    }


def as_junit(run: Run, findings: Sequence[Finding], why: Why) -> str:
    """JUnit XML as CI servers read it: one suite, a case for each test and each finding."""
    failed = len(run.failed) + len(findings)
    count = len(run.results) + len(findings)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(
        f'<testsuite name="remit policy" tests="{count}" failures="{failed}" '
        f'skipped="{len(run.skipped)}">'
    )
    for finding in findings:
        about = f"{finding.message}; {finding.mend}"
        lines.append(_case("profile", finding.place, finding.place, failure=about))
    for each in run.results:
        package, _, name = each.rule.rpartition(".")
        about = "\n".join([each.problem or "", *_reasons(why.get(each.rule, ())), *each.prints])
        lines.append(
            _case(package, name, each.place, failure=about if each.failed else None,
                  skipped=each.skipped)
        )  # fmt: skip
    return "\n".join([*lines, "</testsuite>"])


def _case(
    package: str, name: str, place: str, *, failure: str | None, skipped: bool = False
) -> str:
    file, _, line = place.partition(":")
    head = f"  <testcase classname={_quoted(package)} name={_quoted(name)} file={_quoted(file)}"
    if line:
        head += f" line={_quoted(line.partition(':')[0])}"
    if failure is not None:
        return f"{head}><failure message={_quoted(failure)}/></testcase>"
    return f"{head}><skipped/></testcase>" if skipped else f"{head}/>"


def _quoted(text: str) -> str:
    """An attribute; what XML cannot hold is written out."""
    return quoteattr(visible(text, keep="\n"), {"\n": "&#10;"})
