"""What a subject did before: touches, folded to a bounded number, and what policy is told of them.

Pure values and functions. `remit.stages.history` keeps them, the ledger counts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

from remit.model import Effect, Intent, Taint, Touch

MAX_TOUCHES = 1_000
"""The most touches that are kept of one subject."""

MAX_NAMES = 64
"""The most systems that policy is told by name in one list."""

FOLDED = "*"
"""Stands for systems that are not named, because there were too many."""

_STRENGTH = tuple(Effect)
"""Effects, the weakest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """What some of a subject's runs touched: lists sorted, without repeats, at most `MAX_NAMES`.

    Where there are more systems, the first of them by name are given, and `*` for the others.
    `untrusted_from` and `sensitive_from` are the systems that such results came from.
    """

    calls: int = 0
    systems: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    untrusted_from: tuple[str, ...] = ()
    sensitive_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the gateway knows that a subject did since some time.

    `all` is everything, whatever its sessions; `session` the part with the session id that the
    client claims now. The client's word can only split: it takes nothing from `all`.
    """

    since_ms: int | None = None
    all: Trail = field(default_factory=Trail)
    session: Trail = field(default_factory=Trail)


NO_HISTORY = History()


def touch_of(intent: Intent) -> Touch:
    """The touch of one intent."""
    return Touch(
        session=intent.claims.session_id or "",
        system=intent.system,
        effect=intent.effect,
        untrusted=Taint.UNTRUSTED in intent.taints,
        sensitive=Taint.SENSITIVE in intent.taints,
        calls=1,
        last_ms=intent.now_ms,
    )


def folded(newest_first: Iterable[Touch]) -> list[Touch]:
    """At most `MAX_TOUCHES`: the newest as they are, the others as one that forgets no flag."""
    touches = iter(newest_first)
    kept = list(islice(touches, MAX_TOUCHES))
    rest = next(touches, None)
    if rest is None:
        return kept
    last = replace(kept.pop(), session="", system=FOLDED)
    for each in (rest, *touches):
        last = _both(last, each)
    return [*kept, last]


def _both(one: Touch, other: Touch) -> Touch:
    return replace(
        one,
        effect=max(one.effect, other.effect, key=_STRENGTH.index),
        untrusted=one.untrusted or other.untrusted,
        sensitive=one.sensitive or other.sensitive,
        calls=one.calls + other.calls,
        last_ms=max(one.last_ms, other.last_ms),
    )


def trail_of(touches: Iterable[Touch]) -> Trail:
    """What these touches come to."""
    every = list(touches)
    return Trail(
        calls=sum(touch.calls for touch in every),
        systems=_names(touch.system for touch in every),
        effects=_effects(every),
        untrusted_from=_names(touch.system for touch in every if touch.untrusted),
        sensitive_from=_names(touch.system for touch in every if touch.sensitive),
    )


def _effects(touches: Iterable[Touch]) -> tuple[str, ...]:
    """The effects; a folded touch tells only its strongest, so the weaker ones are taken too."""
    found: set[Effect] = set()
    for touch in touches:
        if touch.system == FOLDED:
            found.update(_STRENGTH[: _STRENGTH.index(touch.effect) + 1])
        else:
            found.add(touch.effect)
    return tuple(sorted(effect.value for effect in found))


def _names(systems: Iterable[str]) -> tuple[str, ...]:
    names = sorted(set(systems))
    if len(names) <= MAX_NAMES:
        return tuple(names)
    return tuple(sorted({FOLDED, *[name for name in names if name != FOLDED][: MAX_NAMES - 1]}))
