"""`remit serve`: both doors, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import click
import uvicorn
import uvloop
from starlette.types import ASGIApp

from remit.app import door_settings, open_gateway
from remit.cli.invocation import pass_settings
from remit.config import Settings
from remit.doors.admin import admin_app
from remit.doors.mcp import mcp_app
from remit.gateway import Gateway
from remit.settings.address import Address
from remit.telemetry import configure_logs, logger

SHUTDOWN_S = 5


class Door(uvicorn.Server):
    """A uvicorn server that leaves signals to `serve`, which ends both doors together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def door(app: ASGIApp, address: Address) -> Door:
    return Door(
        uvicorn.Config(
            app,
            host=address.host,
            port=address.port,
            log_level="warning",
            access_log=False,
            loop="none",
            http="httptools",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )


async def serve_until_signalled(settings: Settings) -> None:
    """Serve until TERM or INT, then stop taking calls and let runs end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_gateway(settings) as gateway:
        how = door_settings(settings)
        doors = [
            door(mcp_app(gateway, how), settings.listen),
            door(admin_app(gateway, how), settings.admin),
        ]
        serving = [asyncio.ensure_future(one.serve()) for one in doors]
        stopped = asyncio.ensure_future(stop.wait())
        announce(settings, gateway)
        await asyncio.wait([*serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        for one in doors:
            one.should_exit = True
        await asyncio.gather(*serving)
        stopped.cancel()


def announce(settings: Settings, gateway: Gateway) -> None:
    """Say where it is and what is unsafe about it."""
    log = logger()
    path = gateway.settings
    log.info(
        "serving",
        mcp=f"http://{settings.listen}/mcp",
        admin=f"http://{settings.admin}",
        gateway=path.gateway,
        runner=gateway.runner.tier.value,
    )
    for name in path.unsafe:
        log.warning("unsafe", setting=name, hint="see docs/configuration.md")
    if gateway.runner.missing:
        log.warning(
            "no_runner", missing=list(gateway.runner.missing), hint=gateway.runner.hint or ""
        )


@click.command("serve")
@pass_settings
def serve(settings: Settings) -> None:
    """Serve agents (MCP) and operators (admin API) until interrupted."""
    telemetry = settings.sections.telemetry
    configure_logs(telemetry.log_format, telemetry.log_level)
    uvloop.run(serve_until_signalled(settings))
