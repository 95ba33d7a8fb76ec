"""The names under which tools of several servers are offered, and what makes two of them alike.

Only ASCII can be in a name, so what can look alike is upper and lower case, and `-`, `_` and `.`.
Digits that resemble letters (0 and O, 1 and l) are not looked at.
"""

from __future__ import annotations

from typing import NewType

_ALIKE = str.maketrans("-.", "__")

Skeleton = NewType("Skeleton", str)
"""A name without case and kind of separator: the same for names that look alike."""


def offered_name(prefix: str, tool: str) -> str:
    """`tool` behind its server's prefix; that the result is no longer than a name may
    be is not checked."""
    return f"{prefix}_{tool}" if prefix else tool


def skeleton(name: str) -> Skeleton:
    """What is left of a name when case and kind of separator are not looked at."""
    return Skeleton(name.lower().translate(_ALIKE))
