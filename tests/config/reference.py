"""The reference part of docs/configuration.md, made from the settings themselves.

To write it anew: `python -m tests.config.reference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from remit.settings.sections import Sections
from tests.plugins.machine import ROOT

PAGE = ROOT / "docs" / "configuration.md"
MARK = "<!-- From here on made by `python -m tests.config.reference`. -->"


def reference() -> str:
    lines = [MARK]
    for name, field in Sections.model_fields.items():
        model = _model(field.annotation)
        assert model is not None
        lines += ["", f"## {name}", "", str(model.__doc__).split("\n")[0], ""]
        rows = list(_rows(model, name))
        if rows:
            lines += ["| key | default | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        here = f"{path}.{name}"
        meaning = f"{field.description} {_range(field.metadata)}".strip()
        yield f"| `{here}` | {_default(field)} | {meaning} |"
        models = _models(field.annotation)
        if len(models) > 1:
            yield from _choices(models, here)
        elif models:
            yield from _rows(models[0], here)


def _choices(models: list[type[BaseModel]], path: str) -> Iterator[str]:
    """Rows of models of which one is chosen: first what all of them have, then each one's own."""
    rows = [list(_rows(model, path)) for model in models]
    common = [row for row in rows[0] if all(row in each for each in rows)]
    yield from common
    for model, each in zip(models, rows, strict=True):
        yield f"| | | **{' '.join((model.__doc__ or '').split())}** |"
        yield from (row for row in each if row not in common)


def _range(metadata: list[Any]) -> str:
    low = next((m.ge for m in metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in metadata if hasattr(m, "le")), None)
    return "" if low is None or high is None else f"From {low} to {high}."


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined:
        value = field.default_factory()
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, list):
        return "`[" + ", ".join(str(_plain(item)) for item in value) + "]`"
    if value is None or value == "":
        return "none"
    return f"`{str(_plain(value)).lower() if isinstance(value, bool) else _plain(value)}`"


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _model(annotation: Any) -> type[BaseModel] | None:
    return next(iter(_models(annotation)), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(MARK)] + reference(), encoding="utf-8")
