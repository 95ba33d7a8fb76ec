"""Random policies that the portable profile takes: no rule of them silently means something else in
the embedded engine than in the real OPA."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from remit import canonical
from remit.errors import Code, InputError, PolicyFault
from remit.policy import lint as profile
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.engine import Engine
from tests.plugins.machine import opa_binary
from tests.policy.differential.engines import both
from tests.policy.differential.programs import DATA, Program, document

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs("opa"),
    pytest.mark.threat("T-12"),
    pytest.mark.slow,
]

TOGETHER, QUESTIONS = 60, 5


@dataclass(frozen=True, slots=True)
class Difference:
    text: str
    rule: str
    question: Mapping[str, Any]
    embedded: Any
    opa: Any


def some_programs(rng: random.Random) -> dict[str, Program]:
    """Programs by the name of their module."""
    return {f"p{n}.rego": Program(rng, f"remit.p{n}") for n in range(TOGETHER)}


def within_the_profile(texts: dict[str, str]) -> PolicyBundle:
    """Those that the lint takes, as one bundle. One that is left out may be what others need not."""
    while True:
        bundle = bundle_of(texts, DATA, entries=())
        refused = {each.place.split(":")[0] for each in profile.lint(bundle)}
        if not refused:
            return bundle
        assert refused & texts.keys(), refused
        texts = {name: text for name, text in texts.items() if name not in refused}


def known_to_opa(bundle: PolicyBundle, state: Path) -> PolicyBundle:
    """Without those that OPA refuses: that is loud, and its type checker has no like elsewhere."""
    texts = dict(bundle.modules)
    while True:
        state.mkdir(parents=True, exist_ok=True)
        for old in state.iterdir():
            old.unlink()
        for name, text in texts.items():
            (state / name).write_text(text, encoding="utf-8")
        binary = opa_binary()
        assert binary is not None
        argv = [str(binary), "check", "--format=json", "--max-errors=1000", str(state)]
        done = subprocess.run(argv, capture_output=True, timeout=60)
        if done.returncode == 0:
            return bundle_of(texts, DATA, entries=())
        said = json.loads(done.stdout or done.stderr)
        refused = {Path(each["location"]["file"]).name for each in said["errors"]}
        assert refused, said
        texts = {name: text for name, text in texts.items() if name not in refused}


async def answer(engine: Engine, rule: str, question: Mapping[str, Any]) -> Any:
    """The value, or the code of the fault; what an engine says besides is its own."""
    try:
        found = await engine.evaluate((rule,), canonical.encode(dict(question)))
        return canonical.encode(canonical.parse(found.values[0]))
    except PolicyFault as fault:
        return fault.code
    except InputError:  # of one key twice, such as 1 and "1"; no decision either
        return Code.POLICY_ERROR


async def differences(rng: random.Random, state: Path) -> tuple[list[Difference], int]:
    """Silent ones of one set of programs, and how many answers were compared."""
    programs = some_programs(rng)
    texts = {name: program.text() for name, program in programs.items()}
    bundle = known_to_opa(within_the_profile(texts), state / "check")
    found: list[Difference] = []
    compared = 0
    async with both(bundle, state) as (embedded, opa):
        for name in bundle.modules:
            for question in [document(rng) for _ in range(QUESTIONS)]:
                for rule in programs[name].asked:
                    path = f"{programs[name].package}.{rule}"
                    here = await answer(embedded, path, question)
                    there = await answer(opa, path, question)
                    compared += 1
                    # What one of them calls an error denies. Each may see an error that the other
                    # does not come to, because a condition beside it does not hold anyway.
                    if here != there and Code.POLICY_ERROR not in (here, there):
                        found.append(Difference(texts[name], rule, question, here, there))
    return found, compared


async def test_no_random_policy_silently_means_something_else(
    tmp_path: Path, seed: int, chaos_count: Callable[[int], int]
) -> None:
    # Always the same ones, but for a soak: a difference there is news, not a broken change.
    rng = random.Random(seed if os.environ.get("REMIT_SOAK") else 1)
    for number in range(chaos_count(30)):
        found, compared = await differences(rng, tmp_path / str(number))
        assert found == []
        assert compared > 0


@pytest.mark.slow
@pytest.mark.parametrize("check", ["about_heads", "about_patterns", "about_forms"])
async def test_the_random_policies_find_what_the_profile_refuses(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were one check of the profile missing, it would be noticed."""
    monkeypatch.setattr(profile, check, lambda *_: ())
    rng = random.Random(3)
    for number in range(12):
        found, _ = await differences(rng, tmp_path / str(number))
        if found:
            return
    pytest.fail("nothing was found")
