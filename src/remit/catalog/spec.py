"""What an operator writes of a tool in `remit.yaml`, read strictly; `command.py` makes it a Tool.

Nothing here is used after loading. An unknown key is an error, and numbers stay within bounds.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from remit.model import Effect, InputMode, OnCancel, PreviewDigest, ResultKind, Risk, Taint

Text = Annotated[str, Field(max_length=65_536)]
Count = Annotated[int, Field(strict=True)]


class Strict(BaseModel):
    """A part of the file in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


class LimitsSpec(Strict):
    """The most a run of the tool may use; policy may lower each, never raise it."""

    wall_s: Count = Field(default=30, ge=1, le=3_600, description="Longest run, in seconds.")
    memory_mb: Count = Field(default=256, ge=8, le=65_536, description="Memory, in MiB.")
    pids: Count = Field(default=64, ge=1, le=4_096, description="Processes and threads at once.")
    cpu_percent: Count = Field(default=100, ge=1, le=6_400, description="CPU; 100 is one core.")
    tmp_mb: Count = Field(
        default=64, ge=1, le=16_384, description="Size of /tmp and of /job, in MiB."
    )
    output_bytes: Count = Field(
        default=65_536, ge=256, le=16_777_216, description="Bytes kept of standard output."
    )
    open_files: Count = Field(default=256, ge=16, le=65_536, description="Open files per process.")


class MountSpec(Strict):
    """A directory of the host that the command sees at `/mnt/<name>`."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,64}$", description="Its name under /mnt.")
    source: Annotated[str, Field(max_length=4_096)] = Field(
        description="Absolute path on the host."
    )
    writable: bool = Field(
        default=False, strict=True, description="Whether the command may change what is in it."
    )


class FileSpec(Strict):
    """A file put into the job directory (the command's working directory) before it starts."""

    path: Annotated[str, Field(max_length=255)] = Field(description="Path relative to /job.")
    content: Text = Field(
        default="", description="The file's text, exactly; it has no placeholders."
    )
    arguments: bool = Field(
        default=False, strict=True, description="Write the arguments as JSON instead of `content`."
    )


class CommandSpec(Strict):
    """What is run: an argv with placeholders, never a shell line."""

    argv: Annotated[list[Text], Field(min_length=1, max_length=256)] = Field(
        description="Program and arguments; `{name}` stands for one scalar argument."
    )
    input: InputMode = Field(
        default=InputMode.ARGV,
        description="How arguments arrive beside placeholders: argv (not at all), stdin_json, "
        "env (REMIT_ARG_<NAME>) or file (arguments.json).",
    )
    env: dict[str, Text] = Field(
        default_factory=dict, max_length=64, description="The command's whole environment."
    )
    files: list[FileSpec] = Field(
        default_factory=list, max_length=64, description="Files put into /job first."
    )
    mounts: list[MountSpec] = Field(
        default_factory=list, max_length=32, description="Directories of the host it sees."
    )


class PreviewSpec(Strict):
    """A command that shows what the tool would do, without doing it."""

    command: CommandSpec = Field(description="As the tool's own; no mount may be writable.")
    digest: PreviewDigest = Field(
        default=PreviewDigest.OUTPUT,
        description="What binds approval to the preview: output, file or normalised.",
    )
    digest_file: Annotated[str, Field(max_length=255)] | None = Field(
        default=None, description="With `digest: file`: the file in /job that is digested."
    )
    normaliser: Annotated[list[Text], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="With `digest: normalised`: an argv, taken literally, that the output is "
        "passed through before it is digested.",
    )
    limits: LimitsSpec = Field(
        default_factory=LimitsSpec, description="The most the preview may use."
    )


class EnvironmentSpec(Strict):
    """Where the tool acts: `fixed: production`, or `argument: environment`."""

    fixed: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="The one environment it acts in.",
    )
    argument: str | None = Field(
        default=None, description="The required enum argument that names the environment."
    )


class EgressSpec(Strict):
    """A destination that a run of the tool may reach, where policy lets it."""

    host: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        description="One exact host in lower case, or an IP address; no wildcard."
    )
    port: Count = Field(ge=1, le=65_535, description="Its port.")
    methods: (
        Annotated[
            list[Annotated[str, Field(pattern=r"^[A-Z]{1,16}$")]],
            Field(min_length=1, max_length=16),
        ]
        | None
    ) = Field(default=None, description="HTTP methods; any, where absent.")
    path_prefix: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Whole segments that every path begins with, such as /v1/repos."
    )


class CredentialSpec(Strict):
    """A credential that a run of the tool may use, where policy lets it; never the secret."""

    ref: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] = Field(description="Its handle.")
    scopes: list[Annotated[str, Field(pattern=r"^[!-~]{1,256}$")]] = Field(
        default_factory=list,
        max_length=64,
        description="The most it may be good for; none: it has no scopes.",
    )
    audience: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] | None = Field(
        default=None, description="Whom it is for; anybody, where absent."
    )
    ttl_s: Count | None = Field(
        default=None, ge=1, le=86_400, description="How long it may live, in seconds."
    )


EgressList = Annotated[
    list[EgressSpec],
    Field(
        max_length=64,
        description="All that a run could ever reach; policy has to give it, or a run gets none.",
    ),
]
CredentialList = Annotated[
    list[CredentialSpec],
    Field(
        max_length=32,
        description="All that a run could ever use; policy has to give it, or a run gets none.",
    ),
]


class ToolSpec(Strict):
    """One command tool."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_.-]{1,128}$", description="What agents call it by; unique."
    )
    description: Annotated[str, Field(min_length=1, max_length=8_192)] = Field(
        description="What it does, for the model that calls it."
    )
    title: Annotated[str, Field(max_length=256)] | None = Field(
        default=None, description="A short name for people."
    )
    input_schema: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object"},
        description="JSON Schema 2020-12 of the arguments; an object at the top.",
    )
    output_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of structured output (with `result: json` or `mcp`)."
    )
    command: CommandSpec = Field(description="What is run.")
    effect: Effect = Field(description="read, write or destructive. There is no default.")
    risk: Risk | None = Field(
        default=None,
        description="low, medium, high or critical; by default low for read, medium for write, "
        "high for destructive.",
    )
    idempotent: bool = Field(
        default=False,
        strict=True,
        description="Whether doing it twice is the same as doing it once.",
    )
    on_cancel: OnCancel = Field(
        default=OnCancel.FINISH, description="What a cancel does to a started run: finish or stop."
    )
    environment: EnvironmentSpec | None = Field(default=None, description="Where the tool acts.")
    result: ResultKind = Field(
        default=ResultKind.TEXT, description="What standard output is: text, json or mcp."
    )
    preview: PreviewSpec | None = Field(default=None, description="Shows what would happen first.")
    consequence: Annotated[str, Field(max_length=500)] = Field(
        default="", description="One sentence of what it will have done, with `{name}` fields."
    )
    runner: str = Field(
        default="sandbox",
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        description="The profile of `runners.profiles` that it runs in.",
    )
    limits: LimitsSpec = Field(default_factory=LimitsSpec, description="The most a run may use.")
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]] = Field(
        default_factory=list, max_length=32, description="Words that policy can go by."
    )
    system: str = Field(
        default="command",
        pattern=r"^[a-z][a-z0-9._-]{0,63}$",
        description="What it acts on (tickets, ci, cloud), for policies over several calls.",
    )
    open_world: bool = Field(
        default=False,
        strict=True,
        description="Whether it reaches people or systems outside: chat, mail, the web.",
    )
    returns: list[Taint] = Field(
        default_factory=list,
        max_length=4,
        description="What its results may hold: untrusted (others' words), sensitive, or both.",
    )
    egress: EgressList = Field(default_factory=list)
    credentials: CredentialList = Field(default_factory=list)
    result_files: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default_factory=list,
        max_length=32,
        description="Files that the command leaves in /job, kept with the run by their digest.",
    )
