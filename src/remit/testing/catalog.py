"""A catalog in memory with tools made in a line, and the contract that every `Catalog` must keep.

To check a backend, subclass `CatalogContract` and override its `build` fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from remit.catalog.command import build_tool
from remit.catalog.spec import ToolSpec
from remit.model import Effect, Tool
from remit.ports import Catalog


def make_tool(
    name: str = "say",
    effect: Effect | str = Effect.READ,
    properties: Mapping[str, Any] | None = None,
    **more: Any,
) -> Tool:
    """A tool as `remit.yaml` would give it; keywords are further keys of its description.

    Every property is required. The command echoes a word unless `command` says otherwise.
    """
    properties = dict(properties or {})
    description: dict[str, Any] = {
        "name": name,
        "description": f"The tool {name}.",
        "effect": str(effect),
        "input_schema": {
            "type": "object", "properties": properties, "required": sorted(properties),
        },
        "command": {"argv": ["/bin/echo", name]},
        **more,
    }  # fmt: skip
    return build_tool(ToolSpec.model_validate(description))


class MemoryCatalog:
    """Implements `Catalog`; `put` and `drop` change it, as a reloaded file would."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._sorted: tuple[Tool, ...] | None = None

    def tool(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def tools(self) -> Sequence[Tool]:
        if self._sorted is None:
            self._sorted = tuple(self._tools[name] for name in sorted(self._tools))
        return self._sorted

    def others(self) -> Sequence[Tool]:
        return ()

    def put(self, tool: Tool) -> None:
        self._tools[tool.name] = tool
        self._sorted = None

    def drop(self, name: str) -> None:
        self._tools.pop(name, None)
        self._sorted = None


_: type[Catalog] = MemoryCatalog


class CatalogContract:
    """What every `Catalog` must do."""

    @pytest.fixture
    def build(self) -> Callable[[Sequence[Tool]], Catalog]:
        raise NotImplementedError("override this fixture")

    def test_tools_come_sorted_by_name_whatever_their_order(
        self, build: Callable[[Sequence[Tool]], Catalog]
    ) -> None:
        tools = [make_tool(name) for name in ("b", "a.2", "a", "B_")]
        assert [tool.name for tool in build(tools).tools()] == ["B_", "a", "a.2", "b"]
        assert build(tools).tools() == build(tools[::-1]).tools()

    def test_tool_is_found_by_its_exact_name_only(
        self, build: Callable[[Sequence[Tool]], Catalog]
    ) -> None:
        say = make_tool("say")
        catalog = build([say])
        assert catalog.tool("say") == say
        assert [catalog.tool(name) for name in ("", "Say", "say ", "sa")] == [None] * 4

    def test_unchanged_catalog_gives_the_same_object_again(
        self, build: Callable[[Sequence[Tool]], Catalog]
    ) -> None:
        catalog = build([make_tool("a"), make_tool("b")])
        assert catalog.tools() is catalog.tools()

    def test_empty_catalog_has_no_tools(self, build: Callable[[Sequence[Tool]], Catalog]) -> None:
        assert list(build([]).tools()) == []
