"""What one run may reach, and what of it needs TLS to end at the proxy."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from remit.addresses import plain_host
from remit.runners.egress.refusals import Refusal, Unwilling

MAX_RULES = 512

_PCHAR = r"-A-Za-z0-9._~!$&'()*+,;=:@"
_TARGET = re.compile(rf"/[{_PCHAR}/%]*(?:\?[\x21-\x22\x24-\x7e]*)?")
_PLAIN_SEGMENT = re.compile(rf"(?:[{_PCHAR}]|%[0-9A-Fa-f]{{2}})+")
_DOUBTFUL = re.compile(rb"[\x00-\x1f\x7f/\\%]")

_OTHER_METHOD = frozenset({b"x-http-method", b"x-http-method-override", b"x-method-override"})
_OTHER_PATH = frozenset({b"destination", b"x-original-url", b"x-rewrite-url"})
"""Headers by which servers take a request for one of another method or path: `Destination` of
WebDAV (RFC 4918 §10.3), the others of frameworks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One destination; methods or path None: any."""

    host: str
    port: int
    methods: frozenset[str] | None = None
    path_prefix: str | None = None


def read_rules(facts: Iterable[dict[str, Any]]) -> tuple[Rule, ...]:
    """Rules as the gateway sends them.

    Raises:
        Unwilling: one is not plain, or there are too many.
    """
    found = tuple(
        Rule(
            host=str(each["host"]),
            port=int(each["port"]),
            methods=None if each.get("methods") is None else frozenset(each["methods"]),
            path_prefix=each.get("path_prefix"),
        )
        for each in facts
    )
    plain = all(
        plain_host(rule.host)
        and 1 <= rule.port <= 65_535
        and (rule.path_prefix is None or plain_path(rule.path_prefix))
        for rule in found
    )
    if not plain or len(found) > MAX_RULES:
        raise Unwilling("a rule is not plain")
    return found


def split_target(target: str) -> tuple[str, str]:
    """Path and query (with its `?`) of a request target in origin form.

    Raises:
        Refusal: `malformed`; it has other characters than RFC 3986 §3.3 and §3.4 allow.
    """
    if _TARGET.fullmatch(target) is None:
        raise Refusal("malformed")
    path, mark, query = target.partition("?")
    return path, mark + query


def plain_path(path: str) -> bool:
    """Whether every server reads this path the same way.

    No empty segment but the last, none of dots and spaces only (with or without parameters behind
    `;`), and no percent-encoded dot segment, separator, percent sign, control character or broken
    UTF-8.
    """
    if not path.startswith("/"):
        return False
    segments = path.split("/")[1:]
    if segments and segments[-1] == "":
        segments.pop()
    return all(map(_plain_segment, segments))


def _plain_segment(segment: str) -> bool:
    if _PLAIN_SEGMENT.fullmatch(segment) is None:
        return False
    decoded = unquote_to_bytes(segment)
    if _DOUBTFUL.search(decoded) is not None:
        return False
    try:
        # Full-width and other forms of `.`, `/` and `\\` are these for servers that fold them.
        folded = unicodedata.normalize("NFKC", decoded.decode("utf-8"))
    except UnicodeDecodeError:
        return False
    return not {"/", "\\"} & {*folded} and folded.split(";", 1)[0].strip(" .") != ""


def covers(prefix: str | None, path: str) -> bool:
    """Whether the path begins with the prefix's segments, byte for byte; None covers all."""
    if prefix is None:
        return True
    stem = prefix.rstrip("/")
    return path == stem or path.startswith(stem + "/")


def path_key(path: str) -> bytes:
    """What a path comes to after any decoding and shortening that a client may do to it."""
    kept: list[bytes] = []
    for part in re.split(rb"[/\\]", unquote_to_bytes(unquote_to_bytes(path))):
        if part == b"..":
            del kept[-1:]
        elif part not in (b"", b"."):
            kept.append(part)
    return b"/".join(kept)


class Rules:
    """A run's rules by destination."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._by_place: dict[tuple[str, int], list[Rule]] = {}
        for rule in rules:
            self._by_place.setdefault((rule.host, rule.port), []).append(rule)

    def names(self, host: str, port: int) -> bool:
        """Whether any rule is about this destination."""
        return (host, port) in self._by_place

    def open(self, host: str, port: int) -> bool:
        """Whether everything is allowed there, so that nobody has to look into it."""
        return any(
            rule.methods is None and rule.path_prefix is None
            for rule in self._by_place.get((host, port), ())
        )

    def check(
        self,
        host: str,
        port: int,
        method: str,
        path: str,
        names: frozenset[bytes] = frozenset(),
        *,
        strict: bool,
    ) -> None:
        """Let this request through or not.

        Args:
            names: of its headers, in lower case and with `-` for `_`.
            strict: a path decides there for another reason too (an injected credential's).

        Raises:
            Refusal: `not_allowed`, `path` or `method`.
        """
        rules = self._by_place.get((host, port))
        if rules is None:
            raise Refusal("not_allowed")
        decides = strict or any(rule.path_prefix is not None for rule in rules)
        if decides and (not plain_path(path) or names & _OTHER_PATH):
            raise Refusal("path")
        fitting = [rule for rule in rules if covers(rule.path_prefix, path)]
        if not fitting:
            raise Refusal("path")
        if any(rule.methods is None for rule in fitting):
            return
        if names & _OTHER_METHOD or not any(method in (rule.methods or ()) for rule in fitting):
            raise Refusal("method")
