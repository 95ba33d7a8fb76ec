"""The layers in force as OPA bundles, and news of them for those who wait."""

from __future__ import annotations

import asyncio

from remit.errors import Code, NotFound
from remit.model import ServedBundle
from remit.policy.archive import write_archive
from remit.policy.bundle import PolicyBundle
from remit.policy.opa import probing
from remit.policy.point import PolicyPoint

MAX_WAITING = 64
"""How many may wait at once; whoever comes then is answered at once."""


class ServedBundles:
    """The `Bundles` port on a point. An archive is made once for each revision.

    Besides the layers there is `remit_probe`: the probes, for an OPA server that Remit asks.
    """

    def __init__(self, point: PolicyPoint) -> None:
        self._point = point
        self._made: dict[str, ServedBundle] = {}
        self._making = asyncio.Lock()
        self._closed = asyncio.Event()
        self._waiting = 0

    async def bundle(self, layer: str, *, known: frozenset[str], wait_s: float) -> ServedBundle:
        if self._layer(layer).revision in known and wait_s and self._waiting < MAX_WAITING:
            self._waiting += 1
            try:
                await self._news(layer, known, wait_s)
            finally:
                self._waiting -= 1
        return await self._archive(layer)

    def close(self) -> None:
        self._closed.set()

    def _layer(self, name: str) -> PolicyBundle:
        for each in self._point.standing.layers:
            if each.name == name and each.bundle is not None:
                return each.bundle
        if name == probing.PACKAGE:
            return probing.bundle()
        raise NotFound(
            Code.NOT_FOUND,
            "there is no such layer of policy, or an OPA server has it from elsewhere",
            hint="`policy` is the layer of policy.path; the others have their names in remit.yaml",
        )

    async def _news(self, layer: str, known: frozenset[str], seconds: float) -> None:
        """Wait until the layer's revision is not one of these, the time is over, or all is."""
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            async with asyncio.timeout(seconds):
                while self._layer(layer).revision in known and not closed.done():
                    turned = asyncio.ensure_future(self._point.turned())
                    try:
                        await asyncio.sleep(0)  # it waits from here on: what came before is seen
                        if self._layer(layer).revision not in known:
                            return
                        await asyncio.wait([turned, closed], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        turned.cancel()
        except TimeoutError:
            return
        finally:
            closed.cancel()

    async def _archive(self, layer: str) -> ServedBundle:
        async with self._making:
            bundle = self._layer(layer)
            made = self._made.get(layer)
            if made is None or made.revision != bundle.revision:
                content = await asyncio.to_thread(write_archive, bundle)
                made = ServedBundle(revision=bundle.revision, content=content)
                self._made[layer] = made
            return made
