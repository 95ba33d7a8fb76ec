"""What the gateway asks of the keeper, one message at a time, and what it is answered."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remit.errors import Code, RemitError
from remit.keeper.consents import ConsentCounter
from remit.keeper.entitled import Unentitled
from remit.keeper.lending import Lending
from remit.keeper.opening import Opened
from remit.model import Loan
from remit.runners.credentials.broker import BrokerFault, NoConsent
from remit.runners.wire import OF_THE_MESSAGE, close_all, read_file, receive, sealed_file, send

GOODBYE_S = 8.0
MAX_SCRUBBED = 512 * 1_048_576

Answer = tuple[dict[str, Any], list[int]]


class Desk:
    """Serves one control socket until it ends."""

    def __init__(self, control: socket.socket, opened: Opened, lending: Lending) -> None:
        self._control = control
        self._opened = opened
        self._lending = lending
        self._counter = ConsentCounter(opened.credentials)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: list[Answer] = []
        self._over = asyncio.Event()
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._on_readable)

    async def serve(self) -> None:
        """Until the gateway is gone; then everything that was lent is ended, in bounded time."""
        await self._over.wait()
        await self._lending.end_all(GOODBYE_S)

    def _on_readable(self) -> None:
        try:
            received = receive(self._control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._loop.remove_reader(self._control.fileno())
            self._over.set()
            return
        task = self._loop.create_task(self._answer(*received))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            found, handed = await self._obey(message, fds)
        except NoConsent as exc:
            code = Code.CONSENT_REQUIRED.value
            found, handed = {"ev": "refused", "fault": str(exc), "code": code}, []
        except (Unentitled, BrokerFault) as exc:
            found, handed = {"ev": "refused", "fault": str(exc)}, []
        except RemitError as exc:
            said = {"fault": exc.message, "code": exc.code.value, "hint": exc.hint}
            found, handed = {"ev": "refused", **said}, []
        except Exception as exc:  # noqa: BLE001 - its text may quote a secret
            found, handed = {"ev": "refused", "fault": f"it failed ({type(exc).__name__})"}, []
        finally:
            close_all(fds)
        self._say({**found, "n": message.get("n")}, handed)

    async def _obey(self, message: Mapping[str, Any], fds: list[int]) -> Answer:
        match message["op"]:
            case "lend":
                run, fence = str(message["run"]), int(message["fence"])
                return _delivered(*await self._lending.lend(run, fence))
            case "look":
                run, ref = str(message["run"]), str(message["ref"])
                return _delivered(*await self._lending.look(run, ref))
            case "return":
                loans = await self._lending.take_back(str(message["run"]))
                return {"ev": "returned", "loans": facts_of(loans)}, []
            case "scrub":
                data = read_file(fds[0], MAX_SCRUBBED)
                data, found = await asyncio.to_thread(
                    self._lending.traces.scrub, str(message["run"]), data
                )
                return {"ev": "scrubbed", "found": found}, [sealed_file("scrubbed", data)]
            case "sweep":
                swept = await self._lending.sweep(frozenset(map(str, message["live"])))
                runs, loans = [run for run, _ in swept], [loan for _, loan in swept]
                return {"ev": "swept", "runs": runs, "loans": facts_of(loans)}, []
            case "keys":
                return {"ev": "keys", "jwks": self._opened.jwks()}, []
            case "unaccepted":
                await self._lending.unaccepted(str(message["run"]), message["scopes"])
                return {"ev": "done"}, []
            case op if op.startswith("consent"):
                return await self._counter.obey(message), []
            case "proxy":
                self._opened.proxy.connect(socket.socket(fileno=fds.pop(0)))
                return {"ev": "done"}, []
            case "ledger" if self._lending.opened:
                raise Unentitled("the keeper has its ledger")
            case "ledger":
                self._lending.open(await self._opened.open_ledger(Path(message["path"])))
                return {"ev": "done"}, []
            case _:
                raise Unentitled("there is no such request")

    def _say(self, message: dict[str, Any], fds: list[int]) -> None:
        self._unsent.append((message, fds))
        self._flush()

    def _flush(self) -> None:
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                send(self._control, message, fds)
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError as exc:  # else the gateway is gone, which the reader sees
                if exc.errno in OF_THE_MESSAGE and "fault" not in message:
                    no = {"n": message["n"], "ev": "refused", "fault": "the answer is too large"}
                    self._unsent.insert(1, (no, []))
            close_all(fds)
            del self._unsent[0]
        self._loop.remove_writer(self._control.fileno())


def _delivered(loans: Sequence[Loan], files: Sequence[tuple[str, bytes]]) -> Answer:
    names = [name for name, _ in files]
    handed = [sealed_file("credential", content) for _, content in files]
    return {"ev": "lent", "loans": facts_of(loans), "files": names}, handed


def facts_of(loans: Sequence[Loan]) -> list[dict[str, Any]]:
    """Loans as they travel: what the record has of them."""
    return [dataclasses.asdict(loan) for loan in loans]
