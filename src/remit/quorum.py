"""Whether enough people agreed: every quorum of a rule met, by distinct people.

One person may count for several quorums, and for each only once, however their name is spelt.
Who may vote at all is decided before (the approve stage); here votes are only counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from remit.model import ApprovalRule, Quorum, Verdict, Vote


def met(rule: ApprovalRule, votes: Iterable[Vote]) -> bool:
    """Whether nobody refused, and each quorum has as many people as it needs."""
    cast = list(votes)
    if any(vote.verdict is Verdict.DENY for vote in cast):
        return False
    return all(len(_people(quorum, cast)) >= quorum.required for quorum in rule.quorums)


def missing(rule: ApprovalRule, votes: Sequence[Vote]) -> tuple[Quorum, ...]:
    """What is still needed: each quorum that is not met, with how many people it lacks."""
    lacks = (
        Quorum(required=quorum.required - len(_people(quorum, votes)), groups=quorum.groups)
        for quorum in rule.quorums
    )
    return tuple(quorum for quorum in lacks if quorum.required > 0)


def counts_for(quorum: Quorum, groups: Collection[str]) -> bool:
    """Whether a person of these groups counts for this quorum."""
    return not quorum.groups or bool(set(groups) & set(quorum.groups))


def _people(quorum: Quorum, votes: Iterable[Vote]) -> set[str]:
    return {
        vote.subject.casefold()
        for vote in votes
        if vote.verdict is Verdict.APPROVE and counts_for(quorum, vote.groups)
    }
