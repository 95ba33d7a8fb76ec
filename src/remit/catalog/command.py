"""From what the operator wrote of a command tool to a `Tool`, checked and digested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from enum import Enum
from typing import Any

from remit import canonical
from remit.catalog.arguments import CompiledSchema
from remit.catalog.reaching import credentials, egress
from remit.catalog.safety import (
    check_command,
    check_job_path,
    check_program_path,
    invalid,
    nearest,
    parsed_template,
)
from remit.catalog.schema import prepare_schema
from remit.catalog.spec import CommandSpec, EnvironmentSpec, LimitsSpec, PreviewSpec, ToolSpec
from remit.command import Placeholder
from remit.errors import ConfigError
from remit.model import (
    RISK_OF,
    Command,
    Effect,
    EnvironmentRule,
    Frozen,
    InputMode,
    Limits,
    Mount,
    Preview,
    PreviewDigest,
    ResultKind,
    Tool,
    WorkingFile,
)
from remit.visible import visible

DOMAIN = "remit.tool/1"
ARGUMENTS_FILE = "arguments.json"
"""Where `input: file` puts the arguments, unless a file of the command asks for them."""

RESERVED = "remit_"
"""No tool of a catalog has a name that begins so: the gateway's own tools do."""

_SCALAR_TYPES = ("string", "integer", "number", "boolean")


def build_tool(spec: ToolSpec) -> Tool:
    """The tool that the operator described.

    Raises:
        ConfigError: `catalog_invalid`, with a place inside the description such as
            `command.argv[2]`.
    """
    _check_words(spec)
    schema = _schema(spec.input_schema, "input_schema", close=True)
    _check_defaults(schema)
    scalars = scalar_arguments(schema)
    command = _command(spec.command, schema, scalars, "command")
    if spec.effect is Effect.READ and any(mount.writable for mount in command.mounts):
        raise invalid(
            "a read tool may not have a writable mount",
            "command.mounts",
            "say `effect: write`, or leave out `writable`",
        )
    tool = Tool(
        name=spec.name,
        title=spec.title,
        description=spec.description,
        input_schema=Frozen(canonical.encode(schema)),
        output_schema=_output_schema(spec),
        command=command,
        effect=spec.effect,
        risk=spec.risk or RISK_OF[spec.effect],
        idempotent=spec.idempotent,
        on_cancel=spec.on_cancel,
        environment=environment_rule(spec.environment, schema),
        result=spec.result,
        preview=_preview(spec.preview, schema, scalars),
        consequence=consequence(spec.consequence, schema),
        runner=spec.runner,
        limits=_limits(spec.limits),
        tags=tuple(sorted(set(spec.tags))),
        egress=egress(spec.egress),
        credentials=credentials(spec.credentials),
        result_files=_result_files(spec.result_files),
        system=spec.system,
        open_world=spec.open_world,
        returns=tuple(sorted(set(spec.returns))),
    )
    return replace(tool, digest=tool_digest(tool))


def _result_files(paths: Sequence[str]) -> tuple[str, ...]:
    for number, path in enumerate(paths):
        check_job_path(path, f"result_files[{number}]")
    return tuple(sorted(set(paths)))


def tool_digest(tool: Tool) -> str:
    """SHA-256 over every field of a tool but the digest itself."""
    facts = asdict(tool)
    del facts["digest"]
    if tool.upstream is None:
        del facts["upstream"]
    facts["input_schema"] = tool.input_schema.value()
    facts["output_schema"] = tool.output_schema.value() if tool.output_schema else None
    return canonical.digest_of(DOMAIN, _plain(facts))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def scalar_arguments(schema: Mapping[str, Any]) -> frozenset[str]:
    """The properties that are always there after defaults, each one string, number or boolean."""
    required = set(schema.get("required", []))
    return frozenset(
        name
        for name, inner in schema.get("properties", {}).items()
        if isinstance(inner, dict)
        and _is_scalar(inner)
        and (name in required or "default" in inner)
    )


def _is_scalar(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") in _SCALAR_TYPES:
        return True
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return "type" not in schema and bool(values) and all(_is_scalar_value(v) for v in values)


def _is_scalar_value(value: Any) -> bool:
    return isinstance(value, str | bool | int | float)


def _schema(schema: Any, place: str, *, close: bool) -> dict[str, Any]:
    try:
        return prepare_schema(schema, close=close)
    except ConfigError as exc:
        where = place + (exc.place or "").replace("/", ".")
        raise ConfigError(exc.code, exc.message, place=where, hint=exc.hint) from None


def _check_defaults(schema: Mapping[str, Any]) -> None:
    # $defs come along, so that a $ref in a property still resolves.
    shared = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    for name, inner in schema.get("properties", {}).items():
        if not isinstance(inner, dict) or "default" not in inner:
            continue
        one = {"type": "object", "properties": {name: inner}, **shared}
        if CompiledSchema(one).broken({name: inner["default"]}):
            raise invalid(
                "the default is not what its own schema allows",
                f"input_schema.properties.{name}.default",
            )


def _check_words(spec: ToolSpec) -> None:
    if spec.name.lower().startswith(RESERVED):
        raise invalid(
            f"names that begin with {RESERVED} are the gateway's own", "name", "choose another name"
        )
    for place, text in (("description", spec.description), ("title", spec.title or "")):
        if visible(text, keep="\n\t") != text:
            raise invalid(
                "holds a character that cannot be seen",
                place,
                "remove control, bidirectional and zero-width characters",
            )


def _output_schema(spec: ToolSpec) -> Frozen | None:
    if spec.output_schema is None:
        return None
    if spec.result is ResultKind.TEXT:
        raise invalid("a text result has no structure", "output_schema", "say `result: json`")
    schema = _schema(spec.output_schema, "output_schema", close=False)
    return Frozen(canonical.encode(schema))


def _command(
    spec: CommandSpec, schema: Mapping[str, Any], scalars: frozenset[str], place: str
) -> Command:
    files = [
        WorkingFile(path=file.path, content=file.content, arguments=file.arguments)
        for file in spec.files
    ]
    if spec.input is InputMode.FILE and not any(file.arguments for file in files):
        files.append(WorkingFile(path=ARGUMENTS_FILE, arguments=True))
    if spec.input is InputMode.ENV:
        _check_env_input(schema, place)
    command = Command(
        argv=tuple(spec.argv),
        input=spec.input,
        env=tuple(sorted(spec.env.items())),
        files=tuple(files),
        mounts=tuple(
            Mount(name=mount.name, source=mount.source, writable=mount.writable)
            for mount in spec.mounts
        ),
    )
    check_command(command, scalars, place=place)
    return command


def _check_env_input(schema: Mapping[str, Any], place: str) -> None:
    names = list(schema.get("properties", {}))
    variables = {name.upper() for name in names}
    plain = all(name.isidentifier() and name.isascii() for name in names)
    closed = schema.get("additionalProperties", schema.get("unevaluatedProperties")) is False
    if not closed or not plain or len(variables) < len(names):
        raise invalid(
            "with `input: env` each argument must be a variable of its own",
            f"{place}.input",
            "name arguments with letters, digits and _, not differing only in case, and set "
            "additionalProperties: false",
        )


def _preview(
    spec: PreviewSpec | None, schema: Mapping[str, Any], scalars: frozenset[str]
) -> Preview | None:
    if spec is None:
        return None
    command = _command(spec.command, schema, scalars, "preview.command")
    if any(mount.writable for mount in command.mounts):
        raise invalid("a preview may not have a writable mount", "preview.command.mounts")
    if (spec.digest is PreviewDigest.FILE) != (spec.digest_file is not None):
        raise invalid(
            "`digest: file` and `digest_file` belong together", "preview.digest", "give both"
        )
    if (spec.digest is PreviewDigest.NORMALISED) != (spec.normaliser is not None):
        raise invalid(
            "`digest: normalised` and `normaliser` belong together", "preview.digest", "give both"
        )
    if spec.digest_file is not None:
        check_job_path(spec.digest_file, "preview.digest_file")
    if spec.normaliser is not None:
        check_program_path(spec.normaliser[0], "preview.normaliser[0]")
    return Preview(
        command=command,
        digest=spec.digest,
        digest_file=spec.digest_file,
        normaliser=tuple(spec.normaliser) if spec.normaliser is not None else None,
        limits=_limits(spec.limits),
    )


def environment_rule(spec: EnvironmentSpec | None, schema: Mapping[str, Any]) -> EnvironmentRule:
    """Where the tool acts, by what the operator said and the arguments that the schema has.

    Raises:
        ConfigError: `catalog_invalid`: the argument that is to name it is not fit to.
    """
    if spec is None:
        return EnvironmentRule()
    if (spec.fixed is None) == (spec.argument is None):
        raise invalid("either `fixed` or `argument`", "environment", "give one of the two")
    if spec.argument is None:
        return EnvironmentRule(fixed=spec.fixed, names=(spec.fixed or "",))
    inner = schema.get("properties", {}).get(spec.argument)
    names = inner.get("enum", []) if isinstance(inner, dict) else []
    required = spec.argument in schema.get("required", [])
    if not required or not names or not all(isinstance(name, str) and name for name in names):
        raise invalid(
            "the environment's argument must be a required property with an enum of names",
            "environment.argument",
            f"{nearest(spec.argument, schema.get('properties', {}))}"
            "list the environments in its enum and name it in `required`",
        )
    return EnvironmentRule(argument=spec.argument, names=tuple(names))


def consequence(text: str, schema: Mapping[str, Any]) -> str:
    """The operator's sentence of what the tool will have done, its fields checked.

    Raises:
        ConfigError: `catalog_invalid`: a field is no argument, or it is not one visible line.
    """
    properties = schema.get("properties", {})
    for part in parsed_template(text, "consequence"):
        if isinstance(part, Placeholder) and part.name not in properties:
            raise invalid(
                f"{{{part.name}}} is not a property of input_schema",
                "consequence",
                f"{nearest(part.name, properties)}fields are the names of arguments",
            )
    if visible(text) != text:
        raise invalid("must be one line of visible text", "consequence")
    return text


def _limits(spec: LimitsSpec) -> Limits:
    return Limits(**spec.model_dump())
