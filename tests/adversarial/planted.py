"""What is planted on the host for hostile programs to find."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_IPC_CREAT, _IPC_RMID = 0o1000, 0
_KEY_SPEC_USER_KEYRING, _KEYCTL_UNLINK = -4, 9
_X86 = os.uname().machine == "x86_64"
_ADD_KEY, _KEYCTL = (248, 250) if _X86 else (217, 219)


@contextlib.contextmanager
def planted() -> Iterator[dict[str, Any]]:
    """Plant everything; give what programs are told of it: even its names help them nothing."""
    marker = f"planted-{secrets.token_hex(8)}"
    facts: dict[str, Any] = {"marker": marker, "host": os.uname().nodename}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remit-plant-")))
        directory.chmod(0o755)
        facts["directory"] = str(directory)
        _files(directory, marker, facts, stack)
        _sockets(directory, facts, stack)
        _memory(marker, facts, stack)
        _process(marker, facts, stack)
        _key(marker, facts, stack)
        yield facts


def _files(
    directory: Path, marker: str, facts: dict[str, Any], stack: contextlib.ExitStack
) -> None:
    secret = directory / "secret"
    secret.write_text(marker)
    secret.chmod(0o644)
    facts["secret_file"] = str(secret)
    (directory / "authority.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    scratch = directory / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    facts["scratch"] = str(scratch)
    shared = Path("/dev/shm") / marker
    shared.write_text(marker)
    stack.callback(shared.unlink)
    facts["shared_file"] = str(shared)


def _sockets(directory: Path, facts: dict[str, Any], stack: contextlib.ExitStack) -> None:
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.1", 0))
    facts["tcp_port"], facts["udp_port"] = tcp.getsockname()[1], udp.getsockname()[1]
    facts["abstract"] = f"remit-{facts['marker']}"
    facts["socket_path"] = str(directory / "socket")
    for name in ("\0" + facts["abstract"], facts["socket_path"]):
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(name)
        unix.listen(16)
    Path(facts["socket_path"]).chmod(0o777)
    _echo(udp, stack)


def _echo(udp: socket.socket, stack: contextlib.ExitStack) -> None:
    """Answer what comes, so that whoever waits for an answer knows that it went out."""
    udp.settimeout(0.2)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                data, sender = udp.recvfrom(2048)
                udp.sendto(data, sender)

    server = threading.Thread(target=serve)
    server.start()
    stack.callback(server.join)
    stack.callback(ended.set)


def _memory(marker: str, facts: dict[str, Any], stack: contextlib.ExitStack) -> None:
    facts["ipc_key"] = secrets.randbelow(2**30) + 1
    segment = _LIBC.shmget(facts["ipc_key"], 4096, _IPC_CREAT | 0o666)
    if segment < 0:
        raise OSError(ctypes.get_errno(), "no shared memory could be planted")
    stack.callback(_LIBC.shmctl, segment, _IPC_RMID, None)
    facts["queue"] = f"/{marker}"
    library = ctypes.CDLL("librt.so.1", use_errno=True)
    flags = os.O_CREAT | os.O_RDWR
    queue = library.mq_open(facts["queue"].encode(), flags, ctypes.c_uint(0o666), None)
    if queue < 0:
        raise OSError(ctypes.get_errno(), "no message queue could be planted")
    stack.callback(library.mq_unlink, facts["queue"].encode())
    stack.callback(os.close, queue)


def _process(marker: str, facts: dict[str, Any], stack: contextlib.ExitStack) -> None:
    victim = subprocess.Popen(
        ["/bin/sh", "-c", f": {marker}; read x"], stdin=subprocess.PIPE, env={"MARKER": marker}
    )
    stack.callback(victim.wait)
    assert victim.stdin is not None
    stack.callback(victim.stdin.close)
    facts["victim"] = victim.pid
    facts["gateway"] = os.getpid()


def _key(marker: str, facts: dict[str, Any], stack: contextlib.ExitStack) -> None:
    """A key in the user's keyring; some hosts refuse that, and then there is none to find."""
    facts["key"] = marker
    data = marker.encode()
    serial = _LIBC.syscall(
        _ADD_KEY, b"user", data, data, len(data), ctypes.c_long(_KEY_SPEC_USER_KEYRING)
    )
    facts["key_planted"] = serial > 0
    if serial > 0:
        stack.callback(
            _LIBC.syscall, _KEYCTL, _KEYCTL_UNLINK, serial, ctypes.c_long(_KEY_SPEC_USER_KEYRING)
        )
