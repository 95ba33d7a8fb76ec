"""The gateway's end of the keeper: the `Credentials` and `Consents` ports, and the log's `Signer`.

    keeper = await KeeperClient.open(settings)      # before secrets and threads
    proxy = await EgressProxy.open(..., keeper.proxy_socket)
    keeper.on_restart = proxy.connect_keeper
    ledger = SqliteLedger.open(path, signer=keeper.signer, ...)
    await keeper.ledger(path, ledger)               # from here on it lends
    ...
    await ledger.aclose()                           # signs a last time
    await keeper.aclose()

A keeper that dies is replaced at once; the new one ends all that the old one had lent, so runs under
way lose their credentials, and what they print is withheld.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remit.errors import Code, ConfigError, RemitError, RunnerFault
from remit.model import HandedFile, Lease, Lent, Loan
from remit.ports import Ledger, Signer
from remit.runners.credentials.consents import KeeperConsents
from remit.runners.credentials.process import KeeperProcess, KeeperSettings
from remit.runners.credentials.signer import KeeperSigner
from remit.runners.wire import close_all, read_file, receive, sealed_file, send
from remit.telemetry import logger

__all__ = ["KeeperClient", "KeeperSettings"]

ANSWER_S = 35.0

log = logger()


class KeeperClient(KeeperConsents):
    """One keeper process at a time."""

    def __init__(self, settings: KeeperSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._reviving = threading.Lock()
        self._numbers = itertools.count(1_000_000)
        self._answers: dict[int, _Waiting] = {}
        self._ledger_path: Path | None = None
        self._ledger: Ledger | None = None
        self._lent: set[str] = set()
        self._looks: set[str] = set()
        self._closed = False
        self._gone = False
        self._tasks: set[asyncio.Future[None]] = set()
        self.on_restart: Callable[[], Awaitable[None]] | None = None
        self._keeper, ready = KeeperProcess.start(settings)
        self._attached = self._keeper
        self._digests, self._consented = ready.digests, ready.consented
        self._signer = KeeperSigner(ready.verifier_key, self._revive_signing)
        self._signer.connect(self._keeper.signing, ready.signed)
        self._attach(self._keeper)

    @classmethod
    async def open(cls, settings: KeeperSettings) -> KeeperClient:
        """Start a keeper: before this process holds secrets or threads.

        Raises:
            ConfigError: a reference leads nowhere, a key cannot be used, a template is wrong.
        """
        return cls(settings, asyncio.get_running_loop())

    @property
    def signer(self) -> Signer:
        """Signs checkpoints in the keeper; blocking, for any thread."""
        return self._signer

    @property
    def pid(self) -> int:
        """The process of the keeper that was started last."""
        return self._keeper.pid

    async def proxy_socket(self) -> socket.socket:
        """The egress proxy's end of a new socket to the keeper; an earlier one is dropped.

        Raises:
            RunnerFault: there is no keeper.
        """
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with ours:
                await self._ask({"op": "proxy"}, [ours.fileno()])
        except BaseException:
            theirs.close()
            raise
        return theirs

    async def ledger(self, path: Path, ledger: Ledger) -> None:
        """Tell the keeper where the ledger is (absolute), once it is open: from here on it lends.

        Args:
            ledger: asked for a checkpoint before something is lent: only what is under one counts.

        Raises:
            RunnerFault: it cannot read it.
        """
        await self._ask({"op": "ledger", "path": str(path)})
        self._ledger_path, self._ledger = path, ledger

    # -------------------------------------------------------------------------- the port

    def digest(self, ref: str) -> str | None:
        return self._digests.get(ref)

    async def lend(self, lease: Lease) -> Lent:
        if self._ledger is None:
            raise _fault("the keeper has no ledger yet")
        try:
            await self._ledger.checkpoint()
        except RemitError:
            raise _fault("the run's intent could not be put under a checkpoint") from None
        self._lent.add(lease.id)
        return await self._borrow({"op": "lend", "run": lease.id, "fence": lease.fence})

    async def look(self, lease: Lease, ref: str) -> Lent:
        """Lend a credential to look at a server, which is no run; `take_back` ends it.

        Raises:
            RunnerFault: `credential_unavailable`; the operator did not write that it may be.
        """
        self._lent.add(lease.id)
        self._looks.add(lease.id)
        return await self._borrow({"op": "look", "run": lease.id, "ref": ref})

    async def _borrow(self, message: dict[str, Any]) -> Lent:
        answer, fds = await self._ask(message, keep=True)
        names = answer["files"]
        if len(names) != len(fds):
            close_all(fds)
            raise _fault("the keeper's answer is not whole")
        files = tuple(HandedFile(name=str(n), fd=fd) for n, fd in zip(names, fds, strict=True))
        return Lent(loans=_loans(answer), files=files)

    async def take_back(self, lease: Lease) -> Sequence[Loan]:
        if lease.id not in self._lent:
            return ()
        answer, _ = await self._ask({"op": "return", "run": lease.id})
        self._looks.discard(lease.id)
        return _loans(answer)

    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]:
        """See `Credentials.scrub`.

        Raises:
            RunnerFault: `credential_unavailable`; nobody knows what to look for, so the data must
                not be kept.
        """
        if lease.id not in self._lent:
            return data, 0
        body = sealed_file("output", data)
        try:
            answer, fds = await self._ask({"op": "scrub", "run": lease.id}, [body], keep=True)
        finally:
            os.close(body)
        try:
            if len(fds) != 1:
                raise _fault("the keeper's answer is not whole")
            return read_file(fds[0], len(data) + 1), int(answer["found"])
        finally:
            close_all(fds)

    async def sweep(self, live: frozenset[str]) -> Sequence[Loan]:
        answer, _ = await self._ask({"op": "sweep", "live": sorted(live)})
        self._lent &= live | self._looks
        return _loans(answer)

    async def keys(self) -> Mapping[str, Any]:
        answer, _ = await self._ask({"op": "keys"})
        found: Mapping[str, Any] = answer["jwks"]
        return found

    async def aclose(self) -> None:
        """End the keeper, which first ends every loan; after the ledger was closed."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._signer.close()
        self._lose(self._keeper)
        await asyncio.to_thread(self._keeper.wait)

    # ----------------------------------------------------------------------- the process

    async def _ask(
        self, message: dict[str, Any], fds: Sequence[int] = (), *, keep: bool = False
    ) -> tuple[dict[str, Any], list[int]]:
        """One question and its answer, with its descriptors where `keep` says so.

        Raises:
            RunnerFault: `credential_unavailable`: the answer is a no, or there is none.
        """
        if self._gone and not self._closed:
            # Of the one that is known to be gone: another may stand already, not heard of yet.
            await self._replace(self._attached)
        if self._gone:
            raise _fault("the keeper is not there")
        number = next(self._numbers)
        waiting = _Waiting(self._keeper, self._loop.create_future())
        self._answers[number] = waiting
        try:
            async with asyncio.timeout(ANSWER_S):
                await _send(waiting.keeper, {**message, "n": number}, fds)
                answer, handed = await waiting.answer
        except TimeoutError:
            waiting.drop()
            raise _fault("the keeper did not answer in time") from None
        except OSError:
            raise _fault("the keeper ended") from None
        except asyncio.CancelledError:
            waiting.drop()
            raise
        finally:
            del self._answers[number]
        if not keep or "fault" in answer:
            close_all(handed)
        if "fault" in answer:
            raise _fault(str(answer["fault"]), answer.get("code"), answer.get("hint"))
        return answer, handed

    def _attach(self, keeper: KeeperProcess) -> None:
        self._gone, self._attached = False, keeper
        keeper.control.setblocking(False)
        self._loop.add_reader(keeper.control.fileno(), self._on_readable, keeper)

    def _on_readable(self, keeper: KeeperProcess) -> None:
        try:
            received = receive(keeper.control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._lose(keeper)
            if not self._closed:
                log.error("keeper_lost")
                self._spawn(self._replace(keeper))
            return
        message, fds = received
        waiting = self._answers.get(int(message.get("n") or 0))
        if waiting is None or waiting.answer.done():
            close_all(fds)
        else:
            waiting.answer.set_result((message, fds))

    def _lose(self, keeper: KeeperProcess) -> None:
        if keeper.control.fileno() >= 0:
            self._loop.remove_reader(keeper.control.fileno())
            keeper.control.close()
        if keeper is self._keeper:
            self._gone = True
        for waiting in self._answers.values():
            if waiting.keeper is keeper and not waiting.answer.done():
                waiting.answer.set_exception(ConnectionResetError())

    async def _replace(self, gone: KeeperProcess) -> None:
        try:
            await asyncio.to_thread(self._revive, gone)
        except RemitError as fault:  # the next question tries again
            log.exception("keeper_not_replaced", code=fault.code.value)

    def _revive_signing(self, failed: socket.socket | None) -> None:
        """Start another keeper for a signer whose socket failed, unless there is one already."""
        keeper = self._keeper
        if failed is None or keeper.signing is failed:
            self._revive(keeper)

    def _revive(self, gone: KeeperProcess) -> None:
        """Start another keeper in place of this one, once; blocking, for any thread.

        Raises:
            ConfigError: it does not start.
        """
        with self._reviving:
            if self._closed or self._keeper is not gone:
                return
            gone.end()
            keeper, ready = KeeperProcess.start(self._settings)
            try:
                if ready.verifier_key != self._signer.verifier_key:
                    raise ConfigError(Code.SECRET_UNAVAILABLE, "the log's key is another one now")
                if self._ledger_path is not None:
                    keeper.ask({"op": "ledger", "path": str(self._ledger_path)})
            except BaseException:
                keeper.kill()
                raise
            self._signer.connect(keeper.signing, ready.signed)
            self._keeper, self._digests = keeper, ready.digests
            self._consented = ready.consented
            self._loop.call_soon_threadsafe(self._succeed, gone, keeper)

    def _succeed(self, gone: KeeperProcess, keeper: KeeperProcess) -> None:
        """Talk to the new one; whoever waits for an answer of the old one is told."""
        self._lose(gone)
        if self._closed:
            keeper.leave()
            return
        self._attach(keeper)
        log.warning("keeper_replaced")
        if self.on_restart is not None:
            self._spawn(self._tell_restart(self.on_restart))

    async def _tell_restart(self, told: Callable[[], Awaitable[None]]) -> None:
        try:
            await told()
        except Exception:  # without it nothing is injected, which is safe
            log.exception("keeper_not_joined_to_proxy")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Somebody waits for an answer of this keeper."""

    keeper: KeeperProcess
    answer: asyncio.Future[tuple[dict[str, Any], list[int]]]

    def drop(self) -> None:
        """Close what came at the moment at which nobody waited any more: it may be a secret."""
        if self.answer.done() and not self.answer.cancelled() and not self.answer.exception():
            close_all(self.answer.result()[1])


async def _send(keeper: KeeperProcess, message: dict[str, Any], fds: Sequence[int]) -> None:
    while True:
        try:
            send(keeper.control, message, fds)
        except BlockingIOError:
            await asyncio.sleep(0.001)  # its queue is full for a moment
        else:
            return


def _loans(answer: Mapping[str, Any]) -> tuple[Loan, ...]:
    """The loans of an answer; those of a sweep say of which run they are."""
    loans = tuple(Loan(**each) for each in answer["loans"])
    runs = answer.get("runs")
    if runs is None:
        return loans
    return tuple(
        replace(loan, note="; ".join([f"of run {run}", *([loan.note] if loan.note else [])]))
        for run, loan in zip(runs, loans, strict=True)
    )


def _fault(message: str, code: str | None = None, hint: str | None = None) -> RunnerFault:
    return RunnerFault(Code(code or Code.CREDENTIAL_UNAVAILABLE), message, hint=hint)
