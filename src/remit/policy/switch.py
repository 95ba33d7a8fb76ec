"""Changing policy while it answers: each layer follows its source, and a bad policy changes nothing.

A new policy is checked, loaded and probed beside the one in force. Then, in one step of the event
loop, it stands for its layer and its revision is on its way to the ledger, so that whatever is
decided under it is committed after it. What was decided before and comes to commit after is stale,
and is put to policy again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from remit.errors import LedgerFault, PolicyFault, RemitError
from remit.policy.bundle import PolicyBundle
from remit.policy.layers import Layer
from remit.policy.point import PolicyPoint
from remit.policy.source import Source
from remit.telemetry import POLICY_RELOADS, logger

LEAST_S = 0.2
"""Shortest time between two looks at a source, whatever it does."""

RETRY_S = 1.0

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How one layer is made.

    `prepare` gives the policy as it is loaded (with what it uses of the library), checked; it may
    take long and runs in a thread. `make` loads and probes it.
    """

    name: str
    source: Source
    prepare: Callable[[PolicyBundle], PolicyBundle]
    make: Callable[[PolicyBundle], Awaitable[Layer]]

    async def first(self) -> Layer:
        """The layer as its source has it now.

        Raises:
            ConfigError, PolicyFault: why it cannot be in force.
        """
        made = await self.make(await self.prepared(await self.source.load()))
        await self.source.keep()
        return made

    async def prepared(self, bundle: PolicyBundle) -> PolicyBundle:
        return await asyncio.to_thread(self.prepare, bundle)


class Switch:
    """Follows the sources of a point's layers.

    `activate` puts a revision in force in the ledger; it has to queue that before it waits for
    anything. `told` is shown each policy that came into force.
    """

    def __init__(
        self,
        point: PolicyPoint,
        parts: Sequence[Part],
        activate: Callable[[str], Awaitable[None]],
        *,
        told: Callable[[Layer], None] = lambda _: None,
    ) -> None:
        self._point = point
        self._parts = {part.name: part for part in parts}
        self._activate = activate
        self._told = told
        self._looks = {name: asyncio.Event() for name in self._parts}
        self._behind = asyncio.Event()
        self._refused: dict[str, str] = {}
        self._unreached: dict[str, str] = {}
        self._said: set[str] = set()
        point.moved = self.activate

    @property
    def problem(self) -> str | None:
        """Why what a source has now is not in force; None if all is."""
        return "; ".join([*self._refused.values(), *self._unreached.values()]) or None

    @property
    def layers(self) -> Sequence[tuple[str, str]]:
        """The name and the revision of each layer in force."""
        return self._point.standing.named

    def look(self) -> None:
        """Have all sources looked at now, and what is wrong with them said once more."""
        self._said.clear()
        for event in self._looks.values():
            event.set()

    async def run(self) -> None:
        """Follow all sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._catch_up())
            for part in self._parts.values():
                group.create_task(self._follow(part))

    async def activate(self) -> None:
        """Put what stands in force in the ledger; a ledger that cannot is asked again later.

        Until then the ledger takes no intent that was decided under it: nothing runs.
        """
        try:
            await self._activate(self._point.revision)
        except LedgerFault as fault:
            why = fault.message
            log.error("policy_not_activated", revision=self._point.revision, why=why)  # noqa: TRY400 - a trace says nothing
            self._behind.set()

    # ------------------------------------------------------------------------------ one source

    async def _follow(self, part: Part) -> None:
        loop = asyncio.get_running_loop()
        while True:
            next_s = loop.time() + LEAST_S
            try:
                bundle = await self._next(part)
            except PolicyFault as fault:  # it cannot be had now; later it may
                self._refuse(self._unreached, part, fault)
            except Exception as error:  # noqa: BLE001 - whatever it is, the one in force stays
                self._refuse(self._refused, part, error)
            else:
                self._mend(self._unreached, part)
                if bundle is not None:
                    await self._try(part, bundle)
            await asyncio.sleep(next_s - loop.time())

    async def _next(self, part: Part) -> PolicyBundle | None:
        """What the source has that is new; all it has, after a `look`."""
        wanted = self._looks[part.name]
        waits = [asyncio.ensure_future(part.source.changed()), asyncio.ensure_future(wanted.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.is_set():
                return await waits[0]  # type: ignore[return-value] # the list holds both kinds
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        wanted.clear()
        return await part.source.load()

    async def _try(self, part: Part, bundle: PolicyBundle) -> None:
        try:
            await self._take(part, bundle)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one in force stays
            self._refuse(self._refused, part, error)
        else:
            self._mend(self._refused, part)

    async def _take(self, part: Part, bundle: PolicyBundle) -> None:
        prepared = await part.prepared(bundle)
        if self._in_force(part.name, prepared):
            await part.source.keep()
            return
        made = await part.make(prepared)
        # From here to the ledger's queue nothing is awaited: what is decided under the new
        # policy is queued behind its activation.
        self._point.put(made)
        await self.activate()
        POLICY_RELOADS.labels("switched").inc()
        log.info(
            "policy_switched",
            layer=part.name,
            revision=prepared.revision,
            label=prepared.label,
            in_force=self._point.revision,
        )
        self._told(made)
        await part.source.keep()

    def _mend(self, among: dict[str, str], part: Part) -> None:
        told = among.pop(part.name, None)
        if told is None:
            return
        self._said.discard(told)
        if part.name not in self._refused and part.name not in self._unreached:
            log.info("policy_mended", layer=part.name, in_force=self._point.revision)

    def _in_force(self, name: str, bundle: PolicyBundle) -> bool:
        held = {each.name: each.bundle for each in self._point.standing.layers}[name]
        return held is not None and held.revision == bundle.revision

    def _refuse(self, among: dict[str, str], part: Part, error: Exception) -> None:
        """Say, once while it stays the same, why what there is now is not in force."""
        code, why = None, f"it failed: {type(error).__name__}"
        if isinstance(error, RemitError):
            place = f"{error.place}: " if error.place else ""
            code, why = error.code.value, place + error.message
        what = f"the new policy of layer {part.name} is not in force"
        if among is self._unreached:
            what = f"layer {part.name} cannot follow its source"
        told = among[part.name] = f"{what}: {why}"
        if told in self._said:
            return
        self._said.add(told)
        POLICY_RELOADS.labels("refused").inc()
        log.error("policy_refused", layer=part.name, code=code, why=why)

    # -------------------------------------------------------------------------------- the ledger

    async def _catch_up(self) -> None:
        while True:
            await self._behind.wait()
            await asyncio.sleep(RETRY_S)
            self._behind.clear()
            await self.activate()


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel a running switch and wait until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
