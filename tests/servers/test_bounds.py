"""How much of a server is borne and kept: what documents promise, so that no edit lifts it unseen."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from remit.servers import heard, judging, shelves
from remit.stages import rounds
from remit.upstreams import definitions, questions, sessions, templates
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.limits import Limits

pytestmark = pytest.mark.threat("T-40")

MIB = 1024 * 1024


def test_one_conversation_is_bounded_in_every_way() -> None:
    told = asdict(Limits())
    most = {
        "line_bytes": 4 * MIB, "depth": 64, "values": 250_000, "open_s": 30, "unanswered_s": 5,
        "call_s": 60, "list_s": 30, "write_s": 10, "in_flight": 128, "unwritten": 256, "late": 256,
        "burst": 10_000, "per_s": 1_000, "pages": 100, "tools": 10_000, "list_bytes": 16 * MIB,
        "cursor_chars": 4_096,
    }  # fmt: skip
    assert {name: told[name] for name in most if told[name] > most[name]} == {}
    assert most.keys() == told.keys()


def test_one_server_over_http_is_bounded_in_every_way() -> None:
    told = asdict(HttpLimits())
    most = {
        "head_bytes": 65_536, "refusal_bytes": 65_536, "connections": 64, "idle": 16, "idle_s": 20,
        "authorizations": 256, "resolve_s": 5, "connect_s": 10, "tls_s": 10, "drain_s": 1,
        "agreed_s": 300, "fresh_s": 30, "probe_s": 5, "close_s": 5, "sessions": 64, "failures": 5,
        "pause_s": 1,
    }  # fmt: skip
    assert {name: told[name] for name in most if told[name] > most[name]} == {}
    assert most.keys() <= told.keys()


def test_what_is_kept_of_a_server_is_bounded() -> None:
    assert judging.MAX_KNOWN <= 20_000
    assert judging.MAX_KEPT <= 64 * MIB
    assert heard.REST >= 9
    assert (shelves.MAX_RESOURCES, shelves.MAX_TEMPLATES) == (10_000, 200)
    assert shelves.MAX_EXPRESSIONS <= 300
    assert (templates.MAX_EXPRESSIONS, templates.MAX_URI) == (16, 2_048)
    assert definitions.MAX_BYTES <= MIB // 4
    assert sessions.MOST <= 16


def test_what_a_server_asks_and_callers_answer_is_bounded() -> None:
    assert (rounds.MAX_ROUNDS, rounds.ANSWER_WITHIN_MS) == (10, 900_000)
    assert (rounds.MAX_ANSWERS, rounds.MAX_ANSWERS_BYTES) == (32, 65_536)
    assert rounds.MAX_STATE_CHARS <= 131_072
    assert (questions.MAX_QUESTIONS, questions.MAX_STATE) == (32, 16_384)
    assert (questions.MAX_MESSAGE, questions.MAX_URL, questions.MAX_NAME) == (4_096, 2_048, 128)
    assert (questions.MAX_FORM_DEPTH, questions.MAX_FORM_VALUES) == (8, 2_000)
