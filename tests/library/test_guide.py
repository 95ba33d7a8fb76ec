"""The policy guide, followed to the letter with the real command line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from remit.config import examine
from remit.enforcement import load_layer
from remit.model import RequireApproval
from remit.policy.bundle import PolicyBundle, load_bundle
from tests.house.source import DOCS
from tests.library import guide
from tests.library.guide import Block
from tests.policy.world import STARTER, asking, question

PAGE = (DOCS / "policy-guide.md").read_text(encoding="utf-8")


def test_every_block_of_the_guide_is_one_that_is_tested() -> None:
    found = guide.blocks(PAGE)
    assert len(found) == PAGE.count("\n```") / 2
    assert {(block.kind, bool(block.target)) for block in found} == {
        ("console", False),
        ("diff", True),
        ("rego", True),
        ("rego", False),
    }


def test_rule_that_is_only_read_stands_in_the_starter_policy() -> None:
    starter = load_bundle(STARTER)
    (shown,) = (block for block in guide.blocks(PAGE) if (block.kind, block.target) == ("rego", ""))
    assert shown.text in starter.modules["remit.rego"]


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_guide_works_as_it_stands(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    assert shutil.which("remit", path=str(programs))
    reader = guide.Reader(tmp_path, guide.search_path(programs))
    for block in guide.blocks(PAGE):
        reader.follow(block)
    settings = examine(tmp_path / "remit.yaml")[0]
    assert settings is not None
    policy = await load_layer(settings, settings.policy.layers[0])
    assert policy is not None
    assert policy.entries == ("remit", "remit.library.two_person")
    assert {
        "production": await _people(policy, "production"),
        "staging": await _people(policy, "staging"),
    } == {"production": 2, "staging": 1}


async def _people(policy: PolicyBundle, environment: str) -> int:
    """How many have to agree before something is destroyed there."""
    destroying = question({"environment": environment}, purpose="a new network")
    destroying["tool"] |= {"name": "apply_infra", "effect": "destructive"}
    async with asking(policy) as point:
        answer = await point.decide(destroying, decision_id="dec_1")
    assert isinstance(answer, RequireApproval)
    return max(quorum.required for quorum in answer.approvals.quorums)


@pytest.mark.parametrize(
    ("printed", "shown", "expected"),
    [
        ("a\nb\n", ["a", "b"], True),
        ("a\nb\n", ["a"], False),
        ("a\nb\n", ["a", "c"], False),
        ("a\nb\n", ["…", "b"], True),
        ("a\nb\n", ["a", "…"], True),
        ("a\n", ["a", "…"], True),
        ("a b c\n", ["a … c"], True),
        ("a\nb c\n", ["a … c"], False),
        ("", [], True),
        ("x\n", [], False),
    ],
)
def test_what_is_printed_is_held_against_what_is_shown(
    printed: str, shown: list[str], expected: bool
) -> None:
    assert guide.fits(printed, shown) is expected


def test_edit_fits_one_place_or_none() -> None:
    assert guide.edited("a\nb\nc\n", " a\n-b\n+x\n+y\n") == "a\nx\ny\nc\n"
    with pytest.raises(AssertionError):
        guide.edited("a\nb\na\nb\n", " a\n-b\n+x\n")
    with pytest.raises(AssertionError):
        guide.edited("a\n", "-b\n+x\n")


def test_command_that_prints_something_else_is_noticed(tmp_path: Path) -> None:
    reader = guide.Reader(tmp_path, "/usr/bin:/bin")
    reader.follow(Block("console", "", "$ echo one\none\n$ false\n$ echo $?\n1\n"))
    with pytest.raises(AssertionError):
        reader.follow(Block("console", "", "$ echo one\ntwo\n"))
