"""Arguments are held against the schema in bounded time, and no value is ever echoed."""

from __future__ import annotations

import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import canonical
from remit.catalog.arguments import CompiledSchema, SchemaCheck
from remit.errors import Code, Refused
from remit.model import Frozen
from tests.catalog.make import tool

CHECK = SchemaCheck()


def normalised(schema: dict[str, Any], arguments: Any) -> Any:
    made = tool(input_schema=schema, command={"argv": ["/bin/true"]})
    return CHECK.normalise(made, arguments).value()


def broken(schema: dict[str, Any], arguments: Any, code: Code = Code.INVALID_ARGUMENTS) -> Refused:
    with pytest.raises(Refused) as refused:
        normalised(schema, arguments)
    assert refused.value.code is code
    return refused.value


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_arguments_become_their_canonical_bytes_with_defaults_filled_in() -> None:
    frozen = CHECK.normalise(tool(), {"service": "web", "environment": "staging"})
    assert frozen == Frozen(b'{"count":1,"environment":"staging","service":"web"}')


def test_defaults_reach_nested_objects_that_are_there() -> None:
    schema = objects(
        a={"type": "object", "properties": {"b": {"type": "integer", "default": 2}}},
        c={"type": "array", "default": [1]},
    )
    assert normalised(schema, {"a": {}}) == {"a": {"b": 2}, "c": [1]}
    assert normalised(schema, {}) == {"c": [1]}


def test_same_arguments_in_another_order_are_the_same_bytes() -> None:
    one = CHECK.normalise(tool(), {"service": "web", "environment": "staging", "count": 1})
    other = CHECK.normalise(tool(), {"environment": "staging", "service": "web", "count": 1.0})
    assert one == other


def test_caller_cannot_change_the_arguments_after_they_were_checked() -> None:
    arguments = {"service": "web", "environment": "staging", "names": ["a"]}
    frozen = CHECK.normalise(tool(), arguments)
    arguments["names"] = ["b"]
    assert frozen.value()["names"] == ["a"]


WRONG: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "type": ({"a": {"type": "string"}}, "/a", 'must be of type "string"'),
    "enum": ({"a": {"enum": ["x", "y"]}}, "/a", 'must be one of "x", "y"'),
    "minimum": ({"a": {"minimum": 99999}}, "/a", "must be at least 99999"),
    "additional": ({}, None, "holds a property that the schema does not name"),
    "pattern": ({"a": {"type": ["string", "integer"], "not": {"type": "integer"}}}, "/a", "excl"),
    "deep": ({"a": {"type": "array"}}, "/a", 'must be of type "array"'),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_refusal_says_where_and_which_rule_and_never_the_value(what: str) -> None:
    properties, place, words = WRONG[what]
    error = broken(objects(**properties), {"a": 31337})
    assert error.place == place
    assert words in error.message
    assert "31337" not in f"{error} {error.hint}"
    assert error.hint


@pytest.mark.threat("T-23")
@given(st.text(min_size=3, max_size=40), st.text(min_size=3, max_size=40))
def test_neither_values_nor_unknown_names_are_echoed(name: str, value: str) -> None:
    name, value = f"<{name}>", f"<{value}>"
    schema = objects(
        known={"type": "integer"},
        free={"type": "object", "additionalProperties": {"type": "object"}},
        either={"anyOf": [{"type": "integer"}, {"const": 1}]},
    )
    arguments = {"known": value, name: value, "free": {name: {name: value}, "x": value}}
    with pytest.raises(Refused) as refused:
        normalised(schema, arguments)
    said = f"{refused.value} {refused.value.hint}"
    assert name not in said
    assert value not in said


def test_unknown_names_in_a_path_are_stars() -> None:
    schema = objects(free={"type": "object", "additionalProperties": {"type": "integer"}})
    assert broken(schema, {"free": {"secret": "x"}}).place == "/free/*"


def test_missing_property_is_named_and_known_ones_are_listed_for_an_unknown_one() -> None:
    schema = {**objects(a={}, b={}), "required": ["a", "b"]}
    assert 'lacks the required "a"' in broken(schema, {"b": 1}).message
    assert '"a", "b"' in str(broken(schema, {"a": 1, "b": 1, "c": 1}).hint)


def test_few_of_many_broken_rules_are_named() -> None:
    schema = objects(a={"type": "array", "items": {"type": "integer"}})
    error = broken(schema, {"a": ["x"] * 1000})
    assert error.message.count("must be of type") == 5


@pytest.mark.threat("T-05")
class TestBounds:
    def test_deep_arguments_are_refused(self) -> None:
        value: Any = []
        for _ in range(32):
            value = [value]
        schema = {"type": "object", "additionalProperties": True}
        broken(schema, {"a": value}, Code.TOO_DEEP)

    def test_depth_at_the_limit_is_allowed(self) -> None:
        value: Any = []
        for _ in range(31):
            value = [value]
        schema = {"type": "object", "additionalProperties": True}
        assert normalised(schema, {"a": value}) == {"a": value}

    def test_large_arguments_are_refused(self) -> None:
        broken(objects(a={"type": "string"}), {"a": "x" * 262_144}, Code.TOO_LARGE)

    @pytest.mark.parametrize(
        ("pattern", "text"),
        [
            ("(a+)+$", "a" * 50_000 + "!"),
            ("(x+x+)+y", "x" * 50_000),
            ("^(a|a)*$", "a" * 50_000 + "b"),
        ],
    )
    def test_evil_pattern_is_matched_in_linear_time(self, pattern: str, text: str) -> None:
        schema = objects(a={"type": "string", "pattern": pattern})
        begun = time.process_time()
        broken(schema, {"a": text})
        assert time.process_time() - begun < 1

    def test_evil_pattern_over_property_names_is_matched_in_linear_time(self) -> None:
        schema = {"type": "object", "patternProperties": {"^(a+)+$": {"type": "integer"}}}
        begun = time.process_time()
        broken(schema, {"a" * 10_000 + "!": 1})
        assert time.process_time() - begun < 1

    def test_alternatives_that_multiply_run_out_of_steps(self) -> None:
        node = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}}
        schema = {**objects(a={"$ref": "#/$defs/n"}), "$defs": {"n": node}}
        value: Any = 1
        for _ in range(30):
            value = [value]
        begun = time.process_time()
        assert "too long" in broken(schema, {"a": value}).message
        assert time.process_time() - begun < 5

    @pytest.mark.parametrize("keyword", ["unevaluatedProperties", "additionalProperties"])
    def test_many_members_are_not_compared_with_each_other(self, keyword: str) -> None:
        schema = {"type": "object", "allOf": [{"additionalProperties": True}], keyword: False}
        begun = time.process_time()
        broken(schema, {f"k{n}": 1 for n in range(20_000)})
        assert time.process_time() - begun < 1

    def test_many_like_items_are_not_compared_with_each_other(self) -> None:
        schema = objects(a={"type": "array", "uniqueItems": True})
        begun = time.process_time()
        broken(schema, {"a": [{"x": n} for n in range(10_000)] + [{"x": 1.0}]})
        assert time.process_time() - begun < 2


@pytest.mark.threat("T-06")
@pytest.mark.parametrize("value", [2**53, float("nan"), float("inf"), "\ud800"])
def test_value_that_two_parsers_would_read_differently_is_refused(value: Any) -> None:
    broken({"type": "object", "additionalProperties": True}, {"a": value})


@pytest.mark.parametrize(
    ("schema", "value", "valid"),
    [
        ({"type": "integer"}, 1.0, True),
        ({"type": "integer"}, True, False),
        ({"enum": [1]}, True, False),
        ({"const": 0}, False, False),
        ({"multipleOf": 0.1}, 0.3, True),
        ({"multipleOf": 0.1}, 0.35, False),
        ({"multipleOf": 2}, 1e308, True),
        ({"pattern": "^a$"}, "a\n", False),
        ({"pattern": "b"}, "abc", True),
        ({"uniqueItems": True}, [1, True], True),
        ({"uniqueItems": True}, [1, 1.0], False),
        ({"maxLength": 1}, "😀", True),
        ({"format": "date"}, "2026-02-30", False),
        ({"format": "date"}, "20260201", False),
        ({"format": "date-time"}, "2026-02-03T04:05:06.789Z", True),
        ({"format": "date-time"}, "2026-02-03 04:05:06Z", False),
        ({"format": "ipv4"}, "10.0.0.1", True),
        ({"format": "ipv4"}, "010.0.0.1", False),
        ({"format": "ipv6"}, "fe80::1%eth0", False),
        ({"format": "uuid"}, "12345678-1234-1234-1234-1234567890ab", True),
        ({"format": "hostname"}, "a..b", False),
        ({"format": "hostname"}, "web-1.example", True),
        ({"if": {"type": "string"}, "then": {"maxLength": 1}}, "ab", False),
        ({"type": "object", "unevaluatedProperties": False}, {"a": 1}, False),
        ({"type": "array", "prefixItems": [{}], "unevaluatedItems": False}, [1, 2], False),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, False),
        (False, 1, False),
    ],
    ids=repr,
)
def test_rule_holds_as_the_specification_says(schema: Any, value: Any, valid: bool) -> None:
    compiled = CompiledSchema({"type": "object", "properties": {"v": schema}})
    assert (compiled.broken({"v": value}) == []) is valid


def test_dialect_named_in_the_schema_does_not_bring_back_the_stock_validator() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **objects(a={"$ref": "#"}, b={"type": "string", "pattern": "^(a+)+$"}),
    }
    begun = time.process_time()
    broken(schema, {"a": {"b": "a" * 5_000 + "!"}})
    assert time.process_time() - begun < 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "object", "array", "null", "boolean"]),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "minimum": st.integers(-2, 2),
        "maxLength": st.integers(0, 2),
        "pattern": st.sampled_from(["^a", "b"]),
        "uniqueItems": st.booleans(),
        "minItems": st.integers(0, 2),
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "additionalProperties": st.booleans(),
        "multipleOf": st.integers(1, 3),
    },
)
SCHEMAS = st.recursive(
    RULES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["a", "^b"]), inner, max_size=1),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "additionalProperties": inner | st.booleans(),
        },
    ),
    max_leaves=5,
)


@given(SCHEMAS, VALUES)
def test_answers_are_those_of_the_stock_validator(schema: dict[str, Any], value: Any) -> None:
    stock = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (CompiledSchema(schema).broken(value) == []) is stock


@given(VALUES)
def test_normalising_what_was_normalised_changes_nothing(value: Any) -> None:
    made = tool(
        input_schema=objects(a={}, b={"default": {"x": 1}}), command={"argv": ["/bin/true"]}
    )
    once = CHECK.normalise(made, {"a": value})
    assert CHECK.normalise(made, once.value()) == once
    assert canonical.encode(once.value()) == once.text
