"""Whatever a server says of itself, it is read or refused, and nothing else happens."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.challenge import Challenge
from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.discovery import Discovery
from remit.runners.credentials.guarded import Guard

pytestmark = [pytest.mark.threat("T-41"), pytest.mark.threat("T-52")]

ISSUER = "https://login.example.com"
RESOURCE = "https://mcp.example.com/mcp"
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from([ISSUER, f"{ISSUER}/a?b=c", f"{ISSUER}/#x", "https://[::1]/", "https://[x/",
                     "javascript:alert(1)", "http://169.254.169.254/", "S256", RESOURCE,
                     f"{ISSUER}/ü", f"{ISSUER}/a b"]),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=6,
)
OF_SERVERS = (
    "token_endpoint", "authorization_endpoint", "registration_endpoint", "revocation_endpoint",
    "scopes_supported", "code_challenge_methods_supported", "token_endpoint_auth_methods_supported",
    "authorization_response_iss_parameter_supported", "client_id_metadata_document_supported",
)  # fmt: skip
DISCOVERY = Discovery(Guard(frozenset()))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(OF_SERVERS, VALUES)), st.booleans())
def test_metadata_of_servers(found: dict[str, Any], whole: bool) -> None:
    usual = {"token_endpoint": f"{ISSUER}/t"} if whole else {}
    with suppress(BrokerFault):
        read = DISCOVERY._endpoints(ISSUER, {"issuer": ISSUER, **found, **usual})
        for url in (read.token_url, read.authorization_url, read.registration_url):
            assert url is None or (url.startswith("https://") and "#" not in url)
            assert url is None or url.isascii()


@given(VALUES, VALUES, VALUES, st.text(max_size=40))
def test_metadata_of_resources(resource: Any, servers: Any, scopes: Any, said: str) -> None:
    found = {"resource": resource, "authorization_servers": servers, "scopes_supported": scopes}
    challenge = Challenge(metadata=said)
    with suppress(BrokerFault):
        DISCOVERY._metadata_urls(RESOURCE, challenge)
    with suppress(BrokerFault):
        read = DISCOVERY._protected(RESOURCE, found, challenge)
        assert RESOURCE.startswith(read.resource)
        assert read.issuer.startswith("https://")
