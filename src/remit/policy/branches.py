"""Functions with `else` that may give no value where their conditions hold.

OPA then goes on to the next `else`. The embedded engine ends there: the function has no value, or,
where its first part gives none by name, it is true, which would let an allow hold that must not.
So in such a function a value is always there once its conditions hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.policy.finding import Finding
from remit.policy.graph import declared
from remit.policy.heads import COMPREHENSIONS, known_names, total_functions, unsettled
from remit.policy.syntax import Module, Node, default_of


def about_branches(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """Each part of a function with `else` that may have no value."""
    functions = [
        (name, rule)
        for name, rule in module.rules()
        if "Func" in rule["head"] and any(body["is_else"] for body in rule["bodies"])
    ]
    if not functions:
        return
    total = total_functions(module, modules, known_names(module, modules))
    constant = _always_there(module, modules)
    for name, rule in functions:
        head = rule["head"]["Func"]
        otherwise = [body for body in rule["bodies"] if body["is_else"]]
        if head["assign"]:
            for body in otherwise:
                if not body["assign"]:
                    yield _without(module, body, name)
        values = [part["assign"]["value"] for part in (head, *otherwise) if part["assign"]]
        if head["assign"] and otherwise[-1]["assign"]:
            values.pop()  # after the last there is nothing to go on to
        own = declared(module, rule)
        for value in values:
            found = unsettled(value, frozenset(), total) or _rule_in(
                value, known_names(module, modules) - own - constant
            )
            if found is not None:
                yield Finding(
                    module.at(found),
                    f"this value of the function {name} may be absent although its conditions "
                    "hold; OPA then goes on to the next `else`, the embedded engine does not",
                    "give it a name in the body (`value := …`) and put the name there",
                )


def _without(module: Module, body: Node, name: str) -> Finding:
    return Finding(
        module.at(body),
        f"an `else` of the function {name} gives no value: to OPA it is true, to the embedded "
        "engine it is undefined",
        "write `else := true if`",
    )


def _always_there(module: Module, modules: Sequence[Module]) -> frozenset[str]:
    """The rules of this package that have a value whatever the input is."""
    own = [other for other in modules if other.package == module.package]
    names: set[str] = set()
    for other in own:
        for name, rule in other.rules():
            first = name.partition(".")[0]
            if "Set" in rule["head"] or list(default_of(other, first)):
                names.add(first)
    return frozenset(names)


def _rule_in(node: Any, rules: frozenset[str]) -> Node | None:
    """The first name of a rule in a value, outside comprehensions."""
    if isinstance(node, list):
        return next(filter(None, (_rule_in(item, rules) for item in node)), None)
    if not isinstance(node, Mapping) or node.keys() & COMPREHENSIONS:
        return None
    if "Var" in node:
        return node if node["Var"]["value"] in rules else None
    below = [value for key, value in node.items() if key != "fcn"]
    return _rule_in(below, rules)
