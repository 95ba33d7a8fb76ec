"""The stdio door: a client without HTTP speaks JSON-RPC lines, the bridge speaks HTTP for it.

Messages go through as they are, in either era. The bridge only does what the transports do
differently: it writes the headers that HTTP wants, keeps the session of a client that opened one,
and turns a cancel notification of 2026-07-28 into the closed stream that is a cancel over HTTP.
It checks nothing and decides nothing; the gateway does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx2

Message = dict[str, Any]
Write = Callable[[bytes], None]
Say = Callable[[str], None]

ENVELOPE = "io.modelcontextprotocol/protocolVersion"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
INTERNAL_ERROR = -32603
PARSE_ERROR = -32700

CHANGED = "notifications/tools/list_changed"

STAND_AGAIN_S = 5.0
"""How long after its stream has ended a session asks for another."""

LAST_ANSWERS_S = 1.0
"""How long calls under way may still be answered once the client has closed its side."""

_PLAIN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class GatewayGone(Exception):
    """The gateway gave no answer that could be passed on."""


class Bridge:
    """Carries one stdio client's messages to one gateway.

    Args:
        url: the gateway's MCP endpoint.
        http: the client to speak with; it carries the key.
        write: writes one line to the client.
        say: tells the person who started the bridge.
    """

    def __init__(self, url: str, http: httpx2.AsyncClient, write: Write, say: Say) -> None:
        self._url = url
        self._http = http
        self._write = write
        self._say = say
        self._under_way: dict[str | int, asyncio.Task[None]] = {}
        self._session = Session()
        self._opening = asyncio.Lock()
        self._standing: asyncio.Task[None] | None = None

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        """Carry messages until the client closes its side; then end what is still under way."""
        try:
            async for line in lines:
                if line.strip():
                    await self._take(line)
        finally:
            standing = [] if self._standing is None else [self._standing]
            self._stand(again=None)
            tasks = list(self._under_way.values())
            if tasks:
                await asyncio.wait(tasks, timeout=LAST_ANSWERS_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *standing, return_exceptions=True)
            await self._end_session()

    async def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._answer(_error(None, PARSE_ERROR, "a line is not JSON"))
            return
        if not isinstance(message, dict) or "method" not in message:
            await self._post_quietly(line, self._session.headers())
        elif "id" not in message:
            await self._notification(message, line)
        elif message["method"] == "initialize":
            await self._open_session(message, line)
        else:
            self._begin(message, line)

    # Requests

    def _begin(self, message: Message, line: bytes) -> None:
        key = message["id"]
        if not isinstance(key, str | int):
            key = json.dumps(key)
        task = asyncio.ensure_future(self._request(message, line))
        self._under_way[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: str | int, task: asyncio.Task[None]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]

    async def _request(self, message: Message, line: bytes) -> None:
        modern = is_modern(message)
        try:
            used = self._session.id
            headers = modern_headers(message) if modern else self._session.headers()
            status = await self._exchange(message, line, headers, quiet_404=not modern)
            if status == 404 and not modern:
                await self._reopen(used)
                await self._exchange(message, line, self._session.headers())
        except (httpx2.HTTPError, GatewayGone) as exc:
            self._failed(message, exc)

    async def _exchange(
        self,
        message: Message,
        line: bytes,
        headers: Mapping[str, str],
        *,
        quiet_404: bool = False,
    ) -> int:
        """Send a request and pass its answer on; gives the HTTP status."""
        async with self._http.stream("POST", self._url, content=line, headers=headers) as answer:
            if answer.status_code == 401:
                self._say("the gateway refused the key (401)")
            if answer.status_code == 404 and quiet_404 and self._session.id is not None:
                return 404
            kind = answer.headers.get("content-type", "")
            if kind.startswith("text/event-stream"):
                await self._pass_events(answer)
            else:
                self._pass_body(message, answer.status_code, await answer.aread())
            return answer.status_code

    async def _pass_events(self, answer: httpx2.Response) -> None:
        ended = False
        async for data in events(answer.aiter_lines()):
            said = _read(data)
            ended = "method" not in said
            self._answer(said)
        if not ended:
            raise GatewayGone("the gateway closed the stream before it answered")

    def _pass_body(self, message: Message, status: int, body: bytes) -> None:
        said = _read(body, status)
        if said.get("id") is None:
            said["id"] = message["id"]
        self._answer(said)

    # Notifications

    async def _notification(self, message: Message, line: bytes) -> None:
        params = message.get("params")
        named = params.get("requestId") if isinstance(params, dict) else None
        if self._session.id is not None:
            await self._post_quietly(line, self._session.headers())
            if message["method"] == "notifications/initialized":
                self._stand(again=False)
        elif message["method"] == "notifications/cancelled" and isinstance(named, str | int):
            task = self._under_way.get(named)
            if task is not None:
                task.cancel()

    async def _post_quietly(self, line: bytes, headers: Mapping[str, str]) -> None:
        try:
            await self._http.post(self._url, content=line, headers=headers)
        except httpx2.HTTPError as exc:
            self._say(f"a notification was lost: {why(exc)}")

    # Sessions of earlier revisions

    async def _open_session(self, message: Message, line: bytes) -> None:
        """Pass `initialize` on and wait: what follows belongs to the session that it opens."""
        try:
            async with self._http.stream(
                "POST", self._url, content=line, headers=media_types()
            ) as answer:
                opened = await _answer_of(answer)
                if "result" in opened:
                    self._session = Session.opened(message, answer, opened)
                elif answer.status_code == 401:
                    self._say("the gateway refused the key (401)")
            if opened.get("id") is None:
                opened["id"] = message["id"]
            self._answer(opened)
        except (httpx2.HTTPError, GatewayGone) as exc:
            self._failed(message, exc)

    async def _reopen(self, lost: str | None) -> None:
        """Open the session again after the gateway forgot it, as it does when it restarts."""
        async with self._opening:
            if self._session.id != lost or self._session.initialize is None:
                return  # another request has opened it meanwhile
            first = self._session.initialize
            line = json.dumps(first).encode()
            async with self._http.stream(
                "POST", self._url, content=line, headers=media_types()
            ) as answer:
                opened = await _answer_of(answer)
                if "result" not in opened:
                    raise GatewayGone("the gateway forgot the session and opened no other")
                self._session = Session.opened(first, answer, opened)
            ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            await self._http.post(
                self._url, content=json.dumps(ready).encode(), headers=self._session.headers()
            )
            self._say("the gateway had forgotten the session; it was opened again")
            self._stand(again=True)

    def _stand(self, *, again: bool | None) -> None:
        """Hold the stream on which a session hears what changes; None: hold it no more."""
        if self._standing is not None:
            self._standing.cancel()
        self._standing = None
        if again is not None:
            self._standing = asyncio.ensure_future(self._hear(self._session, again))

    async def _hear(self, session: Session, again: bool) -> None:
        """Pass on what comes on a session's own stream, as long as it is the session."""
        try:
            while session.id == self._session.id:
                async with self._http.stream("GET", self._url, headers=session.headers()) as answer:
                    if answer.status_code != 200:
                        return
                    if again:  # nothing of what was said meanwhile is said again
                        self._answer({"jsonrpc": "2.0", "method": CHANGED})
                    async for data in events(answer.aiter_lines()):
                        self._answer(_read(data))
                again = True
                await asyncio.sleep(STAND_AGAIN_S)
        except (httpx2.HTTPError, GatewayGone):
            return  # a request finds out what is wrong, and opens the session again

    async def _end_session(self) -> None:
        if self._session.id is None:
            return
        try:
            async with asyncio.timeout(LAST_ANSWERS_S):
                await self._http.delete(self._url, headers=self._session.headers())
        except (httpx2.HTTPError, TimeoutError):
            return  # an idle session ends by itself

    # Answers

    def _failed(self, message: Message, exc: Exception) -> None:
        self._say(why(exc))
        self._answer(_error(message["id"], INTERNAL_ERROR, why(exc)))

    def _answer(self, message: Message) -> None:
        self._write(json.dumps(message, separators=(",", ":")).encode() + b"\n")


class Session:
    """What a client with a handshake has agreed with the gateway; empty for all others."""

    def __init__(
        self,
        session_id: str | None = None,
        revision: str | None = None,
        initialize: Message | None = None,
    ) -> None:
        self.id = session_id
        self.revision = revision
        self.initialize = initialize

    @classmethod
    def opened(cls, initialize: Message, answer: httpx2.Response, said: Message) -> Session:
        revision = said["result"].get("protocolVersion")
        return cls(answer.headers.get("mcp-session-id"), revision, initialize)

    def headers(self) -> dict[str, str]:
        headers = media_types()
        if self.id is not None:
            headers["mcp-session-id"] = self.id
        if self.revision is not None:
            headers["mcp-protocol-version"] = self.revision
        return headers


# ------------------------------------------------------------------------------------- the framing


def media_types() -> dict[str, str]:
    return {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
    }


def is_modern(message: Message) -> bool:
    """Whether a request carries the envelope of 2026-07-28, which no earlier revision has."""
    return isinstance(_envelope(message).get(ENVELOPE), str)


def _envelope(message: Message) -> Mapping[str, Any]:
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta if isinstance(meta, dict) else {}


def modern_headers(message: Message) -> dict[str, str]:
    """The headers that must say the same as the body (MCP 2026-07-28, streamable HTTP)."""
    method = str(message["method"])
    headers = media_types() | {
        "mcp-protocol-version": header_value(str(_envelope(message)[ENVELOPE])),
        "mcp-method": header_value(method),
    }
    named = message["params"].get(NAMED_BY.get(method, ""))
    if isinstance(named, str):
        headers["mcp-name"] = header_value(named)
    return headers


def header_value(text: str) -> str:
    """A value as a header can carry it: plain, or wrapped in base64 where it could not be."""
    if _PLAIN.fullmatch(text) and not text.startswith("=?base64?"):
        return text
    data = text.encode("utf-8", "surrogatepass")
    return f"=?base64?{base64.b64encode(data).decode('ascii')}?="


async def events(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The data of each server-sent event that has any."""
    data: list[str] = []
    async for line in lines:
        if not line:
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


async def _answer_of(answer: httpx2.Response) -> Message:
    """The one answer of a request that sends nothing before it."""
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        async for data in events(answer.aiter_lines()):
            said = _read(data)
            if "method" not in said:
                return said
        raise GatewayGone("the gateway closed the stream before it answered")
    return _read(await answer.aread(), answer.status_code)


def _read(data: str | bytes, status: int = 200) -> Message:
    try:
        said = json.loads(data)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not {"result", "error", "method"} & said.keys():
        raise GatewayGone(f"what answers there is not a Remit gateway (HTTP {status})")
    return said


def _error(to: Any, code: int, text: str) -> Message:
    return {"jsonrpc": "2.0", "id": to, "error": {"code": code, "message": text}}


def why(exc: Exception) -> str:
    """What went wrong, in words for a person; never the address with what it may hold."""
    match exc:
        case httpx2.ConnectError():
            return "the gateway cannot be reached; is `remit serve` running?"
        case httpx2.TimeoutException():
            return "the gateway did not answer in time"
        case GatewayGone():
            return str(exc)
        case _:
            return f"the connection to the gateway broke ({type(exc).__name__})"
