"""One request of an operator who is known, and how its parts are read: strictly, echoing nothing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from remit.canonical import parse
from remit.doors.gateway import AdminGateway
from remit.errors import Code, InputError
from remit.model import Operator

MAX_LIMIT = 1_000
MAX_MATCH = 16

_LIMIT = re.compile(r"[0-9]{1,9}")

_Body = TypeVar("_Body", bound=BaseModel)
_State = TypeVar("_State", bound=StrEnum)


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

    def part(self, name: str) -> str:
        """Another part of the path."""
        return str(self._request.path_params[name])

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

    def start(self) -> int:
        """`from`, 0 if it is not given."""
        given = self.query("from")
        if len(given) > 1 or not all(map(_LIMIT.fullmatch, given)):
            raise _bad_query("from", "a number of a frame")
        return int(given[0]) if given else 0

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


Act = Callable[[Visit], Awaitable[Response]]
