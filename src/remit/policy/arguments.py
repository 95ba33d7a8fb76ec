"""Arguments of builtins, where they are written out, that the two engines read differently.

What comes from data or input cannot be looked at here: `CAVEATS` of `remit.policy.builtins` and
docs/policy.md say what to mind there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from remit.policy.finding import Finding
from remit.policy.syntax import Module, Node, dotted

_PATTERN_AT: Mapping[str, int] = {
    "regex.match": 0,
    "regex.is_valid": 0,
    "regex.find_n": 0,
    "regex.find_all_string_submatch_n": 0,
    "regex.replace": 1,
}
_CLASSES = {
    "d": "write [0-9]",
    "D": "write [^0-9]",
    "w": "write [0-9A-Za-z_]",
    "W": "write [^0-9A-Za-z_]",
    "s": "write [ \\t\\n\\r\\f]",
    "S": "write [^ \\t\\n\\r\\f]",
    "b": "write (^|[^0-9A-Za-z_]) or ($|[^0-9A-Za-z_])",
    "B": "write [0-9A-Za-z_]",
    "Q": "put a backslash before each special character",
    "u": "write \\x{...}",
}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_RARE = re.compile(r"&&|--|~~|\(\?[a-zA-Z-]*x|\{,|(?<!\\)[*+?}][*+]|\[[^\]]*\[(?!:)")
_BOUND = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")
_MOST_REPEATS = 1000
_GLOB = re.compile(r"\?|\[[!^]|-\]|\*\*\*|\*\*/|\{,|,\}|,,|^[^{]*\}")
_VERB = re.compile(r"%(.?)", re.DOTALL)
_VERBS = frozenset("sdvx%")


def about_arguments(module: Module) -> Iterator[Finding]:
    """The calls of a module whose written-out arguments the engines read differently."""
    for call in module.calls():
        name, given = dotted(call["fcn"]), call["params"]
        if name in _PATTERN_AT:
            yield from _about_pattern(module, call, _text(given, _PATTERN_AT[name]))
        elif name == "glob.match":
            yield from _about_glob(module, call, _text(given, 0))
        elif name == "sprintf":
            yield from _about_format(module, call, _text(given, 0), given[1:2])
        elif name == "time.parse_duration_ns":
            yield from _about_duration(module, call, _text(given, 0))
        elif name in ("indexof", "indexof_n") and not _text(given, 1):
            yield Finding(
                module.at(call),
                f"what {name} looks for is not a text written here, or is empty",
                "write it here, or use contains: the engines differ on the empty text",
            )


def _text(given: Any, position: int) -> str | None:
    """An argument that is a string literal, as its value; None if it is anything else."""
    if position >= len(given):
        return None
    for kind in ("String", "RawString"):
        value = given[position].get(kind, {}).get("value")
        if isinstance(value, str):
            return value
    return None


def _about_pattern(module: Module, call: Node, pattern: str | None) -> Iterator[Finding]:
    if pattern is None:
        return
    for found in _ESCAPE.finditer(pattern):
        mend = _CLASSES.get(found.group(1))
        if mend is not None:
            yield Finding(
                module.at(call), f"the engines differ on {found.group(0)} in a pattern", mend
            )
            return
    rare = _RARE.search(_ESCAPE.sub("", pattern))
    if rare is not None:
        yield Finding(
            module.at(call),
            f"the engines differ on {rare.group(0)} in a pattern",
            "say it with simpler classes and repetitions",
        )
    for least, most in _BOUND.findall(pattern):
        if max(int(least), int(most or 0)) > _MOST_REPEATS:
            yield Finding(
                module.at(call),
                f"OPA refuses a pattern that repeats more than {_MOST_REPEATS} times",
                "bound the length with count",
            )


def _about_glob(module: Module, call: Node, pattern: str | None) -> Iterator[Finding]:
    found = None if pattern is None else _GLOB.search(_ESCAPE.sub("", pattern))
    if found is not None:
        yield Finding(
            module.at(call),
            f"the engines differ on {found.group(0)} in a glob pattern",
            "use *, ** and {a,b} only, or regex.match",
        )


def _about_format(
    module: Module, call: Node, form: str | None, values: list[Node]
) -> Iterator[Finding]:
    if form is None:
        return
    verbs = [found.group(1) for found in _VERB.finditer(form)]
    for verb in verbs:
        if verb not in _VERBS or not verb:
            yield Finding(
                module.at(call),
                f"the engines differ on %{verb} in sprintf",
                "use %s for texts, %d for whole numbers, %v for the rest, %x, and %%",
            )
            return
    items = values[0].get("Array", {}).get("items") if values else None
    wanted = sum(verb != "%" for verb in verbs)
    if items is not None and len(items) != wanted:
        yield Finding(
            module.at(call),
            f"sprintf has {wanted} verbs and {len(items)} values",
            "give each verb its value: else the engines give different texts, or none",
        )


def _about_duration(module: Module, call: Node, text: str | None) -> Iterator[Finding]:
    if text is not None and re.search(r"[0-9](?:d|w|y)", text):
        yield Finding(
            module.at(call),
            "the embedded engine knows no days, weeks or years in a duration",
            "write hours: 24h",
        )
