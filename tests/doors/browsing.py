"""A person's browser, as far as pages without script need one: cookies, forms, redirects seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx2


class _Form(HTMLParser):
    """The one form of a page, and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = given["action"]
        elif tag == "input":
            self.fields[given["name"]] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


class Browser:
    """One browser: what it is given it sends back, and it follows nothing by itself."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http
        self.page = ""
        self._url = ""

    async def open(self, url: str, *, site: str = "none") -> httpx2.Response:
        """Go to an address, typed in (`none`) or from another site (`cross-site`)."""
        got = await self.http.get(url, headers={"sec-fetch-site": site})
        self._url, self.page = url, got.text
        return got

    async def submit(self, key: str, **odd: str) -> httpx2.Response:
        """Send the page's form with this key, as browsers do from a page that sends no referrer."""
        form = _Form(self.page)
        assert form.action is not None, self.page
        headers = {"origin": "null", "sec-fetch-site": "same-origin", **odd}
        target = urljoin(self._url, form.action)
        got = await self.http.post(target, data={**form.fields, "key": key}, headers=headers)
        self.page = got.text
        return got

    async def come_back(self, location: str, via: str) -> httpx2.Response:
        """Follow a redirect of the authorization server to where Remit waits.

        Args:
            location: where to.
            via: where Remit really listens, should its public address be another.
        """
        parts = urlsplit(location)
        return await self.open(f"{via}{parts.path}?{parts.query}", site="cross-site")

    @property
    def text(self) -> str:
        """What the person reads."""
        return " ".join(" ".join(_Form(self.page).text).split())


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser without any cookie."""
    async with httpx2.AsyncClient(timeout=20, follow_redirects=False) as http:
        yield Browser(http)
