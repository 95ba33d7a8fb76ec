"""How policy is put together from the settings: sources, engines, layers, and what is on trial."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from remit.config import Settings
from remit.errors import ConfigError, PolicyFault
from remit.policy.bundle import PolicyBundle, read_bundle
from remit.policy.embedded import EmbeddedEngine
from remit.policy.engine import Engine
from remit.policy.layers import MAIN, Layer, Tenure, layer
from remit.policy.library import with_library
from remit.policy.lint import lint
from remit.policy.opa.client import OpaEngine
from remit.policy.opa.supervisor import SupervisedOpa
from remit.policy.point import PolicyPoint
from remit.policy.shadow import Shadow, candidate_for
from remit.policy.source import Origin, PathSource, open_source
from remit.policy.switch import Part, Switch, stop
from remit.settings.enforcement import LayerSettings, TrialSettings
from remit.telemetry import logger

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """Policy in force: where it is asked, what may change it, and what is on trial beside it."""

    point: PolicyPoint
    parts: Sequence[Part]
    shadow: Shadow | None

    def switch(self, activate: Callable[[str], Awaitable[None]]) -> Switch:
        """What follows the sources; `activate` puts a revision in force in the ledger."""
        told = _nothing if self.shadow is None else self.shadow.told
        return Switch(self.point, self.parts, activate, told=told)

    @asynccontextmanager
    async def kept(self, switch: Switch) -> AsyncIterator[None]:
        """Follow the sources, and try out what is on trial, until the block ends."""
        running = [asyncio.create_task(switch.run())]
        if self.shadow is not None:
            self.point.watch = self.shadow.watch
            running.append(asyncio.create_task(self.shadow.run()))
        try:
            yield
        finally:
            self.point.watch = None
            for task in running:
                await stop(task)


def _nothing(_: Layer) -> None:
    return None


async def open_policy(settings: Settings, stack: AsyncExitStack) -> Enforcement:
    """Policy as the settings say, loaded and probed; the stack ends all of it.

    A server of others that cannot be asked yet is no reason not to start: until it answers, each
    call is denied and the gateway is not ready.

    Raises:
        ConfigError, PolicyFault: a policy cannot be had, checked or loaded.
    """
    engines = _Engines(settings)
    parts: list[Part] = []
    layers: list[Layer] = []
    point = None
    try:
        for chosen in settings.policy.layers:
            try:
                layers.append(await _first(settings, engines, chosen, parts, stack))
            except (ConfigError, PolicyFault) as error:
                # A line and a column say little where several policies could be meant.
                error.place = f"layer {chosen.name}" + (f", {error.place}" if error.place else "")
                raise
        point = PolicyPoint(layers)
    finally:
        if point is None:
            for made in layers:
                await made.engine.aclose()
    stack.push_async_callback(point.aclose)
    shadow = await _shadow(settings, engines, point) if settings.policy.trial else None
    if shadow is not None:
        stack.push_async_callback(shadow.aclose)
    return Enforcement(point=point, parts=parts, shadow=shadow)


async def _first(
    settings: Settings,
    engines: _Engines,
    chosen: LayerSettings,
    parts: list[Part],
    stack: AsyncExitStack,
) -> Layer:
    """The layer as it is now; one that has a source is followed as one of `parts`."""
    if chosen.place is None:
        return await engines.fixed(chosen)
    part = _part(settings, engines, chosen)
    stack.push_async_callback(part.source.aclose)
    parts.append(part)
    return await part.first()


async def load_layer(settings: Settings, chosen: LayerSettings) -> PolicyBundle | None:
    """The checked policy of a layer, without starting anything; None if it is not on this machine.

    Raises:
        ConfigError: it cannot be had, or is not a policy.
    """
    if chosen.path is None and (chosen.place is not None or not chosen.use):
        return None
    own = None
    if chosen.path is not None:
        own = await PathSource(chosen.path, verification=chosen.verification).load()
    return preparing(chosen, portable=settings.policy.portable)(own)


def load_candidate(settings: Settings, path: Path) -> PolicyBundle:
    """The checked candidate that is on trial for the main layer, with the library of that layer.

    Raises:
        ConfigError: it cannot be had, or is not a policy.
    """
    main = next(each for each in settings.policy.layers if each.name == MAIN)
    try:
        return preparing(main, portable=settings.policy.portable)(read_bundle(path))
    except ConfigError as error:
        error.place = "policy.shadow" + (f", {error.place}" if error.place else "")
        raise


def preparing(
    chosen: LayerSettings, *, portable: bool
) -> Callable[[PolicyBundle | None], PolicyBundle]:
    """What is done to the policy of a layer before it is loaded: its library, and the lint."""

    def prepare(own: PolicyBundle | None) -> PolicyBundle:
        bundle = with_library(own, chosen.use)
        findings = lint(bundle) if portable else []
        if findings:
            raise findings[0].error(of=len(findings))
        return bundle

    return prepare


def _part(settings: Settings, engines: _Engines, chosen: LayerSettings) -> Part:
    origin = Origin(
        layer=chosen.name,
        place=chosen.place or "",
        verification=chosen.verification,
        token=chosen.token,
        ca_file=chosen.ca_file,
        keep_in=settings.data_dir / "policy",
        every_s=settings.sections.policy.reload_s,
    )
    return Part(
        name=chosen.name,
        source=open_source(origin),
        prepare=preparing(chosen, portable=settings.policy.portable),
        make=partial(engines.layer, chosen.name, settings.policy.engine),
    )


class _Engines:
    """Makes engines as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._foreign: dict[tuple[str, tuple[str, ...]], Tenure] = {}

    async def layer(self, name: str, kind: str, bundle: PolicyBundle) -> Layer:
        """A layer of this bundle, in a new engine; a server of others stays the same one."""
        if kind == "opa" and self._settings.policy.opa.url is not None:
            tenure = await self._server(name, tuple(bundle.entries))
            known = tenure.engine.revision
            results = self._settings.sections.policy.opa.results
            return await asyncio.to_thread(
                layer, tenure, bundle, name=name, revision=known, results=results
            )
        engine = await self._loaded(kind, bundle)
        try:
            return await asyncio.to_thread(layer, engine, bundle, name=name)
        except BaseException:
            await engine.aclose()
            raise

    async def fixed(self, chosen: LayerSettings) -> Layer:
        """A layer that nothing here changes: the library alone, or a server's own policy."""
        if chosen.use:
            prepare = preparing(chosen, portable=self._settings.policy.portable)
            bundle = await asyncio.to_thread(prepare, None)
            return await self.layer(chosen.name, self._settings.policy.engine, bundle)
        tenure = await self._server(chosen.name, (chosen.package,))
        return Layer(
            name=chosen.name,
            entries=(chosen.package,),
            tenure=tenure,
            revision=tenure.engine.revision,
            results=(chosen.package,) if self._settings.sections.policy.opa.results else (),
        )

    async def _loaded(self, kind: str, bundle: PolicyBundle) -> Engine:
        section = self._settings.sections.policy
        binary = self._settings.policy.opa.binary
        if kind == "embedded" or binary is None:
            return await EmbeddedEngine.start(
                bundle, deadline_ms=section.deadline_ms, workers=section.workers
            )
        return await SupervisedOpa.start(
            bundle,
            binary=binary,
            state_dir=self._settings.data_dir / "opa",
            deadline_ms=section.deadline_ms,
        )

    async def _server(self, name: str, packages: tuple[str, ...]) -> Tenure:
        known = self._foreign.get((name, packages))
        if known is not None:
            return known
        opa = self._settings.policy.opa
        engine = await OpaEngine.connect(
            opa.url or "",
            deadline_ms=self._settings.sections.policy.deadline_ms,
            token=opa.token,
            ca_file=opa.ca_file,
            cert_file=opa.cert_file,
            key_file=opa.key_file,
            pin_revision=opa.pin_revision,
            packages=packages,
            socket_uids=opa.socket_uids,
        )
        try:
            await engine.probe()
        except PolicyFault as fault:
            log.error("opa_not_ready", layer=name, code=fault.code.value, why=fault.message)  # noqa: TRY400 - a trace says nothing
        tenure = self._foreign[(name, packages)] = Tenure(engine)
        return tenure


async def _shadow(settings: Settings, engines: _Engines, point: PolicyPoint) -> Shadow:
    """The trial: every layer in its engine, the candidate in the place of the main one."""
    trial = settings.policy.trial
    assert trial is not None
    candidate = trial.candidate

    async def remake(at: Layer) -> Layer | None:
        if candidate is not None and at.name == MAIN:
            return None
        assert at.bundle is not None, "the settings want a policy that Remit has"
        return await engines.layer(at.name, trial.engine, at.bundle)

    layers: list[Layer] = []
    shadow = None
    try:
        for at in point.standing.layers:
            made = await remake(at)
            layers.append(made or await _candidate(settings, engines, trial))
        stands_for = dict(point.standing.named)
        shadow = Shadow(
            PolicyPoint(layers),
            remake=remake,
            stands_for=stands_for if candidate is None else candidate_for(stands_for),
            sample=trial.sample,
        )
    finally:
        if shadow is None:
            for each in layers:
                await each.engine.aclose()
    return shadow


async def _candidate(settings: Settings, engines: _Engines, trial: TrialSettings) -> Layer:
    prepared = await asyncio.to_thread(load_candidate, settings, trial.candidate or Path())
    return await engines.layer(MAIN, trial.engine, prepared)
