"""What can be told of tokens for Remit itself before anybody is asked for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.addresses import covers
from remit.config import examine

AT = "runners.credentials.crm"
URL = "https://crm.example.com/mcp"
FOUND = {"issuer": None, "find_issuer": True}


def told(tmp_path: Path, server: dict[str, Any] | None = None, **written: Any) -> list[str]:
    """The problems of one section and the server that is shown what it gives."""
    words = {
        "broker": "client_credentials",
        "resource": URL,
        "issuer": "https://login.example.com",
        "client_id": "remit",
        "client_auth": "private_key_jwt",
        "private_key": "env:KEY",
        "file": {"name": "token"},
        **written,
    }
    section = {key: value for key, value in words.items() if value is not None}
    shown = {"name": "crm", "url": URL, "authorization": "crm", **(server or {})}
    whole = {
        "catalog": {"servers": [{k: v for k, v in shown.items() if v is not None}]},
        "runners": {"credentials": {"crm": section}},
    }
    file = tmp_path / "remit.yaml"
    file.write_text(yaml.safe_dump(whole))
    settings, problems = examine(file, environ={})
    if settings is not None:
        chosen = {name for name in section if name.startswith("unsafe_")}
        assert set(settings.unsafe()) == chosen
    return [str(problem) for problem in problems]


SECRET = {"client_auth": "client_secret_basic", "private_key": None, "client_secret": "env:S"}


@pytest.mark.parametrize(
    "written",
    [
        {},
        FOUND,
        SECRET,
        {"token_url": "https://login.example.com/t", "issuer": None},
        {"unsafe_keep_s": 300},
        {"unsafe_look": True},
        {"resource": "https://crm.example.com"},
    ],
)
def test_each_way_to_say_it_is_read(tmp_path: Path, written: dict[str, Any]) -> None:
    assert told(tmp_path, **written) == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"issuer": None}, f"{AT} needs issuer or token_url"),
        ({"find_issuer": True}, f"{AT} needs issuer or token_url"),
        ({**FOUND, **SECRET}, f"{AT}.find_issuer would show the client's secret"),
        ({"private_key": None}, f"{AT}.private_key is what private_key_jwt needs"),
        ({"client_secret": "env:S"}, f"{AT}.private_key is what private_key_jwt needs"),
        ({**SECRET, "client_secret": None}, f"{AT}.client_secret is what client_secret_basic"),
        ({"revocation_url": "https://a.example/r"}, f"{AT}.revocation_url is found in"),
        ({"unsafe_keep_s": 300, "ttl_s": 60}, f"{AT}.unsafe_keep_s keeps a token for several"),
        ({"issuer": "http://login.example.com"}, f"{AT}.issuer is neither https"),
        ({"resource": "http://crm.example.com/mcp"}, f"{AT}.resource is neither https"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, written: dict[str, Any], said: str) -> None:
    found = told(tmp_path, **written)
    assert any(each.startswith(said) for each in found), found


@pytest.mark.threat("T-42")
@pytest.mark.parametrize(
    "resource",
    [
        "https://other.example.com/mcp",
        "https://crm.example.com/mc",
        "https://crm.example.com/mcp/v2",
        "https://crm.example.com:8443/mcp",
    ],
)
def test_a_token_is_for_the_server_that_is_shown_it(tmp_path: Path, resource: str) -> None:
    (found,) = told(tmp_path, resource=resource)
    assert found.startswith(f"catalog.servers[0].authorization is for {resource}")


def test_scopes_are_those_of_what_a_server_is_shown(tmp_path: Path) -> None:
    assert told(tmp_path, {"scopes": ["read"]}) == []
    (found,) = told(tmp_path, {"scopes": ["read"], "authorization": None})
    assert found.startswith("catalog.servers[0].scopes are of the credential")


def test_a_resource_covers_what_is_below_it_by_whole_segments() -> None:
    assert covers("https://a.example", "https://a.example:443/mcp")
    assert covers("https://a.example/mcp/", "https://a.example/mcp")
    assert not covers("https://a.example/mcp", "https://a.example/mcps")
    assert not covers("http://127.0.0.1:80", "https://127.0.0.1:80")
