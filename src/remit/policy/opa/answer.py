"""From an HTTP answer of OPA's Data API to a rule's value, or the fault that it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from remit.errors import Code, PolicyFault
from remit.policy.opa.connection import HttpAnswer

MINIMUM = (1, 17, 1)
"""The first version in which `future.keywords.not` holds and its schema checks are mended."""

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+][0-9A-Za-z.+-]{1,64})?")
_REVISION = re.compile(r"[!-~]{1,256}")
_ERROR_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_./-]{1,256}")
_SPACE = re.compile(r"[ \t\r\n]*")
MAX_BUNDLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAnswer:
    """`value` is the JSON of the result as OPA wrote it, None where the rule is undefined.

    `bundles` are the revisions of the bundles that OPA holds, by name.
    """

    value: bytes | None
    version: str
    bundles: Mapping[str, str]
    decision_id: str | None = None


def read(answer: HttpAnswer) -> RuleAnswer:
    """What OPA answered to one rule.

    Nothing of its error messages is kept but the error's code and its place in the policy: the
    messages name values.

    Raises:
        PolicyFault: with the code of docs/opa.md's table.
    """
    if answer.status != 200:
        refuse_status(answer)
    if not _is_json(answer):
        raise _bad("the OPA server's answer is not JSON")
    members = _members(answer.body)
    result = members.pop("result", None)
    provenance = _value(members, "provenance")
    if not isinstance(provenance, dict):
        raise _not_opa("the OPA server's answer has no provenance")
    decision_id = _value(members, "decision_id")
    return RuleAnswer(
        value=result,
        version=_version(provenance.get("version")),
        bundles=_bundles(provenance),
        decision_id=decision_id
        if isinstance(decision_id, str) and _REVISION.fullmatch(decision_id)
        else None,
    )


def revision_of(bundles: Mapping[str, str]) -> str:
    """One text for the revisions of all bundles: of a single one its own, else `name=revision,…`."""
    if len(bundles) == 1:
        return next(iter(bundles.values()))
    return ",".join(f"{name}={revision}" for name, revision in sorted(bundles.items()))


def refuse_status(answer: HttpAnswer) -> NoReturn:
    """The fault that a status other than 200 is.

    Raises:
        PolicyFault: always.
    """
    status = answer.status
    if status in (401, 403):
        raise _not_opa(
            f"the OPA server refuses Remit (HTTP {status})", "see policy.opa.token and system.authz"
        )
    if status in (408, 425, 429, 502, 503, 504):
        raise PolicyFault(
            Code.POLICY_UNAVAILABLE, f"the OPA server does not answer now (HTTP {status})"
        )
    if status in (400, 500):
        what, place = _told(answer)
        raise PolicyFault(
            Code.POLICY_ERROR, f"OPA could not evaluate the policy: {what}", place=place
        )
    raise _not_opa(f"what answers is not an OPA server (HTTP {status})", "see policy.opa.url")


def _told(answer: HttpAnswer) -> tuple[str, str | None]:
    """The code and the place of the first error that OPA tells of."""
    try:
        told = json.loads(answer.body) if _is_json(answer) else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return f"HTTP {answer.status}", None
    errors = told.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else told
    code = first.get("code") if isinstance(first, dict) else None
    what = code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else "an error"
    location = first.get("location") if isinstance(first, dict) else None
    if not isinstance(location, dict):
        return what, None
    file, row = location.get("file"), location.get("row")
    if isinstance(file, str) and _FILE.fullmatch(file) and type(row) is int:
        return what, f"{file}:{row}"
    return what, None


def _is_json(answer: HttpAnswer) -> bool:
    kind = answer.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind == b"application/json" and b"content-encoding" not in answer.headers


def _members(body: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each as it was written.

    Raises:
        PolicyFault: `policy_bad_decision`: it is no JSON object, or names one member twice.
    """
    try:
        text = body.decode("utf-8")
        members: dict[str, bytes] = {}
        at = _past(text, 0, "{")
        while text[at] != "}":
            name, at = _scan(text, at)
            at = _past(text, at, ":")
            _, end = _scan(text, at)
            if not isinstance(name, str) or name in members:
                raise _bad("the OPA server's answer names a member twice")
            members[name] = text[at:end].encode()
            at = _space(text, end)
            if text[at] == ",":
                at = _space(text, at + 1)
                if text[at] == "}":
                    raise ValueError
            elif text[at] != "}":
                raise ValueError
        if _space(text, at + 1) != len(text):
            raise ValueError
    except (ValueError, IndexError, RecursionError):
        raise _bad("the OPA server's answer is not a JSON object") from None
    return members


_scan = json.JSONDecoder().raw_decode  # a value, and where it ends


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _past(text: str, at: int, mark: str) -> int:
    at = _space(text, at)
    if text[at] != mark:
        raise ValueError(mark)
    return _space(text, at + 1)


def _value(members: Mapping[str, bytes], name: str) -> Any:
    return json.loads(members[name]) if name in members else None


def _version(version: Any) -> str:
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if found is None:
        raise _not_opa("the OPA server does not say its version")
    if tuple(int(part) for part in found.groups()) < MINIMUM:
        least = ".".join(str(part) for part in MINIMUM)
        raise _not_opa(
            f"the OPA server is older than {least}",
            f"install OPA {least} or later; 1.22.2 is tested",
        )
    return found.group()


def _bundles(provenance: Mapping[str, Any]) -> Mapping[str, str]:
    """The revision of every bundle. Without one a record could not say which policy decided.

    Raises:
        PolicyFault: `policy_not_ready`.
    """
    told = provenance.get("bundles")
    if not isinstance(told, dict) or not told or len(told) > MAX_BUNDLES:
        raise _not_opa(
            "the OPA server has no bundle with a revision",
            "load the policy as a bundle whose .manifest has a revision",
        )
    found = {}
    for name, bundle in told.items():
        revision = bundle.get("revision") if isinstance(bundle, dict) else None
        usable = isinstance(revision, str) and _REVISION.fullmatch(revision)
        if not usable or not _REVISION.fullmatch(name):
            raise _not_opa(
                "a bundle of the OPA server has no usable revision",
                "give each bundle a .manifest with a revision",
            )
        found[name] = str(revision)
    return found


def _bad(message: str) -> PolicyFault:
    return PolicyFault(Code.POLICY_BAD_DECISION, message)


def _not_opa(message: str, hint: str | None = None) -> PolicyFault:
    return PolicyFault(Code.POLICY_NOT_READY, message, hint=hint)
