"""Arguments held against a tool's schema: defaults filled in, one spelling, bounded in every way.

The validator is jsonschema's, with the keywords replaced whose stock form can take quadratic or
exponential time on what a caller sends, or rounds (`multipleOf`), or checks nothing (`format`).
Every keyword evaluated counts as a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from fractions import Fraction
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry

from remit import canonical
from remit.catalog.foreign import prepare_foreign
from remit.catalog.formats import FORMATS
from remit.catalog.patterns import matches
from remit.catalog.wording import hint_for, place_of, rule_of
from remit.errors import Code, ConfigError, InputError, Refused
from remit.model import Frozen, Tool
from remit.ports import ArgumentCheck

MAX_STEPS = 50_000
"""Most keywords evaluated for one call; 100 KB of ordinary nested arguments takes about 5,000."""

MAX_SECONDS = 0.25
"""Most time spent on one call, whatever the number of steps."""

MAX_UNEVALUATED = 1_000
"""Most members of an object or array under `unevaluated…`, which jsonschema checks in their square."""

MAX_ERRORS = 5
"""Most broken rules named in one refusal."""


class _TooMuch(Exception):
    """The steps or the time ran out."""


class _Meter:
    """Counts the steps of one check."""

    __slots__ = ("deadline", "left")

    def __init__(self) -> None:
        self.left = MAX_STEPS
        self.deadline = time.perf_counter() + MAX_SECONDS

    def step(self) -> None:
        self.left -= 1
        if self.left < 0 or (not self.left & 63 and time.perf_counter() > self.deadline):
            raise _TooMuch


_meter: ContextVar[_Meter] = ContextVar("remit_schema_meter")

_Check = Callable[[Any, Any, Any, Any], Any]


def _counted(check: _Check) -> _Check:
    def step(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _meter.get().step()
        return check(validator, value, instance, schema)

    return step


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not matches(pattern, instance):
        yield ValidationError("pattern")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, _: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            if matches(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(matches(pattern, name) for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError("additionalProperties")
            return
        yield from validator.descend(value, allowed, path=name)


def _unique_items(_: Any, wanted: bool, instance: Any, __: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list):
        seen = {canonical.encode(item) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("uniqueItems")


def _multiple_of(_: Any, divisor: Any, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    if Fraction(repr(instance)) % Fraction(repr(divisor)) != 0:
        yield ValidationError("multipleOf")


def _few_members(check: _Check) -> _Check:
    def bounded(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        if isinstance(instance, dict | list) and len(instance) > MAX_UNEVALUATED:
            raise _TooMuch
        return check(validator, value, instance, schema)

    return bounded


def _format(_: Any, name: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not FORMATS[name](instance):
        yield ValidationError("format")


_STOCK: Mapping[str, _Check] = Draft202012Validator.VALIDATORS
_REPLACED: dict[str, _Check] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
    "format": _format,
    "unevaluatedProperties": _few_members(_STOCK["unevaluatedProperties"]),
    "unevaluatedItems": _few_members(_STOCK["unevaluatedItems"]),
}

_Validator: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {keyword: _counted(check) for keyword, check in {**_STOCK, **_REPLACED}.items()},
)


class CompiledSchema:
    """One schema ready to be used many times."""

    __slots__ = ("_defaults", "_validator", "schema")

    def __init__(self, schema: dict[str, Any], *, fills: bool = True) -> None:
        self.schema = schema
        # jsonschema would choose its stock validator by `$schema`; ours must stay.
        bare = {key: value for key, value in schema.items() if key != "$schema"}
        self._validator = _Validator(bare, registry=Registry())
        self._defaults = fills and _has_defaults(bare)

    def broken(self, instance: Any) -> list[ValidationError]:
        """The first few rules that `instance` breaks; none if it is valid.

        Raises:
            Refused: `invalid_arguments` if finding out takes too many steps or too long.
        """
        token = _meter.set(_Meter())
        try:
            return list(islice(self._validator.iter_errors(instance), MAX_ERRORS))
        except (_TooMuch, RecursionError):
            raise Refused(
                Code.INVALID_ARGUMENTS,
                "checking the arguments against the schema takes too long",
                hint="send fewer or less deeply nested values",
            ) from None
        finally:
            _meter.reset(token)

    def fill(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of `arguments` with the defaults of properties that were left out."""
        return _fill(self.schema, arguments) if self._defaults else dict(arguments)


def _has_defaults(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    inner = schema.get("properties", {}).values()
    return any(isinstance(s, dict) and ("default" in s or _has_defaults(s)) for s in inner)


def _fill(schema: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Only along `properties`: what stands behind `$ref`, `anyOf` and their like has no default."""
    result = dict(value)
    for name, inner in schema.get("properties", {}).items():
        if not isinstance(inner, dict):
            continue
        if name not in result and "default" in inner:
            result[name] = inner["default"]
        elif isinstance(result.get(name), dict):
            result[name] = _fill(inner, result[name])
    return result


class SchemaCheck:
    """Checks arguments against tools' schemas; implements `ports.ArgumentCheck`.

    Compiled schemas are kept by tool digest.
    """

    def __init__(self, *, max_bytes: int = 262_144, max_depth: int = 32) -> None:
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._compiled: dict[str, CompiledSchema] = {}
        self._outputs: dict[str, CompiledSchema] = {}

    def normalise(self, tool: Tool, arguments: Mapping[str, Any]) -> Frozen:
        """The arguments as canonical JSON with the schema's defaults filled in.

        What goes to an MCP server is checked and not changed: its defaults are its own.

        Messages name the schema's own properties and rules; they never hold a value, or a
        property name, that the caller sent.

        Raises:
            Refused: `invalid_arguments`, `too_deep` or `too_large`.
        """
        compiled = self._compiled.get(tool.digest)
        if compiled is None:
            compiled = _compiled(tool, tool.input_schema)
            if tool.digest:
                self._compiled[tool.digest] = compiled
        if _depth_over(arguments, self._max_depth):
            raise Refused(Code.TOO_DEEP, f"arguments are nested deeper than {self._max_depth}")
        filled = compiled.fill(arguments)
        text = _encode(filled)
        if len(text) > self._max_bytes:
            raise Refused(Code.TOO_LARGE, f"arguments are larger than {self._max_bytes} bytes")
        broken = compiled.broken(filled)
        if broken:
            raise _refusal(compiled.schema, broken)
        return Frozen(text)

    def fits(self, tool: Tool, value: Any) -> bool:
        """Whether a structured result is what the tool's output schema says; true without one."""
        if tool.output_schema is None:
            return True
        try:
            compiled = self._outputs.get(tool.digest)
            if compiled is None:
                compiled = _compiled(tool, tool.output_schema)
                if tool.digest:
                    self._outputs[tool.digest] = compiled
            return not compiled.broken(value)
        except (Refused, InputError):
            return False


def _compiled(tool: Tool, schema: Frozen) -> CompiledSchema:
    if tool.upstream is None:
        return CompiledSchema(schema.value())
    try:
        return CompiledSchema(prepare_foreign(schema.value()).schema, fills=False)
    except ConfigError:
        raise Refused(
            Code.INVALID_ARGUMENTS,
            "the schema of this tool's server cannot be checked, so nothing fits it",
            hint="an operator sees why: remit tools show",
        ) from None


def _depth_over(value: Any, left: int) -> bool:
    if left < 0:
        return True
    if isinstance(value, Mapping):
        return any(
            _depth_over(item, left - 1)
            for item in value.values()
            if isinstance(item, Mapping | list)
        )
    return any(_depth_over(item, left - 1) for item in value if isinstance(item, Mapping | list))


def _encode(arguments: dict[str, Any]) -> bytes:
    try:
        return canonical.encode(arguments)
    except InputError as exc:
        raise Refused(
            Code.INVALID_ARGUMENTS,
            "the arguments hold a number or text that has no canonical JSON form",
            hint=exc.hint,
        ) from None


def _refusal(schema: Mapping[str, Any], broken: list[ValidationError]) -> Refused:
    places = [place_of(schema, error) for error in broken]
    first, *more = [
        f"{place or 'the arguments object'} {rule_of(error)}"
        for place, error in zip(places, broken, strict=True)
    ]
    message = "; ".join([first, *more])
    return Refused(
        Code.INVALID_ARGUMENTS, message, place=places[0] or None, hint=hint_for(broken[0])
    )


_: type[ArgumentCheck] = SchemaCheck
