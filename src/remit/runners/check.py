"""One line of `remit doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, and what was found.

    `status` is `ok`, `warn`, `fail` or `unknown`; `fix` is one command or none.
    """

    name: str
    status: str
    found: str
    fix: str | None = None
