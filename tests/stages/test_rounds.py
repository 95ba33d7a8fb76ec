"""What a request state is bound to, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.canonical import encode
from remit.errors import Code, Refused
from remit.model import Frozen, NormalCall, Upstream
from remit.stages.rounds import ANSWER_WITHIN_MS, MAX_STATE_CHARS, Rounds
from tests.policy.world import NOW, normal_call

pytestmark = pytest.mark.threat("T-48")

KEY = bytes(range(32))
ASKS = Frozen(encode({"asks": {"requests": {"who": {}}, "state": "own"}}))


def asked(key: bytes = KEY) -> NormalCall:
    """A call that comes back with the state that it was given."""
    first = normal_call()
    found = Rounds(key).question(first, "run_1", ASKS, NOW)
    assert found is not None
    answers = {"who": {"action": "accept"}}
    return replace(first, call=replace(first.call, request_state=found.state, answers=answers))


def refused(normal: NormalCall, now_ms: int = NOW) -> Code:
    with pytest.raises(Refused) as caught:
        Rounds(KEY).opened(normal, now_ms)
    return caught.value.code


def test_a_state_opens_for_its_call_until_a_quarter_of_an_hour_later() -> None:
    found = Rounds(KEY).opened(asked(), NOW + ANSWER_WITHIN_MS - 1)
    assert found is not None
    assert (found.run_id, found.state, found.number) == ("run_1", "own", 1)
    assert refused(asked(), NOW + ANSWER_WITHIN_MS) is Code.INPUT_STATE_EXPIRED
    assert ANSWER_WITHIN_MS == 15 * 60 * 1000


@pytest.mark.threat("T-43")
def test_a_state_of_a_tool_that_is_another_since_is_refused() -> None:
    one = asked()
    changed = replace(one, tool=replace(one.tool, digest="sha256:" + "00" * 32))
    assert refused(changed) is Code.INPUT_STATE_MISMATCH


def test_a_state_of_another_environment_is_refused() -> None:
    assert refused(replace(asked(), environment="other")) is Code.INPUT_STATE_MISMATCH


@pytest.mark.threat("T-47")
def test_a_state_of_another_gateway_or_that_is_longer_than_any_is_forged() -> None:
    assert refused(asked(bytes(32))) is Code.INPUT_STATE_INVALID
    one = asked()
    long = replace(one.call, request_state="r1." + "A" * MAX_STATE_CHARS)
    assert refused(replace(one, call=long)) is Code.INPUT_STATE_INVALID


def test_answers_that_no_server_asked_for_reach_none() -> None:
    one = normal_call()
    told = replace(one, call=replace(one.call, answers={"who": {"action": "accept"}}))
    assert Rounds(KEY).opened(told, NOW) is None
    server = replace(one.tool, upstream=Upstream(server="files", tool="a", definition="sha256:0"))
    found = Rounds(KEY).opened(replace(told, tool=server), NOW)
    assert found is not None
    assert found.run_id is None
