"""The gateway's end of consents: the `Consents` port, asked of the keeper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remit.errors import Code, Refused, RunnerFault
from remit.model import Consent, ConsentPage, ConsentState, Lease, Principal

_NO = frozenset(
    {
        Code.CONSENT_UNAVAILABLE,
        Code.CONSENT_STATE_INVALID,
        Code.CONSENT_REFUSED,
        Code.CONSENT_FAILED,
        Code.RATE_LIMITED,
    }
)


class KeeperConsents:
    """What a client of the keeper does of consents; it says how one question is asked."""

    _consented: frozenset[str] = frozenset()

    async def _ask(
        self, message: dict[str, Any], fds: Sequence[int] = (), *, keep: bool = False
    ) -> tuple[dict[str, Any], list[int]]:
        raise NotImplementedError

    def asks(self, ref: str) -> bool:
        return ref in self._consented

    async def status(
        self, ref: str, principal: Principal, scopes: Sequence[str] = ()
    ) -> ConsentState:
        answer = await self._put("consent", ref, principal, scopes=list(scopes))
        return ConsentState(answer["state"])

    async def begin(
        self,
        ref: str,
        principal: Principal,
        scopes: Sequence[str],
        redirect_uri: str,
        client_document: str | None,
    ) -> ConsentPage:
        answer = await self._put(
            "consent_begin",
            ref,
            principal,
            scopes=list(scopes),
            redirect_uri=redirect_uri,
            client_document=client_document,
        )
        page = answer["page"]
        return ConsentPage(
            **{**page, "principal": Principal(**page["principal"]), "scopes": tuple(page["scopes"])}
        )

    async def finish(self, state: str, answer: Mapping[str, str]) -> Consent:
        found = await self._said({"op": "consent_finish", "state": state, "answer": dict(answer)})
        return _consent(found["consent"])

    async def listed(self, tenant: str | None = None) -> Sequence[Consent]:
        found = await self._said({"op": "consents", "tenant": tenant})
        return [_consent(each) for each in found["consents"]]

    async def revoke(self, ref: str, principal: Principal) -> bool:
        return bool((await self._put("consent_end", ref, principal))["confirmed"])

    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None:
        wanted = None if scopes is None else list(scopes)
        await self._ask({"op": "unaccepted", "run": lease.id, "scopes": wanted})

    async def _put(self, op: str, ref: str, principal: Principal, **more: Any) -> dict[str, Any]:
        who = {"tenant": principal.tenant, "subject": principal.subject}
        return await self._said({"op": op, "ref": ref, **who, **more})

    async def _said(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer; a no of the keeper's about a consent is a refusal, not a fault."""
        try:
            return (await self._ask(message))[0]
        except RunnerFault as fault:
            if fault.code not in _NO:
                raise
            raise Refused(fault.code, fault.message, hint=fault.hint) from None


def _consent(facts: Mapping[str, Any]) -> Consent:
    return Consent(
        **{**facts, "principal": Principal(**facts["principal"]), "scopes": tuple(facts["scopes"])}
    )
