"""Which tools a caller may see: policy's rule `visible`, asked about tools and caller alone.

A call asks about its one tool, so that it costs the same whatever the catalog holds. A list is
made in batches, one making for all who ask the same at the same time. Answers are kept for a
short while where the rule gives the same for the same; what policy failed to answer is hidden and
never kept. A tool that is hidden is looked for, refused and answered like one that does not exist.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from remit.canonical import encode
from remit.document import MAX_BYTES, MAX_TOOLS, list_document, tool_facts
from remit.errors import Code, Refused
from remit.model import Caller, Method, Tool
from remit.ports import Catalog, Clock, Policy
from remit.stages.views import MAX_ANSWERS, Answers, Asker, Lists, identity_class
from remit.telemetry import VISIBLE_ASKED

BATCH_BYTES = MAX_BYTES // 2
"""Most bytes of tool facts in one question, well below what a document may have."""

State = tuple[str, int, Sequence[Tool]]
"""What every kept answer depends on: policy revision, freeze epoch, catalog."""


class Visibility:
    """Policy's answers about what may be seen.

    Args:
        ttl_s: how long an answer may be used again; 0: never.
        batches: how many batches of lists may be with policy at once.
    """

    def __init__(
        self,
        catalog: Catalog,
        policy: Policy,
        clock: Clock,
        *,
        ttl_s: int = 10,
        batches: int = 1,
    ) -> None:
        self._catalog = catalog
        self._policy = policy
        self._clock = clock
        self._ttl_ms = 1_000 * ttl_s
        self._batches = batches
        self._places = asyncio.Semaphore(batches)
        self._epoch = 0
        self._watching: dict[object, Callable[[], None]] = {}
        self._forget(self._state())

    @property
    def epoch(self) -> int:
        """Another number after each freeze and each end of one."""
        return self._epoch

    def freeze_changed(self) -> None:
        """A freeze or its end: no answer from before it is used after it."""
        self._epoch += 1
        self.changed()

    def changed(self) -> None:
        """Policy, the catalog or a freeze is another than before: tell those who watch.

        What is kept needs no telling: it holds for the state of things that it was given under.
        """
        for tell in list(self._watching.values()):
            tell()

    def on_change(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have `tell` called after each change; gives what ends that.

        A rule `visible` that reads the time changes what is seen without this being called.
        """
        key = object()
        self._watching[key] = tell

        def end() -> None:
            self._watching.pop(key, None)

        return end

    async def find(
        self,
        caller: Caller,
        name: str,
        source_ip: str | None = None,
        method: Method = Method.TOOLS_CALL,
    ) -> Tool:
        """The tool of that name; policy is asked about that one only.

        Args:
            method: by which it is asked for; what is asked for by another is not there.

        Raises:
            Refused: `unknown_tool`, whether it does not exist or is hidden from this caller.
        """
        tool = self._catalog.tool(name)
        if tool is not None and tool.method is not method:
            tool = None
        if not await self._shows(caller, name, tool, source_ip) or tool is None:
            raise Refused(
                Code.UNKNOWN_TOOL,
                f"Unknown tool: {name[:128]}",
                detail="not in the catalog" if tool is None else "hidden from this caller",
            )
        return tool

    async def tools(
        self,
        caller: Caller,
        *,
        after: str = "",
        enough: int | None = None,
        source_ip: str | None = None,
    ) -> Sequence[Tool]:
        """The tools this caller may see, sorted by name; where answers are kept all of them, the
        same sequence as long as it holds.

        Args:
            after, enough: where nothing is kept, only tools whose name comes after this one, and
                not many more than so many of them.
            source_ip: where the caller asks from; policy is shown it unless its rule is known
                not to look. What a caller claims, and did before, it is not shown here.
        """
        ttl_ms, seen_from = self._current(source_ip)
        if not ttl_ms:
            return await self._make(caller, seen_from, after, enough)
        who = identity_class(caller), seen_from
        known = self._lists.get(who, self._clock.now_ms(), ttl_ms)
        if known is not None:
            return known
        makings = self._makings
        making = makings.get(who)
        if making is None:
            # A task of its own: a caller that goes away takes nothing from the others who wait.
            making = asyncio.ensure_future(self._make_and_keep(caller, seen_from))
            makings[who] = making
            making.add_done_callback(lambda _: makings.pop(who, None))
        return await asyncio.shield(making)

    async def others(self, caller: Caller, source_ip: str | None = None) -> Sequence[Tool]:
        """What this caller may ask for by other methods than `tools/call`, sorted by name.

        Policy is asked each time; what it gives no usable answer about is hidden.
        """
        _, seen_from = self._current(source_ip)
        shown: list[Tool] = []
        for batch in _batches(self._catalog.others(), 0):
            async with self._places:
                seen = await self._ask(caller, batch, seen_from)
            shown += [tool for tool in batch if tool.shadow or tool.name in (seen or ())]
        return shown

    async def aclose(self) -> None:
        """End the makings that are under way."""
        for making in (under_way := list(self._makings.values())):
            making.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    # ---------------------------------------------------------------------------------- one tool

    async def _shows(
        self, caller: Caller, name: str, tool: Tool | None, source_ip: str | None
    ) -> bool:
        if tool is not None and tool.shadow:
            return True
        ttl_ms, seen_from = self._current(source_ip)
        key = (identity_class(caller), seen_from, name, "" if tool is None else tool.digest)
        now = self._clock.now_ms()
        known = self._answers.get(key, now, ttl_ms)
        if known is not None:
            return known
        # A name that is not there takes the same way as one that is hidden: policy is asked about
        # some other tool, and the answer thrown away.
        stands_in = tool or next(iter(self._catalog.tools()), None)
        if stands_in is None:
            return False
        state = self._state()
        seen = await self._ask(caller, [stands_in], seen_from)
        shows = seen is not None and tool is not None and tool.name in seen
        if ttl_ms and seen is not None and _same(self._state(), state):
            self._answers.put(key, shows, now)
        return shows

    # -------------------------------------------------------------------------------- whole lists

    async def _make_and_keep(self, caller: Caller, source_ip: str) -> Sequence[Tool]:
        state = self._state()
        made = await self._make(caller, source_ip)
        if isinstance(made, Partial) or not _same(self._state(), state):
            return made
        return self._lists.put((identity_class(caller), source_ip), made, self._clock.now_ms())

    async def _make(
        self, caller: Caller, source_ip: str, after: str = "", enough: int | None = None
    ) -> list[Tool]:
        """The list, asked in batches; a batch without a usable answer hides its tools."""
        tools = self._catalog.tools()
        start = bisect_right(tools, after, key=lambda tool: tool.name) if after else 0
        todo = enumerate(_batches(tools, start))
        shown: dict[int, list[Tool]] = {}
        partial = False

        async def work() -> None:
            nonlocal partial
            for number, batch in todo:
                async with self._places:
                    seen = await self._ask(caller, batch, source_ip)
                partial = partial or seen is None
                shown[number] = [tool for tool in batch if tool.shadow or tool.name in (seen or ())]
                if enough is not None and sum(map(len, shown.values())) >= enough:
                    return

        await asyncio.gather(*(work() for _ in range(self._batches)))
        made = [tool for number in sorted(shown) for tool in shown[number]]
        return Partial(made) if partial else made

    async def _ask(
        self, caller: Caller, tools: Sequence[Tool], source_ip: str
    ) -> frozenset[str] | None:
        VISIBLE_ASKED.inc()
        document = list_document(
            caller=caller,
            tools=tools,
            now_ms=self._clock.now_ms(),
            source_ip=source_ip,
        )
        return await self._policy.visible(document, [tool.name for tool in tools])

    # ------------------------------------------------------------------------------ what is kept

    def _state(self) -> State:
        return (self._policy.revision, self._epoch, self._catalog.tools())

    def _steady(self) -> bool:
        """Whether policy is known to look at nothing but the caller and the tools."""
        return self._policy.visible_reads == frozenset()

    def _current(self, source_ip: str | None) -> tuple[int, str]:
        """How long answers hold now, in ms, and the address they hold for ("": for any).

        Forgets those that were given under another state of things.
        """
        state = self._state()
        if not _same(state, self._kept_for):
            self._forget(state)
        ttl_ms = 0 if self._policy.visible_reads else self._ttl_ms
        return ttl_ms, "" if self._steady() else source_ip or ""

    def _forget(self, state: State) -> None:
        self._kept_for = state
        self._answers: Answers[tuple[Caller, str, str, str], bool] = Answers(MAX_ANSWERS)
        self._lists = Lists()
        self._makings: dict[Asker, asyncio.Future[Sequence[Tool]]] = {}


class Partial(list[Tool]):
    """A list from which tools may be missing because policy gave no usable answer about them."""


def _same(one: State, other: State) -> bool:
    return one[:2] == other[:2] and one[2] is other[2]


def _batches(tools: Sequence[Tool], start: int) -> Iterator[Sequence[Tool]]:
    """The tools from there on, at most 200 and so many bytes of facts at a time."""
    batch: list[Tool] = []
    size = 0
    for tool in islice(tools, start, None):
        more = len(encode(tool_facts(tool)))
        if batch and (len(batch) == MAX_TOOLS or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(tool)
        size += more
    if batch:
        yield batch
