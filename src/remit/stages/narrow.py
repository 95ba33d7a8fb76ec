"""How policy's constraints change a plan: by narrowing it, and in no other way (promise 5).

What runs is what the tool's catalog entry declares, cut down by the constraints. A forced value
may fill an argument that the caller left out, lower a number or shrink a set; another value that
the caller gave is not quietly replaced, the call is refused instead. What the catalog says a run
may reach is given only as far as policy gives it: where policy is silent, a run reaches nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from remit.canonical import encode
from remit.errors import Code, Refused
from remit.model import (
    Bound,
    Constraints,
    CredentialRule,
    EgressRule,
    Frozen,
    Limits,
    ResultKind,
    Tier,
)
from remit.profile import DEFAULT, Profile, gives_no_more
from remit.reach import meet_credentials, meet_egress

TIERS = tuple(Tier)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What policy may narrow of a plan. Constraints that change nothing give equal terms."""

    arguments: Frozen
    limits: Limits
    profile: str = DEFAULT
    egress: tuple[EgressRule, ...] = ()
    credentials: tuple[CredentialRule, ...] = ()


def within(profile: Profile, terms: Terms) -> Terms:
    """The terms in this profile, cut down to what it gives. Twice is the same as once."""
    return replace(
        terms,
        profile=profile.name,
        limits=profile.ceilings.lower(terms.limits),
        egress=(meet_egress(terms.egress, profile.egress) or ()) if terms.egress else (),
    )


def narrow(
    constraints: Constraints,
    terms: Terms,
    *,
    supplied: frozenset[str],
    profiles: Mapping[str, Profile],
    tiers: Mapping[str, Tier],
    result: ResultKind,
    schema: Frozen,
) -> Terms:
    """Apply constraints to what was planned.

    Args:
        terms: as planned: the arguments with defaults filled in, the profile, the limits, and
            what the catalog says may be reached (in the normal form of `remit.reach`).
        supplied: names of the arguments that the caller gave itself.
        profiles, tiers: the operator's profiles, and what was found of each on this machine.
        result: what the command prints.
        schema: the tool's input schema, which says what arguments there are.

    Narrowing twice by the same constraints is narrowing once.

    Raises:
        Refused: `argument_out_of_bounds` if an argument is outside a bound;
            `constraint_widens` if a constraint asks for more than was planned or would replace
            what the caller gave; `policy_bad_decision` if it bounds an argument that the tool
            does not have, for then it bounds nothing; `policy_unsupported` if what the command
            prints can only be withheld; `runner_degraded` if the runner is below the tier asked for.
    """
    forced: Mapping[str, Any] = {}
    frozen = terms.arguments
    if constraints.force or constraints.bounds:
        forced = _force(frozen.value(), supplied, constraints.force)
        _known(constraints.bounds, schema)
    if constraints.force:
        frozen = Frozen(encode(forced))
    for name, bound in constraints.bounds.items():
        _within(name, forced, bound)
    terms = _moved(constraints, terms, profiles)
    _strong_enough(constraints, tiers.get(terms.profile, Tier.NONE))
    _output(constraints, result)
    return Terms(
        arguments=frozen,
        profile=terms.profile,
        limits=_lower(terms.limits, constraints),
        egress=_given(terms.egress, constraints.egress),
        credentials=_lent(terms.credentials, constraints.credentials),
    )


_NO_OPINION = Constraints()


def narrowed_output(given: Constraints, wanted: Constraints) -> Constraints:
    """Constraints whose output is narrowed by others' too: never wider than either of them.

    In whichever order, and twice as once. Nothing of `wanted` but its output is looked at.
    """
    if wanted == _NO_OPINION:
        return given
    types = given.output_content_types
    if types is None:
        types = wanted.output_content_types
    elif wanted.output_content_types is not None:
        types = tuple(each for each in types if each in wanted.output_content_types)
    sizes = (given.output_max_bytes, wanted.output_max_bytes)
    return replace(
        given,
        output_max_bytes=min((each for each in sizes if each is not None), default=None),
        output_redact=tuple(sorted({*given.output_redact, *wanted.output_redact})),
        output_content_types=types,
    )


def _given(
    declared: tuple[EgressRule, ...], wanted: tuple[EgressRule, ...] | None
) -> tuple[EgressRule, ...]:
    return (meet_egress(declared, wanted or ()) or ()) if declared else ()


def _lent(
    declared: tuple[CredentialRule, ...], wanted: tuple[CredentialRule, ...] | None
) -> tuple[CredentialRule, ...]:
    return (meet_credentials(declared, wanted or ()) or ()) if declared else ()


def _force(
    values: Mapping[str, Any], supplied: frozenset[str], force: Mapping[str, Frozen]
) -> dict[str, Any]:
    result = dict(values)
    for name, frozen in force.items():
        wanted = frozen.value()
        if name not in supplied or _shrinks(values[name], wanted):
            result[name] = wanted
        else:
            raise Refused(
                Code.CONSTRAINT_WIDENS,
                "policy asks for another value of an argument than the one given",
                place=f"/{name}",
                hint="leave the argument out, or give the value that policy wants",
            )
    return result


def _shrinks(given: Any, wanted: Any) -> bool:
    """Whether `wanted` is `given`, a smaller number, or a part of the same set."""
    if type(given) is bool or type(wanted) is bool:
        return given is wanted
    if isinstance(given, int | float) and isinstance(wanted, int | float):
        return 0 <= wanted <= given if given >= 0 else wanted == given
    if isinstance(given, list) and isinstance(wanted, list):
        # Canonical bytes tell true from 1, which `in` does not; and nothing may come twice.
        return not Counter(map(encode, wanted)) - Counter(map(encode, given))
    return encode(given) == encode(wanted)


def _within(name: str, values: Mapping[str, Any], bound: Bound) -> None:
    if name not in values:
        return
    value = values[name]
    numeric = bound.minimum is not None or bound.maximum is not None
    if numeric and (type(value) is bool or not isinstance(value, int | float)):
        raise _out_of_bounds(name, "policy bounds this argument as a number")
    if bound.minimum is not None and value < bound.minimum:
        raise _out_of_bounds(name, f"policy allows no less than {bound.minimum:g} here")
    if bound.maximum is not None and value > bound.maximum:
        raise _out_of_bounds(name, f"policy allows no more than {bound.maximum:g} here")
    if bound.one_of is not None and not _member(value, bound.one_of):
        raise _out_of_bounds(name, "policy does not allow this value here")


def _known(bounds: Mapping[str, Bound], schema: Frozen) -> None:
    names = schema.value().get("properties", {})
    for name in bounds:
        if name not in names:
            raise Refused(
                Code.POLICY_BAD_DECISION,
                "policy bounds an argument that this tool does not have",
                place=f"/{name}",
            )


def _member(value: Any, allowed: tuple[Any, ...]) -> bool:
    # Canonical bytes tell true from 1, which `in` does not.
    text = encode(value)
    return any(encode(item) == text for item in allowed)


def _out_of_bounds(name: str, message: str) -> Refused:
    return Refused(Code.ARGUMENT_OUT_OF_BOUNDS, message, place=f"/{name}")


def _lower(limits: Limits, constraints: Constraints) -> Limits:
    def least(planned: int, wanted: int | None) -> int:
        return planned if wanted is None else min(planned, wanted)

    return replace(
        limits,
        wall_s=least(limits.wall_s, constraints.wall_s),
        memory_mb=least(limits.memory_mb, constraints.memory_mb),
        output_bytes=least(limits.output_bytes, constraints.output_max_bytes),
    )


def _moved(constraints: Constraints, terms: Terms, profiles: Mapping[str, Profile]) -> Terms:
    """The terms in the profile that policy names, which must give no more than the planned one."""
    wanted = constraints.profile
    if wanted is None or wanted == terms.profile:
        return terms
    inner, outer = profiles.get(wanted), profiles.get(terms.profile)
    if inner is None or outer is None or not gives_no_more(inner, outer):
        raise Refused(
            Code.CONSTRAINT_WIDENS,
            "policy asks for a runner profile that is not there, or gives more than the tool's",
            hint="`input.plan.runner.profiles` has the profiles that policy may name",
        )
    return within(inner, terms)


def _strong_enough(constraints: Constraints, tier: Tier) -> None:
    wanted = constraints.min_tier
    if wanted is not None and TIERS.index(tier) < TIERS.index(Tier(wanted)):
        raise Refused(
            Code.RUNNER_DEGRADED,
            f"policy asks for a runner of tier {wanted} or stronger",
            hint="`remit doctor` shows what this machine's runner holds",
        )


_MEDIA_TYPE = {ResultKind.TEXT: "text/plain", ResultKind.JSON: "application/json"}


def _output(constraints: Constraints, result: ResultKind) -> None:
    """Nothing is run of whose output it is plain beforehand that it cannot come back."""
    if constraints.output_redact and result is ResultKind.TEXT:
        raise Refused(
            Code.POLICY_UNSUPPORTED,
            "policy redacts members of a result that is text and has none",
            hint="an operator declares `result: json` where the command prints JSON",
        )
    allowed = constraints.output_content_types
    if allowed is not None and (not allowed or _MEDIA_TYPE.get(result, allowed[0]) not in allowed):
        raise Refused(
            Code.POLICY_UNSUPPORTED, "policy lets nothing back of the kind that this tool prints"
        )
