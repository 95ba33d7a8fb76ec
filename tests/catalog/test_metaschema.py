"""The metaschema as one document says of every schema what the eight documents of it say."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from remit.catalog import metaschema
from remit.catalog.metaschema import check_schema, one_document

WHOLE = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=FormatChecker(()))
MADE = one_document()
assert MADE is not None
QUICK = Draft202012Validator(MADE, format_checker=FormatChecker(()))
KEYS = sorted(MADE["properties"])
PLAIN: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, "", "string", "object", "#", "#a", "a#", "#/$defs/a"),
    *("https://x.example/", [], {}, ["a"], ["a", "a"], [1], ["string"], ["string", "number"]),
    *([{}], [{}, {}], [True], {"a": {}}, {"a": True}, {"a": 1}, {"a": ["b"]}, {"a": []}),
    *({"type": "string"}, {"type": "text"}, [{"type": 7}], {"a": {"minimum": "1"}}, {"": False}),
    *({"https://x.example/": True}, {"https://x.example/#": True}),
]
SCHEMAS = st.recursive(
    st.sampled_from(PLAIN),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from([*KEYS, "a", "other"]), inner, max_size=3),
    ),
    max_leaves=8,
)


def test_each_keyword_takes_the_same_values() -> None:
    assert len(KEYS) > 50
    taken = 0
    for key in KEYS:
        for value in PLAIN:
            for schema in ({key: value}, {"items": {key: value}}, {"$defs": {"a": {key: value}}}):
                said = WHOLE.is_valid(schema)
                assert QUICK.is_valid(schema) is said, schema
                taken += said
    assert 0 < taken < 3 * len(KEYS) * len(PLAIN)


@given(SCHEMAS)
def test_schemas_are_valid_by_one_document_if_they_are_by_all(schema: Any) -> None:
    assert QUICK.is_valid(schema) is WHOLE.is_valid(schema)


def test_what_is_valid_is_not_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        Draft202012Validator, "check_schema", lambda schema, **_: asked.append(schema)
    )
    check_schema({"type": "object", "properties": {"a": {"type": ["string", "null"]}}})
    assert asked == []
    check_schema({"properties": {"a": {"type": "text"}}})
    assert asked == [{"properties": {"a": {"type": "text"}}}]


def test_a_metaschema_of_another_make_speaks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {**Draft202012Validator.META_SCHEMA, "minProperties": 1}
    monkeypatch.setattr(Draft202012Validator, "META_SCHEMA", whole)
    assert one_document() is None
    monkeypatch.setattr(metaschema, "_quick", lambda: None)
    check_schema({"type": "object"})
    with pytest.raises(jsonschema.SchemaError):
        check_schema({"type": "text"})
