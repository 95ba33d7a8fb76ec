"""Each identity keeps the contract."""

from __future__ import annotations

import pytest

from remit.identity.keys import CallerKey, KeyIdentity, OperatorKey, new_key
from remit.testing.identity import (
    NOW_MS,
    IdentityContract,
    NamedIdentity,
    Presented,
    caller,
    operator,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-02")]


class TestKeyIdentity(IdentityContract):
    @pytest.fixture
    def presented(self) -> Presented:
        ann, old, olga = new_key("ann"), new_key("old"), new_key("olga")
        identity = KeyIdentity(
            [
                CallerKey(id=ann.id, sha256=ann.sha256, caller=caller()),
                CallerKey(id=old.id, sha256=old.sha256, caller=caller("old", expires_ms=NOW_MS)),
            ],
            [OperatorKey(id=olga.id, sha256=olga.sha256, operator=operator())],
            now=lambda: NOW_MS,
        )
        return Presented(
            identity=identity, caller=ann.token, operator=olga.token, expired=old.token
        )


class TestNamedIdentity(IdentityContract):
    @pytest.fixture
    def presented(self) -> Presented:
        identity = NamedIdentity(
            {"key-ann": caller(), "key-old": caller("old", expires_ms=NOW_MS)},
            {"op-olga": operator()},
        )
        return Presented(identity=identity, caller="key-ann", operator="op-olga", expired="key-old")
