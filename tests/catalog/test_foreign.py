"""Schemas that servers wrote: checked in their own dialect, in bounded time, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from remit.catalog.arguments import CompiledSchema, SchemaCheck
from remit.catalog.foreign import prepare_foreign
from remit.errors import Code, ConfigError, Refused
from remit.model import Command, Effect, Frozen, Tool, Upstream

SEVEN = "http://json-schema.org/draft-07/schema#"
NINETEEN = "https://json-schema.org/draft/2019-09/schema"


def fits(schema: dict[str, Any], value: Any) -> bool:
    return not CompiledSchema(prepare_foreign(schema).schema, fills=False).broken(value)


def of(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (of(properties={"a": {"type": "integer"}}), {"a": 1}, {"a": "1"}),
        (of(additionalProperties=False), {}, {"a": 1}),
        (
            {
                "$schema": SEVEN,
                "$ref": "#/definitions/In",
                "definitions": {"In": of(required=["a"])},
            },
            {"a": 1},
            {},
        ),
        (
            of(
                **{"$schema": SEVEN},
                properties={
                    "t": {"items": [{"type": "integer"}], "additionalItems": {"type": "string"}}
                },
            ),
            {"t": [1, "x"]},
            {"t": [1, 2]},
        ),
        (of(**{"$schema": SEVEN}, dependencies={"a": ["b"]}), {"a": 1, "b": 1}, {"a": 1}),
        (of(**{"$schema": SEVEN}, dependencies={"a": of(required=["b"])}), {}, {"a": 1}),
        (of(**{"$schema": NINETEEN}, dependentRequired={"a": ["b"]}), {}, {"a": 1}),
        (of(properties={"a": {"items": [{"type": "null"}]}}), {"a": []}, {"a": [1]}),
        (
            of(
                properties={"n": {"$ref": "#node"}},
                **{"$defs": {"n": {"$anchor": "node", "type": "object", "minProperties": 1}}},
            ),
            {"n": {"x": 1}},
            {"n": {}},
        ),
        (
            of(
                properties={"n": {"$dynamicRef": "#T", "$ref": "#/$defs/p"}},
                **{"$defs": {"t": {"$dynamicAnchor": "T", "type": "integer"}, "p": {"minimum": 3}}},
            ),
            {"n": 3},
            {"n": 2},
        ),
        (
            of(
                properties={"n": {"$ref": "#/$defs/List%3CInt%3E"}},
                **{"$defs": {"List<Int>": {"type": "array"}}},
            ),
            {"n": []},
            {"n": 1},
        ),
        (of(**{"$id": "https://example.com/x", "x-own": 1, "unheard": [1]}), {}, []),
    ],
)
def test_a_schema_of_each_dialect_means_what_its_author_meant(
    schema: dict[str, Any], good: Any, bad: Any
) -> None:
    assert fits(schema, good)
    assert not fits(schema, bad)


def test_a_recursive_reference_of_2019_is_one_to_the_whole() -> None:
    schema = of(
        **{"$schema": NINETEEN},
        properties={"child": {"$recursiveRef": "#"}},
        additionalProperties=False,
    )
    assert fits(schema, {"child": {"child": {}}})
    assert not fits(schema, {"child": {"other": 1}})


def test_in_draft_07_what_stands_beside_a_reference_is_not_meant() -> None:
    inner = {"$ref": "#/definitions/x", "type": "string"}
    shared = {"x": {"type": "integer"}}
    old = of(**{"$schema": SEVEN}, properties={"a": inner}, definitions=shared)
    new = of(properties={"a": inner}, definitions=shared)
    assert fits(old, {"a": 1})
    assert not fits(new, {"a": 1})


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (of(**{"$schema": "https://example.com/own"}), "/$schema"),
        (of(**{"$schema": 3}), "/$schema"),
        (of(properties={"a": {"type": "strin"}}), "/properties/a/type"),
        (of(properties={"a": {"$ref": "https://example.com/a"}}), "/properties/a/$ref"),
        (of(properties={"a": {"$ref": "file:///etc/passwd"}}), "/properties/a/$ref"),
        (of(properties={"a": {"$ref": "#/not/there"}}), "/properties/a/$ref"),
        (of(properties={"a": {"$ref": "#/x-there"}}, **{"x-there": {}}), "/properties/a/$ref"),
        (of(properties={"a": {"$id": "https://example.com/a"}}), "/properties/a/$id"),
        (of(**{"$ref": "#"}), ""),
        (of(patternProperties={"^(?!a)": True}), "/patternProperties"),
        (of(**{"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}}), "/$defs/b/$anchor"),
    ],
)
def test_a_schema_that_reaches_out_or_cannot_be_checked_is_refused(
    schema: dict[str, Any], place: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_foreign(schema)
    assert caught.value.code is Code.CATALOG_INVALID
    assert caught.value.place == place


def test_alternatives_that_multiply_are_refused() -> None:
    doubled = {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
        for n in range(20)
    }
    schema = of(**{"$defs": {**doubled, "d20": {}}, "properties": {"a": {"$ref": "#/$defs/d0"}}})
    with pytest.raises(ConfigError, match="too many alternatives"):
        prepare_foreign(schema)


@pytest.mark.parametrize(
    "broken",
    [{"pattern": [1]}, {"pattern": 7}, {"patternProperties": [[]]}, {"$anchor": []},
     {"prefixItems": 7}, {"$defs": []}, {"minContains": "1"}],
)  # fmt: skip
@pytest.mark.parametrize("place", ["$defs", "dependentSchemas", "prefixItems"])
def test_what_an_older_dialect_does_not_know_is_looked_at_before_it_means_something(
    place: str, broken: dict[str, Any]
) -> None:
    inside = [broken] if place == "prefixItems" else {"a": broken}
    with pytest.raises(ConfigError) as caught:
        prepare_foreign(of(**{"$schema": SEVEN, place: inside}))
    assert caught.value.code is Code.CATALOG_INVALID


@pytest.mark.parametrize("odd", [[], 7, {"a": ["b"]}])
def test_what_depends_on_nothing_is_no_rule(odd: Any) -> None:
    inner = {"dependencies": odd, "dependentRequired": 7}
    codes: list[Code] = []
    try:
        prepare_foreign(of(**{"$schema": SEVEN, "$defs": {"a": inner}}))
    except ConfigError as error:
        codes.append(error.code)
    assert codes in ([], [Code.CATALOG_INVALID])


def test_a_pattern_that_could_take_for_ever_is_left_to_the_server_and_named() -> None:
    email = {"type": "string", "pattern": r"^(?!\.)(?!.*\.\.)[a-z]+@x$"}
    found = prepare_foreign(of(properties={"email": email, "code": {"pattern": "^[a-z]+$"}}))
    assert found.unchecked == ("/properties/email/pattern",)
    check = CompiledSchema(found.schema, fills=False)
    assert not check.broken({"email": "..", "code": "a"})
    assert check.broken({"code": "1"})


def test_formats_are_remarks_as_the_standard_has_it() -> None:
    assert fits(of(properties={"a": {"format": "date-time"}, "b": {"format": "own"}}), {"a": "x"})


def tool(schema: bytes, **more: Any) -> Tool:
    upstream = Upstream(server="s", tool="t", definition="sha256:" + "0" * 64)
    return Tool(
        name="s_t",
        description="",
        input_schema=Frozen(schema),
        command=Command(argv=()),
        effect=Effect.READ,
        upstream=upstream,
        **more,
    )


def test_arguments_for_a_server_are_checked_and_not_changed() -> None:
    schema = b'{"type":"object","properties":{"a":{"type":"integer","default":7},"b":{}}}'
    check = SchemaCheck()
    assert check.normalise(tool(schema), {"b": 1}).value() == {"b": 1}
    with pytest.raises(Refused) as caught:
        check.normalise(tool(schema), {"a": "never echoed"})
    assert caught.value.code is Code.INVALID_ARGUMENTS
    assert "never echoed" not in caught.value.message


@pytest.mark.parametrize("schema", [b'{"type":"object","$schema":"urn:x"}', b'{"$ref":"#/a"}'])
def test_nothing_fits_a_schema_that_cannot_be_checked(schema: bytes) -> None:
    check = SchemaCheck()
    with pytest.raises(Refused) as caught:
        check.normalise(tool(schema), {})
    assert caught.value.code is Code.INVALID_ARGUMENTS
    made = tool(b'{"type":"object"}', output_schema=Frozen(schema))
    assert check.fits(made, {}) is False


def test_results_are_held_against_the_servers_own_output_schema() -> None:
    schema = b'{"$schema":"http://json-schema.org/draft-07/schema#","type":"array"}'
    made = tool(b'{"type":"object"}', output_schema=Frozen(schema))
    assert SchemaCheck().fits(made, [])
    assert not SchemaCheck().fits(made, {})
