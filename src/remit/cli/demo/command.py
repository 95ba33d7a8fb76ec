"""The `remit demo` command."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from remit.cli.demo.acts import Play, agent
from remit.cli.demo.behind import Behind, until_tool
from remit.cli.demo.tickets import Tickets, serving
from remit.cli.demo.transcript import Transcript
from remit.cli.demo.world import World, gateway, make
from remit.doors.client import AdminClient
from remit.ledger.signer import FileSigner


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the demo's directory, and say where it is.")
def demo(keep: bool) -> None:
    """Play the whole path once: a real agent's client, a real repository, real sandboxes."""
    root = Path(tempfile.mkdtemp(prefix="remit-demo-"))
    say = Transcript()
    try:
        with serving() as tickets:
            code = play(root, say, tickets)
    finally:
        if keep:
            say.line(f"everything is in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    raise SystemExit(code)


def play(root: Path, say: Transcript, tickets: Tickets) -> int:
    """Make a world in `root` and act in it; 0 if all held, 1 if not, 3 if no runner is to be had."""
    began = time.monotonic()
    say.line("Remit: agents act only within their remit.")
    world = make(root, tickets)
    with gateway(world):
        admin = AdminClient(world.admin_url, world.operator_token)
        status = admin.status()
        runner = status["runner"]
        say.fact("gateway", f"{world.url}, runner {runner['name']} ({runner['version']})")
        say.fact("agent", "deploy-bot, acting for dana, through the mcp package's own client")
        say.fact("operator", "olga, through the admin API with a credential of her own")
        for name in status["unsafe"]:
            say.fact("note", f"{name}: agents that run as this OS user could read the keys")
        if runner["tier"] not in ("sandbox", "gvisor", "remote"):
            asyncio.run(_up_to_the_runner(world, say))
            return _without_runner(say)
        for tool in ("read", "add"):
            until_tool(admin, "notes", tool, "offered")
        asyncio.run(_acts(world, say, tickets))
        exported = root / "export.jsonl"
        exported.write_bytes(b"".join(admin.export()))
    _proof(world, exported, say)
    took = time.monotonic() - began
    say.line()
    if say.failures:
        say.line(f"{len(say.failures)} thing(s) did not hold: " + "; ".join(say.failures))
        return 1
    say.line(f"Everything held, in {took:.0f} s. What you saw is real: {_counts(exported)}.")
    return 0


async def _acts(world: World, say: Transcript, tickets: Tickets) -> None:
    async with agent(world) as client:
        acts = Play(world, client, say)
        await acts.discovery()
        await acts.read()
        await acts.write()
        await acts.denied()
        await acts.approved()
        await acts.changed_meanwhile()
        await acts.lent(tickets)
        await Behind(world, acts, say).act()
        await acts.hostile()
        (world.root / "receipt.json").write_text(json.dumps(acts.receipt))


async def _up_to_the_runner(world: World, say: Transcript) -> None:
    async with agent(world) as client:
        acts = Play(world, client, say)
        await acts.discovery()
        await acts.denied()
        await acts.refused_without_runner()


def _without_runner(say: Transcript) -> int:
    say.line()
    say.line("This machine does not let a sandbox be made, so no tool ran. What enables it:")
    done = subprocess.run(
        [sys.executable, "-m", "remit", "doctor"], capture_output=True, text=True, check=False
    )
    say.line(done.stdout)
    return 3


def _proof(world: World, exported: Path, say: Transcript) -> None:
    say.act("The proof: the exported log is verified offline, then one byte of it is changed")
    key = FileSigner.load(world.root / ".remit" / "keys" / "log.key").verifier_key
    receipt = world.root / "receipt.json"
    code, words = _verify(exported, key, receipt)
    say.fact("verify", words)
    say.expect("the log holds, and so does the receipt that the agent kept", code == 0)
    text = bytearray(exported.read_bytes())
    lines = exported.read_bytes().split(b"\n")
    target = next(
        number
        for number, line in enumerate(lines)
        if b"restart_service" in line and b"intent" in line
    )
    at = sum(len(line) + 1 for line in lines[:target]) + lines[target].index(b"restart_service")
    text[at] ^= 0x01
    tampered = world.root / "tampered.jsonl"
    tampered.write_bytes(text)
    index = json.loads(lines[target])["index"]
    say.fact("someone", f"changes one byte of entry {index}: {bytes(text[at : at + 15]).decode()}")
    code, words = _verify(tampered, key, receipt)
    say.fact("verify", words)
    say.expect(
        f"the change is noticed, and entry {index} is named", code == 1 and str(index) in words
    )


def _verify(path: Path, key: str, receipt: Path) -> tuple[int, str]:
    done = subprocess.run(
        [
            sys.executable, "-m", "remit", "audit", "verify", str(path),
            "--key", key, "--receipt", str(receipt),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).strip()


def _counts(exported: Path) -> str:
    events: dict[str, int] = {}
    for line in exported.read_text().splitlines():
        row = json.loads(line)
        if "entry" in row:
            event = json.loads(row["entry"])["event"]
            events[event] = events.get(event, 0) + 1
    runs = events.get("call.outcome", 0)
    return (
        f"{events.get('decision', 0)} decisions, {runs} sandboxes made and destroyed, "
        f"{sum(events.values())} entries in the log"
    )
