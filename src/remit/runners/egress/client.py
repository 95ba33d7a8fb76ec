"""The gateway's end of the egress proxy: starts it, starts another when it died, and asks it.

    proxy = await EgressProxy.open(settings, keeper.proxy_socket)
    pem = await proxy.prepare(slot)                   # the authority of one run, for its trust store
    await proxy.open_run(run_id, prepared=slot, ...)  # takes connections from now on
    traffic = await proxy.close_run(run_id)           # none is left, and this is the record

Whatever goes wrong here closes: a run whose proxy died has no way out any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from remit.errors import Code, RunnerFault
from remit.model import Connection, EgressRule, Traffic
from remit.reach import egress_facts, plain
from remit.runners.egress.channel import ProxyChannel, ProxyGone
from remit.runners.egress.settings import EgressSettings

_ANSWER_S = 10.0
_START_S = 20.0
_REJOIN_S = 0.5
"""How long a proxy without its keeper waits for whoever starts a new keeper to join the two."""

KeeperSocket = Callable[[], Awaitable[socket.socket]]
"""Gives the proxy's end of a new SOCK_SEQPACKET pair to the keeper; whoever is given it closes it."""


class EgressProxy:
    """One egress proxy process at a time, and what the gateway knows of its runs."""

    def __init__(self, settings: EgressSettings, keeper_socket: KeeperSocket | None) -> None:
        self._settings = settings
        self._keeper_socket = keeper_socket
        self._channel: ProxyChannel | None = None
        self._starting = asyncio.Lock()
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._runs: set[str] = set()
        self._lost: dict[str, Traffic] = {}
        self._closed = False
        self._joined = 0
        self._rejoining: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, settings: EgressSettings, keeper_socket: KeeperSocket | None = None
    ) -> EgressProxy:
        """Start a proxy: before this process holds secrets or threads.

        Args:
            keeper_socket: asked for a socket for each proxy process that is started; without one,
                no run can be lent a credential that has to be injected.

        Raises:
            RunnerFault: `runner_unavailable`; it did not start.
        """
        proxy = cls(settings, keeper_socket)
        await proxy._connected()
        return proxy

    @property
    def uid(self) -> int | None:
        """The user that the proxy runs as; None: the gateway's own."""
        return self._settings.uid

    @property
    def digest(self) -> str:
        """Over all settings that decide what runs can reach."""
        return self._settings.digest

    @property
    def pid(self) -> int | None:
        """The live proxy's process, if there is one."""
        channel = self._channel
        return None if channel is None or channel.gone else channel.pid

    async def connect_keeper(self) -> None:
        """Give the proxy a new socket to the keeper, as after the keeper was started anew.

        The proxy forgets all credentials that it had from the earlier one.

        Raises:
            RunnerFault: `runner_unavailable`.
        """
        await self._greet_keeper(await self._connected())

    async def prepare(self, name: str) -> bytes:
        """Make the certificate authority of one run or waiting slot; give its certificate (PEM).

        Idempotent: the same name has the same authority until its run is closed or `discard`.

        Raises:
            RunnerFault: `runner_unavailable`.
        """
        answer = await self._ask({"op": "prepare", "name": name})
        return str(answer["pem"]).encode("ascii")

    async def discard(self, name: str) -> None:
        """Forget an authority that no run was opened with; for slots that are thrown away."""
        with contextlib.suppress(RunnerFault):
            if self.pid is not None:
                await self._ask({"op": "discard", "name": name})

    async def open_run(
        self,
        run_id: str,
        *,
        prepared: str,
        fence: int,
        key: str,
        rules: Sequence[EgressRule],
        listener_fd: int,
        ends_ms: int,
        terminate: bool = True,
        kept: bool = False,
    ) -> None:
        """Take the run's connections, by the rules of its plan.

        Args:
            prepared: the name that `prepare` was called with, in this proxy's life.
            fence: of the run's grant.
            key: the call digest. An open run of the same key with a lower fence loses its
                connections and its credentials.
            listener_fd: the socket that listens in the run's network namespace; it is copied,
                whoever calls closes its own afterwards.
            ends_ms: when the run's last connection is closed, come what may.
            terminate: false where TLS must never end at the proxy; rules that need it then let
                nothing through.
            kept: other runs follow with what was prepared under this name, until `discard`.

        Raises:
            RunnerFault: `runner_unavailable`; nothing is open. A stale fence is one reason.
        """
        if not all(map(plain, rules)):
            raise _fault("a destination is not written in its one plain form")
        message = {
            "op": "open",
            "run": run_id,
            "prepared": prepared,
            "fence": fence,
            "key": key,
            "rules": egress_facts(rules),
            "ends_ms": ends_ms,
            "terminate": terminate,
            "kept": kept,
        }
        await self._ask(message, [listener_fd])
        self._runs.add(run_id)

    async def close_run(self, run_id: str) -> Traffic:
        """Close the run's listener and connections, forget its credentials, give its record.

        Idempotent; the record is given once, and is empty for a run that was never open. Of a run
        whose proxy died the record is lost, which one connection of kind `lost` says.
        """
        self._runs.discard(run_id)
        if (lost := self._lost.pop(run_id, None)) is not None:
            return lost
        if self.pid is None:
            return Traffic(closed_ms=_now_ms())
        try:
            answer = await self._ask({"op": "close", "run": run_id})
        except RunnerFault:
            return self._lost.pop(run_id, None) or _lost()
        return read_traffic(answer["traffic"])

    async def sweep(self, live: Iterable[str]) -> Sequence[tuple[str, Traffic]]:
        """Close every run that is not live, and give their records."""
        keep = set(live)
        found = [(run, self._lost.pop(run)) for run in sorted(set(self._lost) - keep)]
        if self.pid is not None:
            answer = await self._ask({"op": "sweep", "live": sorted(keep)})
            found += [(str(run), read_traffic(traffic)) for run, traffic in answer["closed"]]
        self._runs &= keep
        return found

    async def aclose(self) -> None:
        """End the proxy and with it every connection; none is started again."""
        self._closed = True
        if self._rejoining is not None:
            self._rejoining.cancel()
        if self._channel is not None:
            await self._channel.close()

    # -------------------------------------------------------------------------- the process

    async def _connected(self) -> ProxyChannel:
        if (channel := self._live()) is not None:
            return channel
        async with self._starting:
            if (channel := self._live()) is not None:
                return channel
            if self._closed:
                raise _fault("the egress proxy is closed")
            if self._channel is not None:
                await self._channel.close()
            channel = ProxyChannel.open(self._take, self._lose)
            self._channel = channel
            hello = {"op": "hello", **self._settings.facts(), "uid": self._settings.uid}
            try:
                await self._request(channel, hello, (), _START_S)
                if self._keeper_socket is not None:
                    await self._greet_keeper(channel)
            except BaseException:
                await channel.close()
                raise
            return channel

    def _live(self) -> ProxyChannel | None:
        return None if self._channel is None or self._channel.gone else self._channel

    async def _greet_keeper(self, channel: ProxyChannel) -> None:
        if self._keeper_socket is None:
            raise _fault("there is no keeper")
        self._joined += 1
        with await self._keeper_socket() as theirs:
            await self._request(channel, {"op": "keeper"}, [theirs.fileno()], _ANSWER_S)

    async def _ask(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        return await self._request(await self._connected(), message, fds, _ANSWER_S)

    async def _request(
        self, channel: ProxyChannel, message: dict[str, Any], fds: Sequence[int], seconds: float
    ) -> dict[str, Any]:
        """Send one request and wait for its answer.

        A proxy that does not answer is ended: nobody could say what it lets through.
        """
        number = next(self._ids)
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(seconds):
                await channel.send({**message, "id": number}, fds)
                found: dict[str, Any] = await answer
        except TimeoutError:
            channel.kill()
            raise _fault("the egress proxy did not answer in time") from None
        except ProxyGone:
            raise _fault("the egress proxy ended") from None
        finally:
            self._answers.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # of a proxy that died while it was asked: said already
        if "fault" in found:
            raise _fault(f"the egress proxy refused: {found['fault']}")
        return found

    async def _rejoin(self, joined: int) -> None:
        """Give the proxy a new socket to a keeper that lives and only cut its line, as it does
        where the proxy did not answer in time; else nothing would be injected any more."""
        await asyncio.sleep(_REJOIN_S)
        if joined == self._joined and self.pid is not None:
            with contextlib.suppress(
                RunnerFault, OSError
            ):  # without it nothing is injected, which is safe
                await self.connect_keeper()

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("ev") == "parted":
            self._rejoining = asyncio.ensure_future(self._rejoin(self._joined))
            return
        answer = self._answers.get(int(message.get("id", 0)))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _lose(self) -> None:
        for run in self._runs:
            self._lost[run] = _lost()
        self._runs.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ProxyGone())


def read_traffic(facts: dict[str, Any]) -> Traffic:
    """A run's record as the proxy writes it."""
    connections = tuple(
        Connection(**{**each, "injected": tuple(each["injected"])}) for each in facts["connections"]
    )
    return Traffic(**{**facts, "connections": connections})


def _lost() -> Traffic:
    """The record of a run whose proxy died with it: that it is not known."""
    now = _now_ms()
    lost = Connection(host="*", port=0, kind="lost", opened_ms=now, closed_ms=now, refused="lost")
    return Traffic(connections=(lost,), refused=1, closed_ms=now)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _fault(message: str) -> RunnerFault:
    return RunnerFault(Code.RUNNER_UNAVAILABLE, message)
