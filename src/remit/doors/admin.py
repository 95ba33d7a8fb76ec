"""The admin door: what operators do, as JSON over HTTP on a port of its own.

An operator's bearer credential and nothing else: no cookie, so that no web page can act for the
operator who has it open. Every answer but metrics is JSON; every error is
`{code, message, place, hint}`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from remit.doors import admin_json as values
from remit.doors import edge
from remit.doors.admin_consents import CONSENT_ROUTES
from remit.doors.admin_runs import RUN_ROUTES
from remit.doors.admin_servers import SERVER_ROUTES
from remit.doors.authzen import authzen_routes
from remit.doors.bundles import asked_for, bundle_response, while_there
from remit.doors.edge import TurnedAway
from remit.doors.gateway import AdminGateway
from remit.doors.settings import DoorSettings
from remit.doors.visit import Act, Visit
from remit.errors import Code, Conflict, InputError, NotFound, Refused, RemitError
from remit.model import ApprovalState, RequestState
from remit.telemetry import logger

log = logger()


# ----------------------------------------------------------------------------------- what is done


async def _approvals(visit: Visit) -> Response:
    found = await visit.gateway.approvals(visit.operator, visit.state(ApprovalState), visit.limit())
    return JSONResponse({"approvals": [values.approval_json(one) for one in found]})


async def _approval(visit: Visit) -> Response:
    found = await visit.gateway.approval(visit.operator, visit.name())
    return JSONResponse(values.approval_json(found))


async def _vote(visit: Visit) -> Response:
    body = visit.read(values.VoteBody)
    after = await visit.gateway.vote(
        visit.operator, visit.name(), body.plan_hash, body.verdict, body.reason
    )
    return JSONResponse(values.approval_json(after))


async def _revoke(visit: Visit) -> Response:
    visit.read(values.EmptyBody)
    after = await visit.gateway.revoke_approval(visit.operator, visit.name())
    return JSONResponse(values.approval_json(after))


async def _access_requests(visit: Visit) -> Response:
    state, limit = visit.state(RequestState), visit.limit()
    found = await visit.gateway.access_requests(visit.operator, state, limit)
    return JSONResponse({"access_requests": [values.request_json(one) for one in found]})


async def _close(visit: Visit) -> Response:
    note = visit.read(values.NoteBody).note
    after = await visit.gateway.close_request(visit.operator, visit.name(), note)
    return JSONResponse(values.request_json(after))


async def _entries(visit: Visit) -> Response:
    found = await visit.gateway.entries(visit.operator, visit.match(), visit.limit())
    return JSONResponse({"entries": [values.entry_json(one) for one in found]})


async def _entry(visit: Visit) -> Response:
    name = visit.name()
    if not name.isdecimal() or len(name) > 15:
        raise NotFound(Code.NOT_FOUND, "there is no entry of that number")
    return JSONResponse(values.entry_json(await visit.gateway.entry(visit.operator, int(name))))


async def _export(visit: Visit) -> Response:
    # Where the lines break off, so does the connection: a part is never taken for the whole.
    lines = await visit.gateway.export(visit.operator)
    return StreamingResponse(lines, media_type="application/jsonl")


async def _tools(visit: Visit) -> Response:
    found = await visit.gateway.tools(visit.operator)
    return JSONResponse({"tools": [values.tool_json(one) for one in found]})


async def _freeze(visit: Visit) -> Response:
    await visit.gateway.freeze(visit.operator, True, visit.read(values.ReasonBody).reason)
    return JSONResponse({"frozen": True})


async def _thaw(visit: Visit) -> Response:
    await visit.gateway.freeze(visit.operator, False, visit.read(values.ReasonBody).reason)
    return JSONResponse({"frozen": False})


async def _bundle(visit: Visit) -> Response:
    asked = asked_for(visit.header("if-none-match"), visit.header("prefer"))
    finding = visit.gateway.bundle(visit.operator, visit.name(), asked.known, asked.wait_s)
    found = await while_there(visit.receive, finding)
    return Response() if found is None else bundle_response(found, asked)


async def _status(visit: Visit) -> Response:
    return JSONResponse(values.plain(await visit.gateway.status(visit.operator)))


ROUTES: tuple[tuple[str, str, Act], ...] = (
    ("GET", "/v1/approvals", _approvals),
    ("GET", "/v1/approvals/{name}", _approval),
    ("POST", "/v1/approvals/{name}/votes", _vote),
    ("POST", "/v1/approvals/{name}/revoke", _revoke),
    ("GET", "/v1/access-requests", _access_requests),
    ("POST", "/v1/access-requests/{name}/close", _close),
    *RUN_ROUTES,
    *SERVER_ROUTES,
    *CONSENT_ROUTES,
    ("GET", "/v1/log/entries", _entries),
    ("GET", "/v1/log/entries/{name}", _entry),
    ("GET", "/v1/log/export", _export),
    ("GET", "/v1/tools", _tools),
    ("POST", "/v1/freeze", _freeze),
    ("POST", "/v1/thaw", _thaw),
    ("GET", "/v1/policy/bundles/{name}.tar.gz", _bundle),
    ("GET", "/v1/status", _status),
)


# ------------------------------------------------------------------------------------ the way in


def admin_app(gateway: AdminGateway, settings: DoorSettings) -> Starlette:
    """The ASGI application of the admin door.

    `/healthz`, `/readyz` and `/metrics` take no credential: they name no caller and no tool's
    argument. Host and Origin are checked for them too.
    """
    open_routes = [
        Route("/healthz", endpoint=_Open(gateway, settings, _healthz), methods=["GET"]),
        Route("/readyz", endpoint=_Open(gateway, settings, _readyz), methods=["GET"]),
        Route("/metrics", endpoint=_Open(gateway, settings, _metrics), methods=["GET"]),
    ]
    acts = [
        Route(path, endpoint=_Guarded(gateway, settings, act), methods=[method])
        for method, path, act in ROUTES
    ]
    app = Starlette(
        routes=[*open_routes, *acts, *authzen_routes(gateway, settings)],
        exception_handlers={404: _nothing_here, 405: _nothing_here},
    )
    app.router.redirect_slashes = False  # a redirect would repeat the Host header
    return app


class _Guarded:
    """A route for operators: checked in this order, then done."""

    def __init__(self, gateway: AdminGateway, settings: DoorSettings, act: Act) -> None:
        self._gateway = gateway
        self._settings = settings
        self._act = act

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(scope, receive)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        source = edge.source_ip(scope)
        try:
            headers = edge.fields(scope)
            edge.check_host(headers, self._settings)
            edge.check_length(headers, self._settings.body_limit_bytes)
            operator = await self._gateway.operator(headers.get(b"authorization"), source)
            visit = Visit(self._gateway, operator, Request(scope, receive))
            if scope["method"] == "POST":
                edge.check_json(headers)
                visit.body = await edge.read_body(
                    receive, self._settings.body_limit_bytes, self._settings.body_timeout_s
                )
            return await self._act(visit)
        except TurnedAway as turned:
            await self._gateway.refuse_at_door(turned.code, source)
            return turned_response(turned)
        except RemitError as exc:
            return error_response(exc)
        except Exception:  # the operator gets a code; the log gets the rest
            log.exception("admin_failed", route=scope.get("path"))
            return error_response(RemitError(Code.INTERNAL, "an unforeseen error"))


class _Open:
    """A route that needs no credential."""

    def __init__(
        self,
        gateway: AdminGateway,
        settings: DoorSettings,
        show: Callable[[AdminGateway], Awaitable[Response]],
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            edge.check_host(edge.fields(scope), self._settings)
            response = await self._show(self._gateway)
        except TurnedAway as turned:
            response = turned_response(turned)
        await response(scope, receive, send)


async def _healthz(_gateway: AdminGateway) -> Response:
    return JSONResponse({"ok": True})


async def _readyz(gateway: AdminGateway) -> Response:
    reasons = list(await gateway.ready())
    return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


async def _metrics(gateway: AdminGateway) -> Response:
    return Response(gateway.metrics(), media_type="text/plain; version=0.0.4")


async def _nothing_here(request: Request, exc: Exception) -> Response:
    return _json({"code": Code.NOT_FOUND.value, "message": "there is nothing here",
                  "place": None, "hint": "docs/admin-api.md lists what there is"}, 404)  # fmt: skip


# ---------------------------------------------------------------------------------------- errors


def turned_response(turned: TurnedAway) -> Response:
    error = {
        "code": turned.code.value,
        "message": turned.message,
        "place": turned.place,
        "hint": turned.hint,
    }
    response = _json(error, turned.status)
    for name, value in turned.headers:
        response.headers[name.decode()] = value.decode()
    return response


def error_response(exc: RemitError) -> Response:
    """What went wrong, with the HTTP status that fits it."""
    if isinstance(exc, Refused) and exc.code in (Code.UNAUTHENTICATED, Code.RATE_LIMITED):
        return turned_response(edge.refused(exc))
    return _json(values.error_json(exc), status_of(exc))


def status_of(exc: RemitError) -> int:
    match exc:
        case InputError():
            return 400
        case NotFound():
            return 404
        case Conflict():
            return 409
        case Refused(code=Code.APPROVAL_NOT_ELIGIBLE):
            return 403
        case Refused():
            return 409
        case _:
            return 503


def _json(value: Mapping[str, Any], status: int) -> Response:
    body = json.dumps(value, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")
