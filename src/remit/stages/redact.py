"""What policy takes out of a result before anything of it is stored, shown or answered.

Policy names members of a structured result by JSON Pointer (RFC 6901); `*` as a segment stands for
every member of an object or item of a list. Nothing else is looked at: the same value elsewhere in
the result stays. Text has no members, so a result that is text cannot be redacted; it is withheld.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from remit.model import RunResult

REDACTED = "[redacted]"
"""What stands where a value was."""

POLICY_REDACTS = "redacted"
"""Among a result's limits: policy redacts, so only what is left of the structure is kept."""

UNSCRUBBED = "unscrubbed"
"""Among a result's limits: its output could not be searched for secrets, and is not kept."""

EVERY = "*"

_MISSING = object()


def replaced(value: Any, pointers: Sequence[str]) -> Any:
    """A copy in which each member that a pointer names is `[redacted]`."""
    return _changed(value, pointers, lambda _: REDACTED)


def removed(value: Any, pointers: Sequence[str]) -> Any:
    """A copy without the members that the pointers name."""
    return _changed(value, pointers, lambda _: _MISSING)


def withheld(result: RunResult) -> RunResult:
    """The result without a byte of what was printed or written."""
    return replace(result, stdout=b"", stderr=b"", files={})


def _changed(value: Any, pointers: Sequence[str], to: Callable[[Any], Any]) -> Any:
    """All pointers name members of the value as it came, whatever the others take out of it."""
    return _apply(value, [pointer.split("/")[1:] for pointer in pointers], to)


def _apply(value: Any, paths: list[list[str]], to: Callable[[Any], Any]) -> Any:
    if not paths:
        return value
    if any(not path for path in paths):
        return to(value)
    match value:
        case dict():
            members = {name: _apply(item, _below(paths, name), to) for name, item in value.items()}
            return {name: item for name, item in members.items() if item is not _MISSING}
        case list():
            items = [_apply(item, _below(paths, str(n)), to) for n, item in enumerate(value)]
            return [item for item in items if item is not _MISSING]
        case _:
            return value


def _below(paths: list[list[str]], name: str) -> list[list[str]]:
    """What is left of the paths that go through the member of this name."""
    return [path[1:] for path in paths if path[0] == EVERY or _unescaped(path[0]) == name]


def _unescaped(segment: str) -> str:
    return segment.replace("~1", "/").replace("~0", "~")
