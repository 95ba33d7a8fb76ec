"""A real gateway, asked wildly by several callers at once: it answers each once, and its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from remit.identity.keys import new_key
from remit.ledger.signer import FileSigner
from tests.cli.serving import REMIT, Serving, serving
from tests.fuzz.asking import MODERN, Asking, Speaker
from tests.fuzz.odd import changed, deep, encoded, value
from tests.fuzz.speaking import Answered, Asked, ask
from tests.path.conftest import HEAD
from tests.runners.support import alive, eventually
from tests.upstreams.http_asked import Asked as Request
from tests.upstreams.http_asked import hostile

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(0)]

REQUESTS = 700
LIMIT = 1024 * 1024
INNARDS = ("Traceback", "pydantic", "site-packages", 'File "')
AT_ONCE = 12
NAMES = ("ann", "bob", "cy")
POLICY = (
    HEAD
    + """
decision := answer("allow", {"constraints": {"egress": input.tool.egress}}) if {
    input.tool.name != "crm_act"
}
decision := answer("require_approval", {
    "constraints": {"egress": input.tool.egress}, "approvals": {"required": 1, "ttl_s": 600},
}) if input.tool.name == "crm_act"
"""
)
TOOLS = [
    {"name": name, "inputSchema": {"type": "object", "properties": {"who": {"type": "string"}}}}
    for name in ("find", "act", "ask", "hidden")
]


class Upstream:
    """A server over HTTP that gives back what it is told, sometimes oddly."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def __call__(self, asked: Request) -> None:
        if asked.body is None or "id" not in asked.body:
            await asked.json({}, status="404 Not Found")
            return
        listed: list[dict[str, Any]]
        method, params = asked.body["method"], asked.body.get("params", {})
        if method == "server/discover":
            about = {
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "completions": {}},
            }
            await asked.result({"resultType": "complete", **about})
        elif method == "tools/list":
            await asked.result({"resultType": "complete", "tools": TOOLS})
        elif method == "resources/list":
            listed = [{"uri": "file:///a", "name": "a"}, {"uri": "file:///b", "name": "b"}]
            await asked.result({"resultType": "complete", "resources": listed})
        elif method == "resources/templates/list":
            listed = [{"uriTemplate": "crm://{who}", "name": "who"}]
            await asked.result({"resultType": "complete", "resourceTemplates": listed})
        elif method == "prompts/list":
            listed = [{"name": "greet", "arguments": [{"name": "who"}]}]
            await asked.result({"resultType": "complete", "prompts": listed})
        elif method == "resources/read":
            contents = [{"uri": params["uri"], "text": params["uri"]}]
            await asked.result({"resultType": "complete", "contents": contents})
        elif method == "prompts/get":
            said = {"role": "user", "content": {"type": "text", "text": json.dumps(params)}}
            await asked.result({"resultType": "complete", "messages": [said]})
        else:
            result = self._said(params.get("arguments") or {})
            await asked.json(encoded({"jsonrpc": "2.0", "id": asked.body["id"], "result": result}))

    def _said(self, arguments: dict[str, Any]) -> Any:
        content = [{"type": "text", "text": json.dumps(arguments)}]
        result = {"resultType": "complete", "content": content, "structuredContent": arguments}
        if arguments.get("how") == "odd":
            return changed(self._random, result, self._random.randrange(1, 4))
        if arguments.get("how") == "ask":
            fields = {"type": "object", "properties": {"x": {"type": "integer"}}}
            form = {"mode": "form", "message": "?", "requestedSchema": fields}
            asking = {"a": {"method": "elicitation/create", "params": form}}
            state = str(arguments.get("who"))
            return {"resultType": "input_required", "inputRequests": asking, "requestState": state}
        return result


class World:
    """A gateway as a process of its own, and who calls it."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        keys = {name: new_key(name) for name in NAMES}
        self.speakers = [
            Speaker(name, keys[name].token, f"marker-{name}-{os.urandom(6).hex()}")
            for name in NAMES
        ]
        (folder / "data" / "keys").mkdir(parents=True)
        self.signer = FileSigner.create(folder / "data/keys/log.key", "remit.test/log")
        (folder / "policy").mkdir()
        (folder / "policy" / "policy.rego").write_text(POLICY)
        tools = [{"name": name, "effect": "read"} for name in ("find", "ask", "hidden")]
        server = {"name": "crm", "url": upstream, "tools": tools}
        server |= {"resources": "offer", "prompts": "offer"}
        whole = {
            "server": {"data_dir": "data", "listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "telemetry": {"log_format": "json"},
            "catalog": {"servers": [server]},
            "identity": {
                "keys": [
                    {"id": name, "subject": name, "kind": "agent", "sha256": key.sha256}
                    for name, key in keys.items()
                ]
            },
            "policy": {"deadline_ms": 10_000, "questions_per_minute": 10_000},
            "approvals": {"hold_s": 0},
            "limits": {"calls_per_minute": 1_000_000, "auth_failures_per_minute": 100_000},
        }
        self.config = folder / "remit.yaml"
        self.config.write_text(json.dumps(whole))
        self.port = 0
        self.gateway: Serving

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        with serving(self.config) as self.gateway:
            said = self.gateway.until("serving")
            self.port = int(str(said["mcp"]).rsplit(":", 1)[1].partition("/")[0])
            async with asyncio.timeout(120):
                while "crm_find" not in json.dumps((await self.plainly(0, "tools/list")).messages):
                    await asyncio.sleep(0.05)
            yield self

    async def plainly(self, who: int, method: str, **params: Any) -> Answered:
        """A request of this caller with which nothing is wrong."""
        asked = plain(self.speakers[who], method, **params)
        answered = await ask(self.port, asked)
        assert answered is not None
        self.check(asked, answered)
        return answered

    def check(self, asked: Asked, answered: Answered | None) -> None:
        """What holds of every answer, whatever was asked."""
        if asked.leaves is not None:
            return
        told = f"{asked.wire()[:4_000]!r}\n{str(answered)[:4_000]}"
        if answered is None and (asked.strange or len(asked.body) > LIMIT):
            return  # the connection was closed while the rest was sent, the answer lost with it
        assert answered is not None, told
        assert answered.status < 500, told
        text = answered.raw.decode("utf-8", "replace")
        assert [each for each in INNARDS if each in text] == [], told
        others = [each for each in self.speakers if each.name != asked.caller]
        assert [each.name for each in others if each.marker in text] == [], told
        if asked.endless:
            return
        ends = [m for m in answered.messages if "result" in m or "error" in m]
        assert len(ends) <= 1, told
        if answered.status == 200 and asked.method == "POST":
            assert [each["id"] for each in ends] == [asked.wanted], told
        elif answered.status != 202 and asked.method == "POST" and asked.path == "/mcp":
            assert [each.get("id") in (asked.wanted, None) for each in ends] in ([True], []), told

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.gateway.process.pid}/fd"))

    def cpu_s(self) -> float:
        """What the gateway's process has used."""
        fields = (
            Path(f"/proc/{self.gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def family(self) -> list[int]:
        """The gateway's children, and theirs."""
        found, left = [], [self.gateway.process.pid]
        while left:
            for task in Path(f"/proc/{left.pop()}/task").iterdir():
                children = [int(each) for each in (task / "children").read_text().split()]
                found += children
                left += children
        return found


def plain(speaker: Speaker, method: str, id_: Any = 1, **params: Any) -> Asked:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": id_, "method": method, "params": {**params, "_meta": meta}}
    head = [
        ("Host", "127.0.0.1"),
        ("Authorization", f"Bearer {speaker.key}"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", MODERN),
        ("Mcp-Method", method),
    ]
    if "name" in params:
        head.append(("Mcp-Name", params["name"]))
    return Asked(speaker.name, head, json.dumps(message).encode(), wanted=id_)


async def _all_of(world: World, asking: Asking, count: int) -> Counter[int]:
    seen: Counter[int] = Counter()

    async def one(asked: Asked) -> tuple[Asked, Answered | None]:
        answered = await ask(world.port, asked)
        world.check(asked, answered)
        return asked, answered

    for _ in range(0, count, AT_ONCE):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(asking.next())) for _ in range(AT_ONCE)]
        # In the order of asking: which answer comes first has no say in what is asked next.
        for asked, answered in map(asyncio.Task.result, tasks):
            if answered is not None:
                seen[answered.status] += 1
                asking.learn(asked, answered)
    return seen


async def _everyone_is_served(world: World) -> None:
    for who, speaker in enumerate(world.speakers):
        arguments = {"who": speaker.marker}
        answered = await world.plainly(who, "tools/call", name="crm_find", arguments=arguments)
        assert answered.messages[0]["result"]["structuredContent"] == arguments


async def _settled(world: World, descriptors: int) -> None:
    """Connections are closed a little after their clients have gone."""
    async with asyncio.timeout(60):
        while world.descriptors() > descriptors:
            await asyncio.sleep(0.1)


def _nothing_is_left(world: World, family: list[int]) -> None:
    assert world.gateway.stop() == 0
    said = "".join(world.gateway.raw)
    assert "Traceback" not in said, said
    bad = [each for each in world.gateway.lines if each.get("level") in ("error", "critical")]
    assert bad == []
    assert eventually(lambda: alive(family) == [], seconds=20), alive(family)
    ledger = next((world.folder / "data").rglob("ledger.db"))
    verify = [*REMIT, "audit", "verify", str(ledger), "--key", world.signer.verifier_key]
    subprocess.run(verify, check=True, stdout=subprocess.DEVNULL)


async def test_whatever_callers_send_each_gets_one_answer_and_its_own(
    tmp_path: Path,
    fuzz_seed: int,
    fuzz_count: Callable[[int], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    random = Random(fuzz_seed)
    async with (
        hostile(Upstream(Random(fuzz_seed))) as upstream,
        World(tmp_path, upstream.url).open() as world,
    ):
        await _everyone_is_served(world)
        family, before = world.family(), world.descriptors()
        count = fuzz_count(REQUESTS)
        asking = Asking(random, world.speakers)
        seen = await _all_of(world, asking, count)
        await _everyone_is_served(world)
        await _settled(world, before + 40)  # connections to the server that are kept
        with capsys.disabled():
            print(
                {k: len(v) for k, v in asking.handles.items()}, asking.handles["requestState"][:1]
            )
            print(f"\n{count} requests at the door: {dict(sorted(seen.items()))}")
        assert seen[200] > count / 50
        await asyncio.to_thread(_nothing_is_left, world, family)


HEAVY: dict[str, Callable[[Random], Any]] = {
    "deep": lambda _: json.loads(deep(60)),
    "wide": lambda _: {f"k{n}": n for n in range(40_000)},
    "long": lambda _: "x" * 900_000,
    "many": lambda _: [[]] * 200_000,
    "numbers": lambda _: [10**15] * 50_000,
    "escapes": lambda _: "\x01" * 150_000,
    "wild": lambda random: [value(random, 4) for _ in range(60)],
}


async def test_no_single_request_keeps_a_gateway_busy(tmp_path: Path, fuzz_seed: int) -> None:
    random = Random(fuzz_seed)
    async with (
        hostile(Upstream(Random(fuzz_seed))) as upstream,
        World(tmp_path, upstream.url).open() as world,
    ):
        used: dict[str, float] = {}
        for name, make in HEAVY.items():
            before = world.cpu_s()
            for method, params in (
                ("tools/call", {"name": "crm_find", "arguments": {"who": make(random)}}),
                ("tools/call", {"name": "crm_find", "arguments": make(random)}),
                ("tools/list", {"cursor": make(random)}),
            ):
                await world.plainly(0, method, **params)
            used[name] = world.cpu_s() - before
        assert {name: cpu for name, cpu in used.items() if cpu > 6} == {}
        await asyncio.to_thread(_nothing_is_left, world, world.family())
