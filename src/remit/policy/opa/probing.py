"""The probes, put to an OPA server over its REST API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from remit import canonical
from remit.errors import Code, InputError, PolicyFault
from remit.policy import decision, probes
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.opa.answer import RuleAnswer
from remit.policy.opa.connection import MAX_ANSWER

PACKAGE = "remit_probe"
COMPILE_TIME = frozenset({"unknown"})
"""Probes that OPA refuses when it compiles: in a module of their own, which `opa check` refuses."""

ASKED = [probe for probe in probes.PROBES if probe.name not in COMPILE_TIME]

_HEAD = [f"package {PACKAGE}", "import rego.v1", "import future.keywords.not"]
_NO_INPUT = b'{"input":{}}'

Ask = Callable[[str, bytes], Awaitable[RuleAnswer]]


def module() -> str:
    """The probes that a server can be asked."""
    return "\n".join([*_HEAD, *(probe.rego for probe in ASKED), ""])


def refused_modules() -> Mapping[str, str]:
    """Modules that OPA must refuse to compile, by the name of their probe."""
    return {
        probe.name: "\n".join([*_HEAD, probe.rego, ""])
        for probe in probes.PROBES
        if probe.name in COMPILE_TIME
    }


def bundle() -> PolicyBundle:
    """The bundle that holds `module`, also for a server of one's own."""
    return bundle_of({"probe.rego": module()}, {})


async def probe_own(ask: Ask) -> Mapping[str, str]:
    """Put every probe; the bundles that answered.

    Raises:
        PolicyFault: `policy_not_ready`, naming the probe that fails; or what `ask` raises.
    """
    told = await asyncio.gather(*(_outcome(ask, probe) for probe in ASKED), return_exceptions=True)
    answers: list[tuple[str, str]] = []
    bundles: Mapping[str, str] = {}
    for each in told:
        if isinstance(each, BaseException):
            raise each
        kind, text, seen = each
        answers.append((kind, text))
        bundles = seen or bundles
    # What a compiler refuses cannot be asked: it counts as the error that it is there.
    by_name = dict(zip((probe.name for probe in ASKED), answers, strict=True))
    probes.check(
        json.dumps([by_name.get(probe.name, ("F", "")) for probe in probes.PROBES]).encode()
    )
    return bundles


async def probe_foreign(
    ask: Ask, asked: Mapping[str, tuple[str, str]]
) -> tuple[bool, Mapping[str, str]]:
    """Put every probe if the server has them, after asking each package that decisions need.

    Gives whether the probes are there, and the bundles that answered first.

    Args:
        asked: by package, the paths of its rules `decision` and `visible`.

    Raises:
        PolicyFault: a probe fails, a package may not be asked, or its decision on an empty input
            is none or no denial; or what `ask` raises.
    """
    found = [await _package(ask, name, *paths) for name, paths in asked.items()]
    if await _installed(ask):
        await probe_own(ask)
        return True, found[0]
    return False, found[0]


async def _package(ask: Ask, name: str, decide: str, visible: str) -> Mapping[str, str]:
    try:
        answer = await ask(decide, _NO_INPUT)
        if answer.value is None:
            raise PolicyFault(
                Code.POLICY_NOT_READY,
                "the OPA server's policy gives no decision on an empty input",
                hint="give the rule `decision` a default that denies, and see policy.package",
            )
        _refuse_but_denial(answer.value)
        await _may_be_asked(ask, visible)
    except PolicyFault as fault:
        raise PolicyFault(
            fault.code, f"{fault.message} (asked for {name})", place=fault.place, hint=fault.hint
        ) from None
    return answer.bundles


async def _may_be_asked(ask: Ask, visible: str) -> None:
    """See that the server lets us ask; what the rule makes of an empty input is its own affair."""
    try:
        await ask(visible, _NO_INPUT)
    except PolicyFault as fault:
        if fault.code is not Code.POLICY_ERROR:
            raise


async def _installed(ask: Ask) -> bool:
    """Whether it has the probes. A server whose `system.authz` does not let us ask has not."""
    try:
        return (await ask(_path(ASKED[0].name), _NO_INPUT)).value is not None
    except PolicyFault as fault:
        if fault.code is Code.POLICY_NOT_READY:
            return False
        raise


def _refuse_but_denial(value: bytes) -> None:
    try:
        read = decision.read(canonical.parse(value, max_bytes=MAX_ANSWER))
    except (InputError, PolicyFault) as error:
        raise PolicyFault(
            Code.POLICY_NOT_READY,
            "the OPA server's decision on an empty input is not a remit.decision/1 document",
            place=error.place,
        ) from None
    if read.decision != decision.DENY:
        raise PolicyFault(
            Code.POLICY_NOT_READY,
            "the OPA server's policy permits an empty input",
            hint="grant what is named; a default must deny",
        )


async def _outcome(ask: Ask, probe: probes.Probe) -> tuple[str, str, Mapping[str, str]]:
    try:
        answer = await ask(_path(probe.name), _NO_INPUT)
    except PolicyFault as fault:
        if fault.code is Code.POLICY_ERROR:
            return "F", "", {}
        raise
    if answer.value is None:
        return "U", "", answer.bundles
    return "R", answer.value.decode(), answer.bundles


def _path(name: str) -> str:
    return f"/v1/data/{PACKAGE}/{name}?strict-builtin-errors=true&provenance=true"
