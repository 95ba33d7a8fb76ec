"""What the doors are given: the pipeline's and the operators' side, and the gateway's own state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from remit import __version__
from remit.administration import Administration, require
from remit.backends import PathSettings
from remit.consenting import ConsentDesk
from remit.model import (
    Asserted,
    Call,
    Caller,
    Capabilities,
    Claims,
    Consent,
    Decided,
    Operator,
    Permission,
    Principal,
    Reply,
    ServedBundle,
    Tier,
    Tool,
)
from remit.offers import Offers
from remit.pipeline import Pipeline
from remit.ports import Ledger, Progress, Upkeep
from remit.profile import ELSEWHERE
from remit.question import Questions
from remit.stages.authenticate import asserted_caller, within
from remit.telemetry import exposition


class Gateway(Administration):
    """Callers' and operators' methods in one place, as `doors` expect them."""

    def __init__(self, pipeline: Pipeline, upkeep: Upkeep | None = None) -> None:
        super().__init__(pipeline)
        self._upkeep = upkeep
        self.authenticate = pipeline.authenticate
        self._questions = Questions(pipeline)
        self._offers = Offers(pipeline)
        self.desk = ConsentDesk(pipeline)
        self.refuse_at_door = pipeline.refuse_at_door
        self.issuer_keys = pipeline.backends.credentials.keys
        self.on_change = pipeline.visibility.on_change
        pipeline.backends.servers.on_change(self._tools_changed)

    async def visible(
        self,
        caller: Caller,
        *,
        source_ip: str | None = None,
        after: str = "",
        enough: int | None = None,
    ) -> Sequence[Tool]:
        """The tools this caller may see, sorted by name, and the gateway's own among them."""
        seen = await self._pipeline.visibility.tools(
            caller, source_ip=source_ip, after=after, enough=enough
        )
        return self._questions.beside(seen)

    async def call(self, call: Call, progress: Progress) -> Reply:
        """The reply to a call: of a tool of the catalog, or of one of the gateway's own."""
        if self._questions.serves(call.tool_name):
            return await self._questions.answer(call)
        return await self._pipeline.call(call, progress)

    async def evaluate(
        self,
        operator: Operator,
        who: Asserted,
        *,
        tool_name: str,
        arguments: Mapping[str, Any],
        claims: Claims,
    ) -> Decided:
        """What policy says of a call that an enforcement point outside asks about; nothing runs.

        Raises:
            Refused: `approval_not_eligible`: the operator may not ask; `rate_limited`; else as the
                call itself would be. InputError: `who` fits several credentials that differ.
        """
        require(operator, Permission.EVALUATE)
        b = self._backends
        within(b.rates, "evaluation", operator.subject)
        now = b.clock.now_ms()
        caller = asserted_caller(b.identity, operator, who, tenant=self.settings.tenant, now_ms=now)
        within(b.rates, "caller", f"{operator.subject} asks about {caller.id}")
        call = Call(
            id=self.new_call_id(),
            caller=caller,
            tool_name=tool_name,
            arguments=arguments,
            received_ms=now,
            claims=claims,
        )
        return await self._questions.judged(call, operator)

    @property
    def offers(self) -> Offers:
        """What MCP servers offer beside tools."""
        return self._offers

    def _tools_changed(self) -> None:
        self._pipeline.visibility.changed()
        self.quarantine.changed()

    def still_valid(self, caller: Caller) -> bool:
        """Whether the credential that this caller came with would still be taken."""
        b = self._backends
        expires_ms = caller.expires_ms
        lives = expires_ms is None or b.clock.now_ms() < expires_ms
        return lives and caller.key_id in b.identity.key_ids()

    @property
    def settings(self) -> PathSettings:
        return self._pipeline.settings

    @property
    def ledger(self) -> Ledger:
        return self._backends.ledger

    @property
    def runner(self) -> Capabilities:
        """What the runner was found to hold on this machine."""
        return self._backends.runner.capabilities

    def new_call_id(self) -> str:
        return self._backends.clock.new_id("call")

    async def export(self, operator: Operator) -> AsyncIterator[bytes]:
        """The whole log as JSON lines, to be verified by anyone who has the verifier key."""
        require(operator, Permission.READ)
        return self._backends.ledger.export()

    async def consents(self, operator: Operator) -> Sequence[Consent]:
        """What people consented to at MCP servers' authorization servers, as far as it is held."""
        require(operator, Permission.READ)
        return await self._backends.consents.listed()

    async def ask_consent(
        self, operator: Operator, ref: str, principal: Principal
    ) -> Mapping[str, Any]:
        """A page on which this person, and nobody else, can consent; nothing is given by it.

        Raises:
            NotFound: no such credential is lent by consent. Refused: `consent_unavailable`,
                `rate_limited`.
        """
        require(operator, Permission.CONSENT)
        return await self.desk.ask(ref, principal)

    async def revoke_consent(self, operator: Operator, ref: str, principal: Principal) -> bool:
        """End a consent: whether the authorization server confirmed that it is over there too.

        Raises:
            NotFound: there is none.
        """
        require(operator, Permission.CONSENT)
        return await self.desk.revoke(operator, ref, principal)

    async def status(self, operator: Operator) -> Mapping[str, Any]:
        """What the gateway is and how it is set, without anything secret."""
        require(operator, Permission.READ)
        runner = self._backends.runner.capabilities
        return {
            "version": __version__,
            "gateway": self._pipeline.settings.gateway,
            "mode": "frozen" if await self._backends.ledger.frozen() else "enforcing",
            "frozen": await self._backends.ledger.frozen(),
            "unsafe": list(self._pipeline.settings.unsafe),
            "policy_revision": self._backends.policy.revision,
            "policy_layers": []
            if self._upkeep is None
            else [{"name": name, "revision": at} for name, at in self._upkeep.layers],
            "policy_problem": None if self._upkeep is None else self._upkeep.problem,
            "runner": {"name": runner.name, "version": runner.version, "tier": runner.tier.value},
            "profiles": [self._profile_facts(name) for name in sorted(self.settings.profiles)],
            "verifier_key": self._backends.ledger.verifier_key,
            "tools": len(self._backends.catalog.tools()),
            "shadow": sorted(
                {
                    tool.upstream.server
                    for tool in self._backends.catalog.tools()
                    if tool.upstream is not None and tool.shadow
                }
            ),
        }

    def _profile_facts(self, name: str) -> Mapping[str, Any]:
        """What was found of a profile; a tier of `none` where the runner does not have it."""
        found = self._backends.runner.profile(name)
        if found is None:
            tier, missing, fault, hint = Tier.NONE, ["runner"], None, None
        else:
            tier, missing, fault, hint = found.tier, [*found.missing], found.fault, found.hint
        return {
            "name": name, "tier": tier.value, "missing": missing, "fault": fault, "hint": hint
        }  # fmt: skip

    def refused_profiles(self) -> Sequence[Mapping[str, Any]]:
        """The profiles in which nothing runs, as in `status`."""
        degraded = "unsafe_degraded" in self.settings.unsafe
        running = {Tier.SANDBOX, Tier.GVISOR, Tier.REMOTE, *([Tier.DEGRADED] if degraded else [])}
        # Nothing is made in the profile of servers elsewhere, so nothing can be lacking of it.
        facts = map(self._profile_facts, sorted(self.settings.profiles.keys() - {ELSEWHERE}))
        return [each for each in facts if Tier(each["tier"]) not in running]

    async def ready(self) -> Sequence[str]:
        """Why calls cannot be served now; empty when they can."""
        b = self._backends
        found = [
            ("policy", await b.policy.ready()),
            ("ledger", await b.ledger.ready()),
            ("runner", self._runner_ready(b.runner.capabilities)),
        ]
        return [f"{what}: {why}" for what, why in found if why is not None]

    async def bundle(
        self, operator: Operator, layer: str, known: frozenset[str], wait_s: float
    ) -> ServedBundle:
        """The policy of a layer as an OPA bundle; waits while its revision is one of `known`.

        Raises:
            NotFound: there is no such layer, or its policy does not come from here.
        """
        require(operator, Permission.READ)
        return await self._backends.bundles.bundle(layer, known=known, wait_s=wait_s)

    def stop_waiting(self) -> None:
        """Answer those who wait for another policy, or follow a run, now: the doors are about to
        close."""
        self._backends.bundles.close()
        self._pipeline.live.close()

    def look_for_policy(self) -> None:
        """Look at all sources of policy now."""
        if self._upkeep is not None:
            self._upkeep.look()

    def metrics(self) -> bytes:
        return exposition()

    def _runner_ready(self, runner: Capabilities) -> str | None:
        degraded = runner.tier is Tier.DEGRADED and "unsafe_degraded" in self.settings.unsafe
        if not runner.missing or degraded:
            return None
        return "does not hold here: " + ", ".join(runner.missing)
