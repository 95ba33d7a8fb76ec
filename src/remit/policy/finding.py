"""What a check of a policy finds: where, what, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from remit.errors import Code, ConfigError


class Severity(StrEnum):
    """An error keeps a policy from being loaded; a warning never does."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a policy: where, what, how to mend it, and whether it refuses the policy."""

    place: str
    message: str
    mend: str
    severity: Severity = Severity.ERROR

    def error(self, *, of: int = 1) -> ConfigError:
        """The error that a start with this policy ends in; `of` counts all findings."""
        more = f" (and {of - 1} more)" if of > 1 else ""
        return ConfigError(
            Code.POLICY_INVALID, self.message + more, place=self.place, hint=self.mend
        )


_NUMBER = re.compile(r"(\d+)")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, by file and line."""
    return sorted(set(findings), key=lambda each: (_natural(each.place), each.message))


def _natural(place: str) -> list[tuple[bool, int, str]]:
    """A place in pieces that compare as a person would: line 10 after line 9."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part) for part in _NUMBER.split(place)
    ]
