"""What docs/credentials shows can be copied: each remit.yaml is read, each message is one of ours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml

from remit.config import examine
from remit.runners.credentials import aws, client_credentials, exchange, github, vault
from remit.runners.credentials.broker import FACTORIES
from remit.settings.credentials import CredentialSection
from tests.house.source import DOCS
from tests.runners.credentials.pages import blocks
from tests.runners.credentials.world import TokenIssuer, order

PAGES = sorted(path.name for path in (DOCS / "credentials").glob("*.md"))
SNIPPETS = [(page, n, text) for page in PAGES for n, text in enumerate(blocks(page, "yaml"))]


@pytest.mark.parametrize(
    ("page", "text"), [pytest.param(p, t, id=f"{p}-{n}") for p, n, t in SNIPPETS]
)
def test_each_configuration_is_read_whole(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "remit.yaml"
    file.write_text(text)
    settings, problems = examine(file, environ={})
    assert [str(problem) for problem in problems] == []
    assert settings is not None


@pytest.mark.parametrize(
    ("page", "text"), [pytest.param(p, t, id=f"{p}-{n}") for p, n, t in SNIPPETS]
)
def test_each_configuration_is_of_the_pages_broker_and_its_tool_uses_it(
    page: str, text: str
) -> None:
    written = yaml.safe_load(text)
    sections = written["runners"]["credentials"]
    assert {each["broker"] for each in sections.values()} == {page.removesuffix(".md")}
    catalog = written["catalog"]
    used = {c["ref"] for tool in catalog.get("tools", ()) for c in tool["credentials"]}
    used |= {server["authorization"] for server in catalog.get("servers", ())}
    assert used == set(sections)


def test_each_broker_has_a_page_and_each_page_a_broker() -> None:
    assert [f"{name}.md" for name in sorted(FACTORIES)] == PAGES
    overview = (DOCS / "credentials.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"(credentials/{page})" in overview
    assert len(CredentialSection.__args__[0].__args__) == len(PAGES)


@pytest.mark.parametrize(
    "broker", [aws, client_credentials, exchange, github, vault], ids=lambda m: m.__name__[-8:]
)
def test_each_message_of_a_page_is_one_that_the_broker_says(broker: Any) -> None:
    source = " ".join(Path(broker.__file__).read_text(encoding="utf-8").split())
    source = re.sub(r'" f?"', "", source).replace("{what}", "repository")
    page = f"credentials/{broker.__name__.rpartition('.')[2]}.md"
    table = (DOCS / page).read_text(encoding="utf-8").split("## When it does not work")[1]
    said = re.findall(r"^\| ([A-Za-z][^|]+) \|", table, flags=re.MULTILINE)[1:]
    assert len(said) >= 5
    assert [message for message in said if message not in source] == []


def test_the_session_policy_of_the_page_is_one_that_the_broker_takes() -> None:
    (text,) = blocks("aws.md", "yaml")
    policy = yaml.safe_load(text)["runners"]["credentials"]["logs"]["policy"]
    assert [each.get("Sid") for each in aws._statements(policy)] == ["ReadLogs", "ListLogs", None]


def test_the_subjects_of_the_pages_are_those_of_the_issuers_tokens() -> None:
    """What AWS and Azure compare: the whole `sub`, for the tool that the page's remit.yaml has."""
    (trust,) = map(json.loads, blocks("aws.md", "json"))
    condition = trust["Statement"][0]["Condition"]["StringEquals"]
    assert condition["remit.example.com:sub"] == _subject("logs.fetch")
    assert condition["remit.example.com:aud"] == "sts.amazonaws.com"
    (azure,) = map(json.loads, blocks("oidc.md", "json"))
    assert azure["subject"] == _subject("db.report")
    tools = [t for page in ("aws.md", "oidc.md") for t in blocks(page, "yaml")]
    named = {tool["name"] for t in tools for tool in yaml.safe_load(t)["catalog"]["tools"]}
    assert {"logs.fetch", "db.report"} <= named


def _subject(tool: str) -> str:
    token = TokenIssuer().mint("anybody", order(tool=tool), 60)
    claims = jwt.decode(token, options={"verify_signature": False})
    subject: str = claims["sub"]
    return subject
