"""A tool as a server lists it, read strictly and digested.

Everything here was written by someone else. What a definition says is kept exactly, unknown keys of
schemas included; nothing of it is believed. An item that is not as the protocol has it is refused
whole, because half of a definition could not be pinned.

`icons`, `_meta` and any field of an item that is not named here are left out: they are neither
kept nor digested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remit import canonical
from remit.errors import Code, InputError
from remit.upstreams.walk import UNFIT, Path, pointer, unfit, walk
from remit.visible import shown

DOMAIN = "remit.upstream-tool/1"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""MCP 2025-11-25 §Tools, "Tool Names"."""
_PROMPT = re.compile(r"prompts/get:[A-Za-z0-9_.-]{1,128}")
"""A prompt that is read as an item of `tools/list` (`lists.prompt_item`)."""

PARTS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""What a definition is, in the order in which it is shown."""

MAX_TITLE = 512
"""Characters of a title."""
MAX_DESCRIPTION = 32_768
"""Characters of a description."""
MAX_BYTES = 262_144
"""Bytes of each schema, and of the annotations, as canonical JSON."""
MAX_DEPTH = 64
MAX_VALUES = 20_000
"""Values and keys in one item, all levels together."""
MAX_PROPERTIES = 1_000
"""Properties that one schema names, all levels together."""

_FLAGS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


@dataclass(frozen=True, slots=True)
class Written:
    """A JSON object with its keys in the order in which the server wrote them.

    Two of them that differ in that order alone are not equal, though their digests are.
    """

    text: str

    def value(self) -> dict[str, Any]:
        """A fresh copy."""
        value: dict[str, Any] = json.loads(self.text)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What one server says one of its tools is; made by `read_definition`.

    `digest` covers every part but `server`, whatever the order of keys. It is given only by who has
    kept it with the parts, and is not worked out again then.
    """

    server: str
    name: str
    input_schema: Written
    title: str | None = None
    description: str | None = None
    output_schema: Written | None = None
    annotations: Written | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", canonical.digest_of(DOMAIN, self.parts()))

    def parts(self) -> dict[str, Any]:
        """The parts that are there, as an item of `tools/list`; reading it gives an equal one."""
        return {
            part: value.value() if isinstance(value, Written) else value
            for part, value in zip(PARTS, self._values(), strict=True)
            if value is not None
        }

    def texts(self) -> list[str | None]:
        """The text of each of `PARTS`, in that order, as `definition_of` takes them."""
        return [value.text if isinstance(value, Written) else value for value in self._values()]

    def _values(self) -> tuple[str | Written | None, ...]:
        return (
            self.name,
            self.title,
            self.description,
            self.input_schema,
            self.output_schema,
            self.annotations,
        )


def definition_of(server: str, texts: Sequence[str | None], digest: str) -> Definition:
    """The definition that had these texts and this digest when it was kept.

    Nothing is checked: whoever kept them has to know that they are as they were.
    """
    name, title, description, input_schema, output_schema, annotations = texts
    assert name is not None, "every tool has a name"
    assert input_schema is not None, "every tool has an input schema"
    return Definition(
        server=server,
        name=name,
        title=title,
        description=description,
        input_schema=Written(input_schema),
        output_schema=None if output_schema is None else Written(output_schema),
        annotations=None if annotations is None else Written(annotations),
        digest=digest,
    )


def read_definition(server: str, item: object, *, position: int = 0) -> Definition:
    """Read one item of a server's `tools/list` (MCP 2025-11-25 §Tools, "Data Types").

    A `null` where a part may be missing is read as missing. Whether a schema is valid JSON Schema
    is not checked here, nor whether it could be used. Keys that stood twice in the text must have
    been refused by whoever parsed it.

    Args:
        server: the operator's name for the server.
        item: the parsed JSON.
        position: which item of the list it is, for naming one that has no usable name.

    Raises:
        InputError: `catalog_invalid`, `malformed_json`, `too_large`, `too_deep`,
            `number_out_of_range` or `invalid_unicode`; its place is the server, the tool and a
            JSON pointer, and no text of the server is in it but names, shortened and made visible.
    """
    return _Reading(server, item, position).definition()


class _Reading:
    """One item, and how its faults are named."""

    def __init__(self, server: str, item: object, position: int) -> None:
        self._server = server
        name = item.get("name") if isinstance(item, dict) else None
        self._tool = shown(name, 64) if isinstance(name, str) else f"number {position}"
        if not isinstance(item, dict):
            raise self._fault(Code.CATALOG_INVALID, "a listed tool is not a JSON object", None)
        self._item = {part: item[part] for part in PARTS if item.get(part) is not None}

    def definition(self) -> Definition:
        self._check_values()
        name = self._item.get("name")
        if not isinstance(name, str) or not (NAME.fullmatch(name) or _PROMPT.fullmatch(name)):
            hint = "a name is 1 to 128 of the characters A-Z a-z 0-9 _ . -"
            raise self._fault(
                Code.CATALOG_INVALID, "the tool has no usable name", (None, "name"), hint
            )
        input_schema = self._schema("inputSchema")
        if input_schema is None:
            raise self._fault(
                Code.CATALOG_INVALID, "the tool has no input schema", (None, "inputSchema")
            )
        return Definition(
            server=self._server,
            name=name,
            title=self._text("title", MAX_TITLE),
            description=self._text("description", MAX_DESCRIPTION),
            input_schema=input_schema,
            output_schema=self._schema("outputSchema"),
            annotations=self._annotations(),
        )

    def _check_values(self) -> None:
        """Refuse what has no one JSON form, before anything recurses into it."""
        for seen, (path, depth, value, is_key) in enumerate(walk(self._item)):
            if seen >= MAX_VALUES:
                raise self._fault(Code.TOO_LARGE, f"holds more than {MAX_VALUES} values", None)
            if depth > MAX_DEPTH:
                raise self._fault(Code.TOO_DEEP, f"is nested deeper than {MAX_DEPTH}", path)
            code = unfit(value, is_key=is_key)
            if code is not None:
                raise self._fault(code, UNFIT[code], path)

    def _text(self, part: str, limit: int) -> str | None:
        value = self._item.get(part)
        if value is not None and not isinstance(value, str):
            raise self._fault(Code.CATALOG_INVALID, "must be a string", (None, part))
        if value is not None and len(value) > limit:
            raise self._fault(Code.TOO_LARGE, f"is longer than {limit} characters", (None, part))
        return value

    def _object(self, part: str) -> dict[str, Any] | None:
        value = self._item.get(part)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._fault(Code.CATALOG_INVALID, "must be an object", (None, part))
        if len(canonical.encode(value)) > MAX_BYTES:
            raise self._fault(Code.TOO_LARGE, f"is larger than {MAX_BYTES} bytes", (None, part))
        return value

    def _schema(self, part: str) -> Written | None:
        schema = self._object(part)
        if schema is None:
            return None
        if part == "inputSchema" and schema.get("type") != "object":
            hint = "arguments are an object: the protocol asks for `type: object` at the top"
            raise self._fault(Code.CATALOG_INVALID, 'is not of type "object"', (None, part), hint)
        named = sum(
            len(value)
            for path, _, value, _ in walk(schema)
            if path is not None and path[1] == "properties" and isinstance(value, dict)
        )
        if named > MAX_PROPERTIES:
            message = f"names more than {MAX_PROPERTIES} properties"
            raise self._fault(Code.TOO_LARGE, message, (None, part))
        return _written(schema)

    def _annotations(self) -> Written | None:
        said = self._object("annotations")
        if said is None:
            return None
        for flag in _FLAGS:
            if not isinstance(said.get(flag), bool | None):
                raise self._fault(
                    Code.CATALOG_INVALID, "must be true or false", ((None, "annotations"), flag)
                )
        if not isinstance(said.get("title"), str | None):
            raise self._fault(
                Code.CATALOG_INVALID, "must be a string", ((None, "annotations"), "title")
            )
        return _written(said)

    def _fault(self, code: Code, message: str, path: Path, hint: str | None = None) -> InputError:
        place = f"server {shown(self._server, 64)}, tool {self._tool}{_at(path)}"
        return InputError(code, message, place=place, hint=hint)


def _at(path: Path) -> str:
    return "" if path is None else f", {pointer(path)}"


def _written(value: dict[str, Any]) -> Written:
    return Written(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
