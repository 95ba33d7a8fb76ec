"""A schema that could not be checked in bounded time, or would check nothing, is refused at load."""

from __future__ import annotations

from typing import Any

import pytest

from remit.catalog.schema import DIALECT, prepare_schema
from remit.errors import Code, ConfigError


def prepared(schema: Any) -> dict[str, Any]:
    return prepare_schema(schema, close=True)


def refused(schema: Any) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        prepared(schema)
    assert error.value.code is Code.CATALOG_INVALID
    return error.value


def with_property(inner: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": inner}, **more}


@pytest.mark.parametrize("schema", [{}, [], None, True, {"type": "string"}, {"type": ["object"]}])
def test_schema_that_is_no_object_at_the_top_is_refused(schema: Any) -> None:
    assert "type: object" in refused(schema).message


@pytest.mark.parametrize(
    ("inner", "place", "hint"),
    [
        ({"maxLenght": 3}, "/properties/a/maxLenght", "did you mean maxLength?"),
        ({"definitions": {}}, "/properties/a/definitions", "did you mean $defs?"),
        ({"zzz": {}}, "/properties/a/zzz", "remove it"),
        ({"$dynamicRef": "#x"}, "/properties/a/$dynamicRef", ""),
        ({"$id": "http://x/"}, "/properties/a/$id", ""),
    ],
)
def test_key_that_would_be_ignored_is_refused(inner: Any, place: str, hint: str) -> None:
    error = refused(with_property(inner))
    assert error.place == place
    assert hint in str(error.hint)


@pytest.mark.parametrize(
    "inner", [{"type": "strnig"}, {"minimum": "1"}, {"enum": "x"}, {"properties": []}, 3]
)
def test_schema_that_breaks_the_metaschema_is_refused_with_its_place(inner: Any) -> None:
    assert str(refused(with_property(inner)).place).startswith("/properties/a")


@pytest.mark.parametrize(
    "ref",
    [
        "https://example.com/s.json",
        "other.json",
        "#/$defs/none",
        "#/properties/a/default",
        "#/%24defs/x",
        "#name",
    ],
)
def test_ref_to_anything_but_a_schema_of_this_document_is_refused(ref: str) -> None:
    inner = {"$ref": ref, "default": {"pattern": "x"}}
    assert refused(with_property(inner, **{"$defs": {"x": {}}})).place == "/properties/a/$ref"


def test_ref_inside_the_document_is_allowed_and_may_recurse_through_a_property() -> None:
    prepared(with_property({"$ref": "#/$defs/x"}, **{"$defs": {"x": {"type": "string"}}}))
    prepared(with_property({"$ref": "#"}))


@pytest.mark.threat("T-05")
@pytest.mark.parametrize(
    "more",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}},
        },
    ],
)
def test_loop_without_a_step_down_is_refused(more: dict[str, Any]) -> None:
    assert "leads back" in refused({"type": "object", **more}).message


@pytest.mark.threat("T-05")
def test_alternatives_that_double_twenty_times_are_refused() -> None:
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, 20):
        definitions[f"d{n}"] = {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2}
    schema = with_property({"$ref": "#/$defs/d19"}, **{"$defs": definitions})
    assert "too many alternatives" in refused(schema).message


def test_long_chain_of_refs_is_refused_not_a_crash() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(900)}
    refused(with_property({"$ref": "#/$defs/d0"}, **{"$defs": {**chain, "d900": {}}}))


@pytest.mark.threat("T-05")
@pytest.mark.parametrize(
    "pattern", ["(?=a)b", r"(a)\1", "[", "a{1,100000}", "(a{200}){200}", "x" * 513]
)
def test_pattern_without_a_time_bound_is_refused(pattern: str) -> None:
    error = refused(with_property({"pattern": pattern}))
    assert "RE2" in str(error.hint)
    assert error.place == "/properties/a"
    refused({"type": "object", "patternProperties": {pattern: {}}})


def test_format_that_would_not_be_checked_is_refused() -> None:
    assert "date-time" in str(refused(with_property({"format": "uri"})).hint)


def test_deep_and_large_schemas_are_refused() -> None:
    inner: dict[str, Any] = {}
    for _ in range(40):
        inner = {"not": inner}
    refused(with_property(inner))
    refused(with_property({"description": "x" * 70_000}))
    refused({"type": "object", "properties": {f"p{n}": {} for n in range(1_001)}})


def test_other_dialects_are_refused_and_this_one_is_kept() -> None:
    refused({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"})
    refused(with_property({"$schema": DIALECT}))
    assert prepared({"type": "object", "$schema": DIALECT})["$schema"] == DIALECT


def test_objects_are_closed_where_the_operator_said_nothing() -> None:
    schema = with_property(
        {"type": "array", "items": {"type": "object", "properties": {}}},
        **{"$defs": {"left": {"type": "object"}}},
    )
    made = prepared(schema)
    assert made["additionalProperties"] is False
    assert made["properties"]["a"]["items"]["additionalProperties"] is False
    assert "additionalProperties" not in made["$defs"]["left"]
    assert "additionalProperties" not in schema


def test_objects_stay_open_where_the_operator_said_so() -> None:
    assert (
        prepared({"type": "object", "additionalProperties": True})["additionalProperties"] is True
    )


def test_objects_put_together_from_parts_are_closed_to_what_no_part_names() -> None:
    made = prepared({"type": "object", "allOf": [{"properties": {"a": {}}}]})
    assert made["unevaluatedProperties"] is False
    assert "additionalProperties" not in made


def test_the_two_keywords_that_jsonschema_matches_with_re_are_refused_together() -> None:
    parts = {"type": "object", "allOf": [{"patternProperties": {"^(a+)+$": {}}}]}
    assert "additionalProperties" in str(refused(parts).hint)
    prepared({**parts, "additionalProperties": True})


def test_remarks_that_begin_with_x_are_allowed() -> None:
    prepared(with_property({"x-note": "anything", "title": "t", "$comment": "c"}))
