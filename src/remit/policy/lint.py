"""The portable profile `remit-rego/1`, checked on the syntax tree when a policy is loaded.

What passes means the same in the embedded engine and in OPA. Each finding has its file and line
and how to mend it. The tree comes from the engine's own parser, in a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from remit.errors import Code, ConfigError, PolicyFault
from remit.policy.builtins import ALLOWED, why_refused
from remit.policy.bundle import PolicyBundle
from remit.policy.process import parse_frame, run_once, try_frame
from remit.policy.syntax import Module, Node, default_of, dotted, module_of

ROOT = "remit"
IMPORTS = ("rego.v1", "future.keywords.not")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the profile refuses: where, what, and how to mend it."""

    place: str
    message: str
    mend: str

    def error(self, *, of: int = 1) -> ConfigError:
        """The error that a start with this policy ends in; `of` counts all findings."""
        more = f" (and {of - 1} more)" if of > 1 else ""
        return ConfigError(
            Code.POLICY_INVALID, self.message + more, place=self.place, hint=self.mend
        )


def lint(bundle: PolicyBundle) -> list[Finding]:
    """What the profile refuses in a bundle, its tests included; empty if nothing."""
    modules, findings = modules_of(bundle)
    if ROOT in bundle.data:
        findings.append(
            Finding(
                "data.json",
                f"the data has the top-level key `{ROOT}`, which would replace rules",
                "give the data another name, for example `grants`",
            )
        )
    for module in modules:
        findings += _about_module(module)
        findings += _about_calls(module, modules)
    if not findings:
        findings += _about_entry(modules)
        findings += _about_recursion(modules)
        findings += _about_compiling(bundle)
    return findings


def modules_of(bundle: PolicyBundle) -> tuple[list[Module], list[Finding]]:
    """Each module of a bundle as its tree, tests included, and a finding for each that has none."""
    modules: list[Module] = []
    findings: list[Finding] = []
    for name, text in sorted({**bundle.modules, **bundle.tests}.items()):
        try:
            trees = json.loads(run_once(parse_frame({name: text})))
        except PolicyFault as fault:
            mend = "docs/policy.md lists the Rego that the embedded engine does not have"
            findings.append(Finding(fault.place or name, fault.message, mend))
        else:
            modules.append(module_of(name, text, trees[0]["ast"]))
    return modules, findings


def _about_compiling(bundle: PolicyBundle) -> Iterator[Finding]:
    """What the engine refuses only once it has all modules: unsafe variables, conflicting data."""
    try:
        run_once(try_frame({**bundle.modules, **bundle.tests}, bundle.data, [], {}))
    except PolicyFault as fault:
        yield Finding(fault.place or "data.json", fault.message, "mend the policy at that place")


def _about_module(module: Module) -> Iterator[Finding]:
    for name in IMPORTS:
        if name not in module.imports:
            yield Finding(
                f"{module.name}:1",
                f"the module does not import {name}",
                f"add `import {name}` below the package line",
            )
    for name, line in module.imports.items():
        if name.split(".")[0] not in ("data", "input") and name not in IMPORTS:
            yield Finding(
                f"{module.name}:{line}",
                f"the import {name} is not in the portable profile",
                "the profile needs only " + " and ".join(f"`import {name}`" for name in IMPORTS),
            )
    if module.package != ROOT and not module.package.startswith(f"{ROOT}."):
        yield Finding(
            f"{module.name}:1",
            f"the package {module.package} is not under `{ROOT}`",
            f"write `package {ROOT}` or `package {ROOT}.<name>`",
        )
    if module.is_test:
        return
    for node in module.nodes():
        if node.get("with_mods"):
            yield Finding(
                module.at(node["with_mods"][0]),
                "`with` stands outside a test",
                "keep `with` to files named *_test.rego",
            )


def _about_calls(module: Module, modules: Sequence[Module]) -> Iterator[Finding]:
    """Each called name must be an allowed builtin or a function of the bundle."""
    functions = {name for other in modules for name in other.functions}
    for call in module.calls():
        name = dotted(call["fcn"])
        why = why_refused(name)
        if why is not None:
            yield Finding(module.at(call), f"the builtin {name} is refused", why)
        elif name not in ALLOWED and not module.resolve(name) & functions:
            yield Finding(
                module.at(call),
                f"{name} is neither a builtin of the portable profile nor a function of this policy",
                "docs/policy.md lists the builtins",
            )


def _about_entry(modules: Sequence[Module]) -> Iterator[Finding]:
    """`data.remit.decision` must exist, and deny where no rule says otherwise."""
    fallbacks = [
        (module, node)
        for module in modules
        if module.package == ROOT and not module.is_test
        for node in default_of(module, "decision")
    ]
    mend = 'start from `default decision := {"schema": "remit.decision/1", "decision": "deny", …}`'
    if not fallbacks:
        yield Finding(f"package {ROOT}", "there is no default for the rule `decision`", mend)
    for module, node in fallbacks:
        if _field(node["value"], "decision") != "deny":
            yield Finding(module.at(node), "the default of `decision` is not a denial", mend)


def _field(node: Node, name: str) -> object:
    """A string field of an object literal, None if it is anything else."""
    for _, key, value in node.get("Object", {}).get("fields", ()):
        if key.get("String", {}).get("value") == name:
            return value.get("String", {}).get("value")
    return None


def _about_recursion(modules: Sequence[Module]) -> Iterator[Finding]:
    """A function that calls itself, which OPA refuses and which would crash the embedded engine."""
    called: dict[str, set[str]] = {}
    where: dict[str, str] = {}
    for module in modules:
        for name, node in module.definitions():
            where.setdefault(name, module.at(node))
            targets = called.setdefault(name, set())
            for call in module.calls_in(node):
                targets |= module.resolve(dotted(call["fcn"]))
    for name, place in sorted(where.items()):
        if name in _reachable(name, called):
            yield Finding(
                place, "a function calls itself", "write the loop with `some`, `every` or `walk`"
            )


def _reachable(start: str, called: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in called.get(todo.pop(), ()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen
