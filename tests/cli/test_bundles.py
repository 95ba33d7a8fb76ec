"""`remit serve` with its policy from a signed bundle at a URL, as processes of their own."""

from __future__ import annotations

import functools
import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remit.app import DRAIN_S
from remit.policy.archive import compress, unpack, write_archive
from remit.policy.bundle import PolicyBundle, bundle_of, read_bundle
from remit.policy.content import SIGNATURES
from remit.policy.signature import sign
from tests.cli.serving import Serving, configure, serving
from tests.policy.bundles.made import key_pair

pytestmark = pytest.mark.slow

PRIVATE, PUBLIC = key_pair("ES256")


@contextmanager
def files_at(folder: Path) -> Iterator[str]:
    """A plain web server over a directory, as any object store is: no ETag, no waiting."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None


def put(folder: Path, bundle: PolicyBundle, *, private: str = PRIVATE) -> None:
    files = unpack(write_archive(bundle))
    files[SIGNATURES] = sign(files, key=private, key_id="k1", algorithm="ES256")
    (folder / "new").write_bytes(compress(files))
    (folder / "new").replace(folder / "b.tar.gz")


def with_more(bundle: PolicyBundle, number: int) -> PolicyBundle:
    return bundle_of(bundle.modules, {**bundle.data, "number": number})


@pytest.fixture
def shelf(home: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    (home / "signing.pub").write_text(PUBLIC)
    return folder


def from_url(home: Path, url: str) -> Path:
    verify = {"key": "file:signing.pub", "key_id": "k1", "algorithm": "ES256"}
    return configure(home, policy={"path": f"{url}/b.tar.gz", "verify": verify, "reload_s": 1})


@pytest.mark.threat("T-28")
def test_signed_bundle_is_followed_and_kept_and_a_bad_one_changes_nothing(
    home: Path, shelf: Path
) -> None:
    policy = read_bundle(home / "policy")
    put(shelf, policy)
    with files_at(shelf) as url:
        config = from_url(home, url)
        with serving(config) as gateway:
            second = with_more(policy, 2)
            put(shelf, second)
            gateway.until("policy_switched", revision=second.revision)
            put(shelf, with_more(policy, 3), private=key_pair("ES256")[0])
            gateway.until("policy_refused", code="signature_invalid")
            (shelf / "b.tar.gz").write_bytes(b"junk")
            gateway.until("policy_refused", code="policy_invalid")
            assert gateway.stop() == 0
    with serving(config) as gateway:
        told = gateway.until("policy_from_disk")
        assert (told["revision"], told["level"]) == (second.revision, "warning")
        assert gateway.stop() == 0
    (kept,) = (home / ".remit" / "policy").glob("*.tar.gz")
    kept.write_bytes(write_archive(with_more(policy, 4)))
    with Serving(config) as gateway:
        gateway.until("ended")
        assert gateway.process.wait() == 2
        said = "".join(gateway.raw)
        assert "error[signature_invalid]" in said
        assert "at layer policy" in said


def test_held_request_does_not_hold_up_the_end(home: Path) -> None:
    config = configure(home, policy={"reload_s": 0})
    token = (home / ".remit" / "keys" / "operator.token").read_text().strip()
    with serving(config) as gateway:
        at = gateway.until("serving")["admin"].removeprefix("http://")
        held, other = (http.client.HTTPConnection(at, timeout=20) for _ in range(2))
        path = "/v1/policy/bundles/policy.tar.gz"
        headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=300"}
        held.request("GET", path, headers=headers)
        first = held.getresponse()
        first.read()
        held.request("GET", path, headers={**headers, "If-None-Match": first.headers["ETag"]})
        for _ in range(3):  # what was sent before is in the gateway's hands when these are answered
            other.request("GET", "/healthz")
            other.getresponse().read()
        other.close()
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < DRAIN_S
        assert held.getresponse().status == 304
        held.close()
