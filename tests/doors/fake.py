"""A gateway in memory, for the doors: it answers by tool name and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from remit.canonical import encode
from remit.errors import Code, Refused
from remit.model import (
    Call,
    Caller,
    CallerKind,
    Command,
    Effect,
    Frozen,
    Method,
    Reply,
    ResourceLists,
    Tool,
)
from remit.ports import Progress

KEYS = {"key-ann": "ann", "key-ann-2": "ann", "key-bob": "bob"}
HIDDEN = {"ann": {"secret_tool"}, "bob": {"echo"}}


def tool(name: str, *, effect: Effect = Effect.READ, schema: dict[str, Any] | None = None) -> Tool:
    made = schema or {"type": "object", "properties": {"text": {"type": "string"}}}
    return Tool(
        name=name,
        description=f"The {name} tool.",
        input_schema=Frozen(json.dumps(made).encode()),
        command=Command(argv=("true",)),
        effect=effect,
        digest=f"sha256:{name}",
    )


def reply(text: str, **more: Any) -> Reply:
    return (
        Reply(
            content=Frozen(encode([{"type": "text", "text": text}])),
            structured=None,
            is_error=False,
            decision={"code": "ok"},
        )
        if not more
        else Reply(
            **{
                "content": Frozen(encode([{"type": "text", "text": text}])),
                "structured": None,
                "is_error": False,
                "decision": {"code": "ok"},
                **more,
            }
        )
    )


Answer = Callable[[Call, Progress], Awaitable[Reply]]


class NoOffers:
    """Nothing beside tools."""

    def methods(self) -> frozenset[Method]:
        return frozenset()

    async def prompts(self, caller: Caller, source_ip: str) -> Sequence[Tool]:
        return ()

    async def resources(self, caller: Caller, source_ip: str) -> Sequence[ResourceLists]:
        return ()

    def reader(self, uri: str) -> str | None:
        return None

    def watcher(self, uri: str) -> str | None:
        return None

    def standing(self, uri: str) -> object:
        return None

    def rounds(self, uri: str) -> int:
        return 0

    def hear(self, uri: str, told: Callable[[bool], None]) -> Callable[[], None]:
        return lambda: None

    def listen(self) -> Callable[[], None]:
        return lambda: None

    async def completer(
        self, caller: Caller, source_ip: str, ref: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]] | None:
        return None


class FakeGateway:
    """Callers are known by fixed keys; `ann` sees all but `secret_tool`, `bob` all but `echo`."""

    def __init__(self, tools: Sequence[Tool] | None = None) -> None:
        names = ("echo", "fails", "progress", "secret_tool", "slow")
        self.tools = sorted(tools or [tool(name) for name in names], key=lambda t: t.name)
        self.calls: list[Call] = []
        self.refusals: list[tuple[Code, str]] = []
        self.listed = 0
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.finished = asyncio.Event()
        self.limited: int | None = None
        self.answers: dict[str, Answer] = {
            "echo": self._echo,
            "fails": self._fails,
            "progress": self._progress,
            "slow": self._slow,
        }
        self._ids = 0
        self.revoked: set[str] = set()
        self.offers = NoOffers()
        self.hidden = {name: set(tools) for name, tools in HIDDEN.items()}
        self._watching: list[Callable[[], None]] = []

    async def authenticate(self, authorization: str | None, source_ip: str) -> Caller:
        if self.limited is not None:
            raise Refused(Code.RATE_LIMITED, "too many requests", retry_after_ms=self.limited)
        key = (authorization or "").removeprefix("Bearer ")
        subject = None if key in self.revoked else KEYS.get(key)
        if subject is None:
            raise Refused(Code.UNAUTHENTICATED, "no credential that is known")
        return Caller(tenant="t", subject=subject, kind=CallerKind.AGENT, key_id=key)

    async def visible(
        self,
        caller: Caller,
        *,
        source_ip: str | None = None,
        after: str = "",
        enough: int | None = None,
    ) -> Sequence[Tool]:
        self.listed += 1
        hidden = self.hidden.get(caller.subject, set())
        return [t for t in self.tools if t.name not in hidden]

    async def call(self, call: Call, progress: Progress) -> Reply:
        self.calls.append(call)
        known = {t.name for t in self.tools} - self.hidden.get(call.caller.subject, set())
        if call.tool_name not in known:
            # A gateway that tells hidden from missing; the door must not pass that on.
            hidden = any(t.name == call.tool_name for t in self.tools)
            machine = {"code": "unknown_tool", **({"decision_id": "d1"} if hidden else {})}
            text = f"{'Hidden' if hidden else 'Unknown'} tool: {call.tool_name}"
            return reply(text, is_error=True, decision=machine, jsonrpc_error=-32602)
        return await self.answers.get(call.tool_name, self._echo)(call, progress)

    async def refuse_at_door(self, code: Code, source: str) -> None:
        self.refusals.append((code, source))

    def on_change(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._watching.append(changed)
        return lambda: self._watching.remove(changed)

    def still_valid(self, caller: Caller) -> bool:
        return caller.key_id not in self.revoked

    def change(self) -> None:
        """Tell whoever watches that tools may have changed."""
        for tell in list(self._watching):
            tell()

    @property
    def watching(self) -> int:
        return len(self._watching)

    def new_call_id(self) -> str:
        self._ids += 1
        return f"call_{self._ids}"

    # Answers

    async def _echo(self, call: Call, progress: Progress) -> Reply:
        return reply(str(call.arguments.get("text", "")))

    async def _fails(self, call: Call, progress: Progress) -> Reply:
        machine = {"code": "policy_denied", "decision_id": "d1", "policy_revision": "r1"}
        text = "Denied by policy: not this one. Do not retry unchanged. [policy_denied; d1]"
        structured = Frozen(encode({"decision": machine}))
        return reply(text, is_error=True, decision=machine, structured=structured)

    async def _progress(self, call: Call, progress: Progress) -> Reply:
        for step in ("one", "two", "three"):
            await progress.report(step)
            await asyncio.sleep(0)
        return reply("done")

    async def _slow(self, call: Call, progress: Progress) -> Reply:
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.finished.set()
        return reply("released")


def now_ms() -> int:
    return time.time_ns() // 1_000_000
