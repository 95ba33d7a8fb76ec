"""The AuthZEN face: what an enforcement point outside asks, in the OpenID Authorization API 1.0.

Three routes of the admin door. The point authenticates with an operator's credential that may
`evaluate`; what it asks is put to the same policy as a call, and nothing runs. What a request and
an answer hold is in `authzen_json`; docs/authzen.md says what each field means here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from remit.canonical import parse
from remit.doors import edge
from remit.doors.authzen_json import (
    Asked,
    answer_of,
    boxcar,
    failure,
    question,
    refusal,
    semantics,
)
from remit.doors.edge import TurnedAway
from remit.doors.gateway import AdminGateway
from remit.doors.settings import DoorSettings
from remit.errors import Code, InputError, Refused, RemitError
from remit.model import Operator
from remit.telemetry import logger

EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"
METADATA = "/.well-known/authzen-configuration"
REQUEST_ID = b"x-request-id"

_REQUEST_ID = re.compile(r"[!-~]{1,256}")

log = logger()

Body = dict[str, Any]
Answer = Callable[[AdminGateway, Operator, Body], Awaitable[Body]]


def authzen_routes(gateway: AdminGateway, settings: DoorSettings) -> list[Route]:
    """The routes, for the admin door."""
    faces = [(EVALUATION, _evaluation), (EVALUATIONS, _evaluations)]
    return [
        *(Route(path, endpoint=_Face(gateway, settings, how), methods=["POST"])
          for path, how in faces),
        Route(METADATA, endpoint=_Metadata(settings), methods=["GET"]),
    ]  # fmt: skip


# --------------------------------------------------------------------------------- what is asked


async def _evaluation(gateway: AdminGateway, operator: Operator, body: Body) -> Body:
    """Access Evaluation (§6): one question."""
    return await _one(gateway, operator, question(body))


async def _evaluations(gateway: AdminGateway, operator: Operator, body: Body) -> Body:
    """Access Evaluations (§7): several at once; one that cannot be read is a denial in its place."""
    items = boxcar(body)
    if items is None:
        return await _evaluation(gateway, operator, body)
    stop = semantics(body)
    answers: list[Body] = []
    for item in items:
        try:
            answers.append(await _one(gateway, operator, question(item)))
        except InputError as exc:
            answers.append(failure(exc))
        except Refused as refused:
            if refused.code is not Code.RATE_LIMITED:
                raise
            answers.append(failure(refused))
        if answers[-1]["decision"] is stop:
            break
    return {"evaluations": answers}


async def _one(gateway: AdminGateway, operator: Operator, asked: Asked) -> Body:
    try:
        decided = await gateway.evaluate(
            operator,
            asked.who,
            tool_name=asked.tool_name,
            arguments=asked.arguments,
            claims=asked.claims,
        )
    except Refused as refused:
        if refused.code in (Code.RATE_LIMITED, Code.APPROVAL_NOT_ELIGIBLE):
            raise
        return refusal(refused)
    return answer_of(decided, performs=asked.performs)


# ------------------------------------------------------------------------------------ the way in


class _Face:
    """One route: checked in the order of the admin door, answered in AuthZEN's terms."""

    def __init__(self, gateway: AdminGateway, settings: DoorSettings, how: Answer) -> None:
        self._gateway = gateway
        self._settings = settings
        self._how = how

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response, request_id = await self._respond(scope, receive)
        if request_id is not None:
            response.headers["x-request-id"] = request_id
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> tuple[Response, str | None]:
        source = edge.source_ip(scope)
        request_id: str | None = None
        try:
            headers = edge.fields(scope)
            request_id = _request_id(headers)
            edge.check_host(headers, self._settings)
            edge.check_length(headers, self._settings.body_limit_bytes)
            operator = await self._gateway.operator(headers.get(b"authorization"), source)
            edge.check_json(headers)
            sent = await edge.read_body(
                receive, self._settings.body_limit_bytes, self._settings.body_timeout_s
            )
            body = parse(sent, max_depth=edge.MAX_DEPTH)
            if not isinstance(body, dict):
                raise InputError(Code.INVALID_ARGUMENTS, "the body must be a JSON object")
            return JSONResponse(await self._how(self._gateway, operator, body)), request_id
        except TurnedAway as turned:
            await self._gateway.refuse_at_door(turned.code, source)
            return _said(turned), request_id
        except Refused as refused:
            if refused.code is Code.APPROVAL_NOT_ELIGIBLE:
                return _error(403, refused), request_id
            return _said(edge.refused(refused)), request_id
        except InputError as exc:
            return _error(400, exc), request_id
        except RemitError as exc:
            return _error(500, exc), request_id
        except Exception:  # the point gets a code; the log gets the rest
            log.exception("evaluation_failed")
            return _error(500, RemitError(Code.INTERNAL, "an unforeseen error")), request_id


class _Metadata:
    """Policy Decision Point Metadata (§9): where the endpoints are. Takes no credential."""

    def __init__(self, settings: DoorSettings) -> None:
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            edge.check_host(edge.fields(scope), self._settings)
            base = str(Request(scope).base_url).rstrip("/")
            response: Response = JSONResponse({
                "policy_decision_point": base,
                "access_evaluation_endpoint": base + EVALUATION,
                "access_evaluations_endpoint": base + EVALUATIONS,
            })  # fmt: skip
        except TurnedAway as turned:
            response = _said(turned)
        await response(scope, receive, send)


def _request_id(headers: edge.Fields) -> str | None:
    """The point's own name for its request, which goes back with the answer.

    Raises:
        TurnedAway: it is none that can be given back as it came.
    """
    given = headers.get(REQUEST_ID)
    if given is not None and not _REQUEST_ID.fullmatch(given):
        raise TurnedAway(
            400, edge.INVALID_REQUEST, Code.NOT_SERVED,
            "X-Request-ID must be 1 to 256 visible characters of ASCII",
        )  # fmt: skip
    return given


def _said(turned: TurnedAway) -> Response:
    response = PlainTextResponse(f"{turned.message} [{turned.code}]", turned.status)
    for name, value in turned.headers:
        response.headers[name.decode()] = value.decode()
    return response


def _error(status: int, exc: RemitError) -> Response:
    """An error message string (§10.1.11)."""
    return PlainTextResponse(str(exc), status)
