"""What the log says of people's consents, as whoever verifies it reads it."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import Code
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.sqlite import SqliteLedger
from remit.model import EntryDraft
from tests.ledger.forging import check

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-53")]

WHOSE = {"credential": "crm", "tenant": "acme", "subject": "alice"}
GIVEN = {**WHOSE, "server": "crm", "authorization_server": "login.example.com", "key": "alice"}
REVOKED = {**WHOSE, "operator": "olga", "confirmed": True}


async def told(ledger: SqliteLedger, key: VerifierKey, event: str, public: Any) -> Any:
    await ledger.append([EntryDraft(event=event, public=public, sealed={"scopes": b"[]"})])
    return check([line async for line in ledger.export()], key).problem


async def test_consents_given_and_ended_are_understood(
    ledger: SqliteLedger, key: VerifierKey
) -> None:
    assert await told(ledger, key, "consent.given", GIVEN) is None
    assert await told(ledger, key, "consent.revoked", REVOKED) is None


@pytest.mark.parametrize(
    ("event", "whole", "name"),
    [
        *(("consent.given", GIVEN, name) for name in GIVEN),
        *(("consent.revoked", REVOKED, name) for name in REVOKED),
    ],
)
async def test_an_entry_that_does_not_say_whose_or_by_whom_is_found(
    ledger: SqliteLedger, key: VerifierKey, event: str, whole: dict[str, Any], name: str
) -> None:
    lacking = {field: value for field, value in whole.items() if field != name}
    problem = await told(ledger, key, event, lacking)
    assert problem is not None
    assert problem.code is Code.LOG_MALFORMED
    assert name in problem.message
