"""What policy is shown of a result is bounded and fits its schema; what it says only narrows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.canonical import encode
from remit.catalog.arguments import SchemaCheck
from remit.document import MAX_BYTES, call_document
from remit.model import Constraints, Ending, ResultKind, RunResult, RunState, Tool
from remit.stages.narrow import narrowed_output
from remit.stages.output import output
from remit.stages.review import (
    MAX_PARTS,
    MAX_STDERR,
    MAX_STRUCTURE,
    MAX_TEXT,
    Reviewed,
    result_facts,
)
from tests.path.conftest import tool
from tests.policy.world import NOW, SANDBOX, normal_call, plan_of, schema

pytestmark = pytest.mark.threat("T-46")

CHECK = jsonschema.Draft202012Validator(schema("remit.input-1"))
TOOLS = {kind: tool(f"as_{kind.value}", result=kind.value) for kind in ResultKind}

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
names = st.sampled_from(
    ["content", "type", "text", "data", "mimeType", "resource", "isError", "structuredContent", "a"]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "resource", "audio"])},
    optional={"text": st.text(max_size=9), "data": st.text(max_size=9), "mimeType": names,
              "resource": values},
)  # fmt: skip
answers = st.fixed_dictionaries(
    {"content": st.lists(blocks | values, max_size=40)},
    optional={"isError": st.booleans(), "structuredContent": values},
)
printed = st.binary(max_size=60) | (values | answers).map(lambda v: json.dumps(v).encode())


def result(stdout: bytes, **more: Any) -> RunResult:
    return replace(RunResult(ending=Ending.EXIT, exit_code=0, stdout=stdout), **more)


@given(stdout=printed, stderr=st.binary(max_size=20), kind=st.sampled_from(ResultKind))
def test_whatever_was_printed_policy_sees_a_document_that_fits_its_schema(
    stdout: bytes, stderr: bytes, kind: ResultKind
) -> None:
    facts = result_facts(
        TOOLS[kind], RunState.SUCCEEDED, result(stdout, stderr=stderr, files={"a": stdout})
    )
    document = call_document(
        normal=normal_call(), plan=plan_of(), capabilities=SANDBOX, now_ms=NOW, result=facts
    )
    assert document["phase"] == "result"
    CHECK.validate(document)
    encode(document)
    assert facts["bytes"] == len(stdout)


@pytest.mark.parametrize("kind", ResultKind)
def test_however_much_was_printed_policy_sees_little_of_it(kind: ResultKind) -> None:
    much = "\u20ac" * 20_000
    stdout = {
        ResultKind.TEXT: much.encode(),
        ResultKind.JSON: json.dumps({"a": much}).encode(),
        ResultKind.MCP: json.dumps({
            "content": [{"type": "text", "text": much}, *[{"type": "text", "text": "x"}] * 99],
            "structuredContent": {"a": much},
        }).encode(),
    }[kind]  # fmt: skip
    files = {f"f{n}": b"x" for n in range(100)}
    facts = result_facts(
        TOOLS[kind], RunState.SUCCEEDED, result(stdout, stderr=much.encode(), files=files)
    )
    assert sum(len(each["text"]) for each in facts["content"]) == MAX_TEXT
    assert all(each["cut"] for each in facts["content"])
    assert len(facts["content"]) <= MAX_PARTS
    assert len(facts["files"]) == MAX_PARTS
    assert facts["structured"] is None
    assert (facts["structured_bytes"] > MAX_STRUCTURE) is (kind is not ResultKind.TEXT)
    assert (len(facts["stderr"]["text"]), facts["stderr"]["cut"]) == (MAX_STDERR, True)
    assert facts["more"] == (68 if kind is ResultKind.MCP else 0)
    assert len(encode(facts)) < MAX_BYTES / 2


def test_kinds_and_sizes_are_told_of_what_is_no_text() -> None:
    shown = {
        "content": [
            {"type": "image", "mimeType": "image/png", "data": "AAAA"},
            {"type": "resource", "resource": {"uri": "file:///a", "mimeType": "text/x", "text": "t"}},
        ],
        "isError": True,
    }  # fmt: skip
    facts = result_facts(
        TOOLS[ResultKind.MCP], RunState.SUCCEEDED, result(json.dumps(shown).encode())
    )
    assert facts["is_error"]
    assert facts["content_types"] == ["image/png", "text/x"]
    image, resource = facts["content"]
    assert (image["text"], image["bytes"]) == ("", 3)
    assert (resource["text"], resource["uri"]) == ("t", "file:///a")


# ------------------------------------------------------------------------------------ the algebra

pointers = st.lists(st.sampled_from(["/a", "/b", "/a/c", "/*/d"]), max_size=3).map(tuple)
types = st.none() | st.lists(
    st.sampled_from(["text/plain", "application/json", "image/png"]), max_size=3, unique=True
).map(tuple)
narrowings = st.builds(
    Constraints,
    output_max_bytes=st.none() | st.integers(1, 40),
    output_redact=pointers,
    output_content_types=types,
)


def normal(each: Constraints) -> tuple[Any, ...]:
    allowed = each.output_content_types
    kinds = None if allowed is None else frozenset(allowed)
    return each.output_max_bytes, frozenset(each.output_redact), kinds


@given(one=narrowings, other=narrowings, third=narrowings)
def test_narrowing_output_is_a_meet(
    one: Constraints, other: Constraints, third: Constraints
) -> None:
    both = narrowed_output(one, other)
    assert normal(both) == normal(narrowed_output(other, one))
    assert normal(narrowed_output(both, other)) == normal(both)
    left = narrowed_output(both, third)
    assert normal(left) == normal(narrowed_output(one, narrowed_output(other, third)))
    assert normal(narrowed_output(one, Constraints())) == normal(one)
    for each in (one, other):
        most, redact, kinds = normal(each)
        assert redact <= normal(both)[1]
        assert most is None or (normal(both)[0] or 0) <= most
        assert kinds is None or normal(both)[2] <= kinds


def test_nothing_but_the_output_of_a_call_is_changed_by_what_is_said_of_its_result() -> None:
    given_ = Constraints(wall_s=3, profile="small", min_tier="sandbox")
    said = Constraints(wall_s=1, profile="other", output_max_bytes=9)
    found = narrowed_output(given_, said)
    assert (found.wall_s, found.profile, found.min_tier) == (3, "small", "sandbox")
    assert found.output_max_bytes == 9


plain = st.recursive(
    st.text(alphabet="xyz", max_size=4) | st.integers(0, 9),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), inner, max_size=3),
    max_leaves=6,
)


@given(
    value=st.dictionaries(st.sampled_from(["a", "b"]), plain, max_size=2),
    call=narrowings,
    said=narrowings,
    kind=st.sampled_from([ResultKind.TEXT, ResultKind.JSON, ResultKind.MCP]),
)
def test_less_is_let_back_by_both_than_by_the_call_alone(
    value: dict[str, Any], call: Constraints, said: Constraints, kind: ResultKind
) -> None:
    shown = value if kind is not ResultKind.MCP else {
        "content": [{"type": "text", "text": "words"}], "structuredContent": value
    }  # fmt: skip
    made = result(json.dumps(shown).encode())
    alone, both = (_let_back(TOOLS[kind], call, made, review) for review in
                   (Reviewed(), Reviewed(constraints=said)))  # fmt: skip
    if alone is None:
        assert both is None
    if both is not None and said == Constraints(output_max_bytes=said.output_max_bytes):
        assert both == alone
    withheld = _let_back(TOOLS[kind], call, made, Reviewed(withheld=True))
    assert withheld is None


def _let_back(
    tool_: Tool, constraints: Constraints, made: RunResult, review: Reviewed
) -> bytes | None:
    """The content that a caller gets, None where it is withheld."""
    found = output(
        SchemaCheck(), tool_, constraints, state=RunState.SUCCEEDED, code=None, result=made,
        review=review,
    )  # fmt: skip
    return None if found.code is not None else found.reply.text
