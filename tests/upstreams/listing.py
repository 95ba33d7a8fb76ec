"""Items of `tools/list` as servers send them, one by one and generated."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

from remit.upstreams.definitions import Definition, read_definition

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.text("abCD12_.-", min_size=1, max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.dictionaries(TEXT, _VALUES, max_size=4).map(lambda more: {**more, "type": "object"})
FLAGS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
ANNOTATIONS = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(FLAGS, st.booleans()), "title": TEXT, "x-other": _VALUES}
)
TOOLS = st.fixed_dictionaries(
    {"name": NAMES, "inputSchema": SCHEMAS},
    optional={
        "title": TEXT,
        "description": TEXT,
        "outputSchema": SCHEMAS,
        "annotations": ANNOTATIONS,
    },
)


def tool(**parts: Any) -> dict[str, Any]:
    return {"name": "read_file", "inputSchema": {"type": "object"}, **parts}


def schema(more: dict[Any, Any]) -> dict[str, Any]:
    return tool(inputSchema={"type": "object", **more})


def defined(server: str = "files", **parts: Any) -> Definition:
    return read_definition(server, tool(**parts))


def shuffled(value: Any, random: Random) -> Any:
    """The same value with the keys of each object in another order."""
    if isinstance(value, list):
        return [shuffled(each, random) for each in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    random.shuffle(keys)
    return {key: shuffled(value[key], random) for key in keys}
