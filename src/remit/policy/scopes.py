"""Names of rules' bodies that the embedded engine takes for something else than OPA does.

A name after `some` that a rule or an import has too stands for that one, without a word, and what
it was to go through is never looked at. A name after `not` that nothing gives a value is an error
to OPA; the embedded engine evaluates it, and a denial with `not input.groups[_] == "sre"` is lost
where the list is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.policy.finding import Finding
from remit.policy.graph import declared, variables
from remit.policy.heads import COMPREHENSIONS, known_names
from remit.policy.syntax import Module, Node, dotted, nodes_in

IMPORTED = "v1"
"""What the embedded engine calls what `import rego.v1` imports."""


def about_scopes(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """Each such name."""
    known = known_names(module, modules)
    for node in module.nodes():
        yield from _about_some(module, node, known)
        if node.get("Var", {}).get("value") == IMPORTED:
            yield Finding(
                module.at(node),
                f"the name {IMPORTED} is that of `import rego.{IMPORTED}` to the embedded engine",
                "give it another name",
            )
    for rule in module.tree["rules"]:
        if "Spec" in rule:
            yield from _about_negations(module, rule["Spec"], known)
            yield from _about_looked_up(module, rule["Spec"])


def _about_some(module: Module, node: Node, known: frozenset[str]) -> Iterator[Finding]:
    match node:
        case {"SomeVars": {"vars": spans}}:
            names = {module.text_of(span) for span in spans}
        case {"SomeIn": {"key": key, "value": value}}:
            names = variables([key, value])
        case _:
            return
    for name in sorted(names & known):
        yield Finding(
            module.at(node),
            f"`some` declares {name}, which a rule, a function or an import is called too: the "
            "embedded engine takes it for that one",
            "give it another name",
        )
    if "SomeVars" in node and IMPORTED in names:
        yield Finding(module.at(node), f"`some` declares {IMPORTED}", "give it another name")


# ------------------------------------------------------------------------------------ negations


def _about_looked_up(module: Module, rule: Node) -> Iterator[Finding]:
    """Names of `every` and `walk` in brackets after `not`.

    The embedded engine does not see that they have a value: where what is looked up is absent, it
    loses the rule together with the `not`.
    """
    nodes = list(nodes_in(rule))
    given: set[str] = set()
    for node in nodes:
        match node:
            case {"Every": {"key": key, "value": value}}:
                given |= {module.text_of(span) for span in (key, value) if span}
            case {"Call": {"fcn": function, "params": [_, output]}} if dotted(function) == "walk":
                given |= variables(output)
    for negated in (node["NotExpr"] for node in nodes if "NotExpr" in node):
        for node in nodes_in(negated):
            if "RefBrack" in node and (names := variables(node["RefBrack"]["index"]) & given):
                yield Finding(
                    module.at(node),
                    f"{min(names)}, a name of `every` or `walk`, stands in brackets after `not`: "
                    "where nothing is found there, the embedded engine loses the rule",
                    "put it into a function (`not listed(name)`), where both engines agree",
                )


def _about_negations(module: Module, rule: Node, known: frozenset[str]) -> Iterator[Finding]:
    (head,) = rule["head"].values()
    arguments = variables(head.get("args", []))
    bound = arguments.union(*(_bound(body["query"]["stmts"]) for body in rule["bodies"]))
    own = declared(module, rule)
    scopes = [*_negations(module, head, bound), *_negations(module, rule["bodies"], arguments)]
    for negated, given in scopes:
        for name in sorted(_free(negated["expr"]) - given - (known - own)):
            yield Finding(
                module.at(negated["expr"]),
                f"{name} stands after `not` and nothing gives it a value: OPA refuses that, the "
                "embedded engine may hold or lose the rule",
                "give the name a value before, or write a rule that holds and put `not` before it",
            )


def _negations(module: Module, node: Any, outer: set[str]) -> Iterator[tuple[Node, set[str]]]:
    """Each `not` below, with the names that have a value where it stands."""
    if isinstance(node, list):
        for item in node:
            yield from _negations(module, item, outer)
    elif isinstance(node, Mapping):
        if "NotExpr" in node:
            yield node["NotExpr"], outer
        if "stmts" in node:
            outer = outer | _bound(node["stmts"])
        elif "Every" in node:
            every = node["Every"]
            spans = [span for span in (every["key"], every["value"]) if span]
            yield from _negations(module, every["domain"], outer)
            inner = outer | {module.text_of(span) for span in spans}
            yield from _negations(module, every["query"], inner)
            return
        elif "query" in node:
            inner = outer | _bound(node["query"]["stmts"])
            yield from _negations(module, node["query"], outer)
            beside = [value for key, value in node.items() if key != "query"]
            yield from _negations(module, beside, inner)
            return
        yield from _negations(module, list(node.values()), outer)


def _bound(statements: Sequence[Node]) -> set[str]:
    """The names in conditions that are not negated, as far as those can give them a value."""
    literals = (statement["literal"] for statement in statements)
    return set[str]().union(
        *(
            _free(each["Every"]["domain"] if "Every" in each else each)
            for each in literals
            if "NotExpr" not in each and "SomeVars" not in each
        )
    ) - {"_"}


def _free(node: Any) -> set[str]:
    """The plain names in an expression, outside comprehensions; not what is called."""
    if isinstance(node, list):
        return set[str]().union(*map(_free, node))
    if not isinstance(node, Mapping) or node.keys() & COMPREHENSIONS:
        return set()
    if "Var" in node:
        return {str(node["Var"]["value"])}
    return set[str]().union(*(_free(value) for key, value in node.items() if key != "fcn"))
