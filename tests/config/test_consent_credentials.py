"""What can be told of what people consent to before anybody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.config import examine

AT = "runners.credentials.crm"
URL = "https://crm.example.com/mcp"
ISSUER = "https://login.example.com"
URLS = {"authorization_url": f"{ISSUER}/a", "token_url": f"{ISSUER}/t"}
PUBLIC = {"client_id": "remit", "client_auth": "none"}
SECRET = {"client_id": "remit", "client_auth": "client_secret_basic", "client_secret": "env:S"}
KEY = {"client_id": "remit", "client_auth": "private_key_jwt", "private_key": "env:KEY"}


def told(tmp_path: Path, **written: Any) -> list[str]:
    """The problems of one section and the server that is shown what it gives."""
    section = {
        "broker": "authorization_code", "resource": URL, "file": {"name": "token"}, **written,
    }  # fmt: skip
    server = {"name": "crm", "url": URL, "authorization": "crm"}
    whole = {"catalog": {"servers": [server]}, "runners": {"credentials": {"crm": section}}}
    file = tmp_path / "remit.yaml"
    file.write_text(yaml.safe_dump(whole))
    return [str(problem) for problem in examine(file, environ={})[1]]


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"issuer": ISSUER},
        {"scopes": ["read"]},
        PUBLIC,
        KEY,
        {"issuer": ISSUER, **SECRET},
        {**URLS, **SECRET},
        {**URLS, **PUBLIC, "issuer": ISSUER, "revocation_url": f"{ISSUER}/r"},
        {"resource": "https://crm.example.com"},
    ],
)
def test_what_is_whole_is_taken(tmp_path: Path, written: dict[str, Any]) -> None:
    assert told(tmp_path, **written) == []


@pytest.mark.threat("T-52")
@pytest.mark.parametrize(
    ("written", "place"),
    [
        (SECRET, f"{AT}.issuer"),
        (URLS, f"{AT}.client_id"),
        ({"token_url": f"{ISSUER}/t", **PUBLIC}, AT),
        ({"authorization_url": f"{ISSUER}/a", **PUBLIC}, AT),
        ({"revocation_url": f"{ISSUER}/r"}, f"{AT}.revocation_url"),
        ({"client_id": "remit"}, f"{AT}.client_id"),
        ({**PUBLIC, "client_secret": "env:S"}, f"{AT}.client_secret"),
        ({"client_id": "remit", "client_auth": "private_key_jwt"}, f"{AT}.private_key"),
        ({"ttl_s": 60}, f"{AT}.ttl_s"),
        ({"issuer": "http://login.example.com"}, f"{AT}.issuer"),
        ({"authorization_url": "http://a.example/", "token_url": f"{ISSUER}/t", **PUBLIC},
         f"{AT}.authorization_url"),
        ({"resource": "https://other.example/mcp"}, "catalog.servers[0].authorization"),
        ({"resource": f"{URL}/below"}, "catalog.servers[0].authorization"),
    ],
)  # fmt: skip
def test_what_is_said_in_two_ways_or_shows_a_secret_is_refused(
    tmp_path: Path, written: dict[str, Any], place: str
) -> None:
    problems = told(tmp_path, **written)
    assert [each for each in problems if each.startswith(f"{place} ")], problems
