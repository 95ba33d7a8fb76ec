"""Trying policy out: a sample of decisions is put to another engine or a candidate, after the answer.

Nothing of it reaches a caller or the log. What it says is counted, and a mismatch is logged with
digests of both decisions; the decision's own entry has the input to look into it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from remit.canonical import digest_of
from remit.errors import Code, RemitError
from remit.model import Allow, Decision, Deny, Evaluation, Frozen
from remit.policy.layers import MAIN, Layer
from remit.policy.point import PolicyPoint
from remit.telemetry import POLICY_SHADOW, logger

WAITING = 64
"""Most decisions that wait to be compared; what comes then is dropped."""

LONGEST_S = 10.0

log = logger()


class Shadow:
    """A policy on trial beside the one in force.

    Args:
        point: the layers on trial.
        remake: makes a layer of the trial from a layer that came into force; None where it stays
            as it is (the candidate).
        stands_for: the revision in force that each layer on trial has to be compared with; a
            decision under any other is not compared.
        sample: which part of decisions, from 0 to 1.
        chance: a number from 0 to below 1, for tests.
    """

    def __init__(
        self,
        point: PolicyPoint,
        *,
        remake: Callable[[Layer], Awaitable[Layer | None]],
        stands_for: Mapping[str, str],
        sample: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._point = point
        self._remake = remake
        self._stands_for = dict(stands_for)
        self._sample = sample
        self._chance = chance
        self._waiting: asyncio.Queue[Decision] = asyncio.Queue(WAITING)
        self._changed: asyncio.Queue[Layer] = asyncio.Queue()

    def watch(self, decision: Decision) -> None:
        """Take a decision in, perhaps; neither waits nor raises."""
        if self._chance() >= self._sample:
            return
        try:
            self._waiting.put_nowait(decision)
        except asyncio.QueueFull:
            POLICY_SHADOW.labels("dropped").inc()

    def told(self, layer: Layer) -> None:
        """Another policy came into force; its decisions are compared once the trial has it too."""
        self._changed.put_nowait(layer)

    async def run(self) -> None:
        """Compare until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._compare_all())

    async def aclose(self) -> None:
        await self._point.aclose()

    async def _follow(self) -> None:
        while True:
            layer = await self._changed.get()
            try:
                made = await self._remake(layer)
                if made is not None:
                    self._point.put(made)
                    self._stands_for[layer.name] = layer.revision
            except Exception as error:  # noqa: BLE001 - a trial that fails fails nobody
                POLICY_SHADOW.labels("fault").inc()
                why = error.message if isinstance(error, RemitError) else type(error).__name__
                log.error("policy_trial_refused", layer=layer.name, why=why)  # noqa: TRY400 - as above

    async def _compare_all(self) -> None:
        while True:
            decision = await self._waiting.get()
            try:
                POLICY_SHADOW.labels(await self._compare(decision)).inc()
            except Exception as error:  # noqa: BLE001 - a trial that fails fails nobody
                POLICY_SHADOW.labels("fault").inc()
                log.error("policy_trial_failed", error=type(error).__name__)  # noqa: TRY400 - as above

    async def _compare(self, decision: Decision) -> str:
        told = decision.evaluation
        document = told.input.value()
        if not isinstance(document, dict) or not self._comparable(told):
            return "dropped"
        async with asyncio.timeout(LONGEST_S):
            other = await self._point.decide(document, decision_id=told.decision_id)
        digests = canonical_digest(decision), canonical_digest(other)
        if digests[0] == digests[1]:
            return "match"
        fault = isinstance(other, Deny) and other.code is not Code.POLICY_DENIED
        log.warning(
            "policy_mismatch",
            decision=told.decision_id,
            revision=told.revision,
            trial=other.evaluation.revision,
            engine=other.evaluation.engine,
            verdict=_verdict(decision),
            trial_verdict=_verdict(other),
            digest=digests[0],
            trial_digest=digests[1],
            code=other.code.value if isinstance(other, Deny) else None,
        )
        return "fault" if fault else "mismatch"

    def _comparable(self, told: Evaluation) -> bool:
        """Whether the trial stands for just the policies that this was decided under."""
        under = dict(told.layers)
        return all(under.get(name) == at for name, at in self._stands_for.items())


def candidate_for(layers: Mapping[str, str]) -> dict[str, str]:
    """What a candidate for the main layer has to be compared with: the others as they stand."""
    return {name: revision for name, revision in layers.items() if name != MAIN}


def canonical_digest(decision: Decision) -> str:
    """A digest over all that a decision says, without when and by what it was made."""
    said = {
        each.name: _plain(getattr(decision, each.name))
        for each in fields(decision)
        if each.name != "evaluation"
    }
    return digest_of("remit.shadow/1", {"verdict": _verdict(decision), **said})


def _plain(value: Any) -> Any:
    if isinstance(value, Frozen):
        return value.value()
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def _verdict(decision: Decision) -> str:
    if isinstance(decision, Deny):
        return "deny"
    return "allow" if isinstance(decision, Allow) else "require_approval"
