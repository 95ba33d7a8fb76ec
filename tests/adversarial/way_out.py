"""A real egress proxy, the destinations behind it, and a runner whose runs go out by it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from remit.model import EgressRule, RunResult, RunSpec
from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.adversarial.careless import Careless
from tests.runners.egress.process import OWN_UID, Keeper
from tests.runners.egress.world import (
    SECRET,
    Asked,
    Certificates,
    Destination,
    credential,
    destination,
    ok,
    rule,
)
from tests.runners.support import GATEWAY, groups_naming, new_lease

ATTACKERS = "Bearer the-attackers"


@dataclass(frozen=True, slots=True)
class WayOut:
    """Everything that a run with a way out meets, and what its destinations saw of it."""

    runner: SandboxRunner
    proxy: EgressProxy
    keeper: Keeper
    careless: Careless
    open: Destination
    tunnel: Destination
    closed: Destination
    private: Destination
    talk: Destination

    @property
    def rules(self) -> tuple[EgressRule, ...]:
        return (
            rule("localhost", self.open.port, "GET", "POST", path="/open"),
            rule("localhost", self.tunnel.port),
            rule("localhost", self.private.port),
            rule("localhost", self.talk.port),
        )

    def ports(self) -> dict[str, int]:
        names = ("open", "tunnel", "closed", "private", "talk")
        return {name: getattr(self, name).port for name in names}

    async def run(self, spec: RunSpec) -> RunResult:
        """A whole run with the credential put in; nothing of it may be left."""
        for each in (self.open, self.tunnel, self.closed, self.private):
            each.asked.clear()
            each.names.clear()
            each.connections = 0
        lease = new_lease("out")
        await self.runner.provision(lease, spec)
        put_in = credential("localhost", self.open.port, path_prefix="/open")
        said = await self.keeper.say(
            {
                "op": "inject",
                "run": lease.id,
                "fence": lease.fence,
                "ends_ms": lease.deadline_ms,
                "credentials": [put_in],
            }
        )
        assert said["ev"] == "injecting", said
        await self.runner.start(lease)
        result = await self.runner.collect(lease)
        evidence = await self.runner.destroy(lease)
        assert evidence.complete, evidence
        assert groups_naming(lease.id) == []
        return result

    def trespasses(self) -> list[str]:
        """What destinations were asked that no plan named."""
        found = [f"{each.method} {each.target}" for each in self.open.asked if not allowed(each)]
        found += [f"closed: {each.target}" for each in self.closed.asked]
        found += [f"private: {each.target}" for each in self.private.asked]
        found += ["closed"] * self.closed.connections + ["private"] * self.private.connections
        found += [f"greeted as {name}" for name in self.tunnel.names if name != "localhost"]
        for each in (*self.tunnel.asked, *self.closed.asked, *self.private.asked):
            if SECRET in str(each.headers):
                found.append("the secret went elsewhere")
        found += [
            "went by a credential of its own"
            for each in self.open.asked
            if each.headers.get("authorization") != f"Bearer {SECRET}"
        ]
        return found


def allowed(asked: Asked) -> bool:
    """Whether a request is within the rule for the open port."""
    path = asked.target.partition("?")[0]
    plain = not any(word in path.lower() for word in ("..", "%2", "%5", "//", "\\", "%00", "\x85"))
    return (
        asked.method in {"GET", "POST"}
        and plain
        and (path == "/open" or path.startswith("/open/"))
        and "secret" not in path
    )


def _spelt(secret: str, how: str) -> bytes:
    raw = secret.encode()
    return {
        "base64": base64.b64encode(raw),
        "url64": base64.urlsafe_b64encode(raw),
        "percent": quote(secret, safe="").encode(),
        "hex": raw.hex().encode(),
        "json": json.dumps({"it": secret}).encode(),
        "shifted": base64.b64encode(b"x:" + raw),
    }.get(how, raw)


def _echo(secret: str, how: str) -> bytes:
    body = b"here it is: " + _spelt(secret, how) + b"."
    match how:
        case "header":
            return ok(b"see above", f"X-Echo: {secret}")
        case "reason":
            return ok(status=f"200 {secret}")
        case "error":
            return ok(body, status="500 Broken")
        case "gzip":
            return ok(gzip.compress(body), "Content-Encoding: gzip")
        case "deflate":
            return ok(zlib.compress(body), "Content-Encoding: deflate")
        case "pieces":
            cut = [body[at : at + 3] for at in range(0, len(body), 3)]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in cut)
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        case "trailer":
            end = b"0\r\nX-Echo: " + secret.encode() + b"\r\n\r\n"
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n" + end
        case _:
            return ok(body)


def answering(port: Callable[[], int]) -> Callable[[Asked], bytes]:
    """The open port's answers: its treasure for whatever the rule does not allow."""

    def reply(asked: Asked) -> bytes:
        path, _, query = asked.target.partition("?")
        authorization = asked.headers.get("authorization", "")
        if not allowed(asked) or asked.headers.get("host") != f"localhost:{port()}":
            return ok(b"TREASURE")
        if authorization == ATTACKERS or "the-attackers" in str(asked.headers):
            return ok(b"TREASURE of another")
        if path == "/open/redirect":
            return ok(b"", f"Location: {query}", status="302 Found")
        if path == "/open/upgrade" and "upgrade" in asked.headers:
            return b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
        if path == "/open/echo":
            return _echo(authorization.removeprefix("Bearer "), query)
        return ok()

    return reply


def patient(place: Destination) -> Destination:
    """Ends a connection where it is asked to, and where it cannot make sense of a request."""
    answer, serve = place.reply, place.serve

    def reply(asked: Asked) -> bytes | Awaitable[bytes]:
        place.closes = asked.headers.get("connection", "").lower() == "close"
        return answer(asked)

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(AssertionError, ValueError, asyncio.LimitOverrunError):
                await serve(reader, writer)
        finally:
            writer.close()

    place.reply, place.serving = reply, serving
    return place


async def _speaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers whatever it is told, in whatever protocol."""
    with contextlib.suppress(OSError):
        if await reader.read(100):
            writer.write(b"SPOKE")
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def way_out(certs: Certificates, state: Path) -> AsyncIterator[WayOut]:
    async with contextlib.AsyncExitStack() as stack:
        places = [await stack.enter_async_context(destination(certs.chain)) for _ in range(3)]
        private = await stack.enter_async_context(destination(None))
        opened, tunnel, closed = places
        opened.reply = answering(lambda: opened.port)
        tunnel.reply = lambda asked: _echo(asked.headers.get("authorization", "none"), "plain")
        closed.reply = private.reply = lambda asked: ok(b"TREASURE")
        for each in (*places, private):
            patient(each)
        talk = await stack.enter_async_context(destination(None))
        talk.serving = _speaks
        careless = Careless(SECRET)
        server = await careless.open()
        stack.push_async_callback(careless.aclose)
        stack.callback(server.close)
        keeper = Keeper()
        settings = EgressSettings(
            internal=tuple(f"localhost:{each.port}" for each in (opened, tunnel, talk)),
            ca_pem=certs.authority,
            bytes_mb=8,
            uid=OWN_UID,
        )
        proxy = await EgressProxy.open(settings, keeper.renew)
        stack.push_async_callback(proxy.aclose)
        stack.callback(keeper.close)
        runner = await SandboxRunner.open(
            SandboxSettings(state_dir=state, gateway=f"{GATEWAY}-out"), proxy
        )
        stack.push_async_callback(runner.aclose)
        yield WayOut(runner, proxy, keeper, careless, opened, tunnel, closed, private, talk)


async def outside(out: WayOut, argv: tuple[str, ...], facts: dict[str, Any]) -> bytes:
    """What a program says as a plain process, with the careless proxy."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=facts["scratch"],
        env={},
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate(json.dumps(facts).encode())
    return said
