"""From a command's template and normalised arguments to exactly what would run; pure functions.

A template is text with placeholders: `{name}` stands for one scalar argument, `{{` and `}}` for
the braces themselves. Each element of a rendered argv comes from exactly one element of the
template, so a value can never become a second argument; `render_command` sees to it that it can
never become an option either (threat T-11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from remit import canonical
from remit.errors import Code, InputError, Refused
from remit.model import Command, InputMode, Tool
from remit.visible import quoted, shown

MAX_ELEMENT_BYTES = 131_071
"""Longest single argument or variable that Linux hands to a program (MAX_ARG_STRLEN - 1)."""

MAX_TOTAL_BYTES = 1_048_576
"""Most that argv and the environment may hold together; the kernel's own limit is higher."""

ENV_PREFIX = "REMIT_ARG_"
"""With `input: env`, each argument is the variable of this prefix and its name in capitals."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_MAX_SENTENCE = 1000


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Where one argument goes; `quoted` asks for quotation marks in a sentence."""

    name: str
    quoted: bool = False


Template = tuple[str | Placeholder, ...]
"""Literal text and placeholders, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedCommand:
    """What goes into a plan: argv, the whole environment, standard input, and working files."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    stdin: bytes
    files: tuple[tuple[str, bytes], ...]


@lru_cache(maxsize=4096)
def parse_template(text: str) -> Template:
    """Split a template into its parts.

    Raises:
        ValueError: a brace that is neither doubled nor part of `{name}`; the message says which.
    """
    parts: list[str | Placeholder] = []
    literal = ""
    end = 0
    for match in _TOKEN.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match.group() in ("{{", "}}"):
            literal += match.group()[0]
            continue
        if match.group(1) is None:
            raise ValueError("a brace that is neither doubled nor part of {name}")
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_placeholder(match.group(1)))
    literal += text[end:]
    if literal:
        parts.append(literal)
    return tuple(parts)


def _placeholder(inner: str) -> Placeholder:
    name, _, flag = inner.partition("|")
    if not _NAME.fullmatch(name) or flag not in ("", "quoted") or inner.endswith("|"):
        raise ValueError("braces that are neither doubled nor around the name of an argument")
    return Placeholder(name, flag == "quoted")


def after_end_of_options(argv: tuple[str, ...], index: int) -> bool:
    """Whether element `index` can only be an operand: a literal `--` stands before it, with
    nothing but elements that begin with a placeholder in between.

    In `env -- git log {rev}` the `--` ends the options of `env`, not those of `git`.
    """
    for element in reversed(argv[:index]):
        if element == "--":
            return True
        parts = parse_template(element)
        if not parts or isinstance(parts[0], str):
            return False
    return False


def render_command(command: Command, arguments: Mapping[str, Any]) -> RenderedCommand:
    """Fill a command's template with normalised arguments.

    The argv has exactly the template's length. Does not check the arguments against a schema,
    nor the template against the rules of `remit.catalog`.

    Raises:
        Refused: `invalid_arguments` with the place of the argument: a missing or compound value,
            a NUL, a value that would begin an option or be an empty argument, or one too long.
    """
    argv = tuple(_element(command.argv, index, arguments) for index in range(len(command.argv)))
    env = [(name, _fill(parse_template(text), arguments)) for name, text in command.env]
    if command.input is InputMode.ENV:
        env += _variables(arguments)
    _check_sizes(argv, env)
    as_json = b""
    if command.input is InputMode.STDIN_JSON or any(file.arguments for file in command.files):
        as_json = canonical.encode(dict(arguments))
    return RenderedCommand(
        argv=argv,
        env=tuple(env),
        stdin=as_json if command.input is InputMode.STDIN_JSON else b"",
        files=tuple(
            (file.path, as_json if file.arguments else file.content.encode())
            for file in command.files
        ),
    )


def _element(argv: tuple[str, ...], index: int, arguments: Mapping[str, Any]) -> str:
    template = parse_template(argv[index])
    text = _fill(template, arguments)
    first = template[0] if template else ""
    if isinstance(first, str):
        return text
    if text[:1] in ("", "-") and not after_end_of_options(argv, index):
        rule = "must not begin with '-'" if text else "must not be empty"
        raise _refuse(first.name, rule)
    return text


def _fill(template: Template, arguments: Mapping[str, Any]) -> str:
    return "".join(
        part if isinstance(part, str) else _scalar(part.name, arguments) for part in template
    )


def _scalar(name: str, arguments: Mapping[str, Any]) -> str:
    value = arguments.get(name)
    if isinstance(value, str):
        if "\0" in value:
            raise _refuse(name, "must not hold a NUL character")
        return value
    if isinstance(value, bool | int | float):
        return _json(name, value)
    raise _refuse(name, "must be given, as one string, number or boolean")


def _variables(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    result: dict[str, str] = {}
    for name, value in arguments.items():
        variable = ENV_PREFIX + name.upper()
        if not _VARIABLE.fullmatch(name) or variable in result:
            raise Refused(
                Code.INVALID_ARGUMENTS, "an argument's name cannot be an environment variable"
            )
        scalar = isinstance(value, str)
        result[variable] = _scalar(name, arguments) if scalar else _json(name, value)
    return sorted(result.items())


def _json(name: str, value: Any) -> str:
    try:
        return canonical.encode(value).decode()
    except InputError:
        raise _refuse(name, "has no canonical JSON form") from None


def _check_sizes(argv: tuple[str, ...], env: list[tuple[str, str]]) -> None:
    try:
        sizes = [len(text.encode()) for text in argv]
        sizes += [len(name) + 1 + len(value.encode()) for name, value in env]
    except UnicodeEncodeError:
        raise Refused(
            Code.INVALID_ARGUMENTS, "an argument holds half of a surrogate pair"
        ) from None
    if max(sizes, default=0) > MAX_ELEMENT_BYTES or sum(sizes) > MAX_TOTAL_BYTES:
        raise Refused(
            Code.INVALID_ARGUMENTS,
            f"an argument is longer than the {MAX_ELEMENT_BYTES} bytes a command line can hold",
        )


def _refuse(name: str, rule: str) -> Refused:
    # `name` is from the operator's template, or is a variable name checked against _VARIABLE.
    return Refused(Code.INVALID_ARGUMENTS, f"{name} {rule}", place=f"/{name}")


def environment_of(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """The environment in which this call would act; empty for a tool that names none.

    Raises:
        Refused: `invalid_arguments` if the argument that names it is none of the tool's.
    """
    rule = tool.environment
    if rule.argument is None:
        return rule.fixed or ""
    value = arguments.get(rule.argument)
    if not isinstance(value, str) or value not in rule.names:
        raise _refuse(rule.argument, "must name one of the tool's environments")
    return value


def render_consequence(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """The tool's one-sentence consequence with its fields filled in, for people who approve.

    Text that is more than one plain word is put in quotation marks, so that a value cannot pose
    as part of the sentence (T-24); what cannot be seen is shown as an escape; long values are
    folded with their length and their end. Empty for a tool that has no such sentence.
    """
    parts = parse_template(tool.consequence)
    text = "".join(
        part if isinstance(part, str) else _field(part, arguments.get(part.name)) for part in parts
    )
    return text if len(text) <= _MAX_SENTENCE else text[: _MAX_SENTENCE - 1] + "…"


def _field(part: Placeholder, value: Any) -> str:
    if value is None:
        return "(not given)"
    if isinstance(value, list):
        items = [_field(part, item) for item in value[:10]]
        more = [f"and {len(value) - 10} more"] if len(value) > 10 else []
        return ", ".join(items + more) or "(none)"
    if isinstance(value, str):
        return quoted(value) if part.quoted else shown(value)
    return shown(_json(part.name, value))
