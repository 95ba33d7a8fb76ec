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
        inner = _model(field.annotation)
        if inner is not None:
            yield from _rows(inner, here)


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
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(MARK)] + reference(), encoding="utf-8")
