"""Each route of the admin door does what it does for the one permission that it is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.doors.admin import ROUTES, admin_app
from remit.doors.authzen import EVALUATION, EVALUATIONS
from remit.doors.settings import DoorSettings
from remit.gateway import Gateway
from remit.model import Operator, Permission
from remit.testing.identity import NamedIdentity
from tests.doors.serving import http, served
from tests.path.conftest import AGENT, ALLOW, MakePath
from tests.path.test_authzen import about

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CHANGES = {
    "/v1/approvals/{name}/votes": Permission.APPROVE,
    "/v1/approvals/{name}/revoke": Permission.APPROVE,
    "/v1/access-requests/{name}/close": Permission.APPROVE,
    "/v1/runs/{name}/resolve": Permission.RESOLVE,
    "/v1/servers/{name}/look": Permission.PIN,
    "/v1/servers/{name}/pin": Permission.PIN,
    "/v1/consents/ask": Permission.CONSENT,
    "/v1/consents/revoke": Permission.CONSENT,
    "/v1/freeze": Permission.FREEZE,
    "/v1/thaw": Permission.FREEZE,
    EVALUATION: Permission.EVALUATE,
    EVALUATIONS: Permission.EVALUATE,
}
WHOSE = {"credential": "crm", "tenant": "default", "subject": "ann"}
BODIES: dict[str, Any] = {
    "votes": {"plan_hash": "sha256:0", "verdict": "approve"},
    "close": {"note": "seen"},
    "resolve": {"succeeded": True, "note": "seen"},
    "pin": {"tool": "read", "digest": "sha256:0"},
    "consents/ask": WHOSE,
    "consents/revoke": WHOSE,
    "freeze": {"reason": "test"},
    "thaw": {"reason": "test"},
    "evaluation": about(),
    "evaluations": {"evaluations": [about()]},
}
EVERY = [
    *((method, path) for method, path, _ in ROUTES),
    ("POST", EVALUATION),
    ("POST", EVALUATIONS),
]


def body_of(route: str) -> Any:
    """What the route takes, by the last words of its path."""
    *_, before, last = route.split("/")
    return BODIES.get(f"{before}/{last}", BODIES.get(last, {}))


@pytest.mark.threat("T-01", "T-31")
async def test_each_route_is_for_one_permission_and_no_caller(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    only = {each.value: Operator(subject=each.value, may=frozenset({each})) for each in Permission}
    path.pipeline.backends = replace(
        path.pipeline.backends,
        identity=NamedIdentity(callers={"k1": AGENT}, operators=only, now_ms=path.clock.now_ms()),
    )
    async with served(admin_app(Gateway(path.pipeline), DoorSettings())) as url, http() as client:
        for method, route in EVERY:
            needed = CHANGES.get(route, Permission.READ)
            place = url + route.replace("{name}", "1" if "entries" in route else "policy")
            body = body_of(route) if method == "POST" else None
            for token in (*only, "k1"):
                headers = {"authorization": f"Bearer {token}"}
                told = await client.request(method, place, json=body, headers=headers)
                refused = "may not" in told.text and told.status_code == 403
                assert (told.status_code == 401) == (token == "k1"), (route, token)
                if token != "k1":
                    assert refused == (token != needed.value), (route, token, told.text)
