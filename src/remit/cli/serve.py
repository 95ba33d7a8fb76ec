"""`remit serve`: both doors, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import click
import uvicorn
import uvloop
from starlette.types import ASGIApp

from remit.account import same_user
from remit.app import SAME_USER, door_settings, open_gateway
from remit.cli.invocation import pass_settings
from remit.cli.together import DoorProtocol
from remit.config import Settings
from remit.consenting import ConsentDesk
from remit.doors.admin import admin_app
from remit.doors.issuer import PublicIssuer
from remit.doors.mcp import mcp_app
from remit.errors import Code, ConfigError
from remit.gateway import Gateway
from remit.settings.address import Address
from remit.settings.credentials import ConsentCredential
from remit.telemetry import configure_logs, configure_tracing, logger

SHUTDOWN_S = 5
"""How long a request may go on after a signal; a run that has begun goes on without it."""


class Door(uvicorn.Server):
    """A uvicorn server that leaves signals to `serve`, which ends both doors together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def door(app: ASGIApp) -> Door:
    return Door(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            loop="none",
            http=DoorProtocol,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )


def bound(setting: str, address: Address) -> socket.socket:
    """A socket bound to the address, on which nothing is accepted yet.

    Raises:
        ConfigError: `address_refused`: taken, not of this machine, or not this account's to take.
    """
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = min(infos, key=lambda info: info[0] != socket.AF_INET)
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(where)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        variable = "REMIT_" + setting.upper().replace(".", "__")
        why = _WHY.get(error.errno or 0, os.strerror(error.errno or errno.EADDRNOTAVAIL))
        raise ConfigError(
            Code.ADDRESS_REFUSED,
            f"cannot listen on {address}: {why}",
            place=setting,
            hint=f"choose another in remit.yaml, or with {variable}=127.0.0.1:PORT",
        ) from None
    return made


_WHY = {
    errno.EADDRINUSE: "another program does already",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "this account may not take that port",
    socket.EAI_NONAME: "there is no machine of that name",
}


def public_issuer(settings: Settings, gateway: Gateway) -> PublicIssuer | None:
    """What the MCP door publishes of the issuer of run tokens; None where there is none."""
    issuer = settings.sections.runners.issuer
    if issuer is None:
        return None
    return PublicIssuer(url=issuer.url, algorithm=issuer.algorithm, keys=gateway.issuer_keys)


def consent_desk(settings: Settings, gateway: Gateway) -> ConsentDesk | None:
    """Whom the MCP door asks about pages on which people consent; None where nobody ever does."""
    sections = settings.sections.runners.credentials.values()
    return gateway.desk if any(isinstance(each, ConsentCredential) for each in sections) else None


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Make in the block what stays as long as the process does.

    A catalog of many tools is many objects, and looking for cycles among them again and again would
    be a third of the start, and later a pause for all calls at once.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


async def serve_until_signalled(settings: Settings, sockets: Sequence[socket.socket]) -> None:
    """Serve MCP and the admin API on these two sockets until TERM or INT, then stop taking calls
    and let runs end."""
    log = logger()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        with uncollected():
            gateway = await stack.enter_async_context(open_gateway(settings))
        loop.add_signal_handler(signal.SIGHUP, gateway.look_for_policy)
        configure_tracing()
        how, issuer = door_settings(settings), public_issuer(settings, gateway)
        doors = [
            door(mcp_app(gateway, how, issuer=issuer, consents=consent_desk(settings, gateway))),
            door(admin_app(gateway, how)),
        ]
        serving = [
            asyncio.ensure_future(one.serve([at])) for one, at in zip(doors, sockets, strict=True)
        ]
        for at in sockets:
            at.listen(socket.SOMAXCONN)  # from here a connection waits instead of being refused
        announce(gateway, [at.getsockname() for at in sockets])
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([*serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        gateway.stop_waiting()
        for one in doors:
            one.should_exit = True
        await asyncio.gather(*serving)
        stopped.cancel()
    log.info("stopped")


def announce(gateway: Gateway, at: Sequence[tuple[str, int]]) -> None:
    """Say where it is and what is unsafe about it."""
    log = logger()
    path = gateway.settings
    mcp, admin = (Address(host, port) for host, port, *_ in at)
    log.info(
        "serving",
        mcp=f"http://{mcp}/mcp",
        admin=f"http://{admin}",
        gateway=path.gateway,
        runner=gateway.runner.tier.value,
        verifier=gateway.ledger.verifier_key,
    )
    for name in path.unsafe:
        why = (same_user() or "others can read its files") if name == SAME_USER else "it is set"
        hint = "`remit doctor` has the command" if name == SAME_USER else "docs/configuration.md"
        log.warning("unsafe", setting=name, why=why, hint=hint)
    if gateway.runner.missing:
        log.warning(
            "no_runner", missing=list(gateway.runner.missing), hint=gateway.runner.hint or ""
        )
    for each in gateway.refused_profiles():
        if each["name"] == gateway.runner.profile and gateway.runner.missing:
            continue  # was said as `no_runner`
        why = each["fault"] or ", ".join(each["missing"])
        log.warning("profile_refused", profile=each["name"], why=why, hint=each["hint"] or "")


@click.command("serve")
@pass_settings
def serve(settings: Settings) -> None:
    """Serve agents (MCP) and operators (admin API) until interrupted."""
    telemetry = settings.sections.telemetry
    configure_logs(telemetry.log_format, telemetry.log_level)
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(contextlib.closing(bound(name, address)))
            for name, address in (
                ("server.listen", settings.listen),
                ("server.admin", settings.admin),
            )
        ]
        # Where the system chose the port, people's browsers have to be told that one.
        taken = Address(settings.listen.host, sockets[0].getsockname()[1])
        uvloop.run(serve_until_signalled(replace(settings, listen=taken), sockets))
