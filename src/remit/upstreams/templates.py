"""Whether a URI is one of those that a template of a server stands for (RFC 6570, read narrowly).

An expression stands for at least one character: without an operator, or with `.` or `;`, for none of
`/`, `?` and `#`; with `+`, `#`, `/`, `?` or `&` for any. Whatever else the expression asks for is
the server's matter. Takes time in proportion to the URI's length, whatever the template says.
"""

from __future__ import annotations

import re

from remit.errors import Code, InputError

MAX_EXPRESSIONS = 16
MAX_URI = 2_048
"""Characters of a URI, and of a template."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_EXPRESSION = re.compile(r"\{([+#./;?&]?)([A-Za-z0-9_.,%*:-]+)\}")
_WIDE = frozenset("+#/?&")
_ENDS = frozenset("/?#")


class Template:
    """A template that URIs can be held against.

    Raises:
        InputError: `catalog_invalid`: it has no scheme of its own, or is none that is understood.
    """

    def __init__(self, text: str) -> None:
        found = _SCHEME.match(text)
        if found is None or len(text) > MAX_URI:
            raise InputError(Code.CATALOG_INVALID, "a template begins with no scheme")
        pieces = _EXPRESSION.split(text)
        literals, operators = pieces[::3], pieces[1::3]
        if any(set(each) & set("{}") for each in literals) or len(operators) > MAX_EXPRESSIONS:
            raise InputError(Code.CATALOG_INVALID, "a template is none that is understood")
        self._literals = literals
        self._wide = [operator in _WIDE for operator in operators]

    @property
    def head(self) -> str:
        """What each of them begins with."""
        return self._literals[0]

    @property
    def expressions(self) -> int:
        """How many there are in it, by which looking takes its time."""
        return len(self._wide)

    def covers(self, uri: str) -> bool:
        """Whether the URI is one of them."""
        first = self._literals[0]
        if len(uri) > MAX_URI or not uri.startswith(first):
            return False
        reached = [False] * (len(uri) + 1)
        reached[len(first)] = True
        for wide, literal in zip(self._wide, self._literals[1:], strict=True):
            reached = _behind(_through(reached, uri, wide=wide), uri, literal)
        return reached[-1]


def _through(reached: list[bool], uri: str, *, wide: bool) -> list[bool]:
    """Where an expression can end that begins at one of these places."""
    after = [False] * len(reached)
    for place, char in enumerate(uri):
        after[place + 1] = (reached[place] or after[place]) and (wide or char not in _ENDS)
    return after


def _behind(reached: list[bool], uri: str, literal: str) -> list[bool]:
    after = [False] * len(reached)
    for place, here in enumerate(reached):
        if here and uri.startswith(literal, place):
            after[place + len(literal)] = True
    return after
