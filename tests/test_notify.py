"""A message goes to the configured place once, or is said not to have been taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remit.errors import ConfigError
from remit.model import Frozen
from remit.notify import HttpChannel, HttpNotifier
from remit.ports import Notifier
from remit.settings.channels import read_channels
from remit.settings.policy import ChannelSection
from remit.testing.notify import KeptNotices, NotifierContract

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-12")]

OK = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"


@dataclass
class Hook:
    """A server of one socket that answers every request with the same bytes."""

    answer: bytes = OK
    port: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    silent: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                sizes = [line for line in head.lower().split("\r\n") if "content-length" in line]
                body = await reader.readexactly(int(sizes[0].split(":")[1]))
                self.heads.append(head)
                self.bodies.append(body)
                if not self.silent:
                    writer.write(self.answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def hooked(**how: object) -> AsyncIterator[Hook]:
    hook = Hook(**how)  # type: ignore[arg-type]  # of a test's own words
    server = await asyncio.start_server(hook.serve, "127.0.0.1", 0)
    hook.port = server.sockets[0].getsockname()[1]
    try:
        yield hook
    finally:
        server.close()


@asynccontextmanager
async def telling(hook: Hook, **more: object) -> AsyncIterator[Callable[[], Awaitable[str | None]]]:
    channel = HttpChannel(url=hook.url, **more)  # type: ignore[arg-type]  # as above
    notifier = HttpNotifier({"oncall": channel})
    try:
        yield lambda: notifier.notify("oncall", Frozen(b'{"n":1}'))
    finally:
        await notifier.aclose()


class TestHttpNotifier(NotifierContract):
    @pytest.fixture
    async def hook(self) -> AsyncIterator[Hook]:
        async with hooked() as hook:
            yield hook

    @pytest.fixture
    async def notifier(self, hook: Hook) -> AsyncIterator[Notifier]:
        notifier = HttpNotifier({"oncall": HttpChannel(url=hook.url)})
        yield notifier
        await notifier.aclose()

    @pytest.fixture
    def told(self, hook: Hook) -> list[bytes]:
        return hook.bodies


class TestKeptNotices(NotifierContract):
    @pytest.fixture
    def notifier(self) -> KeptNotices:
        return KeptNotices()

    @pytest.fixture
    def told(self, notifier: KeptNotices) -> list[bytes]:
        return notifier.bodies


async def test_message_carries_its_token_and_type_to_the_path_that_is_configured() -> None:
    async with hooked() as hook, telling(hook, token="t0p") as tell:
        assert await tell() is None
    (head,) = hook.heads
    assert head.startswith("POST /hook HTTP/1.1\r\n")
    assert "authorization: bearer t0p\r\n" in head.lower()
    assert "content-type: application/json\r\n" in head.lower()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
async def test_redirect_is_not_followed_and_nothing_is_taken(status: str) -> None:
    async with hooked() as other:
        to = f"HTTP/1.1 {status}\r\nlocation: {other.url}\r\ncontent-length: 0\r\n\r\n"
        async with hooked(answer=to.encode()) as hook, telling(hook, token="t0p") as tell:
            assert await tell() == f"HTTP {status[:3]}"
        assert other.heads == []


@pytest.mark.parametrize(
    "status", [b"400 Bad", b"401 No", b"404 Not Here", b"500 Oh", b"503 Later"]
)
async def test_any_answer_but_success_is_not_taken(status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\ncontent-length: 6\r\n\r\nsecret"
    async with hooked(answer=answer) as hook, telling(hook) as tell:
        why = await tell()
    assert why == f"HTTP {status[:3].decode()}"


async def test_server_that_does_not_answer_is_given_up_in_time() -> None:
    async with hooked(silent=True) as hook, telling(hook, timeout_ms=100) as tell:
        async with asyncio.timeout(5):
            assert await tell() == "no answer in time"


async def test_channel_that_hangs_keeps_nobody_from_another() -> None:
    async with hooked(silent=True) as stuck, hooked() as well:
        channels = {
            "stuck": HttpChannel(url=stuck.url, timeout_ms=30_000),
            "well": HttpChannel(url=well.url, timeout_ms=3_000),
        }
        notifier = HttpNotifier(channels)
        waiting = [
            asyncio.ensure_future(notifier.notify("stuck", Frozen(b"{}"))) for _ in range(100)
        ]
        while len(stuck.bodies) < 32:
            await asyncio.sleep(0.01)
        assert await notifier.notify("well", Frozen(b"{}")) is None
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await notifier.aclose()


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 999999 X\r\n\r\n"])
async def test_answer_that_is_not_http_is_not_taken(answer: bytes) -> None:
    async with hooked(answer=answer) as hook, telling(hook, timeout_ms=2_000) as tell:
        assert await tell() is not None


async def test_server_that_is_not_there_takes_nothing() -> None:
    async with hooked() as hook:
        gone = Hook(port=hook.port)
    async with telling(gone) as tell:
        assert await tell() == "ConnectError"


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hooked() as proxy, hooked() as hook:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with telling(hook) as tell:
            assert await tell() is None
        assert proxy.heads == []
        assert len(hook.heads) == 1


async def test_endless_body_of_an_answer_is_not_read() -> None:
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n" + b"x" * 1024
    async with hooked(answer=endless) as hook, telling(hook, timeout_ms=5_000) as tell:
        assert await tell() is None


# ------------------------------------------------------------------------------ the configuration


def problems(base: Path, url: str, token: str | None = None) -> list[str]:
    found: list[ConfigError] = []
    section = ChannelSection(url=url, token=token)
    channels = dict(read_channels({"oncall": section}, base, {"HOOK": "t0p", "BAD": "a\nb"}, found))
    assert bool(channels) != bool(found)
    return [str(each.place) for each in found]


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/a",
        "http://127.0.0.1:9/a",
        "http://localhost/a",
        "http://[::1]:9/",
    ],
)
def test_channel_over_tls_or_on_this_machine_is_taken(tmp_path: Path, url: str) -> None:
    assert problems(tmp_path, url, "env:HOOK") == []


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/a",
        "http://10.0.0.1/a",
        "https://user:pw@hooks.example.com/",
        "https:///a",
        "https://hooks.example.com:port/",
        "https://hooks.example.com/#x",
    ],
)
def test_channel_in_the_clear_or_without_a_host_is_refused(tmp_path: Path, url: str) -> None:
    assert problems(tmp_path, url) == ["policy.notify.oncall.url"]


@pytest.mark.parametrize("token", ["env:NOT_SET", "env:BAD", "file:not-there"])
def test_token_that_cannot_be_had_is_refused(tmp_path: Path, token: str) -> None:
    url = "https://hooks.example.com/"
    assert problems(tmp_path, url, token) == ["policy.notify.oncall.token"]
