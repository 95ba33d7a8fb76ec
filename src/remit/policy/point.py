"""Where policy is asked: the `Policy` port on any engine. Fails closed, and never raises."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from remit import canonical
from remit.canonical import encode
from remit.document import MAX_BYTES, MAX_TOOLS
from remit.errors import Code, InputError, PolicyFault
from remit.model import Decision, Evaluation, Frozen
from remit.policy.bundle import PolicyBundle
from remit.policy.embedded import EmbeddedEngine, Engine
from remit.policy.verdict import denial, judge
from remit.ports import Now

INPUT_DOMAIN = "remit.input/1"
MAX_ANSWER = 1024 * 1024
PROBE_EVERY_S = 5.0

_NO_INPUT = Frozen(b"null")


def _system_now() -> int:
    return time.time_ns() // 1_000_000


class PolicyPoint:
    """Asks an engine for decisions, and turns every way of failing into a denial with its code."""

    def __init__(self, engine: Engine, *, now: Now = _system_now) -> None:
        self._engine = engine
        self._now = now
        self._probed_s = float("-inf")
        self._not_ready: str | None = "no policy is loaded"

    @classmethod
    async def start(
        cls,
        bundle: PolicyBundle,
        *,
        deadline_ms: int = 250,
        workers: int = 1,
        now: Now = _system_now,
    ) -> Self:
        """A point on the embedded engine with this policy in force, probed.

        Args:
            bundle: what `load_bundle` gave.
            deadline_ms: how long a decision may take, time in the queue included.
            workers: how many evaluate at once; one more process stands by.
            now: the clock that dates decisions.

        Raises:
            PolicyFault: the policy does not load, or the engine fails a probe.
        """
        point = cls(EmbeddedEngine(deadline_ms=deadline_ms, workers=workers), now=now)
        try:
            await point.replace(bundle)
        except BaseException:
            await point.aclose()
            raise
        return point

    async def replace(self, bundle: PolicyBundle) -> None:
        """Put another policy in force: new workers, probed, then switched; old ones drained.

        Raises:
            PolicyFault: it does not load or fails a probe; the one before stays in force.
        """
        await self._engine.load(bundle)
        self._not_ready = None
        self._probed_s = time.monotonic()

    async def aclose(self) -> None:
        """End the engine's processes."""
        self._not_ready = "the policy engine is closed"
        self._probed_s = float("inf")
        await self._engine.aclose()

    @property
    def revision(self) -> str:
        return self._engine.revision

    @property
    def engine(self) -> str:
        """The engine and its version."""
        return self._engine.name

    async def ready(self) -> str | None:
        """None if the engine answers its probes, else why not; looks at most every 5 s."""
        at = time.monotonic()
        if at - self._probed_s >= PROBE_EVERY_S:
            self._probed_s = at
            try:
                await self._engine.probe()
            except PolicyFault as fault:
                self._not_ready = fault.message
                self._probed_s = float("-inf")  # look again at once: it may be a moment's trouble
            else:
                self._not_ready = None
        return self._not_ready

    async def decide(self, document: Mapping[str, Any], *, decision_id: str) -> Decision:
        """The decision on one `remit.input/1` document.

        Anything but a well-formed, consistent and enforceable answer is a `Deny` with its code.
        Does not check that constraints narrow the plan, nor the input against its schema: the
        document comes from `remit.document`.
        """
        started = time.perf_counter_ns()
        revision = self._engine.revision
        frozen = _NO_INPUT
        fault: PolicyFault
        try:
            frozen = Frozen(_input(document))
            answer = await self._engine.evaluate("decision", frozen.text)
            revision = answer.revision
            return judge(_answered(answer.text), self._told(decision_id, revision, frozen, started))
        except PolicyFault as raised:
            fault = raised
        except InputError as raised:
            fault = PolicyFault(Code.POLICY_BAD_DECISION, raised.message, place=raised.place)
        except Exception as raised:  # noqa: BLE001 - a fault of ours must deny like any other
            fault = PolicyFault(
                Code.POLICY_ERROR, f"the policy point failed: {type(raised).__name__}"
            )
        return denial(fault, self._told(decision_id, revision, frozen, started))

    async def visible(self, document: Mapping[str, Any], names: Sequence[str]) -> frozenset[str]:
        """Which of these tools this caller may see; none where policy gives no usable answer.

        The document's `tools` are put to the engine 200 at a time; a batch that fails is hidden.
        """
        wanted = frozenset(names)
        tools = document.get("tools", [])
        seen: set[str] = set()
        for start in range(0, len(tools), MAX_TOOLS):
            batch = tools[start : start + MAX_TOOLS]
            seen |= await self._visible_in({**document, "tools": batch})
        return frozenset(seen) & wanted

    async def _visible_in(self, document: Mapping[str, Any]) -> set[str]:
        try:
            answer = await self._engine.evaluate("visible", _input(document))
            names = canonical.parse(answer.text, max_bytes=MAX_ANSWER)
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                return set()
            return {tool["name"] for tool in document["tools"]} & set(names)
        except Exception:  # noqa: BLE001 - whatever went wrong, nothing is shown
            return set()

    def _told(self, decision_id: str, revision: str, frozen: Frozen, started: int) -> Evaluation:
        return Evaluation(
            decision_id=decision_id,
            revision=revision,
            engine=self._engine.name,
            input=frozen,
            input_digest=canonical.digest(INPUT_DOMAIN, frozen.text),
            decided_ms=self._now(),
            duration_us=(time.perf_counter_ns() - started) // 1000,
        )


def _input(document: Mapping[str, Any]) -> bytes:
    """The canonical bytes of an input.

    Raises:
        PolicyFault: `policy_error` if it has none, or is too large to be judged.
    """
    try:
        text = encode(document if type(document) is dict else dict(document))
    except InputError as error:
        raise PolicyFault(Code.POLICY_ERROR, error.message) from None
    if len(text) > MAX_BYTES:
        raise PolicyFault(
            Code.POLICY_ERROR, f"the policy input is larger than {MAX_BYTES // 1024} KiB"
        )
    return text


def _answered(text: bytes) -> Any:
    """What the decision rule gave; an empty object is no decision at all.

    Raises:
        PolicyFault: `policy_undefined`; InputError: it cannot be read in one way only.
    """
    value = canonical.parse(text, max_bytes=MAX_ANSWER)
    if value == {}:
        raise PolicyFault(Code.POLICY_UNDEFINED, "the decision is empty")
    return value
