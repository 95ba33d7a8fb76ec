"""An engine that gets one probe wrong is not ready, whichever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remit.errors import PolicyFault
from remit.policy import probes
from remit.policy.process import run_once, try_frame
from tests.policy.world import asking, engine_of, policy, replace

MODULES = {"probes.rego": probes.MODULE}


def _answers() -> list[Any]:
    return list(json.loads(run_once(try_frame(MODULES, {}, probes.QUERIES, {}))))


def test_pinned_engine_passes_every_probe() -> None:
    probes.check(json.dumps(_answers()).encode())


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("probe", probes.PROBES, ids=lambda probe: probe.name)
def test_wrong_answer_to_a_probe_is_noticed(probe: probes.Probe) -> None:
    index = list(probes.PROBES).index(probe)
    for wrong in (["R", "120"], ["U", ""], ["F", "{}"]):
        answers = _answers()
        if wrong[0] == answers[index][0] and wrong[0] != "R":
            continue
        answers[index] = wrong
        with pytest.raises(PolicyFault, match=probe.name):
            probes.check(json.dumps(answers).encode())


def test_number_order_as_text_is_noticed() -> None:
    answers = _answers()
    answers[[probe.name for probe in probes.PROBES].index("order")] = ["R", "[10, 100, 9]"]
    with pytest.raises(PolicyFault, match="order"):
        probes.check(json.dumps(answers).encode())


@pytest.mark.anyio
async def test_engine_that_answers_now_is_probed_again_when_asked_whether_it_is_ready() -> None:
    async with asking(policy("")) as point:
        point._probed_s = float("-inf")
        assert await point.ready() is None
        await engine_of(point).probe()


@pytest.mark.anyio
async def test_engine_that_fails_a_probe_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(policy("")) as point:
        wrong = (probes.Probe("smallest", "", 120), *probes.PROBES[1:])
        monkeypatch.setattr(probes, "PROBES", wrong)
        point._probed_s = float("-inf")
        assert "smallest" in str(await point.ready())
        with pytest.raises(PolicyFault, match="smallest"):
            await replace(point, policy("", {"x": 1}))
