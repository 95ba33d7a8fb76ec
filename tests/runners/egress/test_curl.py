"""curl, by the usual variables and without any, gets where it may and is told where it may not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.runners.egress.world import (
    SECRET,
    Certificates,
    Destination,
    World,
    credential,
    destination,
    ok,
    one,
    rule,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32"), pytest.mark.needs("curl")]


@pytest.fixture
async def site(certs: Certificates) -> AsyncIterator[tuple[World, Destination]]:
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(
            rule("one.test", there.port, "GET", "PUT", path="/v1"), rule("two.test", there.port)
        )
        found.lend(credential("one.test", there.port, path_prefix="/v1"))
        yield found, there


async def curl(
    found: World, tmp_path: Path, *arguments: str, trust: str = ""
) -> tuple[int, str, str]:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(found.pems["run_1"] + trust)
    proxy = f"http://127.0.0.1:{found.ports['run_1']}"
    process = await asyncio.create_subprocess_exec(
        "curl",
        *("-sS", "--max-time", "10", *arguments),
        env={
            "PATH": os.environ["PATH"],
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy),
            "SSL_CERT_FILE": str(bundle),
            "CURL_CA_BUNDLE": str(bundle),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return int(process.returncode or 0), out.decode(), err.decode()


async def test_https_is_asked_with_what_is_put_in(site, tmp_path):
    found, there = site
    done = await curl(
        found, tmp_path, f"https://one.test:{there.port}/v1/a", "-H", "Authorization: x"
    )
    assert done == (0, "fine", "")
    assert there.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert there.asked[0].headers["user-agent"].startswith("curl/")


async def test_an_upload_with_expect_arrives_whole(site, tmp_path):
    found, there = site
    body = tmp_path / "body"
    body.write_bytes(os.urandom(3_000_000))
    url = f"https://one.test:{there.port}/v1/put"
    assert await curl(found, tmp_path, "-T", str(body), "-H", "Expect: 100-continue", url) == (
        0,
        "fine",
        "",
    )
    assert there.asked[0].body == body.read_bytes()


async def test_a_large_answer_arrives_whole_and_clean(site, tmp_path):
    found, there = site
    filling = os.urandom(2_000_000).hex()
    there.reply = lambda asked: ok(f"{filling}{SECRET}{filling}".encode())
    done = await curl(found, tmp_path, f"https://one.test:{there.port}/v1/big", "--compressed")
    assert done == (0, f"{filling}{'*' * len(SECRET)}{filling}", "")


async def test_a_tunnel_needs_the_destinations_own_authority(site, certs, tmp_path):
    found, there = site
    url = f"https://two.test:{there.port}/any"
    assert (await curl(found, tmp_path, url))[0] == 60
    assert await curl(found, tmp_path, url, trust=certs.authority) == (0, "fine", "")


async def test_the_form_with_the_destination_in_the_path_needs_no_variable(site, tmp_path):
    found, there = site
    base = f"http://127.0.0.1:{found.ports['run_1']}/one.test:{there.port}"
    assert await curl(found, tmp_path, "--noproxy", "*", f"{base}/v1/a") == (0, "fine", "")


async def test_a_redirect_is_followed_by_curl_and_checked_anew(site, tmp_path):
    found, there = site
    there.reply = lambda asked: ok(b"", "Location: /v2/b", status="302 Found")
    code, out, _ = await curl(found, tmp_path, "-L", f"https://one.test:{there.port}/v1/a")
    assert (code, "[path]" in out) == (0, True)
    assert len(there.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["https://evil.test/"], "403"),
        (["https://169.254.169.254/"], "403"),
        (["-X", "DELETE", "https://one.test:{port}/v1/a"], "[method]"),
        (["https://one.test:{port}/v2"], "[path]"),
        (["--path-as-is", "https://one.test:{port}/v1/../v2"], "[path]"),
        (["http://one.test:{port}/"], "[path]"),
        (["http://evil.test/"], "[not_allowed]"),
        (["-H", "Host: two.test", "https://one.test:{port}/v1"], "[host_mismatch]"),
        (["--http2", "http://one.test:{port}/v1"], "[upgrade]"),
        (["--proxytunnel", "http://one.test:{port}/v1"], "reset|empty|closed|recv"),
        (
            ["--connect-to", "one.test:{port}:two.test:{port}", "https://one.test:{port}/v1"],
            "TLS|SSL|reset",
        ),
    ],
)
async def test_what_may_not_be_is_told(site, tmp_path, arguments, said):
    found, there = site
    _, out, err = await curl(found, tmp_path, *(each.format(port=there.port) for each in arguments))
    assert any(each.lower() in (out + err).lower() for each in said.split("|")), (out, err)
    assert there.asked == []
    assert (await found.traffic()).refused == 1
