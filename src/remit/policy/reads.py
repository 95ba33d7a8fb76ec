"""Which parts of the input a rule reads, found on the syntax trees, and more rather than fewer.

From a rule everything is followed that it names: rules and functions, in its package or another,
through imports. Where the tree does not show which part of the input is meant, because `input` is
handed on whole, bound to a name, replaced by `with` or indexed by a variable, all that could be
meant counts as read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit.errors import PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.graph import Path, below, defined, meets, written
from remit.policy.process import parse_frame, run_once
from remit.policy.syntax import Module, Node, module_of

VISIBLE, RESULT = "visible", "result"
MAX_KNOWN = 64
ALL = frozenset({"input"})
"""What is read where nobody can tell."""

STEADY: frozenset[Path] = frozenset({
    ("schema",), ("phase",), ("caller",), ("tools",),
    # Empty in every question about what may be seen, which is never about one call.
    ("tool",), ("arguments",), ("arguments_meta",), ("answers",), ("plan",), ("preview",),
    ("approvals",), ("result",), ("context", "environment"), ("context", "call_digest"),
})  # fmt: skip
"""What stays as it is for one caller and one set of tools; all else may change from call to call."""

_CLOCKS = frozenset({"http.send", "net.lookup_ip_addr", "opa.runtime", "time.now_ns"})
_RANDOM = ("rand.", "uuid.")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a bundle from its syntax.

    `passing` is what its rule `visible` may read that changes from call to call; `results` are
    the entries that have a rule `result`.
    """

    passing: frozenset[str]
    results: tuple[str, ...]


def passing_reads(bundle: PolicyBundle) -> frozenset[str]:
    """What the rule `visible` of a bundle may read that changes from call to call.

    Gives dotted paths such as `context.time` and `history`, `input` for all of it, and the name
    of a builtin whose answer changes by itself. Empty: for one caller and tool, and one revision,
    the rule always gives the same. The first time for a revision takes about 0.1 s.
    """
    return known_of(bundle).passing


def known_of(bundle: PolicyBundle) -> Known:
    """What is known of a bundle; the first time for a revision takes about 0.1 s.

    Where the syntax is one that only OPA knows, more is taken to be there rather than less.
    """
    known = _known.get(bundle.revision)
    if known is None:
        known = _found(bundle)
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[bundle.revision] = known
    return known


_known: dict[str, Known] = {}


def _found(bundle: PolicyBundle) -> Known:
    names = sorted(bundle.modules)
    try:
        trees = json.loads(run_once(parse_frame(dict(bundle.modules))))
        modules = [
            module_of(name, bundle.modules[name], tree["ast"])
            for name, tree in zip(names, trees, strict=True)
        ]
    except (PolicyFault, ValueError):  # syntax that only OPA knows
        written_so = any(map(_RESULT.search, bundle.modules.values()))
        return Known(ALL, bundle.entries if written_so else _in_data(bundle))
    passing = passing_in(modules, [(*entry.split("."), VISIBLE) for entry in bundle.entries])
    rules = [name for _, name, _ in defined(modules)]
    ruled = {
        entry
        for entry in bundle.entries
        if any(meets(name, (*entry.split("."), RESULT)) for name in rules)
    }
    held = ruled.union(_in_data(bundle))
    return Known(passing, tuple(entry for entry in bundle.entries if entry in held))


_RESULT = re.compile(r"^\s*(?:default\s+)?(?:\w+\.)*result\b", re.MULTILINE)
"""How a rule of that name begins where nothing but the text can be read."""


def _in_data(bundle: PolicyBundle) -> tuple[str, ...]:
    """The entries for which the bundle's data, and no rule, holds a `result`."""
    found = []
    for entry in bundle.entries:
        node: Any = bundle.data
        for step in (*entry.split("."), RESULT):
            node = node.get(step) if isinstance(node, Mapping) else None
        if node is not None:
            found.append(entry)
    return tuple(found)


def passing_in(modules: Sequence[Module], rules: Iterable[Path]) -> frozenset[str]:
    """As `passing_reads`, from trees and the full names of the rules to start from."""
    passing = {path for path in _reads(modules, rules) if not _steady(path)}
    return ALL if () in passing else frozenset(".".join(path) for path in passing)


def _steady(path: Path) -> bool:
    return any(path[: len(known)] == known for known in STEADY)


def _reads(modules: Sequence[Module], rules: Iterable[Path]) -> Iterator[Path]:
    """Each path of the input that is read from these rules on; `()` is all of it."""
    todo = list(rules)
    followed: set[Path] = set()
    seen: set[int] = set()
    while todo:
        target = todo.pop()
        if target in followed:
            continue
        followed.add(target)
        for module, name, node in defined(modules):
            if id(node) in seen or not meets(name, target):
                continue
            seen.add(id(node))
            for root, path in _named(module, node):
                if root == "input":
                    yield path
                else:
                    todo.append(path)


def _named(module: Module, node: Any) -> Iterator[tuple[str, Path]]:
    """What a tree names: ("input", a path of it) or ("data", the full name of a rule)."""
    todo: list[Any] = [node]
    while todo:
        found = todo.pop()
        if isinstance(found, list):
            todo.extend(found)
        elif isinstance(found, Mapping):
            if found.get("with_mods"):
                yield "input", ()
            if "Var" in found or "RefDot" in found or "RefBrack" in found:
                yield from _referred(module, found)
            todo.extend(below(found))


def _referred(module: Module, node: Node) -> Iterator[tuple[str, Path]]:
    """What one reference may stand for; a local name that hides a rule or an import counts twice."""
    path = written(node)
    if not path:
        return
    dotted = ".".join(path)
    if dotted in _CLOCKS or dotted.startswith(_RANDOM):
        yield "input", (dotted,)
    first, rest = path[0], path[1:]
    if first in ("input", "data"):
        yield first, rest
        return
    yield "data", (*module.package.split("."), *path)
    alias = module.aliases.get(first)
    if alias is not None:
        root, *through = alias.split(".")
        if root in ("input", "data"):
            cut = through.index("?") if "?" in through else None
            yield root, (*through[:cut], *(rest if cut is None else ()))
