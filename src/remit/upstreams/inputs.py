"""The inputs of `server.json`: what is fixed, what has a default, and what a person must say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from remit.upstreams.definition_text import DefinitionText, at
from remit.upstreams.found import Question, Value, template, value_as_is

MAX_DESCRIPTION = 1000
MAX_ALIKE = 32
"""Different questions of one name; each is held against those before it."""
_FLAG = re.compile(r"-{0,2}[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OLD = {
    "registry_type": "registryType", "registry_name": "registryType",
    "registry_base_url": "registryBaseUrl", "file_sha256": "fileSha256",
    "runtime_hint": "runtimeHint", "runtime_arguments": "runtimeArguments",
    "package_arguments": "packageArguments", "environment_variables": "environmentVariables",
    "transport_type": "type", "is_required": "isRequired", "is_secret": "isSecret",
    "is_repeated": "isRepeated", "value_hint": "valueHint", "website_url": "websiteUrl",
}  # fmt: skip


def modern(source: DefinitionText, node: object, pointer: str) -> Mapping[str, Any]:
    """A table with the key names of 2025-09-16 and later; both names at once are refused."""
    table = source.table(node, pointer)
    renamed = {_OLD.get(key, key): one for key, one in table.items()}
    if len(renamed) != len(table):
        hint = "keep the spelling without underscores"
        raise source.fault(pointer, "a key stands in its old and its new spelling", hint)
    return renamed


class Inputs:
    """The inputs of one choice as they are read, with the questions that they leave open.

    `left_out` are optional arguments that have no value: a command line is made without them.
    """

    def __init__(self, source: DefinitionText) -> None:
        self._source = source
        self.questions: dict[str, Question] = {}
        self.left_out: list[str] = []

    def value(self, table: Mapping[str, Any], pointer: str, *, name: str) -> Value:
        """The value of an input called `name`, with a reference to a question where it has none.

        Raises:
            ConfigError: `config_invalid`.
        """
        source = self._source
        secret = source.flag(table.get("isSecret", False), f"{pointer}/isSecret")
        fixed = table.get("value")
        if fixed is None and table.get("default") is not None:
            text = source.text(table["default"], f"{pointer}/default", lines=True, empty=True)
            return value_as_is(text, name=name, secret=secret)
        if fixed is None:
            asked = self._ask(name, table, pointer)
            return template(f"{{{name}}}", {name: asked}, name=name)
        variables = self.variables(table.get("variables"), f"{pointer}/variables")
        text = source.text(fixed, f"{pointer}/value", lines=True, empty=True)
        return template(text, variables, name=name, secret=secret)

    def variables(self, node: object, pointer: str) -> dict[str, str]:
        """For each variable the name of its question."""
        asked = {}
        for key, one in self._source.named({} if node is None else node, pointer).items():
            here = at(pointer, key)
            self._source.name(key, here)
            asked[key] = self._ask(key, modern(self._source, one, here), here)
        return asked

    def arguments(self, node: object, pointer: str) -> tuple[Value, ...]:
        """The words that a list of arguments gives; an optional one without a value gives none."""
        words: list[Value] = []
        for place, one in enumerate(self._source.items([] if node is None else node, pointer)):
            here = at(pointer, place)
            words += self._argument(modern(self._source, one, here), here, place)
        return tuple(words)

    def _argument(self, table: Mapping[str, Any], pointer: str, place: int) -> list[Value]:
        source = self._source
        kind = table.get("type", "named" if "name" in table else "positional")
        if kind not in ("named", "positional"):
            hint = "use named or positional"
            raise source.fault(f"{pointer}/type", "this type of argument is not known", hint)
        required = source.flag(table.get("isRequired", False), f"{pointer}/isRequired")
        unset = table.get("value") is None and table.get("default") is None
        if kind == "positional":
            if unset and not required:
                self.left_out.append(pointer)
                return []
            hint = source.text(table.get("valueHint", f"argument-{place}"), f"{pointer}/valueHint")
            return [self.value(table, pointer, name=source.name(hint, f"{pointer}/valueHint"))]
        flag = source.text(table.get("name"), f"{pointer}/name")
        if not _FLAG.fullmatch(flag):
            hint = "write it as in --port; its value has a key of its own"
            raise source.fault(f"{pointer}/name", "this is no name of a flag", hint)
        if unset and not required:
            if {"valueHint", "choices", "format", "placeholder", "isSecret"} & set(table):
                self.left_out.append(pointer)
                return []
            return [Value(text=flag)]
        given = self.value(table, pointer, name=flag.lstrip("-"))
        if flag.startswith("--"):
            return [replace(given, text=f"{flag}={given.text}")]
        return [Value(text=flag), given]

    def _ask(self, name: str, table: Mapping[str, Any], pointer: str) -> str:
        """Keep a question; a second one of the same name gets a number behind it."""
        source = self._source
        secret = source.flag(table.get("isSecret", False), f"{pointer}/isSecret")
        about = source.text(
            table.get("description", ""), f"{pointer}/description", lines=True, empty=True
        )
        default = table.get("value", table.get("default"))
        if default is not None:
            text = source.text(default, f"{pointer}/default", lines=True, empty=True)
            default = value_as_is(text, name=name, secret=secret)
        given = source.items(table.get("choices", []), f"{pointer}/choices")
        question = Question(
            name=name,
            description=about[:MAX_DESCRIPTION],
            secret=secret,
            required=source.flag(table.get("isRequired", False), f"{pointer}/isRequired"),
            default=default,
            choices=tuple(
                source.text(one, at(f"{pointer}/choices", place), empty=True)
                for place, one in enumerate(given)
            ),
        )
        number = 1
        while self.questions.get(question.name, question) != question:
            number += 1
            if number > MAX_ALIKE:
                hint = "let its publisher give different questions different names"
                raise source.fault(pointer, f"more than {MAX_ALIKE} questions of one name", hint)
            question = replace(question, name=f"{name}-{number}")
        self.questions[question.name] = question
        return question.name
