"""The library: policies that are used by name from `remit.yaml`, with data only.

Each is a package `remit.library.<name>` with its own rules `decision` and `visible`, asked beside
the operator's own policy; the strictest answer holds. So a policy of the library restricts, and
what it has no objection to is still for the others to permit (docs/policies/README.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import jsonschema

from remit.errors import Code, ConfigError, PolicyFault
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.process import run_once, try_frame

PACKAGE = "remit.library"
DATA_KEY = "library"

_BLANK = r"(?:\s|#[^\n]*)*"
_IN_LIBRARY = re.compile(
    rf"{_BLANK}package\b{_BLANK}remit{_BLANK}(?:\[|\.{_BLANK}library\b)"
)  # what a bracket holds can be spelt in many ways, so beside the library none is allowed


def names() -> Sequence[str]:
    """The names of the policies of the library, sorted."""
    return sorted(found.name for found in _ROOT.iterdir() if found.is_dir())


def data_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the data that an operator may give to a policy.

    Raises:
        ConfigError: `policy_invalid` if there is no such policy.
    """
    return _json(_named(name), "data.schema.json")


def default_data(name: str) -> dict[str, Any]:
    """The data that a policy has where the operator gives none.

    Raises:
        ConfigError: `policy_invalid` if there is no such policy.
    """
    return _json(_named(name), "data.json")


def with_library(
    bundle: PolicyBundle | None,
    use: Mapping[str, Mapping[str, Any]],
    *,
    tests: bool = False,
) -> PolicyBundle:
    """A bundle with policies of the library as further entries.

    Args:
        bundle: the operator's own policy, which is asked too; None: only those of the library.
        use: the name of each policy and the operator's data for it. A key of the data replaces
            the default of that key as a whole; the other defaults stay.
        tests: whether the library's own tests are put in, for whoever runs them.

    The bundle is not changed. Its digest covers the policies and their data, so that a new version
    of the library is a new revision.

    Raises:
        ConfigError: `policy_invalid` with the place: an unknown policy or key, data that does not
            fit the schema or that the engine cannot use, or a bundle that already speaks for the
            library.
    """
    if bundle is not None and not use:
        return bundle
    if bundle is not None:
        _refuse_overlap(bundle)
    settings = {name: _settings(name, use[name]) for name in sorted(use)}
    modules = {_module(name): _text(_named(name), "policy.rego") for name in settings}
    checks = {
        f"{DATA_KEY}/{name}/policy_test.rego": _text(_named(name), "policy_test.rego")
        for name in settings
        if tests
    }
    _refuse_unusable(modules, settings)
    entries = tuple(f"{PACKAGE}.{name}" for name in settings)
    if bundle is None:
        return bundle_of(modules, {DATA_KEY: settings}, checks, entries=entries)
    return bundle_of(
        {**bundle.modules, **modules},
        {**bundle.data, DATA_KEY: settings},
        {**bundle.tests, **checks},
        label=bundle.label,
        entries=(*bundle.entries, *entries),
    )


_ROOT: Traversable = resources.files("remit") / "library"


def _named(name: str) -> str:
    known = names()
    if name in known:
        return name
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else "the library has: " + ", ".join(known)
    raise _invalid("the library has no policy of this name", f"use.{name}", hint)


@cache
def _text(name: str, file: str) -> str:
    return (_ROOT / name / file).read_text(encoding="utf-8")


def _json(name: str, file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_text(name, file))
    return found


def _module(name: str) -> str:
    return f"{DATA_KEY}/{name}/policy.rego"


def _settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with the operator's data over them, if it fits the schema."""
    schema = data_schema(name)
    check = jsonschema.Draft202012Validator(schema)
    wrong = sorted(check.iter_errors(dict(given)), key=lambda error: list(map(str, error.path)))
    for error in wrong:
        raise _does_not_fit(f"use.{name}", error)
    return {**default_data(name), **given}


def _does_not_fit(top: str, error: jsonschema.ValidationError) -> ConfigError:
    """The first thing that does not fit, in an operator's words; never the value itself."""
    place = ".".join([top, *map(str, error.absolute_path)])
    part: Any = error.schema
    found: Any = error.instance
    meant = part.get("description")
    if error.validator == "additionalProperties":
        known = sorted(part.get("properties", ()))
        unknown = min(str(key) for key in found if key not in known)
        near = get_close_matches(unknown, known, 1)
        hint = f"did you mean {near[0]}?" if near else "the keys here are: " + ", ".join(known)
        return _invalid("unknown key", f"{place}.{unknown}", hint)
    if error.validator == "required":
        missing = min(key for key in part["required"] if key not in found)
        return _invalid(f"the key {missing} is missing", place, meant)
    return _invalid(f"does not fit: {_rule(error)}", place, meant)


def _rule(error: jsonschema.ValidationError) -> str:
    """The part of the schema that does not hold, as words."""
    wanted = json.dumps(error.validator_value)
    return f"{error.validator} {wanted}" if len(wanted) <= 200 else str(error.validator)


def _refuse_overlap(bundle: PolicyBundle) -> None:
    """The library speaks for itself: nobody else may write into its package or its data."""
    if DATA_KEY in bundle.data:
        raise _invalid(
            f"the data has the top-level key `{DATA_KEY}`, which belongs to the library",
            "data.json",
            "give the data of library policies in remit.yaml, under `use`",
        )
    for name, text in sorted({**bundle.modules, **bundle.tests}.items()):
        if name.startswith(f"{DATA_KEY}/") or _IN_LIBRARY.match(text):
            raise _invalid(
                f"the module may not be in the package {PACKAGE} beside the library's own",
                name,
                "give it a package of its own, written without brackets, and another directory",
            )


def _refuse_unusable(modules: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """What only the engine can tell of the data: expressions and time zones it does not know.

    A policy whose data can be wrong in such a way lists it in its rule `problems`, or has a rule
    `tried` that fails.
    """
    asked = [
        (name, rule)
        for name in settings
        for rule in ("problems", "tried")
        if re.search(rf"^{rule} ", modules[_module(name)], re.MULTILINE)
    ]
    if not asked:
        return
    queries = [f"data.{PACKAGE}.{name}.{rule}" for name, rule in asked]
    frame = try_frame(modules, {DATA_KEY: dict(settings)}, queries, {})
    try:
        answers = json.loads(run_once(frame))
    except PolicyFault as fault:
        raise _invalid(fault.message, fault.place or DATA_KEY, None) from None
    for (name, rule), (kind, text) in zip(asked, answers, strict=True):
        if kind != "R":
            told = json.loads(text)["message"] if kind == "F" else "it is not complete"
            raise _invalid(f"the engine cannot use this data: {told}", f"use.{name}", None)
        for problem in json.loads(text) if rule == "problems" else ():
            place = ".".join(["use", name, *map(str, problem["place"])])
            raise _invalid(problem["message"], place, None)


def _invalid(message: str, place: str, hint: str | None) -> ConfigError:
    return ConfigError(Code.POLICY_INVALID, message, place=place, hint=hint)
