"""A call that a server's question interrupts: the state that its caller brings back, and answers.

MCP 2026-07-28, multi-round requests. The server's own state never leaves as it is: the caller gets
a state of Remit's, sealed with AES-256-GCM, which says whose call it is of, which tool and
arguments, which run asked, and until when. What it opens is used once: the run that it leads to is
looked up by it, as by an idempotency key.

Remit itself asks for a consent that is missing. Its state is of another kind: what the person
answers says whether the call goes on, is no answer to the server, and makes it no other call.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from remit.canonical import digest_of, encode
from remit.errors import Code, InputError, Refused
from remit.model import Caller, Frozen, Method, NormalCall, Question, Round, Tool

ANSWER_WITHIN_MS = 900_000
"""How long after a question its answer is taken."""

MAX_ROUNDS = 10
"""How often a server may ask while one call is made."""

MAX_STATE_CHARS = 131_072
"""Longest state that is looked at: a server's own, and the answers that go on with it."""
MAX_ANSWERS = 32
MAX_ANSWERS_BYTES = 65_536
ACTIONS = frozenset({"accept", "decline", "cancel"})

CONSENT = "consent"
"""The name of Remit's own question."""

_VERSION = "r1."
_BOUND = b"remit.request-state/1"
_CONSENT_VERSION = "c1."
_CONSENT_BOUND = b"remit.consent-state/1"
_NONCE_BYTES = 12


def may_ask(tool: Tool) -> bool:
    """Whether whoever carries it out may ask its caller (MCP 2026-07-28): servers, by any method
    that is a call but completion and subscribing."""
    silent = (Method.COMPLETE, Method.RESOURCES_SUBSCRIBE)
    return tool.upstream is not None and tool.method not in silent


def spends(run_id: str) -> str:
    """The key under which the answer to this run's question is looked up; no caller can say it."""
    return f"answer {run_id}"


def caller_digest(caller: Caller) -> str:
    """Who a state is of: tenant, subject and the whole chain; not which key was shown."""
    return digest_of(
        "remit.request-state-caller/1",
        [
            caller.tenant,
            caller.subject,
            caller.kind.value,
            [[actor.subject, actor.kind.value] for actor in caller.chain],
        ],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A call that comes back from Remit's own question: what it answered to a server before it, and
    whether the person said that they go to consent."""

    round: Round | None
    consenting: bool


class Rounds:
    """Seals what a caller is asked, and opens what it answers.

    Args:
        key: 32 bytes that nobody outside the gateway knows.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def question(
        self, normal: NormalCall, run_id: str, reply: Frozen | None, asked_ms: int | None
    ) -> Question | None:
        """What this run's stored reply asks of its caller; None if nothing."""
        asks = None if reply is None else reply.value().get("asks")
        if asks is None or asked_ms is None:
            return None
        told = {
            "caller": caller_digest(normal.call.caller),
            "tool": normal.tool.digest,
            "call": base_digest(normal),
            "run": run_id,
            "number": 1 + (0 if normal.round is None else normal.round.number),
            "state": asks["state"],
            "ends_ms": asked_ms + ANSWER_WITHIN_MS,
        }
        return Question(requests=Frozen(encode(asks["requests"])), state=self._seal(told))

    def consent(self, normal: NormalCall, requests: Frozen, page: str, now_ms: int) -> Question:
        """Remit's own question of a person, on the page of that id."""
        found = normal.round
        told = {
            "caller": caller_digest(normal.call.caller),
            "tool": normal.tool.digest,
            "call": base_digest(normal),
            "round": None
            if found is None
            else [found.answers.value(), found.number, found.run_id, found.state],
            "ends_ms": now_ms + ANSWER_WITHIN_MS,
        }
        state = self._seal(told, _CONSENT_VERSION, _CONSENT_BOUND)
        return Question(requests=requests, state=state, page=page)

    def resumed(self, normal: NormalCall, now_ms: int) -> Resumed | None:
        """What this call goes on with after Remit's own question; None if it brings no such state.

        Raises:
            Refused: as `opened`; `consent_declined`: the person does not want to go there.
            InputError: the answers are none.
        """
        state = normal.call.request_state
        if state is None or not state.startswith(_CONSENT_VERSION):
            return None
        told = self._unseal(state, _CONSENT_VERSION, _CONSENT_BOUND)
        _check(told, normal, now_ms)
        answer = checked_answers(normal.call.answers or {}).value().get(CONSENT, {}).get("action")
        if answer not in (None, "accept"):
            raise Refused(
                Code.CONSENT_DECLINED,
                "the person was asked to open the page on which they consent, and did not want to",
                hint="call again only if they want to be asked again",
            )
        found = None
        if told["round"] is not None:
            answers, number, run_id, of_server = told["round"]
            text = Frozen(encode(answers))
            found = Round(answers=text, number=number, run_id=run_id, state=of_server)
        return Resumed(round=found, consenting=answer == "accept")

    def opened(self, normal: NormalCall, now_ms: int) -> Round | None:
        """The round that this call is; None if it brings neither answers nor a state.

        Answers without a state are answers to what no run of Remit's asked: they are passed on to
        a server that keeps no state, which judges them.

        Raises:
            Refused: `input_state_invalid`, `input_state_foreign`, `input_state_expired` or
                `input_state_mismatch`.
            InputError: the answers are none.
        """
        call = normal.call
        if call.request_state is None:
            if not call.answers or not may_ask(normal.tool):
                return None
            return Round(answers=checked_answers(call.answers))
        told = self._unseal(call.request_state)
        _check(told, normal, now_ms)
        if told["number"] > MAX_ROUNDS:
            raise Refused(
                Code.UPSTREAM_ERROR,
                f"the MCP server asked more than {MAX_ROUNDS} times and is answered no more",
                run_id=told["run"],
            )
        return Round(
            answers=checked_answers(call.answers or {}),
            number=told["number"],
            run_id=told["run"],
            state=told["state"],
        )

    def _seal(self, told: Mapping[str, Any], version: str = _VERSION, bound: bytes = _BOUND) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, encode(dict(told)), bound)
        return version + base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def _unseal(self, state: str, version: str = _VERSION, bound: bytes = _BOUND) -> dict[str, Any]:
        if len(state) > MAX_STATE_CHARS or not state.startswith(version):
            raise forged()
        text = state.removeprefix(version)
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            found = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
        except (InvalidTag, ValueError, binascii.Error):
            raise forged() from None
        told: dict[str, Any] = json.loads(found)
        return told


def _check(told: Mapping[str, Any], normal: NormalCall, now_ms: int) -> None:
    if told["caller"] != caller_digest(normal.call.caller):
        raise Refused(Code.INPUT_STATE_FOREIGN, "this request state was given to another caller")
    if told["tool"] != normal.tool.digest or told["call"] != base_digest(normal):
        raise Refused(
            Code.INPUT_STATE_MISMATCH,
            "this request state belongs to a call of another tool, or with other arguments",
            hint="make the call that was interrupted, unchanged, or a new one without the state",
        )
    if now_ms >= told["ends_ms"]:
        raise Refused(
            Code.INPUT_STATE_EXPIRED,
            "the answer came too late",
            hint="make the call anew, without the state",
        )


def base_digest(normal: NormalCall) -> str:
    """What all rounds of one call share; it names nothing that anybody chose but the call's own."""
    return digest_of(
        "remit.request-state-call/1",
        [normal.tool.name, normal.arguments.value(), normal.environment],
    )


def checked_answers(answers: Mapping[str, Any]) -> Frozen:
    """Answers to questions, as they are stored and sent.

    Whether they fit the forms that were asked is for the server to judge.

    Raises:
        InputError: `invalid_arguments`: they are no answers.
    """
    if len(answers) > MAX_ANSWERS:
        raise _no_answers(f"more than {MAX_ANSWERS} answers")
    made = {name: _answer(each) for name, each in answers.items()}
    text = encode(made)
    if len(text) > MAX_ANSWERS_BYTES:
        raise _no_answers(f"answers of more than {MAX_ANSWERS_BYTES} bytes")
    return Frozen(text)


def _answer(each: Any) -> dict[str, Any]:
    if not isinstance(each, Mapping) or each.get("action") not in ACTIONS:
        raise _no_answers("what is no answer to a form or a page")
    action, content = each["action"], each.get("content")
    if content is None:
        return {"action": action}
    if not isinstance(content, Mapping) or not all(map(_plain, content.values())):
        raise _no_answers("a form that is filled with other than plain values")
    return {"action": action, "content": dict(content)}


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str | bool | int | float)


def _no_answers(what: str) -> InputError:
    return InputError(Code.INVALID_ARGUMENTS, f"the call brings {what}", place="/inputResponses")


def forged() -> Refused:
    return Refused(
        Code.INPUT_STATE_INVALID,
        "this request state was not given by this gateway",
        hint="bring back the state exactly as it came, or make the call anew",
    )


def spent(run_id: str | None) -> Refused:
    return Refused(
        Code.INPUT_STATE_SPENT,
        "the question that this request state belongs to was answered already",
        run_id=run_id,
        hint="make the call anew, without the state",
    )
