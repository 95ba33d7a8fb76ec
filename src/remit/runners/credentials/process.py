"""Starting a keeper, and greeting it: blocking, for any thread.

It is the only place that knows how a keeper is begun. The process gets an empty environment but for
what `env:` references name, two sockets, and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import remit
from remit.errors import Code, ConfigError
from remit.runners.wire import close_all, receive, send

START_S = 20.0
GOODBYE_S = 12.0

_MAIN = Path(remit.__file__).with_name("keeper") / "__main__.py"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """How a keeper is set.

    Args:
        key_file: the log's signing key.
        state_dir: `<data_dir>/keeper`; made, of mode 0700.
        base: directory of remit.yaml; relative references are read from it.
        credentials: `runners.credentials` as plain JSON, references as written.
        issuer: `runners.issuer` as plain JSON, or None.
        environ: exactly the variables that `env:` references name.
        uid: the user it becomes where the gateway is root; None to stay who it is.
    """

    key_file: Path
    state_dir: Path
    base: Path
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    issuer: Mapping[str, Any] | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    uid: int | None = None

    def hello(self) -> dict[str, Any]:
        """What a keeper is told first."""
        return {
            "op": "hello",
            "key_file": str(self.key_file.absolute()),
            "state_dir": str(self.state_dir.absolute()),
            "base": str(self.base.absolute()),
            "credentials": {ref: dict(each) for ref, each in self.credentials.items()},
            "issuer": None if self.issuer is None else dict(self.issuer),
            "uid": self.uid,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a keeper says of itself when it is there."""

    verifier_key: str
    signed: int
    digests: Mapping[str, str]
    consented: frozenset[str] = frozenset()


class KeeperProcess:
    """One keeper, from its start to its end; `control` and `signing` are the gateway's ends."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, signing: socket.socket
    ) -> None:
        self._process = process
        self.control = control
        self.signing = signing

    @classmethod
    def start(cls, settings: KeeperSettings) -> tuple[KeeperProcess, Ready]:
        """Start one and greet it.

        Raises:
            ConfigError: it says what of its configuration cannot be used, or ended at once.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asking, answering = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, answering:
            fds = [theirs.fileno(), answering.fileno()]
            process = subprocess.Popen(
                [sys.executable, "-I", str(_MAIN), *map(str, fds)],
                env=dict(settings.environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=fds,
                start_new_session=True,
            )
        keeper = cls(process, ours, asking)
        try:
            answer = keeper.ask(settings.hello())
            return keeper, Ready(
                verifier_key=answer["verifier_key"],
                signed=answer["signed"],
                digests=answer["digests"],
                consented=frozenset(answer["consented"]),
            )
        except BaseException:
            keeper.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """One question and its answer, before anybody else reads from the control socket.

        Raises:
            ConfigError: the answer is a no, or there is none.
        """
        number = next(_NUMBERS)
        self.control.settimeout(START_S)
        try:
            send(self.control, {**message, "n": number})
            received = receive(self.control)
        except (OSError, ValueError):
            received = None
        if received is None:
            raise ConfigError(
                Code.SECRET_UNAVAILABLE,
                "the keeper did not start",
                hint="it says why on standard error",
            )
        answer, fds = received
        close_all(fds)
        if "fault" in answer:
            code = Code(answer.get("code", Code.CONFIG_INVALID.value))
            place, hint = answer.get("place"), answer.get("hint")
            raise ConfigError(code, str(answer["fault"]), place=place, hint=hint)
        return answer

    def leave(self) -> None:
        """Close both sockets: it ends what it lent, and then itself."""
        self.control.close()
        self.signing.close()

    def wait(self) -> None:
        """Until it has ended; it is killed where it takes longer than it may."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GOODBYE_S)
            return
        self.kill()

    def kill(self) -> None:
        """End it at once. The next keeper ends what it had lent."""
        self.leave()
        self.end()

    def end(self) -> None:
        """End the process and leave its sockets to whoever reads from them."""
        self._process.kill()
        self._process.wait()
