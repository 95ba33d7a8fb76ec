"""The pages on which a person lets Remit act for them at an MCP server, on the MCP door.

`GET /consents/ID` says what is asked of whom. `POST` to it takes a key of that person and sends the
browser to the authorization server; `GET /consents/callback` is where it comes back. Nothing is
decided here: who may open a page, and what an answer is worth, `ConsentDesk` says.

No other site can act with a browser that is here: a form comes with a token that only its own page
and the browser's own cookie have, and a callback with a cookie of the browser that left.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from remit.consenting import ConsentDesk
from remit.doors import consent_html as html
from remit.doors import edge
from remit.doors.edge import TurnedAway
from remit.doors.settings import DoorSettings
from remit.errors import Code, Refused, RemitError
from remit.stages.consent import CALLBACK, DOCUMENT, PATH
from remit.stages.consent_pages import Page
from remit.telemetry import logger

FORM = "remit-consent-form"
BROWSER = "remit-consent"

MAX_FORM = 4_096
MAX_QUERY = 16_384
MAX_PARAMETERS = 16
BODY_WITHIN_S = 10.0
TOKEN_BYTES = 32

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

GONE = (
    "There is nothing to agree to here",
    "this link was used already, is older than ten minutes, or never was one",
    "have the call made again, and open the link that it gives",
)
WRONG_KEY = "That is not a key of this person. Use the one with which you yourself call Remit."
TITLES = {
    Code.CONSENT_REFUSED: "Nothing was agreed to",
    Code.CONSENT_STATE_INVALID: "This answer is not taken",
    Code.RATE_LIMITED: "Too many tries",
}

log = logger()


def consent_routes(desk: ConsentDesk, settings: DoorSettings) -> list[Route]:
    """The pages. `Host` may be that of `server.public_url`, beside those of the door."""
    pages = _Pages(desk, settings)
    return [
        Route(CALLBACK, pages.callback, methods=["GET"]),
        Route(DOCUMENT, pages.document, methods=["GET"]),
        Route(f"{PATH}/{{page}}", pages.show, methods=["GET"]),
        Route(f"{PATH}/{{page}}", pages.open, methods=["POST"]),
    ]


class _Pages:
    def __init__(self, desk: ConsentDesk, settings: DoorSettings) -> None:
        self._desk = desk
        own = urlsplit(desk.public_url or "").netloc.lower()
        self._hosts = (*settings.allowed_hosts, *([own] if own else []))
        self._origins = (*settings.allowed_origins, *([desk.public_url] if desk.public_url else []))
        self._secure = (desk.public_url or "").startswith("https://")

    # ------------------------------------------------------------------------------- the person

    async def show(self, request: Request) -> Response:
        """`GET /consents/ID`: what is asked, and the form for a key. Changes nothing."""
        if (refused := self._elsewhere(request)) is not None:
            return refused
        page = self._desk.page(request.path_params["page"])
        if page is None:
            return _failed(404, *GONE)
        return self._asking(request, page, 200)

    async def open(self, request: Request) -> Response:
        """`POST /consents/ID`: with a key of whom it asks, on to the authorization server."""
        if (refused := self._elsewhere(request)) is not None:
            return refused
        page = self._desk.page(request.path_params["page"])
        if page is None:
            return _failed(404, *GONE)
        try:
            form = await _form(request)
            if not self._from_here(request, form.get("token", "")):
                return self._asking(request, page, 403, "This form was not sent by its own page.")
            key = form.get("key", "").strip()
            leaving = await self._desk.open(page.id, key, edge.source_ip(request.scope))
        except TurnedAway as turned:
            return _failed(turned.status, "That cannot be read", turned.message, GONE[2])
        except Refused as refused_:
            if refused_.code is Code.UNAUTHENTICATED:
                return self._asking(request, page, 403, WRONG_KEY)
            return _error(refused_)
        if leaving is None:
            return _failed(404, *GONE)
        answer = RedirectResponse(leaving.url, 303, headers=_headers())
        seconds = max(1, (leaving.ends_ms - self._desk.now_ms()) // 1_000)
        self._keep(answer, _browser_cookie(leaving.state), leaving.browser, "lax", seconds)
        return answer

    async def callback(self, request: Request) -> Response:
        """`GET /consents/callback`: what the browser comes back with, once."""
        if (refused := self._elsewhere(request)) is not None:
            return refused
        answer = _parameters(request.url.query)
        if answer is None:
            return _failed(400, TITLES[Code.CONSENT_STATE_INVALID], "it cannot be read", GONE[2])
        name = self._named(_browser_cookie(answer.get("state", "")))
        try:
            given = await self._desk.finish(answer, request.cookies.get(name, ""))
        except RemitError as exc:
            return _error(exc)
        except Exception:  # the person gets a page; the log gets the rest
            log.exception("consent_failed")
            return _error(RemitError(Code.INTERNAL, "an unforeseen error"))
        done = _page(200, html.done(server=given.server, subject=given.consent.principal.subject))
        done.delete_cookie(name, path="/", secure=self._secure, httponly=True, samesite="lax")
        return done

    async def document(self, request: Request) -> Response:
        """`GET /consents/client.json`: who Remit is, for authorization servers that look."""
        if (refused := self._elsewhere(request)) is not None:
            return refused
        known = self._desk.document()
        if known is None:
            return _failed(404, "There is no such document", "this gateway has no https address",
                           "an operator writes server.public_url")  # fmt: skip
        body = json.dumps(known, separators=(",", ":")).encode("ascii")
        headers = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}
        return Response(body, media_type="application/json", headers=headers)

    # ------------------------------------------------------------------------ where it comes from

    def _elsewhere(self, request: Request) -> Response | None:
        """The answer to a request that names another host than this one."""
        if edge.listed(request.headers.get("host", ""), self._hosts):
            return None
        return _failed(421, "This is another site", "the request names a host that is not this one",
                       "open the link as it was given")  # fmt: skip

    def _from_here(self, request: Request, token: str) -> bool:
        """Whether the form was sent by its own page.

        `Origin` is `null` where the page sends no referrer, as these do; where it says anything
        else, or the browser says that another site sent it, that counts too.
        """
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin", "null")
        if site != "same-origin" or not (origin == "null" or edge.listed(origin, self._origins)):
            return False
        kept = request.cookies.get(self._named(FORM), "")
        return bool(_TOKEN.fullmatch(kept)) and hmac.compare_digest(kept.encode(), token.encode())

    def _asking(
        self, request: Request, page: Page, status: int, error: str | None = None
    ) -> Response:
        kept = request.cookies.get(self._named(FORM), "")
        token = kept if _TOKEN.fullmatch(kept) else secrets.token_urlsafe(TOKEN_BYTES)
        leads = page.leads
        text = html.asking(
            server=page.server,
            host=leads.host,
            scopes=leads.scopes,
            subject=page.principal.subject,
            action=f"{PATH}/{page.id}",
            token=token,
            error=error,
        )
        answer = _page(status, text, leads_to=leads.url)
        self._keep(answer, FORM, token, "strict", 600)
        return answer

    def _named(self, cookie: str) -> str:
        """The cookie's name: with TLS one that no other host can set (RFC 6265bis §4.1.3.2)."""
        return f"__Host-{cookie}" if self._secure else cookie

    def _keep(self, answer: Response, cookie: str, value: str, same_site: str, age_s: int) -> None:
        parts = [
            f"{self._named(cookie)}={value}", "Path=/", f"Max-Age={age_s}", "HttpOnly",
            f"SameSite={same_site.capitalize()}", *(["Secure"] if self._secure else []),
        ]  # fmt: skip
        answer.headers.append("set-cookie", "; ".join(parts))


def _browser_cookie(state: str) -> str:
    """One for each page, so that two which are open at once do not disturb each other."""
    return f"{BROWSER}-{hashlib.sha256(state.encode('utf-8', 'replace')).hexdigest()[:16]}"


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form, each once.

    Raises:
        TurnedAway: it is too long, too slow, or no form.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise TurnedAway(415, edge.INVALID_REQUEST, Code.NOT_SERVED, "this is not the page's form")
    body = await edge.read_body(request.receive, MAX_FORM, BODY_WITHIN_S)
    found = _parameters(body.decode("latin-1"))
    if found is None:
        raise TurnedAway(400, edge.INVALID_REQUEST, Code.NOT_SERVED, "this is not the page's form")
    return found


def _parameters(text: str) -> Mapping[str, str] | None:
    """Parameters in the form of a query, each once; None if they cannot be read in one way."""
    if len(text) > MAX_QUERY:
        return None
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        return None
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


# --------------------------------------------------------------------------------------- answers


def _error(exc: RemitError) -> Response:
    """The page of what went wrong."""
    status = {Code.RATE_LIMITED: 429, Code.INTERNAL: 500}.get(exc.code, 400)
    title = TITLES.get(exc.code, "That did not work")
    answer = _failed(status, title, exc.message, exc.hint or GONE[2])
    if isinstance(exc, Refused) and exc.retry_after_ms is not None:
        answer.headers["retry-after"] = str(max(1, -(-exc.retry_after_ms // 1_000)))
    return answer


def _failed(status: int, title: str, message: str, hint: str) -> Response:
    return _page(status, html.failed(title=title, message=message, hint=hint))


def _page(status: int, text: str, *, leads_to: str = "") -> Response:
    return Response(text, status, media_type="text/html; charset=utf-8", headers=_headers(leads_to))


def _headers(leads_to: str = "") -> dict[str, str]:
    """Nothing runs, nothing is loaded, nothing is kept, and no other site frames it or is told of it.

    Args:
        leads_to: where the form's answer sends the browser. Browsers hold such a redirect, and
            those that follow it, against `form-action` too.
    """
    parts = urlsplit(leads_to)
    plain = [f"{parts.scheme}://{parts.netloc}"] if parts.scheme == "http" else []
    forms = " ".join(["'self'", *(["https:", *plain] if leads_to else [])])
    policy = (
        f"default-src 'none'; style-src '{html.STYLE_HASH}'; form-action {forms}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
