"""Only the OPA server that was configured is believed, and it may know who asks."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from remit.errors import Code
from remit.policy.bundle import PolicyBundle
from remit.policy.opa import probing
from remit.policy.opa.client import OpaEngine
from remit.policy.opa.transport import check_peer
from tests.policy.opa.certificates import Authority, Pair
from tests.policy.opa.world import (
    DECIDE,
    answering,
    code_of_probe,
    fault_of,
    misbehaving,
    pointing,
    serving,
    write,
    written,
)
from tests.policy.world import ask, code_of, policy, when
from tests.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HOST = "127.0.0.1"
SOCKET = "unix://opa.sock"
BUNDLE = policy(when("allowed", 'answer("allow", {})'))

AUTHZ = """
package system.authz
import rego.v1
default allow := false
allow if input.path == ["health"]
allow if {
    input.identity == "IDENTITY"
    input.method == "POST"
    input.path in [["v1", "data", "remit", "decision"], ["v1", "data", "remit", "visible"]]
}
"""


def guarded(directory: Path, identity: str, bundle: PolicyBundle = BUNDLE) -> list[str]:
    """Arguments for a server that lets this identity ask what Remit asks and nothing else."""
    written(directory / "policy", bundle)
    manifest = b'{"revision": "authz-1", "roots": ["system/authz"]}'
    rego = AUTHZ.replace("IDENTITY", identity).encode()
    write(directory / "authz", {".manifest": manifest, "authz.rego": rego})
    return ["--authorization=basic", "--bundle", "policy", "authz"]


@asynccontextmanager
async def over_tls(
    directory: Path, server: Pair, clients: Authority | None = None
) -> AsyncIterator[str]:
    """A real OPA with this certificate, that wants one of `clients` where given; its URL."""
    address = f"https://{HOST}:{free_port()}"
    arguments = [f"--tls-cert-file={server.cert}", f"--tls-private-key-file={server.key}"]
    if clients is None:
        written(directory / "policy", BUNDLE)
        arguments += ["--bundle", "policy"]
    else:
        arguments += [f"--tls-ca-cert-file={clients.path}", "--authentication=tls"]
        arguments += guarded(directory, "CN=remit")
    async with serving(*arguments, cwd=directory, address=address):
        yield address


async def code_at(url: str, **more: object) -> str:
    """What a decision of the server at this URL comes to."""
    engine = await OpaEngine.connect(url, deadline_ms=10_000, **more)  # type: ignore[arg-type] # plain values
    async with pointing(engine) as point:
        decision = await ask(point, "allowed")
        assert "hunter" not in str(decision)
        return code_of(decision)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


# Who answers


@pytest.mark.needs("opa")
async def test_server_with_the_certificate_that_is_trusted_is_believed(
    ours: Authority, tmp_path: Path
) -> None:
    async with over_tls(tmp_path, ours.issue("opa", address=HOST)) as url:
        assert await code_at(url, ca_file=ours.path) == "none"


@pytest.mark.needs("opa")
@pytest.mark.threat("T-29")
@pytest.mark.parametrize("fault", ["another_authority", "another_name", "expired", "system_trust"])
async def test_server_without_the_right_certificate_is_not_believed(
    fault: str, ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    pair = {
        "another_authority": lambda: theirs.issue("opa", address=HOST),
        "another_name": lambda: ours.issue("opa", address="127.0.0.9"),
        "expired": lambda: ours.issue("opa", address=HOST, days=-1),
        "system_trust": lambda: ours.issue("opa", address=HOST),
    }[fault]()
    async with over_tls(tmp_path, pair) as url:
        trusted = None if fault == "system_trust" else ours.path
        assert await code_at(url, ca_file=trusted) == "policy_not_ready"


@pytest.mark.threat("T-29")
async def test_server_that_speaks_no_tls_is_not_believed(ours: Authority) -> None:
    async with misbehaving(answering()) as url:
        code = await code_at(url.replace("http", "https"), ca_file=ours.path)
        assert code in ("policy_not_ready", "policy_unavailable")


@pytest.mark.threat("T-26", "T-29")
async def test_keys_of_a_session_are_never_logged(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    pair = ours.issue("opa", address=HOST)
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    server = await asyncio.start_server(answering(), HOST, 0, ssl=context)
    url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}"
    engine = await OpaEngine.connect(url, deadline_ms=10_000, ca_file=ours.path)
    # The server's side breaks when we leave; it is its handler that would complain.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    assert (await engine.evaluate([DECIDE], b"{}")).revision == "r1"
    await engine.aclose()
    server.close()
    await server.wait_closed()
    assert not (tmp_path / "keys").exists()


# Who listens at a Unix socket

LISTEN = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
os.setuid(int(sys.argv[2]))
listener.listen()
print("listening", flush=True)
while True:
    taken, _ = listener.accept()
    if taken.recv(65536):
        taken.sendall(bytes.fromhex(sys.argv[3]))
"""


@pytest.mark.threat("T-29")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users; to run it: sudo")
async def test_socket_of_another_user_is_believed_only_where_he_is_named(tmp_path: Path) -> None:
    from tests.policy.opa.world import decided, http, said

    path, user = tmp_path / "opa.sock", 12_345
    answer = http(said(decided())).hex()
    server = subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(path), str(user), answer], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    with server.stdout:
        try:
            assert server.stdout.readline() == b"listening\n"
            assert await code_at(f"unix:{path}") == "policy_not_ready"
            assert await code_at(f"unix:{path}", socket_uids=[user + 1]) == "policy_not_ready"
            assert await code_at(f"unix:{path}", socket_uids=[user]) == "none"
        finally:
            server.kill()
            server.wait()


@pytest.mark.threat("T-29")
async def test_listener_whose_user_is_not_allowed_is_refused(tmp_path: Path) -> None:
    async with misbehaving(answering(), tmp_path / "opa.sock"):
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(tmp_path / "opa.sock"))
            check_peer(connected, frozenset({os.geteuid()}))
            fault = await fault_of(_checked(connected, frozenset({os.geteuid() + 1})))
            assert fault.code == "policy_not_ready"


async def _checked(connected: socket.socket, allowed: frozenset[int]) -> None:
    check_peer(connected, allowed)


# Who asks


@pytest.mark.needs("opa")
@pytest.mark.threat("T-29")
async def test_server_that_wants_a_client_certificate_gets_ours(
    ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    server = ours.issue("opa", address=HOST)
    async with over_tls(tmp_path, server, clients=ours) as url:
        for client, expected in (
            (ours.issue("remit"), {"none"}),
            (ours.issue("somebody"), {"policy_not_ready"}),
            (theirs.issue("stranger"), {"policy_not_ready", "policy_unavailable"}),
        ):
            files = {"cert_file": client.cert, "key_file": client.key}
            assert await code_at(url, ca_file=ours.path, **files) in expected
        assert await code_at(url, ca_file=ours.path) in ("policy_not_ready", "policy_unavailable")


@pytest.mark.needs("opa")
@pytest.mark.threat("T-29")
async def test_server_that_wants_a_token_gets_it(tmp_path: Path) -> None:
    arguments = ["--authentication=token", *guarded(tmp_path, "hunter2")]
    async with serving(*arguments, cwd=tmp_path, address=SOCKET):
        url = f"unix:{tmp_path}/opa.sock"
        assert await code_at(url, token="hunter2") == "none"
        assert await code_at(url, token="hunter3") == "policy_not_ready"
        assert await code_at(url) == "policy_not_ready"


@pytest.mark.needs("opa")
@pytest.mark.threat("T-29")
async def test_token_and_certificate_are_asked_for_together_over_tls(
    ours: Authority, tmp_path: Path
) -> None:
    server = ours.issue("opa", address=HOST)
    address = f"https://{HOST}:{free_port()}"
    arguments = [
        *(f"--tls-cert-file={server.cert}", f"--tls-private-key-file={server.key}"),
        *("--authentication=token", *guarded(tmp_path, "hunter2")),
    ]
    async with serving(*arguments, cwd=tmp_path, address=address):
        assert await code_at(address, ca_file=ours.path, token="hunter2") == "none"
        assert await code_at(address, ca_file=ours.path) == "policy_not_ready"


# Readiness of a server of others


@pytest.mark.needs("opa")
async def test_guarded_server_is_ready_without_the_probes_and_says_so(tmp_path: Path) -> None:
    arguments = ["--authentication=token", *guarded(tmp_path, "hunter2")]
    async with serving(*arguments, cwd=tmp_path, address=SOCKET):
        engine = await OpaEngine.connect(f"unix:{tmp_path}/opa.sock", token="hunter2")
        said = [engine.probes_installed]
        await engine.probe()
        assert [*said, engine.probes_installed] == [None, False]
        assert engine.revision == f"authz=authz-1,policy={BUNDLE.revision}"
        await engine.aclose()


@pytest.mark.needs("opa")
@pytest.mark.threat("T-12")
async def test_server_with_the_probes_has_to_answer_every_one_of_them(tmp_path: Path) -> None:
    written(tmp_path / "policy", BUNDLE)
    written(tmp_path / "probe", probing.bundle())
    async with serving("--bundle", "policy", "probe", cwd=tmp_path, address=SOCKET):
        engine = await OpaEngine.connect(f"unix:{tmp_path}/opa.sock", deadline_ms=10_000)
        await engine.probe()
        assert engine.probes_installed is True
        await engine.aclose()
    text = probing.module().replace("min([60, 120])", "60").replace("[9, 10, 100]", "[10, 9]")
    (tmp_path / "probe/probe.rego").write_text(text.replace("sort([10, 9, 100])", "[10, 100, 9]"))
    async with serving("--bundle", "policy", "probe", cwd=tmp_path, address=SOCKET):
        engine = await OpaEngine.connect(f"unix:{tmp_path}/opa.sock", deadline_ms=10_000)
        assert await code_of_probe(engine) is Code.POLICY_NOT_READY
        await engine.aclose()


@pytest.mark.needs("opa")
@pytest.mark.threat("T-12")
async def test_server_that_is_not_there_is_not_ready(tmp_path: Path) -> None:
    engine = await OpaEngine.connect(f"unix:{tmp_path}/opa.sock")
    assert await code_of_probe(engine) is Code.POLICY_UNAVAILABLE
    async with pointing(engine) as point:
        point._probed_s = float("-inf")
        assert await point.ready() is not None
