"""A whole gateway with real MCP servers behind it, each started in a sandbox."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remit.app import open_gateway
from remit.backends import Backends
from remit.config import load
from remit.gateway import Gateway
from remit.ledger.signer import FileSigner
from remit.model import Call, Caller, CallerKind, Health, Reply, ToolState, ToolStatus
from remit.ports import Servers
from tests.path.conftest import HEAD, Heard

GIVE = HEAD + 'decision := answer("allow", {"constraints": {"egress": input.tool.egress}})\n'
KEY = "a" * 64
CALLER = Caller(tenant="default", subject="bot", kind=CallerKind.AGENT, key_id="k1")


class Behind:
    """A configuration with these servers, and the gateway that it makes."""

    def __init__(self, folder: Path, servers: Sequence[Mapping[str, Any]]) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.egress: dict[str, Any] = {}
        self.gateway: Gateway
        self.servers: Servers
        self._servers = [dict(each) for each in servers]
        (folder / "data" / "keys").mkdir(parents=True)
        FileSigner.create(folder / "data/keys/log.key", "remit.test/log")
        (folder / "policy").mkdir()
        (folder / "policy" / "policy.rego").write_text(GIVE)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Behind]:
        whole = {
            "server": {"data_dir": "data"},
            "catalog": {"servers": self._servers},
            "identity": {"keys": [{"id": "k1", "subject": "bot", "kind": "agent", "sha256": KEY}]},
            "policy": {"deadline_ms": 10_000},
            "runners": {"egress": self.egress},
        }
        file = self.folder / "remit.yaml"
        file.write_text(json.dumps(whole))  # JSON is YAML
        async with open_gateway(load(file, environ={}), rearrange=self._kept) as self.gateway:
            yield self

    def _kept(self, backends: Backends) -> Backends:
        self.servers = backends.servers
        return backends

    async def offered(self, server: str) -> dict[str, ToolStatus]:
        """Ask the server what it lists; accept, as an operator who looked, what is not offered.

        Gives what stood of each tool before that.
        """
        status = await self.servers.look(server)
        assert status.health is Health.READY, status
        found = {tool.name: tool for tool in status.tools}
        for tool in found.values():
            if tool.state is not ToolState.OFFERED:
                assert tool.digest is not None
                await self.servers.accept(server, tool.name, tool.digest, operator="someone")
        return found

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        call = Call(
            id=self.gateway.new_call_id(),
            caller=CALLER,
            tool_name=name,
            arguments=dict(arguments),
            received_ms=1,
        )
        return await self.gateway.call(call, Heard())

    async def outcome(self) -> dict[str, Any]:
        """What the ledger says of the last call that ended."""
        entries = await self.gateway.ledger.entries(0, 10_000)
        found: list[dict[str, Any]] = [json.loads(each.text) for each in entries]
        return next(each for each in reversed(found) if each["event"] == "call.outcome")


def said(reply: Reply) -> str:
    """The texts of a reply; other contents as JSON."""
    blocks = json.loads(reply.content.text)
    return "\n".join(each.get("text") or json.dumps(each) for each in blocks)
