"""The admin door: what operators do, as JSON over HTTP on a port of its own.

An operator's bearer credential and nothing else: no cookie, so that no web page can act for the
operator who has it open. Every answer but metrics is JSON; every error is
`{code, message, place, hint}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from remit.canonical import parse
from remit.doors import admin_json as values
from remit.doors import edge
from remit.doors.authzen import authzen_routes
from remit.doors.bundles import asked_for, bundle_response, while_there
from remit.doors.edge import TurnedAway
from remit.doors.gateway import AdminGateway
from remit.doors.settings import DoorSettings
from remit.errors import Code, Conflict, InputError, NotFound, Refused, RemitError
from remit.model import ApprovalState, Operator, RequestState, RunState
from remit.telemetry import logger

MAX_LIMIT = 1_000
MAX_MATCH = 16

_LIMIT = re.compile(r"[0-9]{1,9}")

log = logger()

_Body = TypeVar("_Body", bound=BaseModel)
_State = TypeVar("_State", bound=StrEnum)

Act = Callable[["Visit"], Awaitable[Response]]


class Visit:
    """One request of an operator who is known."""

    def __init__(self, gateway: AdminGateway, operator: Operator, request: Request) -> None:
        self.gateway = gateway
        self.operator = operator
        self._request = request
        self.receive = request.receive
        self.body: bytes = b""

    def name(self) -> str:
        """The id in the path."""
        return str(self._request.path_params["name"])

    def read(self, model: type[_Body]) -> _Body:
        """The body, read strictly.

        Raises:
            InputError: it is not what this route takes; names the place, echoes nothing.
        """
        try:
            return model.model_validate(parse(self.body or b"{}"))
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "/" + "/".join(str(step) for step in first["loc"])
            raise InputError(Code.INVALID_ARGUMENTS, first["msg"], place=place) from None

    def header(self, name: str) -> str:
        """A header, empty if it is not there; one that is repeated, joined as a list."""
        return ", ".join(self._request.headers.getlist(name))

    def query(self, name: str) -> list[str]:
        return self._request.query_params.getlist(name)

    def limit(self) -> int:
        """`limit`, 100 if it is not given, at most 1000."""
        given = self.query("limit")
        if not given:
            return 100
        if len(given) != 1 or not _LIMIT.fullmatch(given[0]) or not 1 <= int(given[0]) <= MAX_LIMIT:
            raise _bad_query("limit", f"a number from 1 to {MAX_LIMIT}")
        return int(given[0])

    def state(self, states: type[_State]) -> _State | None:
        """`state`, or None if it is not given."""
        given = self.query("state")
        if not given:
            return None
        try:
            (only,) = given
            return states(only)
        except ValueError:
            raise _bad_query("state", "one of " + ", ".join(states)) from None

    def match(self) -> Mapping[str, str]:
        """Each `match=field=value`."""
        given = self.query("match")
        pairs = [one.partition("=") for one in given]
        if len(given) > MAX_MATCH or not all(name and sign for name, sign, _ in pairs):
            raise _bad_query("match", f"at most {MAX_MATCH} of the form field=value")
        return {name: value for name, _, value in pairs}


def _bad_query(name: str, what: str) -> InputError:
    return InputError(Code.INVALID_ARGUMENTS, f"`{name}` must be {what}", place=f"?{name}")


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


async def _runs(visit: Visit) -> Response:
    found = await visit.gateway.runs(visit.operator, visit.state(RunState), visit.limit())
    return JSONResponse({"runs": [values.run_json(one) for one in found]})


async def _run(visit: Visit) -> Response:
    return JSONResponse(values.run_json(await visit.gateway.run(visit.operator, visit.name())))


async def _run_output(visit: Visit) -> Response:
    output = await visit.gateway.run_output(visit.operator, visit.name())
    return JSONResponse(values.output_json(output))


async def _resolve(visit: Visit) -> Response:
    body = visit.read(values.ResolveBody)
    after = await visit.gateway.resolve(visit.operator, visit.name(), body.succeeded, body.note)
    return JSONResponse(values.run_json(after))


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
    ("GET", "/v1/runs", _runs),
    ("GET", "/v1/runs/{name}", _run),
    ("GET", "/v1/runs/{name}/output", _run_output),
    ("POST", "/v1/runs/{name}/resolve", _resolve),
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
