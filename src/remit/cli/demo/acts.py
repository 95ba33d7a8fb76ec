"""What happens in the demo, act by act: a real MCP client, a real gateway, real sandboxes.

Each act states what must hold, and the demo fails if it does not: it is an acceptance test.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from remit.canonical import short
from remit.cli.demo.tickets import Tickets
from remit.cli.demo.transcript import Transcript
from remit.cli.demo.world import World, git
from remit.doors.client import AdminClient

DECISION = "dev.remit/decision"
RECEIPT = "dev.remit/receipt"


@asynccontextmanager
async def agent(world: World) -> AsyncIterator[Client]:
    """The `mcp` package's own client, with the agent's key."""
    headers = {"Authorization": f"Bearer {world.agent_token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(world.url, http_client=http)) as client,
    ):
        yield client


class Play:
    """The acts, in order."""

    def __init__(self, world: World, client: Client, say: Transcript) -> None:
        self._world = world
        self._client = client
        self._say = say
        self._operator = AdminClient(world.admin_url, world.operator_token)
        self.receipt: dict[str, Any] = {}

    async def discovery(self) -> None:
        self._say.act("Discovery: the agent asks what it may do")
        tools = await self.offered()
        self._say.fact("gateway", "  ".join(tools))
        self._say.expect("rotate_root_key exists and is not shown", "rotate_root_key" not in tools)
        hidden, missing = await self._error("rotate_root_key"), await self._error("no_such_tool")
        self._say.fact("gateway", f"calling it anyway: {hidden}")
        self._say.expect(
            "the answer is the one for a tool that does not exist",
            hidden.replace("rotate_root_key", "X") == missing.replace("no_such_tool", "X"),
        )

    async def read(self) -> None:
        self._say.act("An allowed read")
        result = await self.call("read_status", environment="production")
        self._say.expect("the live state came back", "checkout" in self.text(result))

    async def write(self) -> None:
        self._say.act("A constrained write")
        result = await self.call(
            "restart_service", service="web", environment="staging", replicas=2
        )
        self._say.expect("web was restarted", not result.is_error)
        log = git(self._world.state, "log", "--oneline", "-1").strip()
        self._say.fact("repository", log)

    async def denied(self) -> None:
        self._say.act("An argument that policy does not allow")
        result = await self.call("restart_service", service="ledger-db", environment="staging")
        self._say.expect("nothing ran", result.is_error is True)
        self._say.expect("it is policy that refused", self._code(result) == "policy_denied")

    async def approved(self) -> None:
        self._say.act("A destructive change: previewed, approved by somebody else, run once")
        self._world.edit("desired", "production", "web", version="2.5.0")
        first = await self.call("apply_infra", environment="production")
        machine = self.machine(first)
        self._say.expect("a person has to agree first", machine["code"] == "approval_required")
        self.decide(machine["approval_id"])
        second = await self.call("apply_infra", environment="production")
        self._say.expect("approved, it ran", second.is_error is not True)
        commits = git(self._world.state, "rev-list", "--count", "HEAD")
        third = await self.call("apply_infra", environment="production")
        again = git(self._world.state, "rev-list", "--count", "HEAD")
        self._say.expect(
            "the repeated call got the stored result", self.machine(third).get("replayed") is True
        )
        self._say.expect("and nothing ran a second time", commits == again)

    async def changed_meanwhile(self) -> None:
        self._say.act("An approval whose target changes before it runs")
        self._world.edit("desired", "staging", "search", replicas=5)
        first = self.machine(await self.call("apply_infra", environment="staging"))
        self.decide(first["approval_id"])
        self._world.edit("desired", "staging", "search", replicas=50)
        self._say.fact("dana", "pushes another change: search goes to 50 replicas")
        second = await self.call("apply_infra", environment="staging")
        machine = self.machine(second)
        self._say.expect("it did not run", second.is_error is True)
        fresh = machine.get("approval_id")
        self._say.expect("a new approval was opened", fresh not in (None, first["approval_id"]))
        shown = self._operator.approval(str(fresh))["shown"]
        changes = [
            line
            for line in str(shown["difference"]).splitlines()
            if line[:1] in "+-" and "replicas" in line
        ]
        self._say.fact("olga sees", "what changed (- approved, + now):\n" + "\n".join(changes))
        self._say.expect("it shows what changed", any("50" in line for line in changes))

    async def lent(self, tickets: Tickets) -> None:
        self._say.act("A credential that the run uses and never holds")
        result = await self.call("open_ticket", title="disk of checkout is full")
        text = self.text(result)
        self._say.expect("the ticket system took the token", len(tickets.opened) == 1)
        self._say.expect(
            "and sent it back; what came into the sandbox was blanked",
            tickets.token not in text and "Bearer ***" in text,
        )
        closed = ("/admin: path", "192.0.2.1/: not_allowed", "169.254.169.254/: not_allowed")
        self._say.expect("other paths and places are closed", all(word in text for word in closed))
        run = self._operator.run(self.machine(result)["run_id"])
        self._record(self._operator.entry(run["outcome_index"])["entry"])

    def _record(self, outcome: dict[str, Any]) -> None:
        traffic, gone = outcome["traffic"], outcome["destruction"]
        self._say.fact("record", "every connection and refusal of the run, in the log:")
        for each in traffic["connections"]:
            what = f"refused: {each['refused']}" if "refused" in each else "let through"
            put = f", {each['injected'][0]} put in, echo blanked" if each.get("injected") else ""
            sizes = f"{each['sent']} B out, {each['received']} in"
            self._say.fact("", f"{each['host']}:{each['port']} {what}{put}; {sizes}")
        self._say.fact("record", f"seen gone: {', '.join(sorted(gone['seen_ms']))}")
        self._say.expect(
            "nothing of the run is left, nor of what it was lent",
            gone["processes_left"] == gone["credentials_left"] == 0
            and gone["cgroup_removed"]
            and gone["proxy_closed"],
        )

    async def hostile(self) -> None:
        self._say.act("A tool that tries to read the host, reach the network and fork without end")
        result = await self.call("escape_attempt")
        text = self.text(result)
        words = ("LEAKED", "FILES SEEN", "CONNECTED", "CHILDREN", "BECAME ROOT")
        self._say.expect("nothing got out", not any(word in text for word in words))
        self._say.expect("the fork bomb met the limit", "stopped after" in text)
        reads = await self.call("read_status", environment="staging")
        self._say.expect("the gateway goes on serving", reads.is_error is not True)

    async def refused_without_runner(self) -> None:
        self._say.act("A read that policy allows, where no sandbox can be made")
        try:
            await self._client.call_tool("read_status", {"environment": "staging"})
        except MCPError as error:
            self._say.fact("gateway", error.error.message)
            self._say.expect("it is refused, not run without one", True)
        else:
            self._say.expect("it is refused, not run without one", False)

    # ------------------------------------------------------------------------------------- details

    async def offered(self) -> list[str]:
        """The names of the tools that the agent is shown now."""
        listed = await self._client.list_tools(cache_mode="refresh")
        return [tool.name for tool in listed.tools]

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        words = ", ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())
        self._say.asked(f"{tool}({words})")
        began = time.perf_counter()
        result = await self._client.call_tool(tool, arguments)
        took = 1000 * (time.perf_counter() - began)
        self._say.fact("gateway", self.text(result))
        self._tell(result, took)
        return result

    def _tell(self, result: CallToolResult, took: float) -> None:
        machine = self.machine(result)
        parts = []
        if "policy_revision" in machine:
            parts.append(f"policy {short(machine['policy_revision'])}")
        if "plan_hash" in machine:
            parts.append(f"plan {short(machine['plan_hash'])}")
        if "run_id" in machine and machine.get("replayed"):
            parts.append(f"stored result of run {machine['run_id'][-8:]}")
        elif "run_id" in machine:
            parts.append(f"run {machine['run_id'][-8:]} in its own sandbox")
        receipt = (result.meta or {}).get(RECEIPT)
        if receipt:
            self.receipt = receipt
            parts.append(f"log entry {receipt['index']}")
        self._say.fact("", f"[{machine['code']} | {' | '.join([*parts, f'{took:.0f} ms'])}]")

    def decide(self, approval_id: str) -> None:
        approval = self._operator.approval(approval_id)
        shown = approval["shown"]
        preview = shown["preview"]["text"].strip() if shown["preview"] else ""
        self._say.fact("olga sees", f"{shown['consequence']}\n{preview}".strip())
        self._operator.vote(approval_id, approval["plan_hash"], "approve", "planned change")
        self._say.fact("olga", f"approves plan {short(approval['plan_hash'])}, and no other")

    async def _error(self, tool: str) -> str:
        try:
            await self._client.call_tool(tool, {})
        except MCPError as error:
            return f"{error.error.code} {error.error.message}"
        return "no error"

    def text(self, result: CallToolResult) -> str:
        texts = [block.text for block in result.content if isinstance(block, TextContent)]
        return "\n".join(texts)

    def machine(self, result: CallToolResult) -> dict[str, Any]:
        found = (result.meta or {}).get(DECISION)
        return dict(found) if isinstance(found, dict) else {"code": "none"}

    def _code(self, result: CallToolResult) -> str:
        return str(self.machine(result)["code"])
