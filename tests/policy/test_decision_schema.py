"""The strict reader and the JSON Schema of `remit.decision/1` accept the same documents."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import Code, PolicyFault
from remit.policy import decision
from tests.policy.world import schema

CHECK = jsonschema.Draft202012Validator(schema("remit.decision-1"))

FULL: dict[str, Any] = {
    "schema": "remit.decision/1",
    "decision": "require_approval",
    "reasons": [
        {"code": "a.b-c_1", "message": "m", "audience": "user", "path": "/x", "rule": "r"},
        {"code": "b", "message": "m", "denies": False},
    ],
    "constraints": {
        "arguments": {
            "bounds": {"replicas": {"minimum": 1, "maximum": 2.5, "one_of": [1, "a", True, None]}},
            "force": {"dry": True, "deep": {"a": [1]}},
            "redact": ["/token", "/a~1b/0"],
        },
        "runner": {
            "profile": "sandbox",
            "min_tier": "gvisor",
            "wall_s": 5,
            "cpu_ms": 100,
            "memory_mb": 64,
        },
        "egress": [{"host": "h", "port": 443, "methods": ["GET"], "path_prefix": "/"}],
        "credentials": [{"ref": "r", "scopes": ["s"], "ttl_s": 60, "audience": "a"}],
        "output": {"max_bytes": 10, "redact": ["/a"], "content_types": ["text/plain"]},
    },
    "approvals": {
        "required": 2,
        "groups": ["sre"],
        "exclude": ["max"],
        "separation_of_duties": True,
        "ttl_s": 60,
        "reason_required": True,
        "on_timeout": "deny",
        "assurance": {"acr": "high", "max_age_s": 60},
    },
    "limits": {
        "calls_per_minute": 1,
        "concurrent": 1,
        "budget": {"usd_minor": 0, "tokens": 5},
        "cache_ttl_s": 0,
    },
    "obligations": [{"id": "o", "type": "log", "properties": {"level": "info"}}],
    "advice": [{"id": "a", "type": "anything", "properties": {}}],
    "policy": {"package": "remit", "revision": "1"},
}

NUMBERS = [0, 1, 5, 6, -1, 1.0, 1.5, 2**40, 65536, 604801]
WORDS = ["", "a", "A b", "/a", "a/b", "deny", "allow", "log", "x" * 2000]
LISTS = [[], [1], ["a"], ["/a"], ["a/~2"], [None], ["a"] * 300, [{}] * 70]
OBJECTS = [
    {},
    {"": 1},
    {"a": 1},
    {"a": {}},
    {"a": {"minimum": 1}},
    {"/a": {"minimum": 1}},
    {"id": "a", "type": "log"},
    [{"id": "a", "type": "log"}],
    [{"code": "a", "message": "b"}],
]
ODD = st.sampled_from([None, True, False, *NUMBERS, *WORDS, *LISTS, *OBJECTS])


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, item in children:
        found += _places(item, (*path, key))
    return found


PLACES = _places(FULL)


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """The full document with up to three places replaced, removed, or given a stranger."""
    document: Any = copy.deepcopy(FULL)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(PLACES))
        change = draw(st.sampled_from(["replace", "remove", "add"]))
        if not path:
            continue
        parent = document
        try:
            for step in path[:-1]:
                parent = parent[step]
            if change == "replace":
                parent[path[-1]] = copy.deepcopy(draw(ODD))
            elif change == "remove":
                del parent[path[-1]]
            else:
                parent[path[-1]][draw(st.sampled_from(["stranger", "code", "minimum"]))] = (
                    copy.deepcopy(draw(ODD))
                )
        except (KeyError, IndexError, TypeError):
            continue
    return document


def _reads(document: Any) -> bool:
    try:
        decision.read(document)
    except PolicyFault as fault:
        return fault.code is not Code.POLICY_BAD_DECISION or fault.place is None
    return True


def test_full_document_is_read_by_both() -> None:
    assert CHECK.is_valid(FULL)
    assert _reads(FULL)


@pytest.mark.threat("T-12")
@settings(max_examples=600)
@given(documents())
def test_reader_and_schema_accept_the_same(document: Any) -> None:
    assert _reads(document) == CHECK.is_valid(document), json.dumps(document)


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("path", [path for path in PLACES if path], ids=str)
def test_each_part_left_out_is_judged_alike(path: tuple[Any, ...]) -> None:
    document: Any = copy.deepcopy(FULL)
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    assert _reads(document) == CHECK.is_valid(document)


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("path", PLACES, ids=str)
def test_stranger_in_any_object_is_refused_by_both_alike(path: tuple[Any, ...]) -> None:
    document: Any = copy.deepcopy(FULL)
    target = document
    for step in path:
        target = target[step]
    if not isinstance(target, dict):
        return
    target["stranger"] = 1
    # Only what a tool or an operator names may have any key.
    free = path[-2:] in [("arguments", "force"), ("force", "deep")] or "properties" in path
    assert CHECK.is_valid(document) is free
    assert _reads(document) is free


@pytest.mark.parametrize("junk", [None, 1, "allow", [], {}, [FULL], True])
def test_what_is_no_object_is_no_decision(junk: Any) -> None:
    assert not _reads(junk)
    assert not CHECK.is_valid(junk)


def test_whole_numbers_written_as_floats_are_integers_to_both() -> None:
    document = copy.deepcopy(FULL)
    document["constraints"]["runner"]["wall_s"] = 5.0
    assert CHECK.is_valid(document)
    read = decision.read(document)
    assert read.constraints.wall_s == 5
    assert type(read.constraints.wall_s) is int


def test_message_of_a_bad_decision_never_echoes_a_value() -> None:
    document = copy.deepcopy(FULL) | {"decision": "secret-value", "secret-key": 1}
    with pytest.raises(PolicyFault) as caught:
        decision.read(document)
    assert "secret" not in str(caught.value)
