"""A bundle's URL is asked as OPA asks it, followed, and done without for a while."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from remit.errors import Code, ConfigError, PolicyFault, RemitError
from remit.policy import download
from remit.policy.archive import MAX_ARCHIVE_BYTES
from remit.policy.download import BUNDLE_TYPE, UrlSource
from remit.policy.signature import Verification, sign
from remit.policy.source import Origin, open_source
from tests.doors.serving import served
from tests.policy.bundles.made import FILES, SECRET, tar_gz
from tests.policy.opa.certificates import Authority

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CHANGED = {**FILES, "data.json": b'{"grants": {}, "odd": 2}'}
WANTED = Verification(key=SECRET, key_id="k1", algorithm="HS256")


def signed(files: dict[str, bytes]) -> bytes:
    seal = sign(files, key=SECRET, key_id="k1", algorithm="HS256")
    return tar_gz({**files, ".signatures.json": seal})


@dataclass
class Server:
    """A bundle server: gives `content` under `etag`, holds a request only if `holds`."""

    content: bytes = tar_gz(FILES)
    etag: str | None = '"one"'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    holds: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, content: bytes, etag: str | None) -> None:
        self.content, self.etag = content, etag
        self.news.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self.asked.append(dict(request.headers))
        known = request.headers.get("if-none-match")
        if self.holds and known is not None and known == self.etag:
            await self.news.wait()
        headers = dict(self.headers)
        if self.etag is not None:
            headers["etag"] = self.etag
        if known is not None and known == self.etag:
            response = Response(status_code=304, headers=headers)
        else:
            kind = BUNDLE_TYPE if self.holds else "application/gzip"
            response = Response(self.content, self.status, headers, media_type=kind)
        await response(scope, receive, send)


@asynccontextmanager
async def following(server: Server | str, tmp_path: Path, **more: Any) -> AsyncIterator[UrlSource]:
    async def opened(url: str) -> AsyncIterator[UrlSource]:
        keep = tmp_path / "kept"
        made = open_source(
            Origin(layer="org", place=url, keep_in=keep, **{"every_s": 0.01, **more})
        )
        assert isinstance(made, UrlSource)
        try:
            yield made
        finally:
            await made.aclose()

    if isinstance(server, str):
        async for made in opened(server):
            yield made
    else:
        async with served(server) as url:
            async for made in opened(f"{url}/b.tar.gz?x=1"):
                yield made


async def test_bundle_is_taken_and_its_change_given_once(tmp_path: Path) -> None:
    server = Server()
    async with following(server, tmp_path) as source:
        first = await source.load()
        assert first.label == "r7"
        assert await source.changed() is None
        server.put(tar_gz(CHANGED), '"two"')
        second = await source.changed()
        assert second is not None
        assert second.data["odd"] == 2
        assert await source.changed() is None
    assert "if-none-match" not in server.asked[0]
    assert server.asked[1]["if-none-match"] == '"one"'
    assert server.asked[-1]["if-none-match"] == '"two"'
    assert server.asked[0]["prefer"] == "modes=snapshot;wait=60"
    assert server.asked[0]["accept-encoding"] == "identity"


async def test_server_that_holds_a_request_is_asked_again_at_once(tmp_path: Path) -> None:
    server = Server(holds=True)
    async with following(server, tmp_path, every_s=3_600) as source:
        await source.load()
        waiting = asyncio.ensure_future(source.changed())
        async with asyncio.timeout(20):
            while len(server.asked) < 2:
                await asyncio.sleep(0.01)
            server.put(tar_gz(CHANGED), '"two"')
            found = await waiting
    assert found is not None
    assert found.data["odd"] == 2


async def test_server_that_answers_at_once_is_not_asked_at_once(tmp_path: Path) -> None:
    server = Server(holds=True)
    async with following(server, tmp_path, every_s=3_600) as source:
        await source.load()
        server.news.set()
        assert await source.changed() is None
        asked = len(server.asked)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await source.changed()
    assert len(server.asked) == asked


async def test_bundle_without_etag_is_told_by_its_bytes(tmp_path: Path) -> None:
    server = Server(etag=None)
    async with following(server, tmp_path) as source:
        await source.load()
        assert await source.changed() is None
        server.put(tar_gz(CHANGED), None)
        assert await source.changed() is not None
        assert await source.changed() is None


async def test_bad_bundle_is_said_once_and_the_next_given(tmp_path: Path) -> None:
    server = Server()
    async with following(server, tmp_path) as source:
        await source.load()
        server.put(b"junk", '"bad"')
        with pytest.raises(ConfigError):
            await source.changed()
        assert await source.changed() is None
        assert await source.changed() is None
        server.put(tar_gz(FILES), '"one"')
        again = await source.changed()
        assert again is not None
        assert again.label == "r7"


@pytest.mark.threat("T-28")
async def test_bundle_that_is_not_signed_by_the_key_is_refused(tmp_path: Path) -> None:
    server = Server(content=signed(FILES))
    async with following(server, tmp_path, verification=WANTED) as source:
        await source.load()
        server.put(tar_gz(CHANGED), '"two"')
        with pytest.raises(ConfigError) as caught:
            await source.changed()
        assert caught.value.code is Code.SIGNATURE_INVALID
        server.put(signed(CHANGED), '"three"')
        assert await source.changed() is not None


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"status": 401}, Code.POLICY_NOT_READY, "refuses the token"),
        ({"status": 404}, Code.POLICY_UNAVAILABLE, "answers 404"),
        ({"status": 500}, Code.POLICY_UNAVAILABLE, "answers 500"),
        ({"status": 304}, Code.POLICY_NOT_READY, "sends elsewhere"),
        ({"status": 204}, Code.POLICY_UNAVAILABLE, "answers 204"),
        ({"headers": {"content-encoding": "gzip"}}, Code.POLICY_NOT_READY, "compresses"),
        ({"content": b""}, Code.POLICY_INVALID, "before it is complete"),
        ({"content": bytes(MAX_ARCHIVE_BYTES + 1)}, Code.POLICY_INVALID, "larger than 16384 KiB"),
        ({"content": gzip.compress(b"no tar")}, Code.POLICY_INVALID, "the archive"),
    ],
)
async def test_answer_that_is_no_bundle_is_refused(
    tmp_path: Path, change: dict[str, Any], code: Code, said: str
) -> None:
    async with following(Server(etag=None, **change), tmp_path) as source:
        with pytest.raises(RemitError) as caught:
            await source.load()
    assert caught.value.code is code
    assert said in caught.value.message


async def test_body_without_an_end_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ANSWER_S", 20)

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
            await asyncio.sleep(0)

    async with served(endless) as url, following(url, tmp_path) as source:
        with pytest.raises(ConfigError, match="larger"):
            await source.load()


async def test_slow_answer_ends_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ANSWER_S", 0.1)
    monkeypatch.setattr(download, "WAIT_S", 0)

    async def drip(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.02)

    async with served(drip) as url, following(url, tmp_path) as source:
        with pytest.raises(PolicyFault, match="in time"):
            await source.load()


async def test_redirect_is_not_followed_and_takes_no_token_along(tmp_path: Path) -> None:
    elsewhere = Server()
    async with served(elsewhere) as other:
        first = Server(status=302, headers={"location": f"{other}/b.tar.gz"})
        async with following(first, tmp_path, token="t0ken") as source:
            with pytest.raises(PolicyFault, match="sends elsewhere"):
                await source.load()
    assert first.asked[0]["authorization"] == "Bearer t0ken"
    assert not elsewhere.asked


async def test_proxy_of_the_environment_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Server()
    async with served(proxy) as url:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, url)
        async with following(Server(), tmp_path) as source:
            await source.load()
    assert not proxy.asked


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://bundles.example/b.tar.gz", "over http"),
        ("http://10.0.0.1/b.tar.gz", "over http"),
        ("http://127.0.0.1.example/b.tar.gz", "over http"),
        ("https://user:pw@example/b.tar.gz", "user or a fragment"),
        ("https://example/b.tar.gz#x", "user or a fragment"),
        ("https://", "not a URL"),
        ("https://[::1/b", "not a URL"),
    ],
)
def test_url_that_is_not_safe_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(Origin(layer="org", place=url))
    assert said in caught.value.message
    assert "pw" not in caught.value.message


def test_token_that_could_end_its_header_is_refused() -> None:
    with pytest.raises(ConfigError, match="token"):
        open_source(Origin(layer="org", place="https://e/b", token="a\r\nb"))


def test_token_is_not_shown() -> None:
    assert "t0ken" not in repr(Origin(layer="org", place="https://e/b", token="t0ken"))


async def test_failures_are_waited_out_longer_each_time(tmp_path: Path) -> None:
    waits = [[download._backoff(failures) for _ in range(50)] for failures in (1, 2, 5, 50)]
    assert all(0.5 <= wait <= 1 for wait in waits[0])
    assert all(1 <= wait <= 2 for wait in waits[1])
    assert all(8 <= wait <= 16 for wait in waits[2])
    assert all(30 <= wait <= 60 for wait in waits[3])
    assert all(len(set(each)) > 1 for each in waits)


# --------------------------------------------------------------------------- without the server


async def _kept(tmp_path: Path, content: bytes, **more: Any) -> str:
    """A URL nobody listens at any more, whose bundle was in force."""
    async with served(Server(content=content)) as url:
        place = f"{url}/b.tar.gz"
        async with following(place, tmp_path, **more) as source:
            await source.load()
            await source.keep()
    return place


async def test_last_bundle_in_force_lets_a_start_go_on_and_is_loud(tmp_path: Path) -> None:
    url = await _kept(tmp_path, tar_gz(FILES))
    async with following(url, tmp_path) as source:
        with structlog.testing.capture_logs() as logs:
            bundle = await source.load()
        assert bundle.label == "r7"
        with pytest.raises(PolicyFault, match="cannot be asked"):  # a second time it is said
            await source.load()
    (told,) = [each for each in logs if each["event"] == "policy_from_disk"]
    assert (told["log_level"], told["revision"]) == ("warning", bundle.revision)


async def test_bundle_that_never_came_into_force_is_not_kept(tmp_path: Path) -> None:
    async with served(Server()) as url, following(url, tmp_path) as source:
        await source.load()
    assert not (tmp_path / "kept").exists()


async def test_kept_bundle_of_another_url_is_not_used(tmp_path: Path) -> None:
    url = await _kept(tmp_path, tar_gz(FILES))
    async with following(f"{url}.other", tmp_path) as source:
        with pytest.raises(PolicyFault):
            await source.load()


@pytest.mark.threat("T-28")
async def test_kept_bundle_is_verified_again(tmp_path: Path) -> None:
    url = await _kept(tmp_path, signed(FILES), verification=WANTED)
    (file,) = (tmp_path / "kept").iterdir()
    async with following(url, tmp_path, verification=WANTED) as source:
        assert (await source.load()).label == "r7"
    file.write_bytes(tar_gz(CHANGED))
    async with following(url, tmp_path, verification=WANTED) as source:
        with pytest.raises(ConfigError) as caught:
            await source.load()
    assert caught.value.code is Code.SIGNATURE_INVALID
    assert "kept on disk" in caught.value.message


async def test_kept_bundle_is_for_its_owner_alone_and_whole(tmp_path: Path) -> None:
    await _kept(tmp_path, tar_gz(FILES))
    (file,) = (tmp_path / "kept").iterdir()
    assert file.read_bytes() == tar_gz(FILES)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700


async def test_disk_that_cannot_keep_it_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("in the way")
    with structlog.testing.capture_logs() as logs:
        await _kept(tmp_path, tar_gz(FILES))
    assert [each["event"] for each in logs] == ["policy_not_kept"]


# ------------------------------------------------------------------------------------------- TLS


async def test_only_a_certificate_of_ca_file_is_trusted(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    pair = ours.issue("bundles", address="127.0.0.1")
    async with served(Server(), tls=pair) as url:
        async with following(url, tmp_path, ca_file=ours.path) as source:
            assert (await source.load()).label == "r7"
        for ca_file in (theirs.path, None):
            async with following(url, tmp_path, ca_file=ca_file) as source:
                with pytest.raises(PolicyFault, match="certificate is not trusted"):
                    await source.load()


def test_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("x")
    with pytest.raises(ConfigError, match="ca_file"):
        open_source(Origin(layer="org", place="https://e/b", ca_file=tmp_path / "ca"))
