"""What is sent how often, over which connection, and under which revision it counts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from remit.breaker import FAILURES
from remit.policy.opa import transport
from remit.policy.opa.address import Address
from remit.policy.opa.client import OpaEngine
from tests.policy.opa.world import (
    DECIDE,
    Handler,
    answering,
    asking,
    decided,
    fault_of,
    http,
    misbehaving,
    pointing,
    request_of,
    said,
)
from tests.policy.world import ask, code_of

pytestmark = pytest.mark.anyio

GOOD = http(said(decided()))


class Counting:
    """A handler that counts connections and requests, and gives each request what `next` says."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.requests: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.requests.append((await request_of(reader))[0])
            answer = self.answers.pop(0) if self.answers else GOOD
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()


async def test_connection_is_kept_for_the_next_question(tmp_path: Path) -> None:
    server = Counting()
    async with asking(server, tmp_path) as point:
        for _ in range(5):
            assert code_of(await ask(point, "any")) == "none"
    assert (server.connections, len(server.requests)) == (1, 5)


async def test_connection_found_closed_is_made_anew_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    closed: list[asyncio.Event] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done = asyncio.Event()
        closed.append(done)
        await request_of(reader)
        writer.write(GOOD)
        writer.close()
        await writer.wait_closed()
        done.set()

    async with asking(handler, tmp_path) as point:
        for asked in range(3):
            assert code_of(await ask(point, "any")) == "none"
            await closed[asked].wait()
    assert len(closed) == 3


@pytest.mark.threat("T-12")
async def test_question_that_was_sent_is_never_sent_again(tmp_path: Path) -> None:
    server = Counting(GOOD, None)
    async with asking(server, tmp_path) as point:
        assert code_of(await ask(point, "first")) == "none"
        assert code_of(await ask(point, "second")) == "policy_unavailable"
    assert len(server.requests) == 2


@pytest.mark.threat("T-12")
async def test_answer_that_nobody_asked_for_ends_the_connection(tmp_path: Path) -> None:
    taken, gone = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await request_of(reader)
            writer.write(http(said(decided("deny"))))
            await taken.wait()
            writer.write(GOOD)
            await reader.read()
        finally:
            gone.set()

    async with asking(handler, tmp_path) as point:
        assert code_of(await ask(point, "first")) == "policy_denied"
        taken.set()
        async with asyncio.timeout(10):
            await gone.wait()
        taken.clear()
        assert code_of(await ask(point, "second")) == "policy_denied"


@pytest.mark.threat("T-29")
async def test_answer_behind_an_interim_one_is_never_taken_for_the_next_question(
    tmp_path: Path,
) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        _, body = await request_of(reader)
        if b"first" not in body:
            writer.write(http(said(decided("deny"))))
        else:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await reader.read(1)  # the next question, if it came this way
            writer.write(GOOD)
        await reader.read()

    async with asking(handler, tmp_path) as point:
        assert code_of(await ask(point, "first")) == "policy_not_ready"
        assert code_of(await ask(point, "second")) == "policy_denied"
    assert connections == 2


@pytest.mark.threat("T-12")
async def test_refused_connection_is_tried_once_more(tmp_path: Path) -> None:
    path = tmp_path / "opa.sock"
    async with misbehaving(answering(), path) as url:
        pass  # the socket's file stays, and nobody listens
    engine = await OpaEngine.connect(url, deadline_ms=5_000)
    tried: list[object] = []
    original = transport.Transport._connect

    async def counted(self: transport.Transport) -> object:
        tried.append(self)
        return await original(self)

    transport.Transport._connect = counted  # type: ignore[method-assign, assignment] # to count
    try:
        fault = await fault_of(engine.evaluate([DECIDE], b"{}"))
    finally:
        transport.Transport._connect = original  # type: ignore[method-assign] # back again
        await engine.aclose()
    assert (fault.code, len(tried)) == ("policy_unavailable", 2)


@pytest.mark.threat("T-12")
async def test_server_that_does_not_accept_is_given_up_long_before_the_deadline(
    tmp_path: Path,
) -> None:
    import socket

    path = tmp_path / "opa.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        full: list[socket.socket] = []
        try:
            while True:
                filling = socket.socket(socket.AF_UNIX)
                full.append(filling)
                filling.setblocking(False)
                filling.connect(str(path))
        except BlockingIOError:
            pass
        engine = await OpaEngine.connect(f"unix:{path}", deadline_ms=10_000)
        started = asyncio.get_running_loop().time()
        fault = await fault_of(engine.evaluate([DECIDE], b"{}"))
        assert fault.code == "policy_unavailable"
        assert asyncio.get_running_loop().time() - started < 3
        await engine.aclose()
        for each in full:
            each.close()


async def test_questions_beyond_the_most_connections_wait_for_one(tmp_path: Path) -> None:
    at_once, most = 0, 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        while True:
            await request_of(reader)
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            writer.write(GOOD)

    async with asking(handler, tmp_path) as point:
        many = await asyncio.gather(
            *(ask(point, "any") for _ in range(3 * transport.MOST_CONNECTIONS))
        )
    assert {code_of(each) for each in many} == {"none"}
    assert most <= transport.MOST_CONNECTIONS


# Revisions


@pytest.mark.threat("T-12", "T-29")
async def test_answer_of_another_revision_than_the_pinned_is_denied(tmp_path: Path) -> None:
    for revision, expected in (("r1", "none"), ("r2", "policy_not_ready")):
        handler = answering(revision=revision)
        async with asking(handler, tmp_path, pin_revision="r1") as point:
            assert code_of(await ask(point, "any")) == expected


@pytest.mark.threat("T-12", "T-29")
@pytest.mark.parametrize(
    ("bundles", "expected"),
    [
        ({"policy": "r1", "probe": "p1"}, "none"),
        ({"policy": "r2", "probe": "p1"}, "policy_not_ready"),
        ({"policy": "r1"}, "policy_not_ready"),
        ({"policy": "r1", "probe": "p1", "more": "m1"}, "policy_not_ready"),
    ],
)
async def test_opa_that_remit_runs_has_to_answer_from_exactly_what_it_was_given(
    bundles: dict[str, str], expected: str, tmp_path: Path
) -> None:
    named = {name: {"revision": revision} for name, revision in bundles.items()}
    provenance = {"version": "1.22.2", "bundles": named}
    path = tmp_path / "opa.sock"
    async with misbehaving(answering(provenance=provenance), path):
        address = Address(unix=str(path), peers=frozenset({os.geteuid()}))
        engine = OpaEngine(address, deadline_ms=5_000, own={"policy": "r1", "probe": "p1"})
        async with pointing(engine) as point:
            decision = await ask(point, "any")
            assert code_of(decision) == expected
            assert decision.evaluation.revision == "r1"


async def test_revisions_of_several_bundles_are_one_text_in_the_order_of_their_names(
    tmp_path: Path,
) -> None:
    bundles = {"org": {"revision": "7"}, "base": {"revision": "v2"}}
    provenance = {"version": "1.22.2", "bundles": bundles}
    async with asking(answering(provenance=provenance), tmp_path) as point:
        decision = await ask(point, "any")
        assert decision.evaluation.revision == "base=v2,org=7"


def _in_turn(*revisions: str) -> Handler:
    return Counting(*(http(said(decided(), revision=revision)) for revision in revisions))


RULES = ["remit.a.decision", "remit.b.decision"]


@pytest.mark.threat("T-12")
async def test_rules_answered_under_two_revisions_are_asked_once_more(tmp_path: Path) -> None:
    handler = _in_turn("r1", "r2", "r2", "r2")
    async with misbehaving(handler, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        answer = await engine.evaluate(RULES, b"{}")
        assert (answer.revision, len(answer.values)) == ("r2", 2)
        await engine.aclose()


@pytest.mark.threat("T-12")
async def test_rules_that_never_agree_on_a_revision_are_unavailable(tmp_path: Path) -> None:
    handler = _in_turn("r1", "r2", "r3", "r4")
    async with misbehaving(handler, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        assert (await fault_of(engine.evaluate(RULES, b"{}"))).code == "policy_unavailable"
        await engine.aclose()


@pytest.mark.threat("T-12")
async def test_one_rule_without_a_value_leaves_no_answer_at_all(tmp_path: Path) -> None:
    handler = Counting(GOOD, http(said()))
    async with misbehaving(handler, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        assert (await fault_of(engine.evaluate(RULES, b"{}"))).code == "policy_undefined"
        await engine.aclose()


# The breaker


@pytest.mark.threat("T-12")
async def test_server_that_fails_in_a_row_is_not_asked_until_it_answers_for_its_health(
    tmp_path: Path,
) -> None:
    now = [0.0]
    server = Counting(*[None] * FAILURES, None, http(b"{}"), GOOD)
    async with misbehaving(server, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        engine._breaker._clock = lambda: now[0]
        for _ in range(FAILURES):
            assert (await fault_of(engine.evaluate([DECIDE], b"{}"))).code == "policy_unavailable"
        assert len(server.requests) == FAILURES
        # The first trial fails, and from then on nobody asks.
        for _ in range(3):
            assert (await fault_of(engine.evaluate([DECIDE], b"{}"))).code == "policy_unavailable"
        assert server.requests[FAILURES:] == ["GET /health?bundles&plugins HTTP/1.1"]
        now[0] += 1.0
        assert (await engine.evaluate([DECIDE], b"{}")).revision == "r1"
        assert len(server.requests) == FAILURES + 3
        await engine.aclose()


@pytest.mark.threat("T-12", "T-27")
async def test_slow_questions_of_one_caller_do_not_keep_others_from_a_server_that_lives(
    tmp_path: Path,
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, body = await request_of(reader)
            if b"slow" in body:
                await reader.read()
                return
            writer.write(http(b"{}") if line.startswith("GET") else GOOD)

    async with misbehaving(handler, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=10_000)
        async with pointing(engine) as point:
            for _ in range(2):
                # What is slow may take its time, what is quick need not be so on a busy machine.
                engine._deadline_s = 0.3
                slow = await asyncio.gather(*(ask(point, "slow") for _ in range(FAILURES + 2)))
                assert {code_of(each) for each in slow} == {"policy_unavailable"}
                engine._deadline_s = 10.0
                assert code_of(await ask(point, "quick")) == "none"


async def test_questions_under_way_are_answered_before_the_engine_ends(tmp_path: Path) -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        asked.set()
        await go.wait()
        writer.write(GOOD)
        await reader.read()

    async with misbehaving(handler, tmp_path / "opa.sock") as url:
        engine = await OpaEngine.connect(url, deadline_ms=5_000)
        question = asyncio.create_task(engine.evaluate([DECIDE], b"{}"))
        await asked.wait()
        closing = asyncio.create_task(engine.aclose())
        await asyncio.sleep(0)
        assert not closing.done()
        assert (await fault_of(engine.evaluate([DECIDE], b"{}"))).code == "policy_not_ready"
        go.set()
        assert (await question).revision == "r1"
        await closing


async def test_cancelled_question_leaves_its_connection_to_nobody(tmp_path: Path) -> None:
    asked = asyncio.Event()
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await request_of(reader)
        if b"slow" not in body:
            writer.write(GOOD)
        asked.set()
        try:
            await reader.read()
        finally:
            ended.set()

    async with asking(handler, tmp_path) as point:
        question = asyncio.create_task(ask(point, "slow"))
        await asked.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        await ended.wait()
        assert code_of(await ask(point, "other")) == "none"


def test_kept_connection_is_not_trusted_longer_than_servers_keep_theirs() -> None:
    assert transport.IDLE_S < 30
