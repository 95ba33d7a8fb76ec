"""Where policy is asked: the `Policy` port on layers. Fails closed, and never raises.

A decision takes what stands at its moment, asks all layers of it at once, reads each answer, and
combines them. Every way of failing is a denial with its code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from remit import canonical
from remit.canonical import encode
from remit.document import MAX_BYTES, MAX_TOOLS
from remit.errors import Code, InputError, PolicyFault
from remit.model import Decision, Evaluation, Frozen
from remit.policy.bundle import PolicyBundle
from remit.policy.combine import combine
from remit.policy.embedded import EmbeddedEngine
from remit.policy.engine import Answer
from remit.policy.layers import Layer, Standing, layer, revision_of
from remit.policy.verdict import denial, judge, judge_result
from remit.ports import Now
from remit.telemetry import POLICY_FAULTS, logger

RESULT = "result"
INPUT_DOMAIN = "remit.input/1"
MAX_ANSWER = 1024 * 1024
PROBE_EVERY_S = 5.0

_NO_INPUT = Frozen(b"null")

log = logger()

Moved = Callable[[], Awaitable[None]]
Watch = Callable[[Decision], None]


def _system_now() -> int:
    return time.time_ns() // 1_000_000


async def _nobody() -> None:
    return None


class PolicyPoint:
    """Asks the layers for decisions.

    `moved` is awaited when a server of others answers under a new revision, before the decision
    is given: whoever set it puts that revision in force. `watch` is shown each decision after it
    was made, and must neither raise nor wait.
    """

    def __init__(self, layers: Sequence[Layer] = (), *, now: Now = _system_now) -> None:
        self._standing = Standing(layers)
        self._now = now
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._not_ready: str | None = None
        self._probed_s = float("-inf")
        self._probing: asyncio.Future[None] | None = None
        self._turned = asyncio.Event()
        self._hides: tuple[str, Code] | None = None
        self.moved: Moved = _nobody
        self.watch: Watch | None = None

    @classmethod
    async def start(
        cls,
        bundle: PolicyBundle,
        *,
        deadline_ms: int = 250,
        workers: int = 1,
        now: Now = _system_now,
    ) -> Self:
        """A point with this policy alone, in the embedded engine, probed.

        Args:
            bundle: what `load_bundle` gave.
            deadline_ms: how long a decision may take, time in the queue included.
            workers: how many evaluate at once; one more process stands by.
            now: the clock that dates decisions.

        Raises:
            PolicyFault: the policy does not load, or the engine fails a probe.
        """
        engine = await EmbeddedEngine.start(bundle, deadline_ms=deadline_ms, workers=workers)
        return cls([layer(engine, bundle)], now=now)

    def put(self, new: Layer) -> None:
        """Let another policy stand for the layer of its name, at once and as a whole.

        Decisions that are being made go on with what stood when they began; the engine that is
        replaced ends after them.

        Raises:
            KeyError: there is no layer of that name.
        """
        before = self._standing
        self._standing = before.with_layer(new)
        self._turned.set()
        self._turned = asyncio.Event()
        for each in before.layers:
            if each.name == new.name and each.tenure is not new.tenure:
                task = asyncio.get_running_loop().create_task(each.tenure.end())
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def turned(self) -> None:
        """Wait until another policy is put in force."""
        await self._turned.wait()

    async def aclose(self) -> None:
        """End all engines, once what they were asked is answered or past its deadline."""
        self._closed = True
        await asyncio.gather(*(each.engine.aclose() for each in self._standing.layers))
        await asyncio.gather(*self._ending)

    @property
    def standing(self) -> Standing:
        """What stands now."""
        return self._standing

    @property
    def revision(self) -> str:
        return self._standing.revision

    @property
    def engine(self) -> str:
        """The engine and its version, or all of them."""
        return self._standing.engine

    async def ready(self) -> str | None:
        """None if all engines answer their probes, else why not; looks at most every 5 s."""
        if self._closed or not self._standing.layers:
            return "the policy engine is closed" if self._closed else "no policy is loaded"
        if time.monotonic() - self._probed_s >= PROBE_EVERY_S:
            # One look for all who ask meanwhile, and no word of readiness before it has ended.
            if self._probing is None:
                self._probing = asyncio.ensure_future(self._look())
            await asyncio.shield(self._probing)
        return self._not_ready

    async def _look(self) -> None:
        at = time.monotonic()
        try:
            self._not_ready = await self._probe()
        finally:
            self._probing = None
        # What is not ready is looked at anew at once: it may be a moment's trouble.
        self._probed_s = at if self._not_ready is None else float("-inf")

    async def _probe(self) -> str | None:
        standing = self._standing
        standing.enter()
        try:
            probes = (each.engine.probe() for each in standing.layers)
            found = await asyncio.gather(*probes, return_exceptions=True)
        finally:
            standing.leave()
        for asked, fault in zip(standing.layers, found, strict=True):
            if isinstance(fault, BaseException):
                where = f"{asked.name}: " if len(found) > 1 else ""
                return where + _fault(fault).message
        return None

    # ------------------------------------------------------------------------------- decisions

    async def decide(self, document: Mapping[str, Any], *, decision_id: str) -> Decision:
        """The decision on one `remit.input/1` document.

        Anything but a well-formed, consistent and enforceable answer is a `Deny` with its code.
        Does not check that constraints narrow the plan, nor the input against its schema: the
        document comes from `remit.document`.
        """
        standing = self._standing
        standing.enter()
        try:
            decision = await self._decide(standing, document, decision_id)
        finally:
            standing.leave()
        if self.watch is not None:
            self.watch(decision)
        return decision

    async def _decide(
        self, standing: Standing, document: Mapping[str, Any], decision_id: str
    ) -> Decision:
        started = time.perf_counter_ns()
        frozen, named = _NO_INPUT, standing.named
        rule = RESULT if document.get("phase") == RESULT else "decision"
        asked = standing.asked(rule)
        try:
            frozen = Frozen(_input(document))
            if self._closed:
                raise PolicyFault(Code.POLICY_NOT_READY, "the policy engine is closed")
            answers = await _ask(asked, rule, frozen.text)
            named = await self._named(standing, asked, answers)
        except Exception as raised:  # noqa: BLE001 - a fault of ours must deny like any other
            told = self._told(standing, named, decision_id, frozen, started)
            return denial(_fault(raised), told)
        told = self._told(standing, named, decision_id, frozen, started, answers=answers)
        if len(answers) == 1:
            found = _decisions(asked[0], rule, answers[0], told)
        else:
            pairs = zip(asked, answers, strict=True)
            found = [each for one, answer in pairs for each in _decisions(one, rule, answer, told)]
        return found[0][1] if len(found) == 1 else combine(found, told)

    async def _named(
        self,
        standing: Standing,
        asked: Sequence[Layer],
        answers: Sequence[Answer | PolicyFault],
    ) -> tuple[tuple[str, str], ...]:
        """Name and revision of each layer as it answered; puts in force what a server moved to."""
        moved = [
            (each.name, answer.revision)
            for each, answer in zip(asked, answers, strict=True)
            if isinstance(answer, Answer) and answer.revision != each.revision
        ]
        if not moved:
            return standing.named
        if self._standing is standing:  # nobody saw it before
            for name, revision in moved:
                self._standing = self._standing.with_revision(name, revision)
            await self.moved()
        return tuple({**dict(standing.named), **dict(moved)}.items())

    def _told(
        self,
        standing: Standing,
        named: tuple[tuple[str, str], ...],
        decision_id: str,
        frozen: Frozen,
        started: int,
        *,
        answers: Sequence[Answer | PolicyFault] = (),
    ) -> Evaluation:
        return Evaluation(
            decision_id=decision_id,
            revision=standing.revision if named is standing.named else revision_of(named),
            engine=standing.engine,
            input=frozen,
            input_digest=canonical.digest(INPUT_DOMAIN, frozen.text),
            decided_ms=self._now(),
            duration_us=(time.perf_counter_ns() - started) // 1000,
            layers=named,
            engine_ids=tuple(
                [
                    each.decision_id
                    for each in answers
                    if isinstance(each, Answer) and each.decision_id
                ]
            ),
        )

    # ------------------------------------------------------------------------------ visibility

    async def visible(
        self, document: Mapping[str, Any], names: Sequence[str]
    ) -> frozenset[str] | None:
        """Which of these tools this caller may see; None where policy gives no usable answer.

        A tool is visible where every entry of every layer says so. The document names at most
        `MAX_TOOLS` tools, and is put to each layer once; one that names more gets no answer.
        """
        standing = self._standing
        at = ""
        standing.enter()
        try:
            asked = {tool["name"] for tool in document["tools"]}
            if len(document["tools"]) > MAX_TOOLS:
                return None
            layers = standing.asked("visible")
            answers = await _ask(layers, "visible", _input(document))
            await self._named(standing, layers, answers)
            for each, answer in zip(layers, answers, strict=True):
                at = each.name
                if isinstance(answer, PolicyFault):
                    raise answer
                for value in answer.values:
                    asked &= _shown(value)
        except Exception as raised:  # noqa: BLE001 - whatever went wrong, nothing is shown
            self._hidden(at, _fault(raised))
            return None
        finally:
            standing.leave()
        self._hides = None
        return frozenset(asked) & frozenset(names)

    def _hidden(self, at: str, fault: PolicyFault) -> None:
        """Count that nothing is shown, and say so once while it stays the same.

        Callers see a gateway without tools and are told nothing: operators have to be.
        """
        POLICY_FAULTS.labels(fault.code.value).inc()
        if self._hides != (at, fault.code):
            self._hides = (at, fault.code)
            # Never its words: those of a failing builtin hold values.
            log.error("policy_shows_nothing", layer=at, code=fault.code.value, place=fault.place)

    @property
    def judges_results(self) -> bool:
        """Whether any layer has a rule `result`, or is to be asked as if it had."""
        return bool(self._standing.asked(RESULT))

    @property
    def visible_reads(self) -> frozenset[str] | None:
        """What `visible` reads that changes from call to call; None where a server of others
        holds a layer and the layers that are known read nothing of the kind."""
        return self._standing.reads


async def _ask(layers: Sequence[Layer], rule: str, text: bytes) -> list[Answer | PolicyFault]:
    """What each layer answers, all asked at once; what cannot be had of one is its fault."""
    if len(layers) == 1:
        return [await _asked(layers[0], rule, text)]
    if not layers and rule == RESULT:
        raise PolicyFault(Code.POLICY_UNDEFINED, "no policy in force has a rule `result`")
    if not layers:
        raise PolicyFault(Code.POLICY_NOT_READY, "no policy is in force")
    return await asyncio.gather(*(_asked(each, rule, text) for each in layers))


async def _asked(asked: Layer, rule: str, text: bytes) -> Answer | PolicyFault:
    rules = asked.rules[rule]
    try:
        answer = await asked.engine.evaluate(rules, text)
    except Exception as raised:  # noqa: BLE001 - a fault of ours must deny like any other
        return _fault(raised)
    if len(answer.values) != len(rules):
        return PolicyFault(Code.POLICY_ERROR, "the engine gave another number of answers")
    return answer


def _decisions(
    asked: Layer, rule: str, answer: Answer | PolicyFault, told: Evaluation
) -> list[tuple[str, Decision]]:
    """The decision of each entry of a layer; a layer with a fault denies as a whole."""
    if isinstance(answer, PolicyFault):
        return [(asked.name, denial(answer, told))]
    values = zip(asked.labels[rule], answer.values, strict=True)
    judging = judge_result if rule == RESULT else judge
    return [(label, _judged(value, told, judging)) for label, value in values]


def _judged(
    text: bytes, told: Evaluation, judging: Callable[[Any, Evaluation], Decision]
) -> Decision:
    try:
        value = canonical.parse(text, max_bytes=MAX_ANSWER)
        if value == {}:
            raise PolicyFault(Code.POLICY_UNDEFINED, "the decision is empty")
        return judging(value, told)
    except Exception as raised:  # noqa: BLE001 - a fault of ours must deny like any other
        return denial(_fault(raised), told)


def _fault(raised: BaseException) -> PolicyFault:
    if isinstance(raised, PolicyFault):
        return raised
    if isinstance(raised, InputError):
        return PolicyFault(Code.POLICY_BAD_DECISION, raised.message, place=raised.place)
    return PolicyFault(Code.POLICY_ERROR, f"the policy point failed: {type(raised).__name__}")


def _shown(text: bytes) -> set[str]:
    """The names with true.

    Raises:
        PolicyFault: `policy_bad_decision`: the answer is no object.
    """
    said = canonical.parse(text, max_bytes=MAX_ANSWER)
    if type(said) is not dict:
        raise PolicyFault(Code.POLICY_BAD_DECISION, "`visible` is not an object")
    return {name for name, shown in said.items() if shown is True}


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
