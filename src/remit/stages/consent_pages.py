"""Remit's own pages on which a person is asked to consent, while they wait to be opened.

A page is named by 192 random bits, belongs to one principal, and leads to one page of an
authorization server, once. What is kept here is in memory alone: after a restart whoever calls
again is given another one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from remit.errors import Code, Refused
from remit.model import ConsentPage, Principal, Question
from remit.ports import Clock

MOST = 2_000
MOST_EACH = 8
"""Pages that wait for one principal; one more than there are credentials is asked for seldom."""

STILL_GOOD_MS = 120_000
"""A page that ends sooner than this is not given out again."""

_ID_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: whom it asks, about which server, and where it leads.

    `wanted` are the scopes of the plan that it was made for. `browser` is the digest of what the
    browser was given in which the person showed their key, and `key` the id of that key.
    """

    id: str = field(repr=False)
    leads: ConsentPage = field(repr=False)
    server: str
    wanted: tuple[str, ...] = ()
    browser: str | None = None
    key: str = ""

    @property
    def principal(self) -> Principal:
        return self.leads.principal

    @property
    def ref(self) -> str:
        return self.leads.ref


class ConsentRequired(Refused):
    """A person has to consent first, on a page of Remit's own; nothing ran.

    `facts` say where, for programs; `question` asks a client that can be asked to open the page.
    """

    def __init__(
        self,
        message: str,
        *,
        question: Question,
        facts: Mapping[str, Any],
        hint: str,
        decision_id: str,
        policy_revision: str,
        plan_hash: str,
        expires_at: str,
    ) -> None:
        super().__init__(
            Code.CONSENT_REQUIRED,
            message,
            hint=hint,
            decision_id=decision_id,
            policy_revision=policy_revision,
            plan_hash=plan_hash,
            expires_at=expires_at,
        )
        self.question = question
        self.facts = facts


class Pages:
    """The pages that wait. Used in one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pages: dict[str, Page] = {}
        self._states: dict[str, str] = {}
        self._taken: set[str] = set()

    def waiting(self, ref: str, principal: Principal, wanted: tuple[str, ...]) -> Page | None:
        """The page that asks for exactly this already, if it is good for a while yet."""
        until = self._clock.now_ms() + STILL_GOOD_MS
        for page in self._pages.values():
            same = (page.ref, page.principal, page.wanted) == (ref, principal, wanted)
            if same and page.leads.ends_ms > until:
                return page
        return None

    def room(self, principal: Principal) -> None:
        """See that another page may be made for this principal; the oldest one gives way.

        Raises:
            Refused: `rate_limited`: too many wait, of all principals together.
        """
        now = self._clock.now_ms()
        for page in [each for each in self._pages.values() if each.leads.ends_ms <= now]:
            self.drop(page)
        own = [each for each in self._pages.values() if each.principal == principal]
        for page in own[: max(0, len(own) - MOST_EACH + 1)]:
            self.drop(page)
        if len(self._pages) >= MOST:
            raise Refused(
                Code.RATE_LIMITED,
                "too many people are being asked to consent",
                hint="wait, then retry",
            )

    def put(self, leads: ConsentPage, server: str, wanted: tuple[str, ...]) -> Page:
        """A page for what was begun just now."""
        page = Page(id=secrets.token_urlsafe(_ID_BYTES), leads=leads, server=server, wanted=wanted)
        self._pages[page.id] = page
        self._states[digest(leads.state)] = page.id
        return page

    def get(self, page_id: str) -> Page | None:
        """The page of that id, if it waits and is not too old."""
        page = self._pages.get(page_id)
        return page if page is not None and self._clock.now_ms() < page.leads.ends_ms else None

    def coming(self, state: str) -> Page | None:
        """The page from which the person went who comes back with this state."""
        return self.get(self._states.get(digest(state), ""))

    def opened(self, page: Page, browser: str, key: str) -> None:
        """From here on only this browser may come back."""
        self._pages[page.id] = replace(page, browser=digest(browser), key=key)

    def take(self, page: Page) -> None:
        """Its answer has come and is looked at: no other one is taken. `drop` ends it then."""
        self.drop(page)
        self._taken.add(page.id)

    def ended(self, page_id: str) -> bool:
        """Whether nothing comes of the page any more that has not come already."""
        return page_id not in self._taken and self.get(page_id) is None

    def drop(self, page: Page) -> None:
        """It is used, or of no use any more."""
        self._taken.discard(page.id)
        self._pages.pop(page.id, None)
        self._states.pop(digest(page.leads.state), None)


def digest(text: str) -> str:
    """What is kept of something that a browser brings back."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def same(known: str | None, brought: str) -> bool:
    """Whether what a browser brings has this digest; of no digest nothing has."""
    return known is not None and hmac.compare_digest(known, digest(brought))
