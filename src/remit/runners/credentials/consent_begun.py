"""People who are being asked: what was begun, until its answer comes, once, within ten minutes.

In memory alone: a keeper that ends has asked nobody.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from remit.errors import Code, Refused
from remit.model import ConsentPage, Principal
from remit.runners.credentials.consent_where import Where

OFFLINE = "offline_access"
LIFE_MS = 600_000
MOST = 1_024
MOST_OF_ONE = 8
"""Of one principal; the oldest gives way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a person is asked: at which server, as which client, for what, and where they answer."""

    ref: str
    principal: Principal
    scopes: tuple[str, ...]
    where: Where
    client: Mapping[str, Any] = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """One person who is being asked, and the secret that the answer's code is worth nothing without."""

    question: Question
    page: ConsentPage
    verifier: str = field(repr=False)


class BegunTable:
    """All that was begun of one section."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._all: dict[str, Begun] = {}

    def begin(self, question: Question) -> ConsentPage:
        """A page to which this person can be sent.

        Raises:
            Refused: `rate_limited`: too many are being asked.
        """
        self._make_room(question.principal)
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        address = str(question.where.endpoints.authorization_url)
        page = ConsentPage(
            ref=question.ref,
            principal=question.principal,
            url=_with_query(address, _asked(question, state, verifier)),
            host=urlsplit(address).netloc,
            scopes=question.scopes,
            state=state,
            ends_ms=self._now() + LIFE_MS,
        )
        self._all[state] = Begun(question=question, page=page, verifier=verifier)
        return page

    def has(self, state: str) -> bool:
        """Whether that is a state of this section, however it stands."""
        return state in self._all

    def take(self, state: str) -> Begun:
        """What was begun with this state, which nobody can take again.

        Raises:
            Refused: `consent_state_invalid`.
        """
        begun = self._all.pop(state, None)
        if begun is None or begun.page.ends_ms <= self._now():
            raise unknown_state()
        return begun

    def _make_room(self, principal: Principal) -> None:
        now = self._now()
        self._all = {key: each for key, each in self._all.items() if each.page.ends_ms > now}
        count = Counter(each.page.principal for each in self._all.values())
        if count[principal] >= MOST_OF_ONE:
            oldest = next(k for k, each in self._all.items() if each.page.principal == principal)
            del self._all[oldest]
        elif len(self._all) >= MOST:
            raise Refused(
                Code.RATE_LIMITED,
                "too many people are being asked at this server",
                retry_after_ms=60_000,
            )


def _asked(question: Question, state: str, verifier: str) -> dict[str, str]:
    """The parameters of the page (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 8707 §2)."""
    asked = {
        "response_type": "code",
        "client_id": str(question.client["id"]),
        "redirect_uri": question.redirect_uri,
        "state": state,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
        "resource": question.where.resource,
    }
    if question.scopes:
        asked["scope"] = " ".join(question.scopes)
    if OFFLINE in question.scopes and not _says_prompt(question):
        asked["prompt"] = "consent"  # else it is ignored (OpenID Connect Core 1.0 §11)
    return asked


def _says_prompt(question: Question) -> bool:
    """Whether the page's address itself says how people are asked."""
    query = urlsplit(str(question.where.endpoints.authorization_url)).query
    return "prompt" in dict(parse_qsl(query, keep_blank_values=True))


def _with_query(address: str, asked: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}"


def challenge_of(verifier: str) -> str:
    """What shows a verifier without telling it (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def unknown_state() -> Refused:
    """Nothing is being asked with that state."""
    return Refused(
        Code.CONSENT_STATE_INVALID,
        "nothing is being asked with this state: it was used, is too old, or was never given",
        hint="make the call again, and open the address that it names",
    )
