"""What pydantic found wrong, in an operator's words: file, line, key, and the nearest key known."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from remit.errors import Code, ConfigError
from remit.settings.other_words import meant, shape
from remit.settings.strict_yaml import dotted

Where = Callable[[str], str]
"""From a dotted place to how it is shown: a file and line, a variable, or a flag."""


def problems_of(error: ValidationError, top: type[BaseModel], where: Where) -> list[ConfigError]:
    """Each thing that is wrong, in the order of the file. No message echoes a value."""
    return [_problem(found, top, where) for found in error.errors(include_input=False)]


def _problem(found: Any, top: type[BaseModel], where: Where) -> ConfigError:
    path, inner = _walk(top, found["loc"])
    here = dotted(path)

    match found["type"]:
        case "extra_forbidden":
            known = list(inner.model_fields) if inner is not None else []
            near = get_close_matches(str(path[-1]), known, 1)
            message = f"unknown key {here}"
            listed = ", ".join(known) or "none"
            hint = f"did you mean {near[0]}?" if near else f"the keys here are: {listed}"
            hint = meant(inner, str(path[-1])) or hint
        case "missing":
            message, hint = f"{here} is missing", "add it; docs/configuration.md has every key"
        case "value_error":
            message, hint = f"{here}: {found['ctx']['error']}", _hint("")
        case "model_type":
            message = f"{here}: must be a mapping of keys to values"
            wanted = _at(top, path) if inner is None else _bare(_inside(inner, path[-1]))
            hint = shape(wanted) or f"its keys are: {', '.join(wanted.model_fields)}"
        case "list_type":
            message = f"{here}: must be a list"
            items = get_args(_bare(_inside(inner, path[-1])))
            hint = shape(_bare(items[0]) if items else None) or f"write {path[-1]}: [ … ]"
        case "dict_type":
            message = f"{here}: must be a mapping of keys to values"
            hint = f"write {path[-1]}: {{…}}, and {path[-1]}: {{}} where nothing is to stand in it"
        case "union_tag_not_found" | "union_tag_invalid" as kind:
            key = found["ctx"]["discriminator"].strip("'")
            here = f"{here}.{key}"
            wrong = "is missing" if kind == "union_tag_not_found" else "is not one that is known"
            message, hint = f"{here} {wrong}", f"write {key}: and one of {', '.join(_tags(inner))}"
        case _:
            said = found["msg"].replace("Input should", "must").replace("String should", "must")
            message, hint = f"{here}: {said}", _hint(found["type"])
    return ConfigError(Code.CONFIG_INVALID, message, place=where(here), hint=hint)


def _hint(kind: str) -> str:
    if kind == "string_type":
        return "put quotation marks around it, if it is text"
    return "docs/configuration.md says what each key takes"


Path = tuple[str | int, ...]


def _walk(top: type[BaseModel], path: Path) -> tuple[Path, Any]:
    """A path of pydantic's as it stands in the file, and what is known where its last key stands.

    Pydantic puts the choice of a union into it (`static`, of `broker: static`), and `[key]` where
    it is the name of an entry that is wrong. Neither is a key of the file.
    """
    shown: list[str | int] = []
    here: Any = top
    last: Any = None
    for part in path:
        if part == "[key]":
            continue
        kind = _bare(here)
        if isinstance(part, str) and (chosen := _tags(kind).get(part)) is not None:
            here = last = chosen
            continue
        last, here = kind, _inside(kind, part)
        shown.append(part)
    ends_in_union = _tags(_bare(here))
    return tuple(shown), _bare(here) if ends_in_union else _model(last)


def _at(top: Any, path: Path) -> Any:
    """What a mapping of a path is to be, for one that is of one kind only."""
    here = top
    for part in path:
        here = _inside(_bare(here), part)
    return _bare(here)


def _bare(annotation: Any) -> Any:
    """What an annotation is about, without remarks and without `None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        given = [each for each in get_args(annotation) if each is not type(None)]
        return _bare(given[0]) if len(given) == 1 else annotation
    return annotation


def _inside(kind: Any, part: str | int) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return field.annotation if field is not None else None
    arguments = get_args(kind)
    return arguments[-1] if arguments else None


def _tags(kind: Any) -> dict[str, Any]:
    """The models of a union by the word that chooses each; nothing for what is no such union."""
    if get_origin(kind) not in {Union, UnionType}:
        return {}
    return {
        word: model
        for model in get_args(kind)
        if isinstance(model, type) and issubclass(model, BaseModel)
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal and field.is_required()
        for word in get_args(field.annotation)
    }


def _model(kind: Any) -> Any:
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
