"""The composition root: settings become backends, a pipeline and two doors.

With `processes`, `servers` and `enforcement`, the only place that names concrete classes. The order matters and
is this: keeper, egress proxy and spawner start before this process has a thread; then the ledger
opens, policy is loaded and probed, what an earlier life left is closed, and only then is anything in
force and the doors open.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from remit.account import readable_by_others, same_user
from remit.backends import Backends, PathSettings
from remit.catalog.arguments import SchemaCheck
from remit.catalog.store import CommandCatalog
from remit.clock import SystemClock
from remit.config import Settings
from remit.doors.settings import LOOPBACK_HOSTS, LOOPBACK_ORIGINS, DoorSettings
from remit.enforcement import open_policy
from remit.errors import Code, ConfigError, LedgerFault, RemitError
from remit.gateway import Gateway
from remit.identity.keys import KeyIdentity
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.opening import refuse_second
from remit.ledger.sqlite import SqliteLedger
from remit.model import Activation, RunState
from remit.notify import HttpNotifier
from remit.pipeline import Pipeline
from remit.policy.point import PolicyPoint
from remit.policy.serving import ServedBundles
from remit.policy.switch import Switch
from remit.ports import Clock, Ledger, Runner, Signer
from remit.processes import Processes, asked_elsewhere, kept, open_processes
from remit.rates import MemoryRates
from remit.recovery import Sweeps, leftovers, recover
from remit.runners.artifacts import DirectoryArtifacts
from remit.runners.credentials.client import KeeperClient
from remit.secret import kept_key
from remit.servers.asking import Asker
from remit.servers.hearing import Opener
from remit.servers.oversight import Oversight
from remit.servers.pins import PinStore
from remit.settings import lending
from remit.settings.servers import elsewhere
from remit.telemetry import LEFTOVERS, logger, tracing
from remit.upstreams.asking import HttpServers, Seen
from remit.upstreams.runner import UpstreamRunner

HOUSEKEEPING_EVERY_S = 5.0
PRUNING_EVERY_S = 600.0
DRAIN_S = 30.0
EVALUATIONS_PER_MINUTE = 6_000
"""How often one enforcement point may ask, about whomever."""
SAME_USER = "unsafe_same_user"
OPEN = frozenset({RunState.INTENDED, RunState.STARTED})

log = logger()


def gateway_id(data_dir: Path) -> str:
    """The gateway's name, made once per data directory and part of every runner's name."""
    path = data_dir / "gateway-id"
    if not path.exists():
        path.write_text(secrets.token_hex(4) + "\n")
    return path.read_text().strip()


def _own_directory(data_dir: Path) -> str:
    """Make the data directory if it is not there; give the gateway's name.

    Raises:
        ConfigError: `config_invalid`: it cannot be made or written.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data_dir / "runners").mkdir(mode=0o700, exist_ok=True)
        return gateway_id(data_dir)
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"the data directory cannot be used: {error.strerror}",
            place=str(data_dir),
            hint="set server.data_dir to a directory that this account can write to",
        ) from None


def unsafe(settings: Settings) -> tuple[str, ...]:
    """The names of what is unsafe here: settings that say so, and what others can read (T-01)."""
    found = list(settings.unsafe())
    if SAME_USER not in found and (same_user() or readable_by_others(private_files(settings))):
        found.append(SAME_USER)
    return tuple(found)


def private_files(settings: Settings) -> tuple[Path, ...]:
    """The files that nobody but the gateway may read: keys, tokens and the ledger."""
    ledger = settings.ledger_path
    keys = {settings.key_file, *(settings.data_dir / "keys").glob("*")}
    files = (*sorted(keys), ledger, *sorted(ledger.parent.glob(f"{ledger.name}-*")))
    return tuple(path for path in files if path.is_file())


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    *,
    runner: Runner | None = None,
    rearrange: Callable[[Backends], Backends] = lambda backends: backends,
) -> AsyncIterator[Gateway]:
    """A gateway with everything behind it, until the block ends.

    Args:
        runner: used instead of the sandbox, for benchmarks; whoever gives it closes it.
        rearrange: gives the backends that the pipeline is made of, for tests of faults.

    Raises:
        ConfigError, PolicyFault, LedgerFault: it cannot start; nothing is left half open.
    """
    name = _own_directory(settings.data_dir)
    clock = SystemClock()
    oversight = oversight_of(settings, clock)
    # Before any process is started, which would be taken for the first gateway's leftovers.
    refuse_second(settings.ledger_path)
    async with AsyncExitStack() as stack:
        beside = await open_processes(settings, name, stack, runner=runner)
        http = _http(settings, stack, seen=partial(oversight.saw, whole=False))
        if http is not None:
            oversight.watch(http.doing)
        beside = _with_servers(settings, beside, oversight, clock=clock, name=name, http=http)
        signer = _signer(settings, beside.keeper)
        ledger = SqliteLedger.open(settings.ledger_path, signer=signer, gateway=name, clock=clock)
        stack.push_async_callback(ledger.aclose)
        await beside.keeper.ledger(settings.ledger_path, ledger)
        enforced = await open_policy(settings, stack)
        backends = _backends(
            settings, enforced.point, beside, ledger=ledger, clock=clock, oversight=oversight
        )
        backends = rearrange(replace(backends, notifier=_notifier(settings, stack)))
        pipeline = Pipeline(backends, _path_settings(settings, name))
        switch = enforced.switch(partial(_switched, pipeline, beside))
        gateway = Gateway(pipeline, switch)
        await recover(ledger, backends.runner, clock, backends.credentials)
        await _activate(pipeline, enforced.point.revision)
        await stack.enter_async_context(enforced.kept(switch))
        asker = Asker(beside.runner, http, clock, gateway=name, profiles=pipeline.settings.profiles)
        runners = settings.sections.runners
        asker.lends(beside.keeper, lending.looks(runners), lending.hears(runners))
        offered = partial(_offered, pipeline, enforced.point, switch)
        await stack.enter_async_context(oversight.kept(asker, offered, Opener(asker)))
        stack.push_async_callback(_drained, pipeline, beside.runner)
        await stack.enter_async_context(_kept(gateway, pipeline.backends))
        yield gateway


def door_settings(settings: Settings) -> DoorSettings:
    """How both doors are set: what they accept, and from where."""
    server = settings.sections.server
    return DoorSettings(
        allowed_hosts=(*LOOPBACK_HOSTS, *server.allowed_hosts),
        allowed_origins=(*LOOPBACK_ORIGINS, *server.allowed_origins),
        body_limit_bytes=server.body_limit_bytes,
        tracing=tracing(),
    )


def _notifier(settings: Settings, stack: AsyncExitStack) -> HttpNotifier:
    notifier = HttpNotifier(settings.channels)
    stack.push_async_callback(notifier.aclose)
    return notifier


def _signer(settings: Settings, keeper: KeeperClient) -> Signer:
    """The keeper's, which must be of the origin that the operator named."""
    signer, wanted = keeper.signer, settings.sections.ledger.origin
    origin = VerifierKey.parse(signer.verifier_key).name
    if wanted is not None and origin != wanted:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"ledger.origin is {wanted}, but the log's key was made for {origin}",
            place=str(settings.file),
            hint="name the key's own origin; a log never changes its origin",
        )
    return signer


def oversight_of(settings: Settings, clock: Clock) -> Oversight:
    """The servers of the catalog, with what was accepted of them before."""
    commands = CommandCatalog(settings.tools).tools()
    store = PinStore(settings.data_dir / "servers" / "pins")
    return Oversight(settings.servers, commands, store, clock)


def _with_servers(
    settings: Settings,
    beside: Processes,
    oversight: Oversight,
    *,
    clock: Clock,
    name: str,
    http: HttpServers | None,
) -> Processes:
    """The processes with a runner that also makes calls of MCP servers, where there are any."""
    if not settings.servers:
        return beside
    sessions = kept(settings, clock, name, beside)
    runner = UpstreamRunner(
        beside.runner,
        asked=http,
        seen=oversight.saw,
        sessions=sessions,
        watches=oversight.watches,
        consents=beside.keeper,
    )
    return replace(beside, runner=runner)


def _http(settings: Settings, stack: AsyncExitStack, *, seen: Seen) -> HttpServers | None:
    """What asks the servers that are reached at a URL, where there are any."""
    if not elsewhere(settings.servers):
        return None
    http = asked_elsewhere(settings, seen)
    stack.push_async_callback(http.aclose)
    return http


def _backends(
    settings: Settings,
    policy: PolicyPoint,
    beside: Processes,
    *,
    ledger: Ledger,
    clock: Clock,
    oversight: Oversight,
) -> Backends:
    limits = settings.sections.limits
    return Backends(
        identity=KeyIdentity(settings.callers, settings.operators, now=clock.now_ms),
        catalog=oversight.catalog,
        servers=oversight,
        watches=oversight.watches,
        arguments=SchemaCheck(max_bytes=limits.arguments_bytes, max_depth=limits.arguments_depth),
        policy=policy,
        bundles=ServedBundles(policy),
        runner=beside.runner,
        credentials=beside.keeper,
        consents=beside.keeper,
        ledger=ledger,
        artifacts=DirectoryArtifacts(
            settings.data_dir / "artifacts",
            keep_days=settings.sections.runners.artifacts.keep_days,
            max_bytes=settings.sections.runners.artifacts.max_mb * 2**20,
        ),
        rates=MemoryRates(
            {
                "caller": limits.calls_per_minute,
                "refusal": limits.refusals_recorded_per_minute,
                "authentication": limits.auth_failures_per_minute,
                "evaluation": EVALUATIONS_PER_MINUTE,
                "question": max(1, settings.sections.policy.questions_per_minute),
            }
        ),
        clock=clock,
    )


def _path_settings(settings: Settings, name: str) -> PathSettings:
    approvals = settings.sections.approvals
    return PathSettings(
        gateway=name,
        hold_s=approvals.hold_s,
        result_ttl_s=approvals.result_ttl_s,
        ttl_s=approvals.ttl_s,
        ttl_max_s=approvals.ttl_max_s,
        concurrent_runs=settings.sections.limits.concurrent_runs,
        unsafe=unsafe(settings),
        profiles={**settings.profiles, **elsewhere(settings.servers)},
        deliveries=settings.deliveries,
        history_s=settings.sections.policy.history_s,
        questions_per_minute=settings.sections.policy.questions_per_minute,
        tenant=settings.sections.identity.tenant,
        visible_ttl_s=settings.sections.policy.cache_ttl_s,
        public_url=settings.public_url,
        state_key=kept_key(settings.data_dir / "keys" / "request-state.key"),
        # With more than one worker, one is always left for calls.
        list_batches=max(1, settings.sections.policy.workers - 1),
    )


async def _activate(pipeline: Pipeline, revision: str) -> None:
    """Put policy, tools and keys in force: from now on commit accepts nothing decided otherwise."""
    b = pipeline.backends
    activation = Activation(
        revision=revision,
        tools={tool.name: tool.digest for tool in (*b.catalog.tools(), *b.catalog.others())},
        keys=b.identity.key_ids(),
    )
    await b.ledger.activate(activation, b.clock.now_ms())


async def _offered(pipeline: Pipeline, policy: PolicyPoint, switch: Switch) -> None:
    """Other tools are offered: commit takes nothing any more that was decided on another one.

    Queued before anything is awaited; what the ledger cannot take now is put there later.
    """
    try:
        await _activate(pipeline, policy.revision)
    except LedgerFault:
        await switch.activate()


async def _switched(pipeline: Pipeline, beside: Processes, revision: str) -> None:
    """Another policy is in force; what was made ahead of need under the one before goes."""
    await _activate(pipeline, revision)
    pipeline.visibility.changed()
    await housekeep(partial(beside.drain, "policy"))


async def _drained(pipeline: Pipeline, runner: Runner) -> None:
    """Let calls come to their end, then end what was kept for them and write down that it ended."""
    await pipeline.drain(DRAIN_S)
    if isinstance(runner, UpstreamRunner):
        await runner.aclose()
        await housekeep(partial(sweep, pipeline.backends, Sweeps(pipeline.backends.ledger)))


@asynccontextmanager
async def _kept(gateway: Gateway, b: Backends) -> AsyncIterator[None]:
    """Until the block ends: housekeeping, and the log told of tools that are held back."""
    keeping = asyncio.ensure_future(_housekeeping(gateway, b))
    try:
        async with gateway.quarantine.kept():
            yield
    finally:
        keeping.cancel()


async def _housekeeping(gateway: Gateway, b: Backends) -> None:
    sweeps = Sweeps(b.ledger)
    works = (
        Every(HOUSEKEEPING_EVERY_S, gateway.expire),
        Every(HOUSEKEEPING_EVERY_S, partial(sweep, b, sweeps)),
        Every(PRUNING_EVERY_S, partial(prune, b)),
    )
    while True:
        await asyncio.sleep(HOUSEKEEPING_EVERY_S)
        for work in works:
            if work.due():
                await housekeep(work.work)


class Every:
    """A piece of housekeeping, and how many seconds apart it is done."""

    def __init__(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        self.work = work
        self._seconds = seconds
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time; it is the first time that it is asked."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds - HOUSEKEEPING_EVERY_S / 2
        return True


async def housekeep(work: Callable[[], Awaitable[None]]) -> None:
    """Do one piece of housekeeping; whatever goes wrong, the next round comes."""
    try:
        await work()
    except Exception as fault:  # noqa: BLE001 - a ledger or spawner that fails now may not later
        code = fault.code.value if isinstance(fault, RemitError) else None
        log.warning("housekeeping_skipped", error=type(fault).__name__, code=code)


async def sweep(b: Backends, sweeps: Sweeps) -> None:
    """Remove what no live run owns, and write down what was found."""
    live = frozenset(run.id for run in await b.ledger.runs(states=OPEN, limit=10_000))
    found = await b.runner.sweep(live)
    loans = await b.credentials.sweep(live)
    if left := leftovers(found):
        LEFTOVERS.inc(len(left))
        log.warning("leftovers_removed", count=len(left))
    await sweeps.write(found, loans, when="sweep")


async def prune(b: Backends) -> None:
    """Remove result files that are older than they are kept, or more."""
    removed = await b.artifacts.prune(b.clock.now_ms())
    if removed:
        log.info("result_files_pruned", count=removed)
