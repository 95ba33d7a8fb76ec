"""AWS credentials for one run: AssumeRoleWithWebIdentity with a session policy.

The run's token of Remit's issuer is the web identity; no AWS key is kept. AWS gives no session a
shorter life than 900 s and cannot revoke one. So each session's policy also denies everything from
the end of the run on, and the loan says both.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.parsers import expat

from remit.canonical import encode, parse
from remit.errors import Code, ConfigError, InputError
from remit.runners.credentials.broker import Advance, BrokerFault, Held, Kit, Order
from remit.runners.credentials.http import (
    Answer,
    Service,
    bounded,
    required_issuer,
    seconds_left,
)

SHORTEST_S = 900
LONGEST_S = 43_200
SKEW_S = 300
"""How far AWS's clock and ours may differ before an answer is taken for a longer one than asked."""

MAX_POLICY = 2_048
"""Longest session policy, in characters; AWS may refuse shorter ones too, by how they pack."""

LOGIN_TTL_S = 120

_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::[0-9]{12}:role/(?:[!-~]+/)?([\w+=,.@-]{1,64})")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}")
_MAX_DEPTH = 8
_RESULT = ("AssumeRoleWithWebIdentityResponse", "AssumeRoleWithWebIdentityResult")

_SAID = {
    "AccessDenied": "the role's trust policy does not take this run's token",
    "ExpiredTokenException": "the token had expired: compare the two clocks",
    "IDPCommunicationError": "AWS cannot fetch the keys of Remit's issuer",
    "IDPRejectedClaim": "the token's claims are not accepted",
    "InvalidIdentityToken": "the issuer is no identity provider of that account, or its "
    "audiences lack the one of this section",
    "MalformedPolicyDocument": "the session policy is not one that AWS takes",
    "PackedPolicyTooLarge": "the session policy is too large",
    "RegionDisabledException": "STS is switched off in that region for the account",
    "ValidationError": "a value of the section is not one that AWS takes, or the run is longer "
    "than the role's MaxSessionDuration",
}

Statement = Mapping[str, Any]


class AwsBroker:
    """One role, narrowed by one session policy.

    Scopes of an order are `Sid`s of the policy's Allow statements; only those statements go along,
    with every statement that is not an Allow. Promises that a session which is another's, or
    longer than asked, is not lent.

    Raises:
        ConfigError: the role, region, endpoint or policy is not plain; there is no issuer.
    """

    gives = frozenset({"access_key_id", "secret_access_key", "session_token", "expiration"})

    def __init__(self, kit: Kit) -> None:
        section = kit.section
        self._issuer = required_issuer(kit.issuer)
        self._now = kit.now
        role = _ROLE.fullmatch(section["role_arn"])
        if role is None:
            raise _wrong("this is no role's ARN", "role_arn")
        self._role_arn, self._role_name = role.group(0), role.group(2)
        self._audience = str(section["audience"])
        self._statements = _statements(section.get("policy"))
        allows = [each for each in self._statements if each["Effect"] == "Allow"]
        # Without a policy of the section there is nothing to leave out.
        self.narrows = section.get("policy") is not None and all("Sid" in each for each in allows)
        endpoint = section.get("endpoint") or _endpoint(section["region"])
        self._service = Service(endpoint, name="AWS STS", place="endpoint")
        # What would be sent is looked at now, not in the first run.
        _policy(self._statements, 0)

    async def lend(self, order: Order) -> Advance:
        """Assume the role in a session that is named after the run."""
        async with bounded("AWS STS"):
            left_s = seconds_left(order.ends_ms, self._now())
            asked_s = min(max(left_s, SHORTEST_S), LONGEST_S)
            session = re.sub(r"[^\w+=,.@-]", "-", f"remit-{order.run_id}", flags=re.ASCII)[:64]
            token = self._issuer.mint(
                order.audience or self._audience, order, min(LOGIN_TTL_S, left_s)
            )
            answer = await self._service.ask(
                "POST",
                "/",
                form={
                    "Action": "AssumeRoleWithWebIdentity",
                    "Version": "2011-06-15",
                    "RoleArn": self._role_arn,
                    "RoleSessionName": session,
                    "WebIdentityToken": token,
                    "DurationSeconds": str(asked_s),
                    "Policy": _policy(self._chosen(order.scopes), order.ends_ms),
                },
            )
        return self._advance(order, answer, session, asked_s)

    async def revoke(self, held: Held) -> bool:
        """There is no way; the session policy ends it with the run's time."""
        return False

    async def aclose(self) -> None:
        await self._service.aclose()

    def _chosen(self, scopes: Sequence[str]) -> Sequence[Statement]:
        if not scopes:
            return self._statements
        known = {each.get("Sid") for each in self._statements if each["Effect"] == "Allow"}
        if not self.narrows or not known.issuperset(scopes):
            raise BrokerFault("a scope of the plan is no Sid of the session policy")
        return [
            each for each in self._statements if each["Effect"] != "Allow" or each["Sid"] in scopes
        ]

    def _advance(self, order: Order, answer: Answer, session: str, asked_s: int) -> Advance:
        facts = _texts(answer)
        if not answer.ok:
            code = facts.get(("ErrorResponse", "Error", "Code"), "")
            why = _SAID.get(code.removesuffix("Exception")) or _SAID.get(code)
            said = f": {why}" if why else ""
            raise BrokerFault(f"AWS STS refused the role with status {answer.status}{said}")
        arn = facts.get((*_RESULT, "AssumedRoleUser", "Arn"), "")
        if not arn.endswith(f":assumed-role/{self._role_name}/{session}"):
            raise BrokerFault("AWS STS answered with a session of another role or name")
        inside = (*_RESULT, "Credentials")
        named = {path[-1]: text for path, text in facts.items() if path[:-1] == inside}
        fields = {
            "access_key_id": answer.text(named, "AccessKeyId"),
            "secret_access_key": answer.text(named, "SecretAccessKey"),
            "session_token": answer.text(named, "SessionToken"),
            "expiration": answer.text(named, "Expiration"),
        }
        expires_ms = _time_ms(fields["expiration"])
        if expires_ms > self._now() + (asked_s + SKEW_S) * 1000:
            raise BrokerFault("AWS STS answered with a longer life than was asked for")
        return Advance(
            fields=fields,
            secrets=(fields["secret_access_key"], fields["session_token"]),
            expires_ms=expires_ms,
            lease=arn,
            note=f"AWS cannot revoke it; its session policy denies all from {_iso(order.ends_ms)}",
        )


def _endpoint(region: str) -> str:
    if not _REGION.fullmatch(region):
        raise _wrong("this is no region", "region")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://sts.{region}.{suffix}"


def _statements(policy: str | None) -> Sequence[Statement]:
    """The statements of the section's policy; all that the role may, where there is none."""
    if policy is None:
        return [{"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}]
    try:
        found = parse(policy.encode("utf-8"), max_depth=16)
    except InputError as error:
        raise _wrong(f"the session policy cannot be read: {error.message}", "policy") from None
    statements = found.get("Statement") if isinstance(found, dict) else None
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or found.keys() - {"Version", "Id", "Statement"}:
        raise _wrong("a session policy is an object with Version and Statement", "policy")
    if found.get("Version") != "2012-10-17":
        raise _wrong('the policy\'s Version has to be "2012-10-17"', "policy")
    for each in statements:
        if not isinstance(each, dict) or each.get("Effect") not in ("Allow", "Deny"):
            raise _wrong("each statement is an object whose Effect is Allow or Deny", "policy")
        if "Sid" in each and not re.fullmatch(r"[A-Za-z0-9]{1,64}", str(each["Sid"])):
            raise _wrong("a Sid has letters and digits only", "policy")
    sids = [each["Sid"] for each in statements if "Sid" in each]
    if len(sids) != len(set(sids)):
        raise _wrong("two statements have the same Sid", "policy")
    return statements


def _policy(statements: Sequence[Statement], ends_ms: int) -> str:
    """The session policy that is sent; its last statement ends the session with the run."""
    over = {"DateGreaterThan": {"aws:CurrentTime": _iso(ends_ms)}}
    last = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": over}
    text = encode({"Version": "2012-10-17", "Statement": [*statements, last]}).decode("utf-8")
    if len(text) > MAX_POLICY:
        raise _wrong(f"the session policy has more than {MAX_POLICY} characters", "policy")
    return text


def _texts(answer: Answer) -> dict[tuple[str, ...], str]:
    """The text of each element by its path, without namespaces.

    Raises:
        BrokerFault: it is no XML, has a document type (and so could have entities), or says
            something twice.
    """
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    parser = expat.ParserCreate("UTF-8")

    def started(name: str, _: Mapping[str, str]) -> None:
        path.append(name)
        if len(path) > _MAX_DEPTH or tuple(path) in found:
            raise ValueError("deep, or said twice")
        found[tuple(path)] = ""

    def ended(_: str) -> None:
        path.pop()

    def text(data: str) -> None:
        found[tuple(path)] += data

    def refused(*_: object) -> None:
        raise ValueError("a document type")

    parser.StartElementHandler = started
    parser.EndElementHandler = ended
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refused
    parser.EntityDeclHandler = refused
    try:
        parser.Parse(answer.content, True)
    except (expat.ExpatError, ValueError):
        raise BrokerFault(
            f"AWS STS answered {answer.status} with no XML that can be read"
        ) from None
    return {place: words.strip() for place, words in found.items()}


def _time_ms(text: str) -> int:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise BrokerFault("AWS STS answered without a usable Expiration")
    return int(found.timestamp() * 1000)


def _iso(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms // 1000, datetime.UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def _wrong(message: str, place: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, place=place)
