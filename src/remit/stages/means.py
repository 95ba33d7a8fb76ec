"""What there is to run plans with: the runner in each of its profiles, credentials by handle.

A plan says by digests what it would be run with. Whatever it names has to be there when it is made;
what it may be given is checked once more when policy has answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remit.backends import Backends, Delivery, NoCredentials, PathSettings
from remit.errors import Code, Refused
from remit.model import (
    AdmittedCall,
    Capabilities,
    CredentialRule,
    EgressRule,
    Frozen,
    Limits,
    Plan,
    Tier,
)
from remit.ports import Credentials, Runner
from remit.profile import DEFAULT, ELSEWHERE, Profile, Tls, gives_no_more
from remit.reach import credential_facts, meet_egress, normal_egress
from remit.stages.narrow import Terms, within

CREDENTIAL_DIRECTORY = "/run/remit/credentials"
FILE_VARIABLE = "REMIT_CREDENTIAL_FILE_"


def file_variable(ref: str) -> str:
    """The variable that holds the path of a credential's file."""
    return FILE_VARIABLE + re.sub(r"[^A-Z0-9]", "_", ref.upper())


class Means:
    """Answers what plans are made of, from the runner, the credentials and the operator's words.

    Args:
        profiles: the operator's profiles by name; the runner knows the same names.
        deliveries: how each credential reaches a run.
    """

    def __init__(
        self,
        runner: Runner,
        credentials: Credentials | None = None,
        *,
        profiles: Mapping[str, Profile] | None = None,
        deliveries: Mapping[str, Delivery] | None = None,
    ) -> None:
        self._runner = runner
        self._credentials = credentials or NoCredentials()
        self.profiles = profiles or {DEFAULT: Profile()}
        self._deliveries = deliveries or {}

    def runner(self, profile: str) -> Capabilities:
        """What was found of a profile on this machine.

        Raises:
            Refused: `runner_unavailable` if there is no such profile.
        """
        found = self._runner.profile(profile)
        if found is None:
            raise Refused(
                Code.RUNNER_UNAVAILABLE,
                "the runner profile of this action is not there",
                hint="an operator writes it under runners.profiles, or runs `remit doctor`",
            )
        return found

    @classmethod
    def of(cls, backends: Backends, settings: PathSettings) -> Means:
        """Those of a gateway."""
        return cls(
            backends.runner,
            backends.credentials,
            profiles=settings.profiles,
            deliveries=settings.deliveries,
        )

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """The tier of each profile that the runner has."""
        found = {name: self._runner.profile(name) for name in self.profiles}
        return {name: each.tier for name, each in found.items() if each is not None}

    def alternatives(self, profile: str) -> Mapping[str, Tier]:
        """The profiles that policy may name for a plan in this one, itself too, by their tiers."""
        outer = self.profiles.get(profile)
        return {
            name: tier
            for name, tier in sorted(self.tiers.items())
            if name == profile or (outer and gives_no_more(self.profiles[name], outer))
        }

    # ---------------------------------------------------------------------- what a plan may have

    def declared(self, admitted: AdmittedCall) -> Terms:
        """The terms of a call before policy narrows them: what the catalog declares and the tool's
        profile gives."""
        tool = admitted.normal.tool
        return self._within(
            tool.runner,
            Terms(
                arguments=admitted.normal.arguments,
                limits=admitted.limits,
                egress=tool.egress,
                credentials=tool.credentials,
            ),
        )

    def previewed(self, admitted: AdmittedCall, arguments: Frozen, limits: Limits) -> Terms:
        """The terms of a preview: nothing is declared that it could reach, so it reaches nothing."""
        return self._within(admitted.normal.tool.runner, Terms(arguments=arguments, limits=limits))

    def _within(self, name: str, terms: Terms) -> Terms:
        self.runner(name)
        return within(self.profiles.get(name, Profile(name=name)), terms)

    def credential_facts(self, rules: Sequence[CredentialRule]) -> list[dict[str, Any]]:
        """Credentials as a plan names them: handles, and the digest of what each means now.

        Raises:
            Refused: `runner_lacks` if a handle means nothing here.
        """
        return [
            {**facts, "digest": self._digest(rule.ref)}
            for rule, facts in zip(rules, credential_facts(rules), strict=True)
        ]

    def _digest(self, ref: str) -> str:
        found = self._credentials.digest(ref)
        if found is None:
            raise Refused(
                Code.RUNNER_LACKS,
                "this action names a credential that this gateway does not have",
                hint="an operator writes its handle under runners.credentials",
            )
        return found

    def variables(self, rules: Iterable[CredentialRule]) -> dict[str, str]:
        """The variables by which a command finds the files of its credentials."""
        named = ((rule.ref, self._delivery(rule.ref).file) for rule in rules)
        return {
            file_variable(ref): f"{CREDENTIAL_DIRECTORY}/{file}"
            for ref, file in named
            if file is not None
        }

    def _delivery(self, ref: str) -> Delivery:
        return self._deliveries.get(ref, Delivery())

    # ------------------------------------------------------------------ what it can be given here

    def lack(self, plan: Plan) -> Refused | None:
        """Why this machine cannot give the plan what it has, and hold it to that; None if it can."""
        if plan.profile == ELSEWHERE and not plan.egress:
            return _lacks(
                "policy lets this action run, and not reach the MCP server that it is a call of",
                "an operator gives it the one destination in policy: the egress of "
                "`input.tool.egress`",
            )
        if not plan.egress and not plan.credentials:
            return None
        holds = self.runner(plan.profile).holds
        if plan.egress and not holds.get("egress", False):
            return _lacks(
                "policy gives this action egress, which this runner does not have",
                "an operator leaves it out of the policy, or of the tool; `remit doctor` says why",
            )
        inject = [rule for each in plan.credentials for rule in self._delivery(each.ref).inject]
        if any(_outside(rule, plan.egress) for rule in inject):
            return _lacks(
                "a credential of this action is for a destination that its egress does not have",
                "an operator gives the destination (host and port) too, in tool and policy, or "
                "takes the credential away",
            )
        profile = self.profiles.get(plan.profile, Profile())
        inside = any(rule.methods is not None or rule.path_prefix for rule in plan.egress)
        if (inside or inject) and profile.tls is not Tls.TERMINATE:
            return _lacks(
                "methods, paths and injected credentials cannot be held where TLS passes through",
                "an operator sets `tls: terminate` for the profile, or names hosts and ports alone",
            )
        return None


def _outside(rule: EgressRule, egress: Sequence[EgressRule]) -> bool:
    """Whether no rule of the plan lets a request to this destination through."""
    return not meet_egress(normal_egress([rule]), egress)


def _lacks(message: str, hint: str) -> Refused:
    return Refused(Code.RUNNER_LACKS, message, hint=hint)
