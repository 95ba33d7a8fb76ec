"""Servers over HTTP that lie, flood, hang or are not there: one clear fault for each."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Code, UpstreamFault
from remit.upstreams.http_asking import PooledServers
from remit.upstreams.http_limits import HttpLimits
from tests.upstreams.http_asked import (
    BOUNDS,
    ITEM,
    QUICK,
    TOKEN,
    Answer,
    Asked,
    asking,
    call,
    hostile,
    spec_of,
)
from tests.upstreams.test_http_sessions import Handshaking

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-40")]

OK = "HTTP/1.1 200 OK\r\n"
JSON = f"{OK}Content-Type: application/json\r\n"
STREAM = f"{OK}Content-Type: text/event-stream\r\n"


def to_call(answer: Answer) -> Answer:
    """Honest until the call, which is answered so."""

    async def either(asked: Asked) -> None:
        await (answer(asked) if asked.body["method"] == "tools/call" else asked.honest())

    return either


def sends(text: str | bytes, *, end: bool = True) -> Answer:
    """Answers with these bytes; `ID` stands for the request's id."""

    async def answer(asked: Asked) -> None:
        data = text.encode() if isinstance(text, str) else text
        await asked.send(data.replace(b"ID", str(asked.body["id"]).encode()))
        if end:
            asked.writer.close()

    return answer


async def endless(asked: Asked) -> None:
    await asked.send(f"{JSON}Connection: close\r\n\r\n".encode())
    while not asked.writer.transport.is_closing():
        await asked.send(b" " * 10_000)
        await asyncio.sleep(0)


def half_closes(text: str) -> Answer:
    """Sends this, says that no more comes, and goes on listening."""

    async def answer(asked: Asked) -> None:
        await asked.send(text.encode())
        asked.writer.write_eof()
        await asyncio.Event().wait()

    return answer


def status(line: str, body: Any = b"", more: str = "") -> Answer:
    async def answer(asked: Asked) -> None:
        await asked.json(body, status=line, more=more)

    return answer


async def fault_of(answer: Answer, **how: Any) -> UpstreamFault:
    """The fault of one call to a server that is honest until then."""
    async with hostile(to_call(answer)) as there, asking() as servers:
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(there.url, ITEM, {}), **how)
        assert there.methods.count("tools/call") == 1
    return caught.value


ERROR = {"jsonrpc": "2.0", "id": None, "error": {"code": -32602, "message": "its words"}}
DONE = '{"jsonrpc":"2.0","id":ID,"result":{}}'
LIES: dict[str, tuple[Answer, Code]] = {
    "closes without an answer": (sends(""), Code.UPSTREAM_GONE),
    "closes in the head": (sends(OK), Code.UPSTREAM_GONE),
    "closes in the body": (sends(f"{JSON}Content-Length: 90\r\n\r\n{{"), Code.UPSTREAM_GONE),
    "says no more without an answer": (half_closes(""), Code.UPSTREAM_GONE),
    "says no more in the body": (
        half_closes(f"{JSON}Content-Length: 90\r\n\r\n{{"),
        Code.UPSTREAM_GONE,
    ),
    "says no more in the stream": (half_closes(f"{STREAM}\r\ndata: {{"), Code.UPSTREAM_GONE),
    "no HTTP": (sends("SSH-2.0-nothing\r\n"), Code.UPSTREAM_INVALID),
    "two lengths": (
        sends(f"{JSON}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
        Code.UPSTREAM_INVALID,
    ),
    "length and chunks": (
        sends(f"{JSON}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}"),
        Code.UPSTREAM_INVALID,
    ),
    "endless head": (sends(OK + "X: y\r\n" * 50_000, end=False), Code.UPSTREAM_INVALID),
    "endless header": (sends(OK + "X: " + "y" * 200_000, end=False), Code.UPSTREAM_INVALID),
    "endless interim answers": (
        sends("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 20_000, end=False),
        Code.UPSTREAM_INVALID,
    ),
    "another protocol": (
        sends("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        Code.UPSTREAM_INVALID,
    ),
    "no content type": (sends(f"{OK}Content-Length: 2\r\n\r\n{{}}"), Code.UPSTREAM_INVALID),
    "HTML": (
        sends(f"{OK}Content-Type: text/html\r\nContent-Length: 2\r\n\r\n{{}}"),
        Code.UPSTREAM_INVALID,
    ),
    "compressed": (
        sends(
            f"{JSON}Content-Encoding: gzip\r\nConnection: close\r\n\r\n".encode()
            + gzip.compress(b"0" * 100_000)
        ),
        Code.UPSTREAM_INVALID,
    ),
    "said to be compressed": (
        sends(f"{JSON}Content-Encoding: gzip\r\nConnection: close\r\n\r\n{DONE}"),
        Code.UPSTREAM_INVALID,
    ),
    "an endless body": (endless, Code.UPSTREAM_INVALID),
    "no JSON": (sends(f"{JSON}Connection: close\r\n\r\nnothing"), Code.UPSTREAM_INVALID),
    "two values": (
        sends(f"{JSON}Connection: close\r\n\r\n{DONE}{DONE}"),
        Code.UPSTREAM_INVALID,
    ),
    "a key twice": (
        sends(f'{JSON}Connection: close\r\n\r\n{{"id":ID,"id":ID}}'),
        Code.UPSTREAM_INVALID,
    ),
    "deep": (
        sends(f"{JSON}Connection: close\r\n\r\n" + "[" * 5_000 + "]" * 5_000),
        Code.UPSTREAM_INVALID,
    ),
    "long": (sends(f"{JSON}Connection: close\r\n\r\n" + " " * 300_000), Code.UPSTREAM_INVALID),
    "another id": (
        status("200 OK", {"jsonrpc": "2.0", "id": 10**6, "result": {}}),
        Code.UPSTREAM_INVALID,
    ),
    "an id that is text": (
        sends(f'{JSON}Connection: close\r\n\r\n{{"jsonrpc":"2.0","id":"ID","result":{{}}}}'),
        Code.UPSTREAM_INVALID,
    ),
    "an id that is only equal": (
        sends(f'{JSON}Connection: close\r\n\r\n{{"jsonrpc":"2.0","id":ID.0,"result":{{}}}}'),
        Code.UPSTREAM_INVALID,
    ),
    "another JSON-RPC": (
        sends(f'{JSON}Connection: close\r\n\r\n{{"jsonrpc":"1.0","id":ID,"result":{{}}}}'),
        Code.UPSTREAM_INVALID,
    ),
    "a list": (status("200 OK", []), Code.UPSTREAM_INVALID),
    "result and error": (
        sends(
            f'{JSON}Connection: close\r\n\r\n{{"jsonrpc":"2.0","id":ID,"result":{{}},"error":{{}}}}'
        ),
        Code.UPSTREAM_INVALID,
    ),
    "asks back": (
        sends(
            f"{STREAM}Connection: close\r\n\r\n"
            'data: {"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}\n\n'
        ),
        Code.UPSTREAM_INVALID,
    ),
    "an endless event": (sends(f"{STREAM}\r\n" + "data: x" * 100_000), Code.UPSTREAM_INVALID),
    "an event of many lines": (
        sends(f"{STREAM}\r\n" + "data: xxxxxxxx\n" * 50_000),
        Code.UPSTREAM_INVALID,
    ),
    "a flood of notifications": (
        sends(f"{STREAM}\r\n" + 'data: {"jsonrpc":"2.0","method":"x"}\n\n' * 1_000, end=False),
        Code.UPSTREAM_INVALID,
    ),
    "a stream without an answer": (
        sends(f'{STREAM}\r\ndata: {{"jsonrpc":"2.0","method":"x"}}\n\n'),
        Code.UPSTREAM_GONE,
    ),
    "accepted, and nothing": (status("202 Accepted"), Code.UPSTREAM_INVALID),
    "redirects": (
        status("307 Temporary Redirect", b"", "Location: http://127.0.0.1:1/\r\n"),
        Code.UPSTREAM_INVALID,
    ),
    "500": (status("500 Internal Server Error", b"{"), Code.UPSTREAM_GONE),
    "503": (status("503 Service Unavailable"), Code.UPSTREAM_GONE),
    "429": (status("429 Too Many Requests"), Code.UPSTREAM_ERROR),
    "404": (status("404 Not Found"), Code.UPSTREAM_ERROR),
    "400 with an error": (status("400 Bad Request", ERROR), Code.UPSTREAM_ERROR),
    "400 with a result": (
        status("400 Bad Request", {"jsonrpc": "2.0", "id": None, "result": {}}),
        Code.UPSTREAM_ERROR,
    ),
    "400 with an error for another": (
        status("400 Bad Request", {**ERROR, "id": 10**6}),
        Code.UPSTREAM_INVALID,
    ),
    "an error": (
        sends(
            f"{JSON}Connection: close\r\n\r\n"
            '{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"its words"}}'
        ),
        Code.UPSTREAM_ERROR,
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_each_lie_is_a_fault_that_says_that_the_call_was_sent(lie):
    answer, code = LIES[lie]
    fault = await fault_of(answer)
    assert (fault.code, fault.sent) == (code, True)
    assert "its words" not in fault.message
    assert (fault.answer is not None) is (code is Code.UPSTREAM_ERROR)


def _result(text: str) -> str:
    """A good answer to the call, with this in its result."""
    return f'{{"jsonrpc":"2.0","id":ID,"result":{{"content":[],"_meta":{{"x":{text}}}}}}}'


async def test_only_the_messages_of_a_stream_are_answers():
    lie = f"event: other\ndata: {_result('1')}\n\ndata: \n\n"
    answer = to_call(sends(f"{STREAM}\r\n{lie}data: {_result('2')}\n\n"))
    async with hostile(answer) as there, asking() as servers:
        told = await call(servers, spec_of(there.url, ITEM, {}))
    assert told["_meta"] == {"x": 2}


MUCH = "[" * 20 + "0," * 3_000 + "0" + "]" * 20
TIGHTER = {"values": replace(BOUNDS, values=500), "depth": replace(BOUNDS, depth=16)}
"""Bounds that `MUCH` is beyond; it is let by where nothing of it is bounded so."""
WAYS: dict[str, tuple[str, str, Callable[[Answer], Any]]] = {
    "JSON": (f"{JSON}Connection: close\r\n\r\n", "", to_call),
    "stream": (f"{STREAM}\r\ndata: ", "\n\n", to_call),
    "JSON, shaken": (f"{JSON}Connection: close\r\n\r\n", "", Handshaking),
    "stream, shaken": (f"{STREAM}\r\ndata: ", "\n\n", Handshaking),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bound", [*TIGHTER, "none"])
async def test_an_answer_is_bounded_in_values_and_depth_whichever_way_it_comes(way, bound):
    before, after, to = WAYS[way]
    answer = to(sends(before + _result(MUCH) + after))
    async with hostile(answer) as there, asking(limits=TIGHTER.get(bound, BOUNDS)) as servers:
        spec = spec_of(there.url, ITEM, {})
        if bound == "none":
            await call(servers, spec)
            return
        with pytest.raises(UpstreamFault, match="not strict JSON") as caught:
            await call(servers, spec)
        assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_INVALID, True)


@pytest.mark.threat("T-42")
@pytest.mark.parametrize("refused", ["401 Unauthorized", "403 Forbidden"])
async def test_a_refused_token_is_told_to_operators_and_the_challenge_to_nobody(refused):
    challenge = 'WWW-Authenticate: Bearer scope="sesame", resource_metadata="https://x.test/"\r\n'
    fault = await fault_of(status(refused, ERROR, challenge), token=TOKEN)
    assert (fault.code, fault.sent) == (Code.UPSTREAM_UNAUTHORIZED, True)
    assert fault.hint is not None
    told = f"{fault} {fault.hint} {fault.answer}"
    assert "sesame" not in told
    assert TOKEN.decode() not in told


async def test_a_silent_server_costs_its_own_calls_and_no_other_server_anything():
    held = asyncio.Semaphore(0)

    async def never(asked: Asked) -> None:
        held.release()
        await asyncio.sleep(3600)

    async with (
        hostile(to_call(never)) as silent,
        hostile(Asked.honest) as honest,
        asking(http_limits=HttpLimits(connections=2)) as servers,
        asyncio.TaskGroup() as group,
    ):
        lost = [
            group.create_task(call(servers, spec_of(silent.url, ITEM, {}, server="silent")))
            for _ in range(2)
        ]
        for _ in lost:
            await held.acquire()
        # Both of its connections hang, so who comes next is never sent.
        fault = await _fault(servers, silent.url, server="silent", within_s=0.1)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_TIMEOUT, False)
        for _ in range(20):
            await call(servers, spec_of(honest.url, ITEM, {}, server="honest"))
        for each in lost:
            each.cancel()


async def _fault(
    servers: PooledServers, url: str, *, server: str = "there", within_s: float = 20
) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as caught:
        await call(servers, spec_of(url, ITEM, {}, server=server), within_s=within_s)
    return caught.value


async def test_a_server_that_is_not_there_was_sent_nothing():
    async with hostile(Asked.honest) as there:
        pass
    async with asking() as servers:
        fault = await _fault(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_UNREACHABLE, False)
        state = servers.state("there")
        assert state is not None
        assert (state.doing, state.fault) == ("failing", "upstream_unreachable")


async def test_a_server_that_failed_often_is_let_alone_until_it_answers_a_probe():
    broken = asyncio.Event()
    broken.set()

    async def answer(asked: Asked) -> None:
        if broken.is_set() and asked.body["method"] != "tools/list":
            await asked.json(b"", status="503 Service Unavailable")
        else:
            await asked.honest()

    now = 0.0
    async with (
        hostile(answer) as there,
        asking(http_limits=HttpLimits(failures=3, pause_s=5), clock=lambda: now) as servers,
    ):
        for _ in range(4):
            await _fault(servers, there.url)
        before = len(there.asked)
        fault = await _fault(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_UNREACHABLE, False)
        assert len(there.asked) == before
        state = servers.state("there")
        assert state is not None
        assert state.doing == "down"
        assert servers.doing("there") == ("down", state.fault)
        assert servers.doing("another") is None
        broken.clear()
        now = 6.0
        await call(servers, spec_of(there.url, ITEM, {}))
        state = servers.state("there")
        assert state is not None
        assert (state.doing, state.fault) == ("up", None)
        assert servers.doing("there") == ("up", None)


async def test_one_hanging_tool_does_not_close_the_server_for_others():
    async def answer(asked: Asked) -> None:
        if asked.body["method"] == "tools/call" and asked.body["params"]["arguments"]:
            await asyncio.sleep(3600)
        await asked.honest()

    async with (
        hostile(answer) as there,
        asking(http_limits=HttpLimits(failures=2)) as servers,
    ):
        await call(servers, spec_of(there.url, ITEM, {}))
        for _ in range(4):
            with pytest.raises(UpstreamFault):
                await call(servers, spec_of(there.url, ITEM, {"hang": True}), within_s=0.1)
        await call(servers, spec_of(there.url, ITEM, {}))


async def test_a_changed_tool_is_not_called():
    async with hostile(Asked.honest) as there, asking() as servers:
        changed = {**ITEM, "description": "as it was pinned"}
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(there.url, changed, {}))
        assert (caught.value.code, caught.value.sent) == (Code.TOOL_CHANGED, False)
        assert "tools/call" not in there.methods


async def test_a_list_is_believed_for_a_while_and_not_for_ever():
    async with (
        hostile(Asked.honest) as there,
        asking(http_limits=HttpLimits(fresh_s=0)) as unbelieving,
        asking() as servers,
    ):
        for _ in range(3):
            await call(servers, spec_of(there.url, ITEM, {}))
        assert there.methods == ["server/discover", "tools/list", *["tools/call"] * 3]
        there.asked.clear()
        for _ in range(3):
            await call(unbelieving, spec_of(there.url, ITEM, {}))
        assert there.methods.count("tools/list") == 3


@pytest.mark.threat("T-42")
@pytest.mark.threat("T-43")
async def test_a_call_that_changes_something_is_compared_with_a_list_of_its_own():
    description = "as it was pinned"

    async def answer(asked: Asked) -> None:
        if asked.body["method"] == "tools/list":
            tools = [{**ITEM, "description": description}]
            await asked.result({"resultType": "complete", "tools": tools})
        else:
            await asked.honest()

    async with hostile(answer) as there, asking() as servers:
        spec = spec_of(there.url, {**ITEM, "description": description}, {}, writes=True)
        for _ in range(2):
            await call(servers, spec)
        assert there.methods.count("tools/list") == 2
        description = "changed since"
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec)
        assert (caught.value.code, caught.value.sent) == (Code.TOOL_CHANGED, False)
        assert there.methods.count("tools/call") == 2


async def test_an_operator_may_let_a_list_be_older_for_such_calls_too():
    async with hostile(Asked.honest) as there, asking(list_age_s={"there": 30}) as servers:
        for _ in range(3):
            await call(servers, spec_of(there.url, ITEM, {}, writes=True))
        assert there.methods.count("tools/list") == 1


@pytest.mark.parametrize(
    ("ttl", "lists"), [(1e-6, 3), (0, 1), (-1, 1), (60_000, 1), ("soon", 1), (True, 1)]
)
async def test_a_list_is_believed_no_longer_than_its_server_says(ttl: Any, lists: int):
    async def answer(asked: Asked) -> None:
        if asked.body["method"] == "tools/list":
            await asked.result({"resultType": "complete", "tools": [ITEM], "ttlMs": ttl})
        else:
            await asked.honest()

    async with hostile(answer) as there, asking() as servers:
        for _ in range(3):
            await call(servers, spec_of(there.url, ITEM, {}))
        assert there.methods.count("tools/list") == lists


async def test_calls_that_come_at_once_share_the_list_that_none_of_them_is_older_than():
    async with hostile(Asked.honest) as there, asking() as servers:
        await call(servers, spec_of(there.url, ITEM, {}))
        spec = spec_of(there.url, ITEM, {}, writes=True)
        await asyncio.gather(*(call(servers, spec) for _ in range(8)))
        assert there.methods.count("tools/call") == 9
        assert there.methods.count("tools/list") <= 3


async def test_a_connection_serves_one_authorization_only():
    seen: list[tuple[int, str | None]] = []

    async def answer(asked: Asked) -> None:
        port = asked.writer.get_extra_info("peername")[1]
        seen.append((port, asked.headers.get("authorization")))
        await asked.honest()

    async with hostile(answer) as there, asking() as servers:
        for token in (b"one", b"two", None, b"one"):
            await call(servers, spec_of(there.url, ITEM, {}), token=token)
    shown: dict[int, set[str | None]] = {}
    for port, header in seen:
        shown.setdefault(port, set()).add(header)
    assert sorted(map(len, shown.values())) == [1, 1, 1]
    assert {header for _, header in seen} == {"Bearer one", "Bearer two", None}


@pytest.mark.threat("T-42")
@pytest.mark.parametrize("token", [b"", b"a b", b"a\r\nX: y", b"\xff"])
async def test_what_is_no_token_is_not_sent(token):
    async with hostile(Asked.honest) as there, asking() as servers:
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(there.url, ITEM, {}), token=token)
        assert (caught.value.code, caught.value.sent) == (Code.CREDENTIAL_UNAVAILABLE, False)
        assert there.connections == 0


async def test_connections_are_used_again():
    async with hostile(Asked.honest) as there, asking() as servers:
        for _ in range(20):
            await call(servers, spec_of(there.url, ITEM, {}))
        assert there.connections == 1


async def test_a_connection_that_the_server_has_closed_is_not_written_to():
    async def answer(asked: Asked) -> None:
        await asked.honest()
        asked.writer.close()

    async with hostile(answer) as there, asking() as servers:
        for _ in range(10):
            await call(servers, spec_of(there.url, ITEM, {}))
        assert there.methods.count("tools/call") == 10


async def test_an_answer_too_many_is_never_the_next_calls_answer():
    async def answer(asked: Asked) -> None:
        await asked.honest()
        if asked.body["method"] == "tools/call":
            more = {"jsonrpc": "2.0", "id": asked.body["id"] + 1, "result": {"forged": True}}
            await asked.json(more)

    async with hostile(answer) as there, asking() as servers:
        for _ in range(10):
            result = await call(servers, spec_of(there.url, ITEM, {}))
            assert "forged" not in result
        assert there.connections == 10


async def test_a_call_that_is_cancelled_closes_its_stream():
    begun, closed = asyncio.Event(), asyncio.Event()

    async def wait(asked: Asked) -> None:
        begun.set()
        while not asked.writer.transport.is_closing():
            await asked.send(b"")
            await asyncio.sleep(0.01)
        closed.set()

    async with hostile(to_call(wait)) as there, asking() as servers:
        task = asyncio.create_task(call(servers, spec_of(there.url, ITEM, {})))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "notifications/cancelled" not in there.methods
    assert len(servers._background._tasks) == 0


async def test_closing_ends_what_is_under_way_with_a_fault():
    begun = asyncio.Event()

    async def wait(asked: Asked) -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with hostile(to_call(wait)) as there, asking() as servers:
        task = asyncio.create_task(_fault(servers, there.url))
        await begun.wait()
        await servers.aclose()
        fault = await task
        assert (fault.code, fault.sent) == (Code.UPSTREAM_GONE, True)
        again = await _fault(servers, there.url)
        assert (again.code, again.sent) == (Code.CANCELLED, False)


async def test_the_output_limit_of_a_call_bounds_what_is_read():
    async def long(asked: Asked) -> None:
        await asked.result({"content": [], "x": "y" * 150_000})

    async with hostile(to_call(long)) as there, asking() as servers:
        spec = spec_of(there.url, ITEM, {}, output_bytes=200_000)
        assert len((await call(servers, spec))["x"]) == 150_000
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(there.url, ITEM, {}, output_bytes=10_000))
        assert caught.value.code is Code.UPSTREAM_INVALID


async def test_a_list_may_be_longer_than_what_a_call_may_give():
    async def answer(asked: Asked) -> None:
        if asked.body["method"] == "tools/list":
            more = [{"name": f"t{n}", "inputSchema": {}, "x": "y" * 1_000} for n in range(150)]
            await asked.result({"tools": [ITEM, *more]})
        else:
            await asked.honest()

    async with hostile(answer) as there, asking() as servers:
        await call(servers, spec_of(there.url, ITEM, {}, output_bytes=1_000))


async def test_unused_connections_are_closed_after_a_while():
    async with (
        hostile(Asked.honest) as there,
        asking(http_limits=HttpLimits(idle_s=0.05)) as servers,
    ):
        for token in (b"one", b"two"):
            await call(servers, spec_of(there.url, ITEM, {}), token=token)
        assert there.open > 0
        while there.open:
            await asyncio.sleep(0.01)


# Agreeing


async def test_a_server_that_became_an_older_one_is_asked_anew():
    old = False

    async def answer(asked: Asked) -> None:
        if old:
            await asked.json(b"", status="400 Bad Request")
        else:
            await asked.honest()

    async with hostile(answer) as there, asking() as servers:
        await call(servers, spec_of(there.url, ITEM, {}))
        old = True
        for _ in range(2):
            await _fault(servers, there.url)
        assert there.methods[3:6] == ["tools/call", "server/discover", "initialize"]


def _offers(versions: list[str]) -> Callable[[Asked], Any]:
    async def answer(asked: Asked) -> None:
        error = {"code": -32022, "message": "no", "data": {"supported": versions}}
        message = {"jsonrpc": "2.0", "id": asked.body["id"], "error": error}
        await asked.json(message, status="400 Bad Request")

    return answer


async def test_a_server_of_the_future_is_one_with_which_nothing_is_shared():
    async with hostile(_offers(["2099-01-01"])) as there, asking() as servers:
        fault = await _fault(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_INVALID, False)
        assert there.methods == ["server/discover"]


async def test_a_server_that_names_the_revision_it_refused_is_asked_once_more():
    first = True

    async def answer(asked: Asked) -> None:
        nonlocal first
        refuse, first = first, False
        await (_offers(["2026-07-28"])(asked) if refuse else asked.honest())

    async with hostile(answer) as there, asking() as servers:
        await call(servers, spec_of(there.url, ITEM, {}))
        assert there.methods[:2] == ["server/discover", "server/discover"]


IMPATIENT = replace(BOUNDS, unanswered_s=0.05)


class Silent:
    """Leaves `server/discover` without an answer; `then` answers what else it is asked."""

    def __init__(self, then: Answer) -> None:
        self.then = then
        self.speak = asyncio.Event()

    async def __call__(self, asked: Asked) -> None:
        if asked.verb == "POST" and asked.body["method"] == "server/discover":
            await self.speak.wait()
            await asked.honest()
        else:
            await self.then(asked)


async def test_a_server_that_is_silent_at_the_first_question_is_asked_to_shake_hands():
    async with hostile(Silent(Handshaking())) as there, asking(limits=IMPATIENT) as servers:
        for _ in range(2):
            await call(servers, spec_of(there.url, ITEM, {}))
        assert there.methods[:2] == ["server/discover", "initialize"]
        assert there.methods.count("server/discover") == 1
        assert there.methods.count("tools/call") == 2


async def test_a_server_that_was_silent_is_offered_the_handshake_at_once_the_next_time():
    limits = replace(QUICK, agreed_s=0)
    patient = replace(BOUNDS, unanswered_s=3600)
    server = Silent(Handshaking())
    async with hostile(server) as there, asking(limits=IMPATIENT, http_limits=limits) as servers:
        await call(servers, spec_of(there.url, ITEM, {}))
        servers._limits = patient
        await call(servers, spec_of(there.url, ITEM, {}))
        assert there.methods.count("tools/call") == 2


async def test_a_slow_modern_server_is_believed_though_the_handshake_was_offered():
    async def refuses(asked: Asked) -> None:
        if asked.body["method"] == "initialize":
            server.speak.set()
            await asked.json(b"", status="400 Bad Request")
        else:
            await asked.honest()

    server = Silent(refuses)
    async with hostile(server) as there, asking(limits=IMPATIENT) as servers:
        await call(servers, spec_of(there.url, ITEM, {}))
        state = servers.state("there")
    assert state is not None
    assert state.revision == "2026-07-28"
    assert there.methods.count("tools/call") == 1


async def test_a_server_that_says_nothing_to_anybody_is_given_up_and_was_sent_no_call():
    async def never(_: Asked) -> None:
        await asyncio.Event().wait()

    limits = replace(IMPATIENT, open_s=0.5)
    async with hostile(never) as there, asking(limits=limits) as servers:
        fault = await _fault(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_TIMEOUT, False)
        assert there.methods == ["server/discover", "initialize"]


@pytest.mark.threat("T-42")
async def test_silence_leads_no_server_back_that_spoke_the_newest_revision_before():
    server = Silent(Handshaking())
    server.speak.set()
    limits = replace(IMPATIENT, open_s=0.5)
    quick = replace(QUICK, agreed_s=0)

    async def answer(asked: Asked) -> None:
        await (asked.honest() if server.speak.is_set() else server(asked))

    async with hostile(answer) as there, asking(limits=limits, http_limits=quick) as servers:
        await call(servers, spec_of(there.url, ITEM, {}))
        server.speak.clear()
        fault = await _fault(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_TIMEOUT, False)
        assert "initialize" not in there.methods


async def test_an_outage_is_no_word_on_the_revision():
    async with (
        hostile(status("502 Bad Gateway")) as there,
        asking() as servers,
    ):
        fault = await _fault(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_GONE, False)
        assert there.methods == ["server/discover"]
