"""`remit serve` as a process of its own, on a configuration that each test makes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

REMIT = [sys.executable, "-m", "remit"]


def configure(home: Path, **sections: Mapping[str, Any]) -> Path:
    """Change sections of the configuration in `home`; both doors get free ports, policy gets time."""
    path = home / "remit.yaml"
    whole: dict[str, Any] = yaml.safe_load(path.read_text())
    ports = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    whole["server"] = {**whole.get("server", {}), **ports}
    whole["telemetry"] = {"log_format": "json"}
    # A busy machine is not what is tested: an answer that comes late would be a denial.
    whole["policy"] = {**(whole.get("policy") or {}), "deadline_ms": 10_000}
    for name, values in sections.items():
        whole[name] = {**(whole.get(name) or {}), **values}
    path.write_text(yaml.safe_dump(whole))
    return path


class Serving:
    """A gateway's process and the log lines it has written so far."""

    def __init__(self, config: Path, env: Mapping[str, str] | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            [*REMIT, "--config", str(config), "serve"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, env={**os.environ, **(env or {})},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.raw.append(line)
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    self.lines.append({"event": None, "text": line})
                self._more.notify_all()
        with self._more:
            self.lines.append({"event": "ended"})
            self._more.notify_all()

    def until(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for a log line; fails with all that was said if the process ends first."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}
            for line in self.lines:
                if wanted.items() <= line.items():
                    return line
            return None

        with self._more:
            self._more.wait_for(lambda: found() or self.lines[-1:] == [{"event": "ended"}], 40)
            line = found()
        assert line is not None, "".join(self.raw)
        return line

    def stop(self, number: int = signal.SIGTERM, within_s: float = 20) -> int:
        self.process.send_signal(number)
        code = self.process.wait(within_s)
        self._reader.join(5)
        return code

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextmanager
def serving(config: Path, env: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """A gateway that serves; `until("serving")` says where."""
    with Serving(config, env) as gateway:
        gateway.until("serving")
        yield gateway
