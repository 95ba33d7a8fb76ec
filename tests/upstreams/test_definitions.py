"""Tools as servers list them: read strictly, digested, and never a surprise to whoever reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import canonical
from remit.errors import Code, InputError, RemitError
from remit.upstreams import definitions
from remit.upstreams.definitions import DOMAIN, PARTS, Definition, read_definition
from tests.upstreams import listing

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
ITEMS = ANYTHING | st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("read_file") | ANYTHING,
        "title": ANYTHING,
        "description": ANYTHING,
        "inputSchema": listing.SCHEMAS | ANYTHING,
        "outputSchema": listing.SCHEMAS | ANYTHING,
        "annotations": listing.ANNOTATIONS | ANYTHING,
    },
)


def _refused(item: object) -> InputError:
    with pytest.raises(InputError) as caught:
        read_definition("files", item)
    return caught.value


@given(ITEMS)
def test_any_json_gives_a_definition_or_our_error(item: object) -> None:
    error, found = _read(item)
    if error is not None:
        assert (error.place or "").startswith("server files, tool ")
        assert len(str(error)) < 700
        assert str(error).isprintable()
        return
    assert isinstance(item, dict)
    assert found is not None
    assert found.parts() == {part: item[part] for part in PARTS if item.get(part) is not None}


def _read(item: object) -> tuple[RemitError | None, Definition | None]:
    try:
        return None, read_definition("files", item)
    except RemitError as exc:
        return exc, None


@given(listing.TOOLS, st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_keys(item: Any, random: Any) -> None:
    shuffled = listing.shuffled(item, random)
    assert read_definition("a", shuffled).digest == read_definition("b", item).digest


@given(listing.TOOLS, listing.TOOLS)
def test_the_digest_is_the_same_for_the_same_parts_only(first: Any, second: Any) -> None:
    same = canonical.encode(first) == canonical.encode(second)
    assert (read_definition("a", first).digest == read_definition("a", second).digest) is same


@given(listing.TOOLS, st.data())
def test_a_change_in_any_part_changes_the_digest(item: Any, data: st.DataObject) -> None:
    before = read_definition("a", item)
    part = data.draw(st.sampled_from(PARTS))
    if part in ("name", "title", "description"):
        changed = {**item, part: item.get(part, "") + "x"}
    else:
        old = item.get(part, {"type": "object"})
        changed = {**item, part: {**old, "x-more": [old.get("x-more")]}}
    assert read_definition("a", changed).digest != before.digest


@given(listing.TOOLS)
def test_what_was_read_is_given_back_with_its_keys_in_order(item: Any) -> None:
    found = read_definition("a", item)
    assert found.parts() == item
    for part in ("inputSchema", "outputSchema", "annotations"):
        if part in item:
            assert json.dumps(found.parts()[part]) == json.dumps(item[part])
    assert read_definition("a", found.parts()) == found


def test_schemas_keep_definitions_anchors_and_keys_of_others() -> None:
    schema = {
        "type": "object",
        "$defs": {"b": {"$anchor": "here", "type": "string"}, "a": True},
        "properties": {"z": {"$ref": "#here", "x-mcp-header": "Z"}, "a": {"default": 1.5}},
    }
    found = read_definition("a", listing.tool(inputSchema=schema))
    assert json.dumps(found.input_schema.value()) == json.dumps(schema)


def test_the_digest_is_over_exactly_the_parts() -> None:
    item = listing.tool(title="Read")
    found = read_definition("a", {**item, "icons": [1], "_meta": {"a": 1}, "execution": {}})
    assert found.digest == canonical.digest_of(DOMAIN, item)
    assert read_definition("a", {**item, "annotations": None}).digest == found.digest


@pytest.mark.parametrize(
    ("item", "code", "place"),
    [
        ([], Code.CATALOG_INVALID, "tool number 0"),
        (listing.tool(name=""), Code.CATALOG_INVALID, 'tool "", /name'),
        (listing.tool(name="a" * 129), Code.CATALOG_INVALID, "/name"),
        (listing.tool(name="a b"), Code.CATALOG_INVALID, 'tool "a b", /name'),
        (listing.tool(name="a\n"), Code.CATALOG_INVALID, 'tool "a\\n", /name'),
        (listing.tool(name="é"), Code.CATALOG_INVALID, "/name"),
        ({"name": "a"}, Code.CATALOG_INVALID, "tool a, /inputSchema"),
        (listing.tool(inputSchema={}), Code.CATALOG_INVALID, "/inputSchema"),
        (listing.tool(inputSchema=[]), Code.CATALOG_INVALID, "/inputSchema"),
        (listing.tool(outputSchema=True), Code.CATALOG_INVALID, "/outputSchema"),
        (listing.tool(title=1), Code.CATALOG_INVALID, "/title"),
        (listing.tool(description=["a"]), Code.CATALOG_INVALID, "/description"),
        (listing.tool(annotations="safe"), Code.CATALOG_INVALID, "/annotations"),
        (
            listing.tool(annotations={"readOnlyHint": "yes"}),
            Code.CATALOG_INVALID,
            "/annotations/readOnlyHint",
        ),
        (listing.tool(annotations={"title": 1}), Code.CATALOG_INVALID, "/annotations/title"),
        (listing.tool(title="\ud800"), Code.INVALID_UNICODE, "/title"),
        (listing.schema({"\udfff": 1}), Code.INVALID_UNICODE, "/inputSchema/\\u{dfff}"),
        (listing.schema({"a": 2**53}), Code.NUMBER_OUT_OF_RANGE, "/inputSchema/a"),
        (listing.schema({"a": float("nan")}), Code.NUMBER_OUT_OF_RANGE, "/inputSchema/a"),
        (listing.schema({"a": [0, {1}]}), Code.MALFORMED_JSON, "/inputSchema/a/1"),
        (listing.schema({1: "a"}), Code.MALFORMED_JSON, "/inputSchema/1"),
    ],
)
def test_a_fault_names_server_tool_and_place(item: object, code: Code, place: str) -> None:
    error = _refused(item)
    assert error.code is code
    assert error.place is not None
    assert error.place.startswith("server files, tool ")
    assert error.place.endswith(place)


def test_each_bound_holds_and_is_not_one_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed(item: object) -> Definition:
        return read_definition("files", item)

    for part, limit in (("title", 512), ("description", 32_768)):
        allowed(listing.tool(**{part: "a" * limit}))
        assert _refused(listing.tool(**{part: "a" * (limit + 1)})).code is Code.TOO_LARGE
    named = {"properties": {f"p{number}": True for number in range(1_000)}}
    allowed(listing.schema(named))
    named["properties"]["more"] = True
    assert _refused(listing.schema(named)).code is Code.TOO_LARGE
    allowed(listing.schema({"a": _nested(62)}))
    assert _refused(listing.schema({"a": _nested(63)})).code is Code.TOO_DEEP
    spare = definitions.MAX_BYTES - len(canonical.encode({"a": "", "type": "object"}))
    allowed(listing.schema({"a": "a" * spare}))
    assert _refused(listing.schema({"a": "a" * (spare + 1)})).code is Code.TOO_LARGE
    monkeypatch.setattr(definitions, "MAX_VALUES", 8)  # top, and keys and values of each of these
    allowed({"name": "a", "inputSchema": {"type": "object"}, "title": None})
    assert _refused(listing.schema({"a": 1})).code is Code.TOO_LARGE


def _nested(levels: int) -> Any:
    inner: Any = 1
    for _ in range(levels - 1):
        inner = [inner]
    return inner


def test_a_long_key_is_shortened_and_what_is_under_it_still_named() -> None:
    place = _refused(listing.schema({"k" * 100: {"inner": 2**60}})).place or ""
    assert "[36 more characters]" in place
    assert place.endswith("k/inner")


def test_hostile_shapes_are_refused_at_once_and_without_their_text() -> None:
    assert _refused(listing.schema({"a": _nested(200_000)})).code is Code.TOO_DEEP
    assert _refused(listing.schema({"a": [0] * 500_000})).code is Code.TOO_LARGE
    long = "k" * 1_000_000
    assert _refused(listing.schema({long: [0] * 100_000})).code is Code.TOO_LARGE
    error = _refused(listing.schema({long + "\u202e": 2**60}))
    assert error.code is Code.NUMBER_OUT_OF_RANGE
    assert len(str(error)) < 500
    assert "\u202e" not in str(error)
