"""Hostile commands that reach for a network: there is none but their own loopback."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from remit.runners.sandbox import SandboxRunner
from tests.runners.support import contained, python

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-19"),
]


async def test_no_address_outside_is_reached(runner: SandboxRunner) -> None:
    source = """
import errno, socket
for family, address in (
    (socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET, ("8.8.8.8", 53)),
    (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET, ("10.0.0.1", 22)),
    (socket.AF_INET6, ("2001:db8::1", 80)), (socket.AF_INET6, ("fe80::1", 80)),
):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            try:
                s.connect(address); print("reached", address)
            except OSError as exc:
                # EACCES is Landlock's answer, which comes before that of the namespace.
                if exc.errno not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EACCES):
                    print(address, exc)
try:
    print(socket.getaddrinfo("example.com", 80))
except socket.gaierror:
    pass
print(socket.if_nameindex())
"""
    assert (await contained(runner, python(source))).stdout == b"[(1, 'lo')]\n"


async def test_the_hosts_loopback_is_another(runner: SandboxRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = f"""
import socket
for host in ("127.0.0.1", "localhost", "0.0.0.0"):
    try:
        socket.create_connection((host, {port}), timeout=2); print("reached")
    except OSError as exc:
        print(type(exc).__name__)
"""
        said = (await contained(runner, python(source))).stdout
        assert said.splitlines() in ([b"ConnectionRefusedError"] * 3, [b"PermissionError"] * 3)


async def test_the_hosts_abstract_sockets_are_others(runner: SandboxRunner) -> None:
    name = f"\0remit-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        source = f"""
import socket
s = socket.socket(socket.AF_UNIX)
try:
    s.connect({name!r}); print("reached")
except OSError as exc:
    print(type(exc).__name__)
"""
        result = await contained(runner, python(source))
    assert result.stdout == b"ConnectionRefusedError\n"


async def test_sockets_of_the_host_are_not_in_its_files(runner: SandboxRunner) -> None:
    source = """
import os, stat
for top, _, names in os.walk("/"):
    if top.startswith(("/proc", "/usr")):
        continue
    for name in names:
        if stat.S_ISSOCK(os.lstat(os.path.join(top, name)).st_mode):
            print(top, name)
"""
    assert (await contained(runner, python(source))).stdout == b""


async def test_raw_and_exotic_sockets_are_refused(runner: SandboxRunner) -> None:
    source = """
import errno, socket
def attempt(*arguments):
    try:
        socket.socket(*arguments).close(); return "made"
    except OSError as exc:
        return errno.errorcode[exc.errno]
print(attempt(socket.AF_INET, socket.SOCK_RAW, 1), attempt(socket.AF_INET6, socket.SOCK_RAW, 58))
for family in (17, 38, 40, 31, 29, 44, 21, 1 << 16):  # packet alg vsock bluetooth can xdp rds
    print(attempt(family, socket.SOCK_RAW, 0), end=" ")
print(attempt(16, socket.SOCK_RAW, 0), attempt(16, socket.SOCK_RAW, 12), attempt(1, 1, 0))
"""
    lines = (await contained(runner, python(source))).stdout.decode().splitlines()
    assert lines[0] == "EPERM EPERM"
    assert lines[1] == "EAFNOSUPPORT " * 8 + "made EAFNOSUPPORT made"


async def test_nothing_can_be_sent_by_configuring_the_interface(runner: SandboxRunner) -> None:
    source = """
import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for request in (0x8914, 0x8916, 0x890B, 0x89A0):  # flags, address, route, bridge
    try:
        fcntl.ioctl(s, request, struct.pack("16sHH14s", b"lo", 1, 0, b"")); print(hex(request))
    except OSError:
        pass
"""
    assert (await contained(runner, python(source))).stdout == b""


async def test_its_own_loopback_works_on_the_ports_for_it(runner: SandboxRunner) -> None:
    source = """
import socket
server = socket.create_server(("127.0.0.1", 8000))
client = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"own")
print(client.recv(3))
"""
    assert (await contained(runner, python(source))).stdout == b"b'own'\n"
    assert Path("/proc/net/dev").exists()
