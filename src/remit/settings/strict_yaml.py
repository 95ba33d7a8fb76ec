"""YAML as JSON with comments: the core schema of YAML 1.2, one document, and line numbers kept.

What two readers could take differently is refused: duplicate keys, tags, anchors and aliases
(with which a few lines can also stand for gigabytes). `yes`, `no`, `on` and dates are strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from remit.errors import Code, ConfigError

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(slots=True)
class Document:
    """What a file holds, and on which line each part of it begins.

    `lines` goes from a dotted place such as `catalog.tools[2].name` to a line, counted from 1.
    """

    value: Any
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, place: str) -> int | None:
        """The line of a place, or of the nearest thing around it."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = re.sub(r"(\.[^.\[\]]*|\[\d+\]|^[^.\[]+)$", "", place)
        return None


def dotted(path: Iterable[str | int]) -> str:
    """A path as one place: `("catalog", "tools", 2)` is `catalog.tools[2]`."""
    place = ""
    for part in path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place


def read_yaml(data: bytes, name: str) -> Document:
    """Read one YAML document strictly.

    Args:
        data: the file's bytes, UTF-8.
        name: the file's name, for errors.

    Raises:
        ConfigError: `config_invalid` with the file and line; the message never echoes a value.
    """
    if len(data) > MAX_BYTES:
        raise _invalid(f"the file is larger than {MAX_BYTES} bytes", name, None)
    try:
        text = data.decode("utf-8-sig")
        _check_events(text, name)
        node = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError:
        raise _invalid("the file is not UTF-8", name, None) from None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise _invalid(
            f"not valid YAML: {exc.problem or exc.context}",
            name,
            mark.line if mark else None,
            "check indentation, and quote text that holds : # { [ or begins with @ or *",
        ) from None
    except yaml.YAMLError:
        raise _invalid("not valid YAML: a character that YAML does not allow", name, None) from None
    document = Document(value=None)
    document.value = None if node is None else _value(node, (), document.lines, name)
    return document


def scalar(text: str) -> Any:
    """What a plain word means in the core schema (YAML 1.2 §10.3)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= 20:
        return int(text)
    if _FLOAT.fullmatch(text) and len(text) <= 40:
        return float(text)
    return text


def _check_events(text: str, name: str) -> None:
    depth = documents = 0
    for event in _events(text):
        line = event.start_mark.line
        if getattr(event, "anchor", None):  # what names an anchor, and what repeats one
            raise _invalid("anchors and aliases are not used", name, line, "write the text out")
        if getattr(event, "tag", None) is not None:
            raise _invalid("tags (!…) are not used", name, line, "quote text that begins with !")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if documents > 1:
            raise _invalid("a second document begins here", name, line, "remove the --- line")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _invalid(f"nested deeper than {MAX_DEPTH}", name, line)


def _events(text: str) -> Iterator[Any]:
    return iter(yaml.parse(text, Loader=_Loader))


def _value(node: Any, path: tuple[str | int, ...], lines: dict[str, int], name: str) -> Any:
    if path:
        lines.setdefault(dotted(path), node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        plain = node.style is None or node.style == ""
        return scalar(node.value) if plain else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines, name) for index, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _invalid("a key must be a word", name, key.start_mark.line)
        if key.value in result:
            here = (*path, key.value)
            first = lines[dotted(here)]
            raise _invalid(
                f"the key {dotted(here)} stands here and on line {first}",
                name,
                key.start_mark.line,
                "keep one of the two",
            )
        lines[dotted((*path, key.value))] = key.start_mark.line + 1
        result[key.value] = _value(item, (*path, key.value), lines, name)
    return result


def _invalid(message: str, name: str, line: int | None, hint: str | None = None) -> ConfigError:
    place = name if line is None else f"{name}:{line + 1}"
    return ConfigError(Code.CONFIG_INVALID, message, place=place, hint=hint)
