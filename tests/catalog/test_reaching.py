"""What the operator declares that a tool may reach: exact, in one form, and part of its digest."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from remit.catalog.command import build_tool
from remit.catalog.spec import ToolSpec
from remit.errors import Code, ConfigError
from remit.model import CredentialRule, EgressRule, Tool

pytestmark = pytest.mark.threat("T-13")

API = {"host": "api.example.com", "port": 443}


def build(**more: Any) -> Tool:
    spec = {
        "name": "t",
        "description": "t",
        "effect": "read",
        "command": {"argv": ["/bin/true"]},
    }
    return build_tool(ToolSpec.model_validate(spec | more))


def test_tool_that_declares_nothing_may_reach_nothing() -> None:
    assert (build().egress, build().credentials) == ((), ())


def test_what_is_declared_stands_in_one_form() -> None:
    rules: list[dict[str, Any]] = [
        {**API, "methods": ["POST", "GET"], "path_prefix": "/v1/"},
        {**API, "methods": ["GET"], "path_prefix": "/v1/repos"},
        {"host": "10.0.0.1", "port": 53},
    ]
    found = build(egress=rules)
    assert found.egress == (
        EgressRule(host="10.0.0.1", port=53),
        EgressRule(host="api.example.com", port=443, methods=("GET", "POST"), path_prefix="/v1"),
    )
    assert build(egress=rules[::-1]).digest == found.digest
    owned = build(credentials=[{"ref": "vault:ci", "scopes": ["write", "read"], "ttl_s": 60}])
    assert owned.credentials == (
        CredentialRule(ref="vault:ci", scopes=("read", "write"), ttl_s=60),
    )


@pytest.mark.parametrize(
    "more",
    [
        {"egress": [API]},
        {"egress": [{**API, "port": 80}]},
        {"egress": [{**API, "methods": ["GET"]}]},
        {"egress": [{**API, "path_prefix": "/v1"}]},
        {"credentials": [{"ref": "vault:ci"}]},
        {"credentials": [{"ref": "vault:ci", "scopes": ["read"]}]},
        {"credentials": [{"ref": "vault:ci", "audience": "a"}]},
        {"credentials": [{"ref": "vault:ci", "ttl_s": 60}]},
    ],
)
def test_each_part_of_what_is_declared_changes_the_digest(more: dict[str, Any]) -> None:
    seen = [build().digest, build(egress=[{**API, "port": 81}]).digest, build(**more).digest]
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"egress": [API, {"host": "*.example.com", "port": 443}]}, "egress[1].host"),
        ({"egress": [{"host": "API.example.com", "port": 443}]}, "egress[0].host"),
        ({"egress": [{"host": "example.com.", "port": 443}]}, "egress[0].host"),
        ({"egress": [{"host": "127.1", "port": 443}]}, "egress[0].host"),
        ({"egress": [{**API, "path_prefix": "/a/../b"}]}, "egress[0].path_prefix"),
        ({"egress": [{**API, "path_prefix": "/a%2fb"}]}, "egress[0].path_prefix"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(more: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**more)
    assert (caught.value.code, caught.value.place) == (Code.CATALOG_INVALID, place)


@pytest.mark.parametrize(
    "more",
    [
        {"egress": [{"host": "a.example"}]},
        {"egress": [{**API, "port": 0}]},
        {"egress": [{**API, "port": 65_536}]},
        {"egress": [{**API, "port": "443"}]},
        {"egress": [{**API, "methods": []}]},
        {"egress": [{**API, "methods": ["get"]}]},
        {"egress": [{**API, "scheme": "https"}]},
        {"credentials": [{"scopes": ["read"]}]},
        {"credentials": [{"ref": "vault:ci", "scopes": [""]}]},
        {"credentials": [{"ref": "vault:ci", "secret": "s3cret"}]},
        {"credentials": [{"ref": "vault:ci", "ttl_s": 0}]},
    ],
)
def test_malformed_declaration_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build(**more)
