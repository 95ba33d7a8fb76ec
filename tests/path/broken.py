"""A backend of which one method fails, and what must hold whatever failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from remit.ledger.story import Story
from remit.model import Reply
from remit.pipeline import Pipeline
from tests.path.conftest import Path_

Raises = Callable[[], Exception]


class Broken:
    """Wraps a backend; one of its methods raises, before it did anything or after it did it all.

    Args:
        times: how many of its calls fail, from the first on; None means all of them.
    """

    def __init__(
        self, backend: Any, method: str, raises: Raises, *, after: bool, times: int | None
    ) -> None:
        self._backend = backend
        self._method = method
        self._raises = raises
        self._after = after
        self._left = times
        self.hits = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name != self._method:
            return found
        if name == "stream":
            return self._stream

        async def failing(*values: Any, **named: Any) -> Any:
            if not self._fails():
                return await found(*values, **named)
            if self._after:
                await found(*values, **named)
            raise self._raises()

        return failing

    def _fails(self) -> bool:
        if self._left == 0:
            return False
        if self._left is not None:
            self._left -= 1
        self.hits += 1
        return True

    async def _stream(self, lease: Any) -> Any:
        async for frame in self._backend.stream(lease):
            yield frame
        if self._fails():
            raise self._raises()

    def mend(self) -> None:
        self._left = 0


def break_backend(
    path: Path_,
    port: str,
    method: str,
    raises: Raises,
    *,
    after: bool = False,
    times: int | None = None,
) -> Broken:
    """Put a broken backend into a pipeline under test; give it, to be mended."""
    backends = path.pipeline.backends
    broken = Broken(getattr(backends, port), method, raises, after=after, times=times)
    change: dict[str, Any] = {port: broken}
    path.pipeline = Pipeline(replace(backends, **change), path.pipeline.settings)
    return broken


def main_starts(path: Path_) -> int:
    """How many commands were let go that are not a preview's."""
    return sum(
        asked == "start" and path.runner.specs[lease].argv[0] != "/bin/echo"
        for asked, lease in path.runner.told
    )


def said(reply: Reply) -> str:
    return " ".join(block["text"] for block in reply.content.value()).lower()


def assert_nothing_is_held(path: Path_) -> None:
    """No slot, no call under way, no runner is left behind."""
    assert path.pipeline._slots._value == path.pipeline.settings.concurrent_runs
    assert not path.pipeline._flights._flights
    made = {lease for asked, lease in path.runner.told if asked == "provision"}
    destroyed = {lease for asked, lease in path.runner.told if asked == "destroy"}
    assert made <= destroyed
    starts = [lease for asked, lease in path.runner.told if asked == "start"]
    assert len(starts) == len(set(starts))


async def assert_the_log_holds(path: Path_) -> None:
    """The entries tell a story that the verifier allows; each intent of an ended run is closed."""
    story = Story()
    for index, entry in enumerate(await path.entries()):
        story.observe(index, entry)
    open_in_store = {run.id for run in await path.ledger.runs() if run.state.open}
    assert {run for run, _ in story.open_runs()} == open_in_store


async def decisions(path: Path_) -> list[str]:
    return [e["decision"] for e in await path.entries() if e["event"] == "decision"]


def structured(reply: Reply) -> Any:
    return None if reply.structured is None else json.loads(reply.structured.text)
