"""An OPA server as the engine that evaluates policy (OPA's REST API, Data API with input)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from remit.breaker import Breaker, Gate
from remit.errors import Code, PolicyFault
from remit.policy.engine import Answer
from remit.policy.opa.address import Address, address_of
from remit.policy.opa.answer import RuleAnswer, read, refuse_status, revision_of
from remit.policy.opa.probing import probe_foreign, probe_own
from remit.policy.opa.transport import Transport
from remit.telemetry import logger

HEALTH = "/health?bundles&plugins"
HEALTH_S = 2.0
PROBE_S = 5.0
ASKED = "?strict-builtin-errors=true&provenance=true"

_RULE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*(\.[a-zA-Z_][a-zA-Z0-9_]*){1,16}")


log = logger()


class OpaEngine:
    """Asks one server, and believes only an answer that is whole, of a known version and revision.

    Args:
        address: the server.
        deadline_ms: total time of an evaluation: waiting, connecting, TLS and a retry included.
        packages: where the rules lie that decisions need; readiness asks each of them.
        pin_revision: the only revision whose answers count.
        own: the bundles of a server that Remit runs, by name: exactly these must answer. The
            policy's own comes first.
        clock: seconds, for the circuit breaker.
    """

    def __init__(
        self,
        address: Address,
        *,
        deadline_ms: int = 250,
        packages: Sequence[str] = ("remit",),
        pin_revision: str | None = None,
        own: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = Transport(address)
        self._deadline_s = deadline_ms / 1000
        self._packages = packages
        self._pin = pin_revision
        self._own = own
        self._breaker = Breaker(clock)
        self._trial: asyncio.Event | None = None
        self._name = "opa"
        self._revision = "none" if own is None else next(iter(own.values()))
        self._probed: bool | None = None
        self._busy = 0
        self._closed = False
        self._drained = asyncio.Event()

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        deadline_ms: int = 250,
        token: str | None = None,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        pin_revision: str | None = None,
        packages: Sequence[str] = ("remit",),
        socket_uids: Sequence[int] = (),
    ) -> Self:
        """An engine for a server that others run; asks it nothing yet: `probe` does.

        Raises:
            ConfigError: `config_invalid`: the URL, the token or a file cannot be used.
        """
        address = await asyncio.to_thread(
            address_of,
            url,
            token=token,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            socket_uids=socket_uids,
        )
        return cls(address, deadline_ms=deadline_ms, packages=packages, pin_revision=pin_revision)

    @property
    def name(self) -> str:
        return self._name

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def probes_installed(self) -> bool | None:
        """Whether the probes were asked, or only health and a decision; None before `probe`."""
        return self._probed

    async def evaluate(self, rules: Sequence[str], document: bytes) -> Answer:
        if self._closed:
            raise PolicyFault(Code.POLICY_NOT_READY, "the policy engine is closed")
        paths = [_path(rule) for rule in rules]
        body = b'{"input":' + document + b"}"
        self._busy += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._admitted()
                return await self._counted(paths, body)
        except TimeoutError:
            self._breaker.failed()
            raise _unavailable("OPA did not answer within the deadline") from None
        finally:
            self._busy -= 1
            if not self._busy:
                self._drained.set()

    async def probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                await self._healthy()
                probed = await self._probe()
        except TimeoutError:
            raise _unavailable("OPA did not answer the probes in time") from None
        if not probed and self._probed is not False:
            log.warning("opa_without_probes", hint="give it the bundle remit_probe: docs/opa.md")
        self._probed = probed

    async def healthy(self) -> None:
        """See that it says of itself that it and all its bundles are ready.

        Raises:
            PolicyFault: `policy_unavailable` or `policy_not_ready`.
        """
        try:
            async with asyncio.timeout(HEALTH_S):
                await self._healthy()
        except TimeoutError:
            raise _unavailable("OPA did not say in time that it is healthy") from None

    async def aclose(self) -> None:
        self._closed = True
        while self._busy:
            self._drained.clear()
            await self._drained.wait()
        self._transport.close()

    # One evaluation

    async def _admitted(self) -> None:
        """Go on if the breaker lets us; where it wants a trial, that is a look at its health."""
        gate = self._breaker.admit()
        while gate is Gate.REFUSED and self._trial is not None:
            await self._trial.wait()  # what one caller's slow questions opened, no other pays for
            gate = self._breaker.admit()
        if gate is Gate.REFUSED:
            raise _unavailable("OPA failed several times; it is not asked for a moment")
        if gate is Gate.TRIAL:
            await self._tried()

    async def _tried(self) -> None:
        trial = self._trial = asyncio.Event()
        well: bool | None = None
        try:
            well = await self._alive()
        finally:
            self._breaker.tried(well)
            self._trial = None
            trial.set()
        if not well:
            raise _unavailable("OPA failed several times, and does not answer yet")

    async def _alive(self) -> bool:
        try:
            async with asyncio.timeout(self._deadline_s / 2):
                await self._transport.request("GET", HEALTH)
        except TimeoutError:
            return False
        except PolicyFault:
            return False
        return True

    async def _counted(self, paths: Sequence[str], body: bytes) -> Answer:
        try:
            answers = await self._ask_all(paths, body)
        except PolicyFault as fault:
            if fault.code is Code.POLICY_UNAVAILABLE:
                self._breaker.failed()
            else:
                self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        if _mixed(answers):
            answers = await self._ask_all(paths, body)
            if _mixed(answers):
                raise _unavailable("the policy changed while it was asked")
        return self._answer(answers)

    async def _ask_all(self, paths: Sequence[str], body: bytes) -> Sequence[RuleAnswer]:
        if len(paths) == 1:
            return [await self.ask(paths[0], body)]
        told = await asyncio.gather(
            *(self.ask(path, body) for path in paths), return_exceptions=True
        )
        answers = []
        for each in told:
            if isinstance(each, BaseException):
                raise each
            answers.append(each)
        return answers

    async def ask(self, path: str, body: bytes) -> RuleAnswer:
        """The answer to one rule at a fixed path; nothing about its value is judged."""
        answer = read(await self._transport.request("POST", path, body))
        self._name = f"opa {answer.version}"
        return answer

    def _answer(self, answers: Sequence[RuleAnswer]) -> Answer:
        first = answers[0]
        revision = self._accepted(first.bundles)
        values = []
        for each in answers:
            if each.value is None:
                raise PolicyFault(Code.POLICY_UNDEFINED, "the rule has no value for this input")
            values.append(each.value)
        ids = [each.decision_id for each in answers if each.decision_id is not None]
        return Answer(tuple(values), revision, ",".join(ids) or None)

    def _accepted(self, bundles: Mapping[str, str]) -> str:
        """The revision that this answer is of.

        Raises:
            PolicyFault: `policy_not_ready`: it is not the one that must answer.
        """
        if self._own is not None:
            if bundles != self._own:
                raise PolicyFault(
                    Code.POLICY_NOT_READY, "OPA answered from another policy than it was given"
                )
            return self._revision
        revision = revision_of(bundles)
        if self._pin is not None and revision != self._pin:
            raise PolicyFault(
                Code.POLICY_NOT_READY,
                "the OPA server answers from another revision than policy.opa.pin_revision",
                hint="load the pinned bundle, or pin the revision that is meant",
            )
        self._revision = revision
        return revision

    # Readiness

    async def _healthy(self) -> None:
        answer = await self._transport.request("GET", HEALTH)
        if answer.status == 500:
            raise PolicyFault(
                Code.POLICY_NOT_READY,
                "the OPA server says that its bundles or plugins are not ready",
                hint="GET /health?bundles&plugins, and OPA's own log, say which",
            )
        if answer.status != 200:
            refuse_status(answer)

    async def _probe(self) -> bool:
        if self._own is not None:
            self._accepted(await probe_own(self.ask))
            return True
        asked = {
            each: (_path(f"{each}.decision"), _path(f"{each}.visible")) for each in self._packages
        }
        installed, bundles = await probe_foreign(self.ask, asked)
        self._accepted(bundles)
        return installed


def _path(rule: str) -> str:
    """The path of a rule, which comes from configuration: never of what a caller sent.

    Raises:
        PolicyFault: `policy_error`: it is no plain rule.
    """
    if not _RULE.fullmatch(rule):
        raise PolicyFault(Code.POLICY_ERROR, "the rule to ask has no plain name")
    return f"/v1/data/{rule.replace('.', '/')}{ASKED}"


def _mixed(answers: Sequence[RuleAnswer]) -> bool:
    return any(each.bundles != answers[0].bundles for each in answers[1:])


def _unavailable(message: str) -> PolicyFault:
    return PolicyFault(Code.POLICY_UNAVAILABLE, message, hint="look at the OPA server and its log")
