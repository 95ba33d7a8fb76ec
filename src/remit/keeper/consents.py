"""What the gateway asks of the keeper about people's consents; tokens are never in an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from remit.errors import Code, Refused
from remit.keeper.configured import Credential
from remit.keeper.entitled import Unentitled
from remit.model import Consent, Principal
from remit.runners.credentials.broker import KEEPS

if TYPE_CHECKING:
    from remit.runners.credentials.authorization_code import AuthorizationCodeBroker


class ConsentCounter:
    """Answers for all handles that are lent by consent."""

    def __init__(self, credentials: Mapping[str, Credential]) -> None:
        self._brokers = {
            ref: cast("AuthorizationCodeBroker", each.broker)
            for ref, each in credentials.items()
            if each.kind in KEEPS
        }

    async def obey(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """One request's answer.

        Raises:
            Refused: it is a no. Unentitled: there is no such request.
        """
        match message["op"]:
            case "consent":
                broker = self._broker(message)
                state = await broker.status(_principal(message), tuple(message["scopes"]))
                return {"ev": "consent", "state": state.value}
            case "consent_begin":
                page = await self._broker(message).begin(
                    _principal(message),
                    tuple(map(str, message["scopes"])),
                    str(message["redirect_uri"]),
                    message["client_document"],
                )
                return {"ev": "begun", "page": dataclasses.asdict(page)}
            case "consent_finish":
                consent = await self._finish(str(message["state"]), message["answer"])
                return {"ev": "given", "consent": dataclasses.asdict(consent)}
            case "consents":
                found = await self._listed(message["tenant"])
                return {"ev": "consents", "consents": [dataclasses.asdict(each) for each in found]}
            case "consent_end":
                ended = await self._broker(message).end(_principal(message))
                return {"ev": "ended", "confirmed": ended}
            case _:
                raise Unentitled("there is no such request")

    def _broker(self, message: Mapping[str, Any]) -> AuthorizationCodeBroker:
        broker = self._brokers.get(str(message["ref"]))
        if broker is None:
            raise Refused(
                Code.CONSENT_UNAVAILABLE, "nobody consents to what this handle is lent by"
            )
        return broker

    async def _finish(self, state: str, answer: Mapping[str, Any]) -> Consent:
        for broker in self._brokers.values():
            if broker.asked_with(state):
                return await broker.finish(state, {str(k): str(v) for k, v in answer.items()})
        from remit.runners.credentials.consent_begun import unknown_state

        raise unknown_state()

    async def _listed(self, tenant: str | None) -> list[Consent]:
        found = [each for broker in self._brokers.values() for each in await broker.listed()]
        chosen = [each for each in found if tenant in (None, each.principal.tenant)]
        return sorted(chosen, key=lambda e: (e.ref, e.principal.tenant, e.principal.subject))


def _principal(message: Mapping[str, Any]) -> Principal:
    return Principal(tenant=str(message["tenant"]), subject=str(message["subject"]))
