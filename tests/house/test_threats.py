"""The threat model maps both ways: no threat without a test, no mark without a threat."""

from __future__ import annotations

import ast
import re

from tests.house.source import DOCS, called, calls
from tests.requirements import THREATS


def _marked() -> set[str]:
    return {
        argument.value
        for _, node in calls("tests/")
        if called(node) == ("mark", "threat")
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def _sections() -> dict[str, str]:
    """The threat model's sections by id."""
    text = (DOCS / "threat-model.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (T-\d\d)\b", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_threat_has_a_test() -> None:
    assert set(THREATS) - _marked() == set()


def test_each_mark_names_a_threat() -> None:
    assert _marked() - set(THREATS) == set()


def test_the_document_and_the_manifest_hold_the_same_threats() -> None:
    assert set(_sections()) == set(THREATS)


def test_each_threat_is_told_in_full() -> None:
    for threat, body in _sections().items():
        text = " ".join(body.split())
        assert THREATS[threat] in text, threat
        for part in ("**Mitigation.**", "**Where.**", "**Left over.**"):
            assert part in text, (threat, part)
