"""The egress proxy: the only way out for runs, in a process of its own.

    python -I proxy.py CONTROL_FD

Started before the gateway holds secrets or threads, with an empty environment and one socket. It
holds the rules and injected credentials of live runs and nothing else: no ledger, no key but the
runs' own. Each connection comes out of a listener that was made inside one run's network
namespace, so it is known whose it is. It ends when the control socket does, and every connection
with it.

Control (from the gateway; each request has an `id`, which its one answer repeats; an answer with
`fault` is a no):

    hello     the settings, uid                          -> ready {confined}
    keeper    + the socket to the keeper                 -> done
    prepare   name                                       -> prepared {pem}
    discard   name                                       -> done
    open      run, prepared, fence, key, rules, ends_ms, terminate + the listener   -> done
    close     run                                        -> closed {traffic}
    sweep     live                                       -> swept {closed: [[run, traffic]...]}

It says `parted`, unasked, when its socket to the keeper ended.

The keeper's socket (each answer is `{"ev", "run"}`, and for `refused` a `fault`):

    {"op": "inject", "run", "fence", "ends_ms", "credentials": [{"ref", "host", "port",
     "path_prefix", "header", "value", "secrets"}...]}   -> injecting | refused
    {"op": "forget", "run"}                              -> forgotten
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - the ssl module asks for it when it can no more be read
import gc
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

if __name__ == "__main__":  # started as a file: the same code as the gateway's, by its place
    _HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [each for each in sys.path if each != _HERE]
    _ROOT = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))
    _OTHERS = (at for at, each in enumerate(sys.path) if each.endswith("-packages"))
    sys.path.insert(next(_OTHERS, len(sys.path)), _ROOT)

from remit.runners.egress.confine import become, confine
from remit.runners.egress.purse import read_injection
from remit.runners.egress.refusals import Unwilling
from remit.runners.egress.runs import Bounds, Runs
from remit.runners.egress.upstream import Resolver, Upstream
from remit.runners.wire import close_all, receive, send

MAX_DESCRIPTORS = 16_384
_TICK_S = 0.5
_MAX_LENT = 64


class Line:
    """One message socket in the loop: `obey` is called for each message, `lost` at its end."""

    def __init__(self, sock: socket.socket, obey: Any, lost: Any) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._obey = obey
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._unsent: list[dict[str, Any]] = []
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            received = receive(self._sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self.close()
            self._lost()
            return
        message, fds = received
        try:
            self._obey(message, fds)
        finally:
            close_all(fds)

    def say(self, message: dict[str, Any]) -> None:
        """Send, or keep until the other side reads."""
        self._unsent.append(message)
        self._flush()

    def _flush(self) -> None:
        if self._sock.fileno() < 0:
            return
        while self._unsent:
            try:
                send(self._sock, self._unsent[0])
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                pass
            del self._unsent[0]
        self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()


class Proxy:
    """Obeys the gateway and the keeper."""

    def __init__(self, control: socket.socket, runs: Runs) -> None:
        self._runs = runs
        self._loop = asyncio.get_running_loop()
        self._control = Line(control, self._obey, _end)
        self._keeper: Line | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stocking = False

    def ready(self, number: int, *, confined: bool) -> None:
        self._control.say({"ev": "ready", "id": number, "confined": confined})
        self._stock_soon()
        self._tick()

    def _tick(self) -> None:
        self._runs.tick()
        self._loop.call_later(_TICK_S, self._tick)

    def _stock_soon(self) -> None:
        if not self._stocking:
            self._stocking = True
            self._loop.call_later(0.002, self._stock)

    def _stock(self) -> None:
        self._stocking = False
        if self._runs.authorities.stock_up():
            self._stock_soon()

    # ------------------------------------------------------------------------- the gateway

    def _obey(self, message: dict[str, Any], fds: list[int]) -> None:
        number = message.get("id")
        try:
            answer = self._command(message, fds)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as exc:
            answer = {"ev": "refused", "fault": _said(exc)}
        if answer is not None:
            self._control.say({**answer, "id": number})

    def _command(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any] | None:
        match message["op"]:
            case "prepare":
                authority = self._runs.authorities.prepare(str(message["name"]))
                self._stock_soon()
                return {"ev": "prepared", "pem": authority.pem.decode("ascii")}
            case "discard":
                self._runs.authorities.take(str(message["name"]))
            case "open":
                self._open(message, fds)
            case "keeper":
                self._meet(socket.socket(fileno=fds.pop(0)))
            case "close" | "sweep":
                task = self._loop.create_task(self._finish(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return None
            case _:
                raise Unwilling("there is no such request")
        return {"ev": "done"}

    def _open(self, message: dict[str, Any], fds: list[int]) -> None:
        if len(fds) != 1:
            raise Unwilling("a run is opened with one listener")
        listener = socket.socket(fileno=fds.pop(0))
        try:
            listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listening or listener.family not in (socket.AF_INET, socket.AF_INET6):
                raise Unwilling("this is not a socket that listens for TCP")
            listener.setblocking(False)
            self._runs.open(message, listener)
        except BaseException:
            listener.close()
            raise

    async def _finish(self, message: dict[str, Any]) -> None:
        if message["op"] == "close":
            traffic = await self._runs.close(str(message["run"]))
            answer: dict[str, Any] = {"ev": "closed", "traffic": traffic}
        else:
            live = [str(each) for each in message["live"]]
            answer = {"ev": "swept", "closed": await self._runs.sweep(live)}
        self._control.say({**answer, "id": message["id"]})

    # -------------------------------------------------------------------------- the keeper

    def _meet(self, sock: socket.socket) -> None:
        if self._keeper is not None:
            self._keeper.close()
        self._part()
        self._keeper = Line(sock, self._heed, self._lose_keeper)

    def _part(self) -> None:
        """Without its keeper nobody could say any more what is lent: nothing is."""
        self._keeper = None
        self._runs.forget_all()

    def _lose_keeper(self) -> None:
        self._part()
        self._control.say({"ev": "parted"})

    def _heed(self, message: dict[str, Any], fds: list[int]) -> None:
        run = str(message.get("run"))
        try:
            answer = {"ev": self._lend(message, run), "run": run}
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            answer = {"ev": "refused", "run": run, "fault": _said(exc)}
        if self._keeper is not None:
            self._keeper.say(answer)

    def _lend(self, message: dict[str, Any], run: str) -> str:
        match message["op"]:
            case "inject":
                lent = message["credentials"]
                if not isinstance(lent, list) or len(lent) > _MAX_LENT:
                    raise Unwilling("not a list of credentials")
                self._runs.inject(message, [read_injection(each) for each in lent])
                return "injecting"
            case "forget":
                self._runs.forget(run)
                return "forgotten"
            case _:
                raise Unwilling("there is no such request")


def _said(exc: Exception) -> str:
    """Why not, in our own words: what an exception quotes may be a secret."""
    if isinstance(exc, Unwilling):
        return str(exc)
    if isinstance(exc, KeyError):
        return "the message is incomplete"
    return "the message is not as it should be"


def _end() -> NoReturn:
    """The gateway is gone: so is everything here, at once, by the kernel."""
    os._exit(0)


async def _serve(control: socket.socket, hello: dict[str, Any]) -> None:
    asyncio.get_running_loop().set_exception_handler(_unseen)
    resolver = Resolver()
    upstream = Upstream(_places(hello["internal"]), str(hello["ca_pem"]), resolver.look)
    bounds = Bounds(
        connections=int(hello["connections"]),
        bytes_mb=int(hello["bytes_mb"]),
        unsafe_plain=_places(hello["unsafe_plain"]),
    )
    runs = Runs(upstream, bounds)
    # Once each, so that whatever is loaded late is loaded before nothing can be read any more.
    runs.authorities.prepare("").context("localhost")
    runs.authorities.take("")
    with contextlib.suppress(OSError):
        socket.getaddrinfo(b"localhost", 80, type=socket.SOCK_STREAM)
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    become(None if hello["uid"] is None else int(hello["uid"]))
    confined = confine(files=MAX_DESCRIPTORS)
    runs.authorities.prepare("").context("localhost")
    runs.authorities.take("")
    Proxy(control, runs).ready(int(hello["id"]), confined=confined)
    _silence(null)
    gc.freeze()
    await asyncio.Event().wait()


def _unseen(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
    """What the loop would log can hold what runs and hosts said."""


def _places(listed: list[Any]) -> frozenset[tuple[str, int]]:
    return frozenset((str(host), int(port)) for host, port in listed)


def _silence(null: int) -> None:
    """Nothing of what runs and hosts say can get into anybody's log from here on."""
    for fd in (1, 2):
        os.dup2(null, fd)
    os.close(null)


def main() -> None:
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    threading.stack_size(512 * 1_024)
    control = socket.socket(fileno=int(sys.argv[1]))
    received = receive(control)
    if received is None:
        return
    close_all(received[1])
    asyncio.run(_serve(control, received[0]))


if __name__ == "__main__":
    main()
