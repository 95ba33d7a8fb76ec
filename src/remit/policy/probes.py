"""Questions whose answers a Rego engine must get right before its decisions count.

Each is a place where an engine has been seen to differ silently from OPA: number order as text,
a lost `not`, an error swallowed into `true`. An engine that answers one otherwise is not ready.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from remit.errors import Code, PolicyFault

UNDEFINED: Final = object()
ERROR: Final = object()


@dataclass(frozen=True, slots=True)
class Probe:
    """Rego that defines the rule `name`, and what that rule must give."""

    name: str
    rego: str
    expected: Any


PROBES: Sequence[Probe] = (
    Probe("smallest", "smallest := min([60, 120])", 60),
    Probe("largest", "largest := max([9, 10])", 10),
    Probe("order", "order := sort([10, 9, 100])", [9, 10, 100]),
    Probe("whole", "whole if { 1 == 1.0 }", True),
    Probe("not_absent_call", 'not_absent_call if { not startswith(data.missing, "a") }', True),
    Probe("not_absent_member", 'not_absent_member if { not "a" in data.missing }', True),
    Probe(
        "not_absent_function",
        "same(x) if { x == x }\nnot_absent_function if { not same(input.absent) }",
        True,
    ),
    Probe(
        "not_absent_network",
        'not_absent_network if { not net.cidr_contains("10.0.0.0/8", input.absent) }',
        True,
    ),
    Probe(
        "not_inside_network",
        'not_inside_network if { not net.cidr_contains("10.0.0.0/8", "10.1.1.1") }',
        UNDEFINED,
    ),
    Probe("inside_network", 'inside_network := net.cidr_contains("10.0.0.0/8", "10.1.1.1")', True),
    Probe("absent_differs", "absent_differs if { input.absent != 1 }", UNDEFINED),
    Probe("absent_in_object", 'absent_in_object := {"a": input.absent}', UNDEFINED),
    Probe("fallback", "default fallback := 1\nfallback := 2 if { input.absent }", 1),
    Probe("pattern", 'pattern := glob.match("deploy-*", [], "deploy-web")', True),
    Probe("whole_pattern", 'whole_pattern := regex.match("^a+$", "aab")', False),
    Probe("conflict", "conflict := 1 if { true }\nconflict := 2 if { true }", ERROR),
    Probe("strict", 'strict if { not to_number("abc") > 3 }', ERROR),
    Probe("no_quotient", "no_quotient if { not 1 / 0 == 1 }", ERROR),
    Probe("unknown", "unknown if { not remit_no_such.builtin(1) }", ERROR),
)

MODULE = "\n".join(
    [
        "package remit_probe",
        "import rego.v1",
        "import future.keywords.not",
        *(probe.rego for probe in PROBES),
        "",
    ]
)

QUERIES = [f"data.remit_probe.{probe.name}" for probe in PROBES]


def check(answer: bytes) -> None:
    """Hold a worker's answers to `QUERIES` against what they must be.

    Raises:
        PolicyFault: `policy_not_ready`, naming the first probe that fails.
    """
    answers = json.loads(answer)
    for probe, (kind, text) in zip(PROBES, answers, strict=True):
        if not _holds(probe, kind, text):
            raise PolicyFault(
                Code.POLICY_NOT_READY,
                f"the policy engine fails the probe `{probe.name}`",
                hint="install the engine version that Remit is pinned to",
            )


def _holds(probe: Probe, kind: str, text: str) -> bool:
    if probe.expected is UNDEFINED:
        return kind == "U"
    if probe.expected is ERROR:
        return kind == "F"
    return kind == "R" and bool(json.loads(text) == probe.expected)
