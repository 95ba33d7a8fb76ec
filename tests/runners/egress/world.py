"""Real destinations for tests of the egress proxy: TLS servers with an authority of their own, and
the proxy's runs behind a real listener."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from remit.model import EgressRule, Traffic
from remit.reach import egress_facts
from remit.runners.egress.client import read_traffic
from remit.runners.egress.purse import read_injection
from remit.runners.egress.refusals import Refusal
from remit.runners.egress.runs import Bounds, Runs
from remit.runners.egress.upstream import Upstream

NAMES = ("one.test", "two.test", "localhost", "127.0.0.1")
RUN = "run_1"
SECRET = "s3cr3t/of+the=run&only"

Reply = Callable[["Asked"], bytes | Awaitable[bytes]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority and a server's certificate by it."""

    authority: str
    chain: Path


def certificates(directory: Path, names: Sequence[str] = NAMES) -> Certificates:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def built(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    root = (
        built(issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    leaf = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    signed = (
        built(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), leaf.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, SHA256())
    )
    chain = directory / "chain.pem"
    private = leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(signed.public_bytes(Encoding.PEM) + private)
    return Certificates(root.public_bytes(Encoding.PEM).decode(), chain)


@dataclass(slots=True)
class Asked:
    """A request as a destination got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


def ok(body: bytes = b"fine", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Destination:
    """A server that answers each request by `reply` and remembers what it was asked."""

    port: int = 0
    reply: Reply = field(default=lambda asked: ok())
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    closes: bool = False
    serving: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    names: list[str | None] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, ssl.SSLError):
            while True:
                asked = await read_request(reader)
                self.asked.append(asked)
                reply = self.reply(asked)
                writer.write(reply if isinstance(reply, bytes) else await reply)
                await writer.drain()
                if self.closes:
                    break
        writer.close()


async def read_request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    assert len(headers) == len(pairs), "a header came twice"
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        assert await reader.readline() == b"\r\n", "trailers"
    elif length := int(headers.get("content-length", "0")):
        body = await reader.readexactly(length)
    return Asked(method, target, headers, body)


@contextlib.asynccontextmanager
async def destination(chain: Path | None, reply: Reply | None = None) -> AsyncIterator[Destination]:
    found = Destination()
    if reply is not None:
        found.reply = reply
    context = None
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.sni_callback = lambda sock, name, _: found.names.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (found.serving or found.serve)(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


class World:
    """Runs of a proxy in this process, each behind a listener on loopback."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.ports: dict[str, int] = {}
        self.pems: dict[str, str] = {}

    def open(
        self,
        *rules: EgressRule,
        run: str = RUN,
        fence: int = 1,
        key: str = "call",
        terminate: bool = True,
        ends_ms: int | None = None,
    ) -> int:
        """Open a run; its port."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        listener.setblocking(False)
        port = int(listener.getsockname()[1])
        self.pems[run] = self.runs.authorities.prepare(run).pem.decode()
        facts = {
            "run": run,
            "prepared": run,
            "fence": fence,
            "key": key,
            "rules": egress_facts(rules),
            "ends_ms": now_ms() + 60_000 if ends_ms is None else ends_ms,
            "terminate": terminate,
        }
        try:
            self.runs.open(facts, listener)
        except BaseException:
            listener.close()
            raise
        self.ports[run] = port
        return port

    def lend(self, *credentials: dict[str, Any], run: str = RUN, fence: int = 1) -> None:
        facts = {"run": run, "fence": fence, "ends_ms": now_ms() + 60_000}
        self.runs.inject(facts, [read_injection(each) for each in credentials])

    async def traffic(self, run: str = RUN) -> Traffic:
        return read_traffic(await self.runs.close(run))

    async def client(self, run: str = RUN) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.ports[run]))

    async def tunnel(
        self,
        host: str,
        port: int,
        *,
        run: str = RUN,
        name: str | None = None,
        ca: str | None = None,
    ) -> Client:
        """CONNECT, then TLS with the run's authority (or `ca`) as the only one trusted."""
        client = await self.client(run)
        client.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        status, _, _ = await client.answer("CONNECT")
        if status != 200:
            await client.close()
            raise Refusal(str(status))
        await client.secure(ca or self.pems[run], name or host)
        return client


class Client:
    """The run's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def secure(self, ca: str, name: str) -> None:
        context = ssl.create_default_context(cadata=ca)
        context.set_alpn_protocols(["h2", "http/1.1"])
        await self.writer.start_tls(context, server_hostname=name)

    async def ask(
        self, method: str, target: str, host: str, *headers: str, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {
            name.lower(): value.strip() for name, _, value in (li.partition(":") for li in lines)
        }
        if method == "HEAD" or status in (204, 304) or (method == "CONNECT" and status == 200):
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
            return status, headers, body
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, await self.reader.read()

    async def ended(self) -> bytes:
        """All that comes until the proxy closes."""
        found = b""
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await self.reader.read(65_536):
                found += data
        return found

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def world(
    ca: str,
    internal: Sequence[tuple[str, int]],
    *,
    unsafe_plain: Sequence[tuple[str, int]] = (),
    connections: int = 64,
    bytes_mb: int = 64,
    names: dict[str, list[str]] | None = None,
) -> AsyncIterator[World]:
    """A proxy's runs; every name resolves to 127.0.0.1 unless `names` says otherwise."""

    async def look(host: str, port: int, share: asyncio.Semaphore) -> list[str]:
        await asyncio.sleep(0)
        return (names or {}).get(host, ["127.0.0.1"])

    upstream = Upstream(frozenset(internal), ca, look)
    bounds = Bounds(
        connections=connections, bytes_mb=bytes_mb, unsafe_plain=frozenset(unsafe_plain)
    )
    found = World(Runs(upstream, bounds))
    try:
        yield found
    finally:
        await found.runs.sweep(())


def credential(host: str, port: int, **also: Any) -> dict[str, Any]:
    """A credential as the keeper sends it."""
    return {
        "ref": "ci",
        "host": host,
        "port": port,
        "path_prefix": None,
        "header": "Authorization",
        "value": f"Bearer {SECRET}",
        "secrets": [SECRET],
        **also,
    }


def rule(host: str, port: int, *methods: str, path: str | None = None) -> EgressRule:
    return EgressRule(host=host, port=port, methods=methods or None, path_prefix=path)


def one(
    certs: Certificates, *there: Destination, **also: Any
) -> contextlib.AbstractAsyncContextManager[World]:
    """A world in which each destination may be reached as one.test, two.test and 127.0.0.1."""
    internal = [
        (name, each.port) for name in ("one.test", "two.test", "127.0.0.1") for each in there
    ]
    return world(certs.authority, internal, **also)
