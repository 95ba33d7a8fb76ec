"""What servers offer beside their tools, as one caller may have it: prompts, resources, completion.

Nothing is read or asked here: these are the lists, and under which name of the catalog a call of it
is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from remit.errors import Refused
from remit.model import PROMPT, Caller, Method, ResourceLists, Tool
from remit.pipeline import Pipeline
from remit.ports import Told


class Offers:
    """The lists of one gateway; implements `doors.gateway.Offers`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._catalog = pipeline.backends.catalog
        self._servers = pipeline.backends.servers
        self._visibility = pipeline.visibility
        self._policy = pipeline.backends.policy
        self._watches = pipeline.backends.watches

    def methods(self) -> frozenset[Method]:
        """By which methods anything is offered to anyone."""
        return frozenset(tool.method for tool in self._catalog.others())

    async def prompts(self, caller: Caller, source_ip: str) -> Sequence[Tool]:
        """The prompts that this caller may see, sorted by name."""
        seen = await self._visibility.others(caller, source_ip)
        return [tool for tool in seen if tool.method is Method.PROMPTS_GET]

    async def resources(self, caller: Caller, source_ip: str) -> Sequence[ResourceLists]:
        """The resources of the servers whose reading this caller may see."""
        seen = {tool.name for tool in await self._visibility.others(caller, source_ip)}
        return [each for each in self._servers.resources() if each.reader in seen]

    def reader(self, uri: str) -> str | None:
        """Under which name a call reads this URI, if exactly one server has it."""
        return self._servers.reader(uri)

    async def completer(
        self, caller: Caller, source_ip: str, ref: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]] | None:
        """Under which name an argument is completed, and the reference as its server knows it.

        None where this caller may not see what is referred to, or it is not there.
        """
        if ref.get("type") == "ref/prompt":
            return await self._of_prompt(caller, source_ip, ref.get("name"))
        template = ref.get("uri")
        for each in await self.resources(caller, source_ip):
            if any(template == text for text, _ in each.templates):
                return f"{Method.COMPLETE}:{each.server}", {"type": "ref/resource", "uri": template}
        return None

    async def _of_prompt(
        self, caller: Caller, source_ip: str, name: object
    ) -> tuple[str, dict[str, Any]] | None:
        if not isinstance(name, str):
            return None
        try:
            tool = await self._visibility.find(caller, PROMPT + name, source_ip, Method.PROMPTS_GET)
        except Refused:
            return None
        assert tool.upstream is not None, "a prompt is a server's"
        own = tool.upstream.tool.removeprefix(PROMPT)
        return f"{Method.COMPLETE}:{tool.upstream.server}", {"type": "ref/prompt", "name": own}

    # --------------------------------------------------------------------------- being told of it

    def watcher(self, uri: str) -> str | None:
        """Under which name a call subscribes to this URI, if one server has it and tells of it."""
        return None if self._watches is None else self._servers.watcher(uri)

    def standing(self, uri: str) -> object:
        """What a call that subscribed to this URI rests on; equal as long as nothing of it is
        another."""
        tool = self._catalog.tool(self.watcher(uri) or "")
        digest = None if tool is None else tool.digest
        return self._policy.revision, self._visibility.epoch, digest

    def rounds(self, uri: str) -> int:
        """Another number whenever hearing the server of this URI has begun anew."""
        server = self._server(uri)
        return 0 if self._watches is None or server is None else self._watches.rounds(server)

    def hear(self, uri: str, told: Told) -> Callable[[], None]:
        """Have `told` called when this URI changes, or when hearing of it has begun anew."""
        server = self._server(uri)
        if self._watches is None or server is None:
            return _nothing
        return self._watches.hear(server, uri, told)

    def listen(self) -> Callable[[], None]:
        """Have servers heard that tell of changes of their lists; gives what ends that."""
        return _nothing if self._watches is None else self._watches.listen()

    def _server(self, uri: str) -> str | None:
        tool = self._catalog.tool(self.watcher(uri) or "")
        return None if tool is None or tool.upstream is None else tool.upstream.server


def _nothing() -> None:
    """Nothing was begun."""
