"""The portable profile `remit-rego/1`, checked on the syntax tree when a policy is loaded.

What passes means the same in the embedded engine and in OPA. Each finding has its file and line
and how to mend it. The tree comes from the engine's own parser, in a process of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from remit import canonical
from remit.errors import PolicyFault
from remit.policy import bundle as limits
from remit.policy.arguments import about_arguments
from remit.policy.branches import about_branches
from remit.policy.builtins import ALLOWED, why_refused
from remit.policy.bundle import PolicyBundle
from remit.policy.entries import about_entries, about_recursion
from remit.policy.finding import Finding, in_order
from remit.policy.forms import about_forms
from remit.policy.heads import about_heads
from remit.policy.patterns import about_patterns
from remit.policy.process import parse_frame, run_once, try_frame
from remit.policy.scopes import about_scopes
from remit.policy.syntax import Module, dotted, module_of
from remit.policy.wholes import about_mixed, about_wholes

__all__ = ["Finding", "lint", "modules_of"]

ROOT = "remit"
IMPORTS = ("rego.v1", "future.keywords.not")


def lint(bundle: PolicyBundle) -> list[Finding]:
    """What the profile refuses in a bundle, its tests included, by file and line; empty if nothing."""
    modules, findings = modules_of(bundle)
    findings += _about_size(bundle)
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
        findings += about_forms(module, modules)
        findings += about_heads(module, modules)
        findings += about_branches(module, modules)
        findings += about_patterns(module)
        findings += about_scopes(module, modules)
        findings += about_wholes(module, modules)
        findings += about_mixed(module, modules)
        findings += about_arguments(module)
    if not findings:
        findings += about_entries(modules, bundle.entries)
        findings += about_recursion(modules)
    if not findings:
        findings += _about_compiling(bundle)
    return in_order(findings)


def modules_of(bundle: PolicyBundle) -> tuple[list[Module], list[Finding]]:
    """Each module of a bundle as its tree, tests included, and a finding for each that has none."""
    texts = {**bundle.modules, **bundle.tests}
    names = sorted(texts)
    try:
        trees = json.loads(run_once(parse_frame(texts)))
    except PolicyFault:
        return _one_by_one(texts)
    return [
        module_of(name, texts[name], tree["ast"]) for name, tree in zip(names, trees, strict=True)
    ], []


def _one_by_one(texts: Mapping[str, str]) -> tuple[list[Module], list[Finding]]:
    modules: list[Module] = []
    findings: list[Finding] = []
    for name, text in sorted(texts.items()):
        try:
            trees = json.loads(run_once(parse_frame({name: text})))
        except PolicyFault as fault:
            place = fault.place or name
            findings.append(Finding(place, fault.message, _mend_of_syntax(text, place)))
        else:
            modules.append(module_of(name, text, trees[0]["ast"]))
    return modules, findings


_SYNTAX = (
    (re.compile(r'\$["`]'), "string interpolation is not portable; use concat or sprintf"),
    (re.compile(r"\b(?:and|or)\b"), "`and`/`or` are not portable; use several lines, several rules"),
    (re.compile(r"\bnot\s*\{"), "a body after `not` is not portable; give it a rule of its own"),
    (re.compile(r"\.(?:if|in|not|some|every|contains|import|package|default|else|as|with)\b"),
     "a keyword as a field is not portable; write it in brackets: x[\"if\"]"),
    (re.compile(r"^\s*[\w.\[\]]+(?:\s*:?=.*)?\s*\{"), "put `if` before the braces of a rule"),
)  # fmt: skip


def _mend_of_syntax(text: str, place: str) -> str:
    """What most likely went wrong in the line that the engine could not read."""
    number = place.split(":")[1] if ":" in place else "0"
    lines = text.split("\n")
    line = lines[int(number) - 1] if 0 < int(number) <= len(lines) else ""
    for pattern, mend in _SYNTAX:
        if pattern.search(line):
            return mend
    if "\0" in text or not text.strip():
        return "this is not a text of Rego: remove it, or write `package remit` into it"
    return "the mistake is there or just before; docs/policy.md lists the Rego that is taken"


def _about_size(bundle: PolicyBundle) -> Iterator[Finding]:
    """For bundles that were not read from files: those are refused while they are read."""
    if len(bundle.modules) > limits.MAX_MODULES:
        yield Finding("the policy", f"has more than {limits.MAX_MODULES} modules", "join some")
    for name, text in {**bundle.modules, **bundle.tests}.items():
        if len(text.encode()) > limits.MAX_MODULE_BYTES:
            most = limits.MAX_MODULE_BYTES // 1024
            yield Finding(name, f"is larger than {most} KiB", "split it")
    if len(canonical.encode(dict(bundle.data))) > limits.MAX_DATA_BYTES:
        most = limits.MAX_DATA_BYTES // 1024 // 1024
        yield Finding("data.json", f"the data is larger than {most} MiB", "keep less in it")


def _about_compiling(bundle: PolicyBundle) -> Iterator[Finding]:
    """What the engine refuses only once it has all modules: unsafe variables, conflicting data."""
    try:
        run_once(try_frame({**bundle.modules, **bundle.tests}, bundle.data, [], {}))
    except PolicyFault as fault:
        mend = "mend the policy at that place"
        if "unsafe" in fault.message or "before definition" in fault.message:
            mend = "give the name a value further up in the body, or correct its spelling"
        yield Finding(fault.place or "data.json", fault.message, mend)


def _about_module(module: Module) -> Iterator[Finding]:
    # `opa fmt` takes the import of `not` out of a module that has no `not`, where it says nothing.
    negates = any("NotExpr" in node for node in module.nodes())
    for name in IMPORTS if negates else IMPORTS[:1]:
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
