"""What pydantic found wrong, in an operator's words: file, line, key, and the nearest key known."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from remit.errors import Code, ConfigError
from remit.settings.strict_yaml import dotted

Where = Callable[[str], str]
"""From a dotted place to how it is shown: a file and line, a variable, or a flag."""


def problems_of(error: ValidationError, top: type[BaseModel], where: Where) -> list[ConfigError]:
    """Each thing that is wrong, in the order of the file. No message echoes a value."""
    return [_problem(found, top, where) for found in error.errors(include_input=False)]


def _problem(found: Any, top: type[BaseModel], where: Where) -> ConfigError:
    path: tuple[str | int, ...] = found["loc"]
    here = dotted(path)

    match found["type"]:
        case "extra_forbidden":
            known = _keys(top, path[:-1])
            near = get_close_matches(str(path[-1]), known, 1)
            message = f"unknown key {here}"
            listed = ", ".join(known) or "none"
            hint = f"did you mean {near[0]}?" if near else f"the keys here are: {listed}"
        case "missing":
            message, hint = f"{here} is missing", "add it; docs/configuration.md has every key"
        case "value_error":
            message, hint = f"{here}: {found['ctx']['error']}", _hint("")
        case "dict_type":
            message = f"{here}: must be a mapping of keys to values"
            hint = f"write {path[-1]}: {{…}}, and {path[-1]}: {{}} where nothing is to stand in it"
        case _:
            said = found["msg"].replace("Input should", "must").replace("String should", "must")
            message, hint = f"{here}: {said}", _hint(found["type"])
    return ConfigError(Code.CONFIG_INVALID, message, place=where(here), hint=hint)


def _hint(kind: str) -> str:
    if kind == "string_type":
        return "put quotation marks around it, if it is text"
    return "docs/configuration.md says what each key takes"


def _keys(top: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys that are known at a path."""
    model: Any = top
    for part in path:
        if isinstance(part, str) and isinstance(model, type) and issubclass(model, BaseModel):
            model = _model(model.model_fields[part].annotation)
    return list(model.model_fields) if model is not None else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model inside `X`, `X | None` or `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model(inner)
        if found is not None:
            return found
    return None
