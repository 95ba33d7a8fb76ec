"""The operator's tools, held in memory and looked up by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from remit.errors import Code, ConfigError
from remit.model import Tool
from remit.ports import Catalog


class CommandCatalog:
    """Tools by exact name; implements `ports.Catalog`. Who may see which is policy's matter.

    Raises:
        ConfigError: `catalog_invalid` if two names are the same, or differ only in case (people
            and models do not tell those apart).
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._sorted = tuple(sorted(tools, key=lambda tool: tool.name))
        self._by_name = {tool.name: tool for tool in self._sorted}
        folded: dict[str, str] = {}
        for tool in self._sorted:
            if tool.name.casefold() in folded:
                raise _same_name(folded[tool.name.casefold()], tool.name)
            folded[tool.name.casefold()] = tool.name

    def tool(self, name: str) -> Tool | None:
        return self._by_name.get(name)

    def tools(self) -> Sequence[Tool]:
        return self._sorted

    def others(self) -> Sequence[Tool]:
        """None: commands are tools."""
        return ()


def _same_name(one: str, other: str) -> ConfigError:
    return ConfigError(
        Code.CATALOG_INVALID,
        f"two tools are called {one}"
        if one == other
        else f"the tools {one} and {other} differ only in case",
        hint="give each tool a name of its own",
    )


_: type[Catalog] = CommandCatalog
