"""The worker processes that answer for one policy: who is free, who is late, who died.

One warm spare stands beside the active workers. It takes over the moment a worker is killed or
dies; its own successor is made off the path of any decision. A queue that has stood still for a
fifth of the deadline gets the spare as relief, so that one runaway does not take the others with
it.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from remit.errors import Code, PolicyFault
from remit.policy.process import Reply, WorkerProcess

RELIEF = 0.2
"""The part of the deadline after which a job that still waits gets the spare."""

SLOWEST_RETRY_S = 5.0

OnDeath = Callable[[WorkerProcess, int], None]
Hire = Callable[[OnDeath], Awaitable[WorkerProcess]]

_KILLED = (-signal.SIGKILL, -signal.SIGXCPU)


@dataclass(slots=True, eq=False)
class _Job:
    data: bytes
    reply: asyncio.Future[Reply]
    timer: asyncio.TimerHandle | None = None
    worker: WorkerProcess | None = None


class Crew:
    """Workers that all hold the same policy; `hire` makes one, loaded and probed."""

    def __init__(self, hire: Hire, *, workers: int, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._hire = hire
        self._size = workers
        self._deadline_s = deadline_s
        self._hired: set[WorkerProcess] = set()
        self._active: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._spare: WorkerProcess | None = None
        self._running: dict[WorkerProcess, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._relief: asyncio.TimerHandle | None = None
        self._hiring: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._drained: asyncio.Future[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Hire everybody.

        Raises:
            PolicyFault: why the first of them cannot serve; nobody is left behind then.
        """
        try:
            for _ in range(self._size):
                self._activate(await self._one_more())
            self._spare = await self._one_more()
        except BaseException:
            await self.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """Active workers first, then the spare."""
        spare = [] if self._spare is None else [self._spare]
        return tuple(worker.pid for worker in [*self._active, *spare])

    def submit(self, data: bytes) -> asyncio.Future[Reply]:
        """Queue one frame. The deadline counts from here, time in the queue included.

        The future raises `PolicyFault`: `policy_unavailable` if the answer is late or the worker
        was killed, `policy_error` if the engine crashed over it.
        """
        job = _Job(data, self._loop.create_future())
        if self._closed:
            job.reply.set_exception(_unavailable("the policy engine is closed"))
            return job.reply
        job.timer = self._loop.call_later(self._deadline_s, self._late, job)
        if self._idle:
            self._give(self._idle.pop(), job)
            return job.reply
        self._queue.append(job)
        if self._relief is None:
            self._relief = self._loop.call_later(self._deadline_s * RELIEF, self._relieve)
        return job.reply

    async def drain(self) -> None:
        """Let what is queued finish, then close; takes no longer than the deadline."""
        if self._running or self._queue:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)
        await self.close()

    async def close(self) -> None:
        """Kill everybody, answer everything open with a fault, and wait until all are gone."""
        if self._closed:
            return
        self._closed = True
        if self._relief is not None:
            self._relief.cancel()
        if self._hiring is not None:
            self._hiring.cancel()
            await asyncio.gather(self._hiring, return_exceptions=True)
        for job in [*self._queue, *self._running.values()]:
            self._fail(job, _unavailable("the policy engine was closed"))
        self._queue.clear()
        for worker in self._hired:  # those struck from service but not yet gone, too
            self._dismiss(worker)
        await asyncio.gather(*self._leaving)

    # Giving work, and taking it back

    def _give(self, worker: WorkerProcess, job: _Job) -> None:
        job.worker = worker
        self._running[worker] = job
        worker.ask(job.data, partial(self._replied, worker, job))

    def _replied(self, worker: WorkerProcess, job: _Job, reply: Reply | None) -> None:
        if reply is None:
            return  # it died: `_died` follows, and knows why
        self._running.pop(worker, None)
        if job.timer is not None:
            job.timer.cancel()
        if not job.reply.done():
            job.reply.set_result(reply)
        if reply.kind == b"P":  # it ends itself: after a panic nothing in it can be trusted
            self._lose(worker)
        elif worker in self._active:
            self._free(worker)

    def _free(self, worker: WorkerProcess) -> None:
        """Give it the next job that is still wanted, else a place to rest."""
        while self._queue:
            job = self._queue.popleft()
            if not job.reply.done():
                self._give(worker, job)
                return
        if len(self._active) > self._size:  # it came as relief
            self._active.discard(worker)
            if self._spare is None:
                self._spare = worker
            else:
                self._dismiss(worker)
        else:
            self._idle.append(worker)
        self._say_if_drained()

    def _late(self, job: _Job) -> None:
        self._fail(job, _unavailable("policy did not answer within the deadline"))
        worker = job.worker
        if worker is not None and self._running.get(worker) is job:
            worker.kill()
            self._lose(worker)

    def _fail(self, job: _Job, fault: PolicyFault) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if not job.reply.done():
            job.reply.set_exception(fault)

    # Who serves

    def _activate(self, worker: WorkerProcess) -> None:
        self._active.add(worker)
        self._free(worker)

    def _died(self, worker: WorkerProcess, exit_code: int) -> None:
        job = self._running.get(worker)
        if job is not None:
            if exit_code in _KILLED:
                self._fail(job, _unavailable("the policy worker was killed"))
            else:
                self._fail(job, PolicyFault(Code.POLICY_ERROR, "the policy engine crashed"))
        self._lose(worker)
        self._hired.discard(worker)

    def _lose(self, worker: WorkerProcess) -> None:
        """Strike a worker that will not answer again, and let the spare step in."""
        self._running.pop(worker, None)
        known = worker in self._active or worker is self._spare
        self._active.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if worker is self._spare:
            self._spare = None
        if not known or self._closed:
            return
        if len(self._active) < self._size:
            self._promote()
        self._hire_more()
        self._say_if_drained()

    def _say_if_drained(self) -> None:
        drained = self._drained
        if drained is not None and not drained.done() and not (self._running or self._queue):
            drained.set_result(None)

    def _promote(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            self._activate(spare)

    def _relieve(self) -> None:
        self._relief = None
        if any(not job.reply.done() for job in self._queue):
            self._promote()
            self._hire_more()
        if self._queue:
            self._relief = self._loop.call_later(self._deadline_s * RELIEF, self._relieve)

    def _dismiss(self, worker: WorkerProcess) -> None:
        task = self._loop.create_task(worker.wait_gone())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # Hiring

    def _hire_more(self) -> None:
        if not self._closed and (self._hiring is None or self._hiring.done()):
            self._hiring = self._loop.create_task(self._fill())

    async def _one_more(self) -> WorkerProcess:
        worker = await self._hire(self._died)
        self._hired.add(worker)
        return worker

    async def _fill(self) -> None:
        """Hire until everybody and the spare are there; slower while it keeps failing."""
        pause = 0.05
        while len(self._active) < self._size or self._spare is None:
            try:
                worker = await self._one_more()
            except PolicyFault:
                await asyncio.sleep(pause)
                pause = min(pause * 2, SLOWEST_RETRY_S)
                continue
            if not worker.alive:
                self._dismiss(worker)
            elif len(self._active) < self._size:
                self._activate(worker)
            elif self._spare is None:
                self._spare = worker
            else:
                self._dismiss(worker)


def _unavailable(message: str) -> PolicyFault:
    return PolicyFault(
        Code.POLICY_UNAVAILABLE, message, hint="try again; a policy that is often late is too slow"
    )
