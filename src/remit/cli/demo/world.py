"""What the demo acts on: a git repository with the desired state of a few services, and a
gateway in front of it with an agent's key and an operator's key."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from remit.cli.demo.tickets import Tickets
from remit.errors import Code, RemitError
from remit.identity.keys import NewKey, new_key
from remit.ledger.signer import FileSigner

START_TIMEOUT_S = 30

SERVICES: Mapping[str, Mapping[str, Any]] = {
    "web": {"version": "2.4.1", "replicas": 4, "restarts": 0},
    "checkout": {"version": "1.9.0", "replicas": 3, "restarts": 0},
    "search": {"version": "3.0.2", "replicas": 2, "restarts": 0},
    "ledger-db": {"version": "15.4", "replicas": 1, "restarts": 0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where everything of one demo is."""

    root: Path
    state: Path
    config: Path
    agent_token: str
    operator_token: str
    mcp_port: int
    admin_port: int

    @property
    def notes(self) -> Path:
        """Where the demo's MCP server and its board are."""
        return self.root / "notes"

    def change_server(self, was: str, now: str) -> None:
        """Put another version of the demo's MCP server in its place, as its publisher would."""
        path = self.notes / "server" / "notes.py"
        text = path.read_text("utf-8")
        assert was in text, "the server says what it is changed in"
        path.write_text(text.replace(was, now), "utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.mcp_port}/mcp"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def edit(self, kind: str, environment: str, service: str, **changes: Any) -> None:
        """Change one service in the repository, as a colleague would, and commit it."""
        path = self.state / kind / f"{environment}.json"
        services = json.loads(path.read_text())
        services[service] |= changes
        path.write_text(json.dumps(services, indent=2) + "\n")
        git(self.state, "commit", "-qam", f"{kind} {environment}: {service}")
        share(self.state)


def git(state: Path, *words: str) -> str:
    done = subprocess.run(
        [
            "git", "-c", "user.name=dana", "-c", "user.email=dana@localhost",
            "-c", f"safe.directory={state}", "-C", str(state), *words,
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def share(path: Path) -> None:
    """Let the sandbox's own user, which is nobody on this host, work in the repository."""
    for folder, _, files in os.walk(path):
        os.chmod(folder, 0o777)  # noqa: S103 - the folder above it is closed
        for name in files:
            where = os.path.join(folder, name)
            os.chmod(where, os.stat(where).st_mode | 0o666)  # noqa: S103 - same


def make(root: Path, tickets: Tickets) -> World:
    """Make the repository, the keys, the policy and the configuration of a demo in `root`."""
    root.chmod(0o711)
    state = root / "state"
    _repository(state)
    agent = new_key("agent")
    operator = new_key("olga")
    policy = root / "policy"
    templates = resources.files("remit") / "templates"
    with resources.as_file(templates / "policy") as starter:
        shutil.copytree(starter, policy)
    _notes(root / "notes", policy / "data.json")
    mcp_port, admin_port = _free_ports()
    tools = (templates / "demo" / "tools.yaml").read_text()
    tools = tools.replace("@state@", str(state)).replace("@port@", str(admin_port))
    tools = tools.replace("@tickets@", str(tickets.server_port))
    tools = tools.replace("@notes@", str(root / "notes"))
    config = _config(agent, operator, mcp_port, admin_port)
    config["catalog"] = yaml.safe_load(tools)
    config["runners"] = _way_out(tickets)
    path = root / "remit.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    keys = root / ".remit" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    (root / ".remit").chmod(0o700)
    FileSigner.create(keys / "log.key", "remit.demo")
    (root / "authority.pem").write_text(tickets.authority)
    token = keys / "tickets.token"
    token.touch(mode=0o600)
    token.write_text(tickets.token)
    return World(
        root=root,
        state=state,
        config=path,
        agent_token=agent.token,
        operator_token=operator.token,
        mcp_port=mcp_port,
        admin_port=admin_port,
    )


def _config(agent: NewKey, operator: NewKey, mcp_port: int, admin_port: int) -> dict[str, Any]:
    return {
        "server": {
            "listen": f"127.0.0.1:{mcp_port}",
            "admin": f"127.0.0.1:{admin_port}",
            "data_dir": ".remit",
        },
        "identity": {
            "tenant": "demo",
            "keys": [
                {
                    "id": agent.id,
                    "sha256": agent.sha256,
                    "subject": "deploy-bot",
                    "kind": "agent",
                    "groups": ["agents"],
                    "on_behalf_of": ["dana"],
                }
            ],
            "operators": [
                {
                    "id": operator.id,
                    "sha256": operator.sha256,
                    "subject": "olga",
                    "groups": ["sre"],
                    "may": ["read", "approve", "resolve"],
                }
            ],
        },
        "catalog": {},
        "policy": {"path": "policy", "deadline_ms": 2000},
        "approvals": {"hold_s": 0},
        "ledger": {"origin": "remit.demo"},
        "telemetry": {"log_format": "json"},
    }


def _way_out(tickets: Tickets) -> dict[str, Any]:
    """The one private destination of the demo's runs, and what is put into requests to it."""
    here = {"host": "localhost", "port": tickets.server_port}
    return {
        "egress": {
            "internal": [f"localhost:{tickets.server_port}"],
            "ca_file": "authority.pem",
        },
        "credentials": {
            "tickets": {
                "broker": "static",
                "secret": "file:.remit/keys/tickets.token",
                "inject": [{**here, "path_prefix": "/tickets", "value": "Bearer {token}"}],
            }
        },
    }


def _repository(state: Path) -> None:
    for kind in ("live", "desired"):
        (state / kind).mkdir(parents=True)
        for environment in ("staging", "production"):
            text = json.dumps(SERVICES, indent=2) + "\n"
            (state / kind / f"{environment}.json").write_text(text)
    git(state, "init", "-q", "-b", "main")
    git(state, "add", ".")
    git(state, "commit", "-qm", "the services")
    share(state)


def _notes(notes: Path, data: Path) -> None:
    """The demo's MCP server with its board, and the agents' grants for its tools."""
    (notes / "server").mkdir(parents=True)
    (notes / "board").mkdir()
    templates = resources.files("remit") / "templates"
    text = (templates / "demo" / "notes.py").read_text("utf-8")
    (notes / "server" / "notes.py").write_text(text, "utf-8")
    (notes / "board" / "notes.txt").write_text("dana: checkout moves to new disks on Friday\n")
    share(notes / "board")
    facts = json.loads(data.read_text("utf-8"))
    facts["grants"]["agents"] |= {"notes_read": [""], "notes_add": [""]}
    data.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def _free_ports() -> tuple[int, int]:
    """Two different ones: neither is let go before both are had."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


@contextmanager
def gateway(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """Run `remit serve` on this world until the block ends.

    Raises:
        RemitError: `server_unreachable` if it is not ready in time, with its last words.
    """
    said = world.root / "gateway.log"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "remit", "--config", str(world.config), "serve"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait_until_ready(world, process, said)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(world: World, process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{world.admin_url}/healthz", timeout=2):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.stderr.write(said.read_text(errors="replace")[-2000:])
    raise RemitError(
        Code.SERVER_UNREACHABLE,
        "the demo's gateway did not become ready; its last words are above",
        hint="`remit doctor` shows what this machine lacks",
    )
