"""What is in force: the layers of policy, and what stands at one moment as one value.

A decision takes the `Standing` of its moment and never looks at another. A changed layer makes a
new `Standing`; the engine that it replaces ends when the last question put to it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from remit.canonical import digest_of
from remit.policy.bundle import PolicyBundle
from remit.policy.engine import Engine
from remit.policy.reads import known_of

LAYERS_DOMAIN = "remit.policy-layers/1"
MAIN = "policy"
"""The name of the layer that `policy.path` and `policy.use` make."""


class Tenure:
    """An engine's time in force: how many decisions are counting on it, and its end."""

    __slots__ = ("_free", "engine", "users")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.users = 0
        self._free: asyncio.Future[None] | None = None

    def left(self) -> None:
        """One decision fewer counts on it."""
        self.users -= 1
        if self._free is not None and not self.users and not self._free.done():
            self._free.set_result(None)

    async def end(self) -> None:
        """Close the engine once nobody counts on it; nobody new may from here on."""
        if self.users:
            self._free = asyncio.get_running_loop().create_future()
            await self._free
        await self.engine.aclose()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One policy in force: the packages that are asked, and who evaluates them.

    `bundle` is what the engine was given, None where a server has its policy from elsewhere.
    `reads` is what its rule `visible` reads that changes from call to call, None if not known.
    `results` are the entries that are asked about results too. `rules` holds the rules to ask for
    a decision, for what is visible and about a result, `labels` what each of the answers is called.
    """

    name: str
    entries: tuple[str, ...]
    tenure: Tenure
    revision: str
    bundle: PolicyBundle | None = None
    reads: frozenset[str] | None = None
    results: tuple[str, ...] = ()
    rules: Mapping[str, tuple[str, ...]] = field(init=False)
    labels: Mapping[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        several = len(self.entries) > 1
        asked = {"decision": self.entries, "visible": self.entries, "result": self.results}
        rules = {rule: tuple(f"{one}.{rule}" for one in entries) for rule, entries in asked.items()}
        labels = {
            rule: tuple(f"{self.name}/{one}" if several else self.name for one in entries)
            for rule, entries in asked.items()
        }
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "labels", labels)

    @property
    def engine(self) -> Engine:
        return self.tenure.engine


def layer(
    engine: Engine | Tenure,
    bundle: PolicyBundle,
    *,
    name: str = MAIN,
    revision: str | None = None,
    results: bool = False,
) -> Layer:
    """A layer of a bundle that this engine holds; parses the bundle, which takes a while.

    Args:
        revision: what a server of others answers under. It may come to hold another policy than
            this bundle, so what that reads is not known to be nothing.
        results: whether each entry is asked about results, also where this bundle has no rule
            for it.
    """
    known = known_of(bundle)
    reads = known.passing
    return Layer(
        name=name,
        entries=bundle.entries,
        tenure=engine if isinstance(engine, Tenure) else Tenure(engine),
        revision=bundle.revision if revision is None else revision,
        bundle=bundle,
        reads=reads if revision is None else reads or None,
        results=bundle.entries if results else known.results,
    )


class Standing:
    """All layers as they stand at one moment, under one revision. Never changes.

    `named` is the name and revision of each layer; `revision` is the layer's own where there is
    one, else a digest over `named`.
    """

    __slots__ = ("layers", "named", "revision")

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.named = tuple((each.name, each.revision) for each in self.layers)
        self.revision = revision_of(self.named)

    @property
    def reads(self) -> frozenset[str] | None:
        """What the rules `visible` of the layers read that changes from call to call."""
        known = [each.reads for each in self.layers if each.reads is not None]
        found: frozenset[str] = frozenset().union(*known)
        return found if found or len(known) == len(self.layers) else None

    def asked(self, rule: str) -> tuple[Layer, ...]:
        """The layers that have anything to say of this: for results not every one has."""
        return tuple(each for each in self.layers if each.rules[rule])

    def enter(self) -> None:
        """A decision counts on these engines, until it calls `leave`."""
        for each in self.layers:
            each.tenure.users += 1

    def leave(self) -> None:
        for each in self.layers:
            each.tenure.left()

    @property
    def engine(self) -> str:
        """The engine, or the engines, that evaluate."""
        if len(self.layers) == 1:
            return self.layers[0].engine.name
        return ", ".join(sorted({each.engine.name for each in self.layers})) or "none"

    def with_layer(self, new: Layer) -> Standing:
        """This, with another layer in the place of the one of its name.

        Raises:
            KeyError: there is none of its name.
        """
        if all(each.name != new.name for each in self.layers):
            raise KeyError(new.name)
        return Standing([new if each.name == new.name else each for each in self.layers])

    def with_revision(self, name: str, revision: str) -> Standing:
        """This, where the engine of a layer has been found to answer under another revision."""
        return Standing(
            [
                replace(each, revision=revision) if each.name == name else each
                for each in self.layers
            ]
        )


def revision_of(named: Sequence[tuple[str, str]]) -> str:
    """The one revision that stands for all of these layers."""
    if not named:
        return "none"
    if len(named) == 1:
        return named[0][1]
    return digest_of(LAYERS_DOMAIN, [list(each) for each in named])
