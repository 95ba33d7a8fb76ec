"""The processes of MCP servers that are kept, each for calls of one kind alone.

A session is told apart by all of a call's plan that decides what its process is and may do, and in
`per_caller` by who calls. One that lied, died, hung, or is too old is not used again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from remit.errors import Code, RunnerFault
from remit.model import Destruction, Frozen, Method, RunSpec, SessionMode
from remit.ports import Clock, KeepingRunner
from remit.telemetry import logger
from remit.upstreams.session import Session, reaches
from remit.upstreams.stdio import Means

MOST = 16
"""Most sessions of one gateway at a time, unless it is said; one that nobody uses makes room for
another."""

_HARMLESS = frozenset({Code.UPSTREAM_ERROR})
"""What a call may end with and leave the process as good as before. Not that a tool is another than
was planned with: the process may be older than what was accepted since, and would say so for ever."""

_NONE: Mapping[str, int] = {}

log = logger()


def session_key(spec: RunSpec) -> RunSpec:
    """All of a call's spec that decides which process it may be made of.

    Left out are the tool, its definition and arguments, what its caller can be asked and answers,
    the run's fence, and for a shared session who calls. Whatever a spec gains later tells sessions apart until it is left out here.
    """
    call = spec.upstream
    assert call is not None
    caller = "" if call.session is SessionMode.SHARED else call.caller
    none = Frozen(b"{}")
    server = replace(
        call,
        tool="",
        definition="",
        arguments=none,
        caller=caller,
        capabilities=none,
        round=None,
        method=Method.TOOLS_CALL,
    )
    return replace(spec, fence_key="", upstream=server)


def refusal(spec: RunSpec, *, by_turns: bool) -> RunnerFault | None:
    """Why a call cannot be made in a session, if it cannot.

    Args:
        by_turns: whether processes can be kept whose way out is one call's at a time.
    """
    call = spec.upstream
    assert call is not None
    if reaches(spec) and not by_turns:
        return RunnerFault(
            Code.RUNNER_LACKS,
            "a call that reaches a network or has credentials is not made in a session here",
            hint="write session: per_call for this server",
        )
    if spec.credentials and call.session is SessionMode.SHARED:
        return RunnerFault(
            Code.RUNNER_LACKS,
            "a call with credentials is not made of a process that other callers use",
            hint="write session: per_caller or per_call for this server",
        )
    if spec.files or spec.collect or spec.stdin:
        return RunnerFault(Code.RUNNER_LACKS, "a call with files is not made in a session")
    return None


class Sessions:
    """The sessions of one gateway.

    Args:
        means: what processes are made with.
        clock: names and times as records have them.
        gateway: the gateway's name.
        keeper: makes environments whose way out is one call's at a time; None: there are none.
        now: seconds that never go back, by which sessions grow old.
        most: how many there are at a time, those aside that are about to end.
        most_of: how many of them are of one server, by its name; of any other as many as fit.
    """

    def __init__(
        self,
        means: Means,
        clock: Clock,
        gateway: str,
        *,
        keeper: KeepingRunner | None = None,
        now: Callable[[], float] = time.monotonic,
        most: int = MOST,
        most_of: Mapping[str, int] = _NONE,
    ) -> None:
        self._means = means
        self._clock = clock
        self._gateway = gateway
        self._keeper = keeper
        self._now = now
        self._most, self._most_of = most, most_of
        self._kept: OrderedDict[RunSpec, Session] = OrderedDict()
        self._retired: set[Session] = set()
        self._ending: dict[Session, asyncio.Task[None]] = {}
        self._evidence: list[Destruction] = []
        self._closed = False

    @property
    def by_turns(self) -> bool:
        """Whether calls that reach out can be made in a session."""
        return self._keeper is not None

    @property
    def ids(self) -> frozenset[str]:
        """The leases of all processes that are there, those that are about to end too."""
        return frozenset(each.id for each in (*self._kept.values(), *self._retired))

    def take(self, spec: RunSpec) -> Session:
        """The session for this call, which may only be opening; the call has its place in it.

        Raises:
            RunnerFault: there is no room: every session is in use.
        """
        self.look()
        key = session_key(spec)
        if (session := self._kept.get(key)) is None:
            self._make_room(key)
            session = Session(
                self._means, self._clock, self._gateway, key, keeper=self._keeper, now=self._now
            )
            self._kept[key] = session
        self._kept.move_to_end(key)
        session.enter()
        return session

    def heard(self, session: Session, code: Code | None) -> None:
        """A call of the session ended with this code instead of a result, or with a result."""
        if session in self._retired or code is None or code in _HARMLESS:
            return
        if code is Code.CANCELLED and not session.by_turns:
            return  # what the server still does of it reaches nothing that the next call has
        self._retire(session, f"a call of it ended with {code.value}")

    def give_back(self, session: Session) -> None:
        """A call of the session is over and has nothing of it any more."""
        session.leave()
        if session in self._retired:
            self._end_unused(session)

    def look(self) -> None:
        """Let go of every session that may not be used any more."""
        for session in list(self._kept.values()):
            if (why := session.unfit()) is not None:
                self._retire(session, why)

    def ended(self) -> Sequence[Destruction]:
        """The evidence of sessions that ended since it was last asked for."""
        told, self._evidence = self._evidence, []
        return told

    async def drain(self, why: str) -> None:
        """End every session once its calls are over; none of them is used again."""
        for session in list(self._kept.values()):
            self._retire(session, why)

    async def aclose(self) -> None:
        """End every session, whatever is under way, and let no more begin. Idempotent."""
        self._closed = True
        await self.drain("the gateway ends")
        for session in self._retired:
            self._end(session)
        if self._ending:
            await asyncio.wait(list(self._ending.values()))

    def _make_room(self, key: RunSpec) -> None:
        if self._closed:
            raise _no_room("no process of a server is kept any more")
        server = _server_of(key)
        own = [session for each, session in self._kept.items() if _server_of(each) == server]
        if len(own) >= self._most_of.get(server, self._most):
            self._free(own, "every process of this server that may be kept is in use")
        elif len(self._kept) >= self._most:
            self._free(self._kept.values(), "every process of a server that may be kept is in use")

    def _free(self, sessions: Iterable[Session], else_: str) -> None:
        """End one that nobody uses; the one that was used longest ago comes first."""
        for session in sessions:
            if not session.in_use:
                self._retire(session, "another session needed its place")
                return
        raise _no_room(else_)

    def _retire(self, session: Session, why: str) -> None:
        for key in [key for key, each in self._kept.items() if each is session]:
            del self._kept[key]
        session.ended = why
        self._retired.add(session)
        self._end_unused(session)

    def _end_unused(self, session: Session) -> None:
        if not session.in_use:
            self._end(session)

    def _end(self, session: Session) -> None:
        if session not in self._ending:
            self._ending[session] = asyncio.ensure_future(self._through(session))

    async def _through(self, session: Session) -> None:
        try:
            evidence = await session.end()
            self._evidence.append(evidence)
        except Exception as fault:  # a sweep finds what is left, for it is nobody's any more
            log.critical("session_not_ended", session=session.id, exc_info=fault)
        finally:
            self._retired.discard(session)
            del self._ending[session]


def _server_of(key: RunSpec) -> str:
    assert key.upstream is not None
    return key.upstream.server


def _no_room(message: str) -> RunnerFault:
    return RunnerFault(Code.RUNNER_UNAVAILABLE, message, hint="try again later")
