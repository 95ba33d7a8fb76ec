"""The admin door's routes about what people consented to at MCP servers' authorization servers."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from starlette.responses import JSONResponse, Response

from remit.doors import admin_json as values
from remit.doors.visit import Act, Visit
from remit.model import Consent, Principal


class WhoseBody(values.Body):
    """Whose consent for which credential."""

    credential: str = Field(min_length=1, max_length=256)
    tenant: str = Field(min_length=1, max_length=256)
    subject: str = Field(min_length=1, max_length=256)


def consent_json(consent: Consent) -> dict[str, Any]:
    """A consent; nothing of it is secret."""
    return {
        "credential": consent.ref,
        "tenant": consent.principal.tenant,
        "subject": consent.principal.subject,
        "scopes": list(consent.scopes),
        "given_ms": consent.given_ms,
        "expires_ms": consent.expires_ms,
        "renewable": consent.renewable,
    }


async def _consents(visit: Visit) -> Response:
    found = await visit.gateway.consents(visit.operator)
    return JSONResponse({"consents": [consent_json(one) for one in found]})


async def _ask(visit: Visit) -> Response:
    body = visit.read(WhoseBody)
    return JSONResponse(
        await visit.gateway.ask_consent(visit.operator, body.credential, _whose(body))
    )


async def _revoke(visit: Visit) -> Response:
    body = visit.read(WhoseBody)
    gateway = visit.gateway
    confirmed = await gateway.revoke_consent(visit.operator, body.credential, _whose(body))
    return JSONResponse({"revoked": True, "confirmed": confirmed})


def _whose(body: WhoseBody) -> Principal:
    return Principal(tenant=body.tenant, subject=body.subject)


CONSENT_ROUTES: tuple[tuple[str, str, Act], ...] = (
    ("GET", "/v1/consents", _consents),
    ("POST", "/v1/consents/ask", _ask),
    ("POST", "/v1/consents/revoke", _revoke),
)
