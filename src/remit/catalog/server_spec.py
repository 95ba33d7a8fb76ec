"""What an operator writes of an MCP server in `remit.yaml`, read strictly.

It is kept as it was written: tools are made of it as servers list them. What the server itself says of its tools is never read here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from remit.catalog.spec import (
    Count,
    CredentialList,
    EgressList,
    EnvironmentSpec,
    LimitsSpec,
    MountSpec,
    Strict,
    Text,
)
from remit.model import SHOWN_AS, Effect, OnCancel, Risk, SessionMode, Taint

ServerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
OfferedName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
UpstreamName = Annotated[str, Field(min_length=1, max_length=256)]


class Mode(StrEnum):
    """Whether policy's answer is enforced, or only written down."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class Unlisted(StrEnum):
    """What becomes of tools of the server that the operator says nothing of."""

    OFFER = "offer"
    HIDE = "hide"


class Beside(StrEnum):
    """What becomes of what a server has beside its tools; they are its words in a model's context."""

    OFFER = "offer"
    HIDE = "hide"


class ServerCommandSpec(Strict):
    """The program that speaks MCP over its standard input and output; nothing of a request is
    ever put into it."""

    argv: Annotated[list[Text], Field(min_length=1, max_length=256)] = Field(
        description="Program and arguments, taken literally; never a shell line."
    )
    env: dict[str, Text] = Field(
        default_factory=dict, max_length=64, description="The server's whole environment."
    )
    mounts: list[MountSpec] = Field(
        default_factory=list, max_length=32, description="Directories of the host it sees."
    )


class DefinitionSpec(Strict):
    """A publisher's `server.json` (MCP registry), which says how the server is had; nothing is
    fetched or installed for it at start."""

    file: Annotated[str, Field(min_length=1, max_length=4_096)] = Field(
        description="Its path, relative to this file."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="The SHA-256 of the file; another file is refused."
    )
    package: Count | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Which of its packages, counted from 1; or `remote`.",
    )
    remote: Count | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Which of its remotes, counted from 1; or `package`.",
    )
    answers: dict[str, Annotated[str, Field(max_length=4_096)]] = Field(
        default_factory=dict,
        max_length=64,
        description="What it leaves open, by name; a secret as `credential:HANDLE` alone.",
    )
    mounts: list[MountSpec] = Field(
        default_factory=list, max_length=31, description="Directories of the host a package sees."
    )


def _short(given: object) -> object:
    """A path alone stands for a definition of which nothing else has to be said."""
    return {"file": given} if isinstance(given, str) else given


Definition = Annotated[
    DefinitionSpec, BeforeValidator(_short, json_schema_input_type=str | DefinitionSpec)
]


class ServerToolSpec(Strict):
    """What the operator says of one tool of the server; annotations may raise it, never lower it."""

    name: UpstreamName = Field(description="The tool's name at the server.")
    alias: OfferedName | None = Field(
        default=None, description="What agents call it by, instead of the prefixed name."
    )
    hidden: bool = Field(default=False, strict=True, description="Whether nobody is offered it.")
    effect: Effect | None = Field(default=None, description="read, write or destructive.")
    risk: Risk | None = Field(default=None, description="low, medium, high or critical.")
    idempotent: bool = Field(
        default=False,
        strict=True,
        description="Whether doing it twice is the same as doing it once.",
    )
    on_cancel: OnCancel = Field(
        default=OnCancel.FINISH,
        description="What a cancel does to a started call: finish or stop.",
    )
    open_world: bool | None = Field(
        default=None, strict=True, description="Whether it reaches people or systems outside."
    )
    returns: list[Taint] | None = Field(
        default=None, max_length=4, description="What its results may hold; the server's if absent."
    )
    environment: EnvironmentSpec | None = Field(default=None, description="Where the tool acts.")
    consequence: Annotated[str, Field(max_length=500)] = Field(
        default="", description="One sentence of what it will have done, with `{name}` fields."
    )
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]] = Field(
        default_factory=list, max_length=32, description="Words that policy can go by."
    )
    limits: LimitsSpec | None = Field(
        default=None, description="The most a call may use; the server's if absent."
    )
    shadow: bool = Field(
        default=False,
        strict=True,
        description="With `mode: shadow`: whether a destructive tool is in shadow mode too.",
    )


class ServerSpec(Strict):
    """An MCP server whose tools are offered through Remit."""

    name: ServerName = Field(description="The operator's name for it; unique.")
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{0,32}$")] | None = Field(
        default=None,
        description="Put before each tool's name, with `_` between; the server's name if absent, "
        "none if empty.",
    )
    command: ServerCommandSpec | None = Field(
        default=None, description="How it is started, in a runner; or `url`, or `definition`."
    )
    url: Annotated[str, Field(max_length=2_048)] | None = Field(
        default=None, description="Where it listens (https, or http on loopback); or `command`."
    )
    definition: Definition | None = Field(
        default=None,
        description="Instead of both: a publisher's server.json, as a path alone or with these keys.",
    )
    sse: bool = Field(
        default=False,
        strict=True,
        description="With `url`: it speaks HTTP+SSE, the transport of revision 2024-11-05.",
    )
    authorization: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] | None = Field(
        default=None,
        description="With `url`: the handle of the credential it is shown.",
    )
    header: Annotated[str, Field(pattern=r"^[!-9;-~]{1,64}: [ -~]{0,32}\{token\}$")] = Field(
        default=SHOWN_AS,
        description="With `authorization`: the header it is shown in, `NAME: {token}` or "
        "`NAME: SCHEME {token}`.",
    )
    scopes: list[Annotated[str, Field(pattern=r"^[!-~]{1,256}$")]] = Field(
        default_factory=list,
        max_length=32,
        description="With `authorization`: the scopes that its token is asked for.",
    )
    runner: str = Field(
        default="sandbox",
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        description="With `command`: the profile of `runners.profiles` that it runs in.",
    )
    session: SessionMode = Field(
        default=SessionMode.PER_CALL,
        description="per_call, per_caller or shared: whether reads may share a process.",
    )
    session_idle_s: Count = Field(
        default=300, ge=1, le=3_600, description="How long a session may stay unused, in seconds."
    )
    session_age_s: Count = Field(
        default=3_600, ge=1, le=3_600, description="How old a session may grow, in seconds."
    )
    session_limit: Count = Field(
        default=16, ge=1, le=256, description="How many of its processes may be kept at a time."
    )
    list_age_s: Count = Field(
        default=0,
        ge=0,
        le=30,
        description="With `url`: how old a list of its tools may be that a call is compared with "
        "which changes something, in seconds.",
    )
    unsafe_session_writes: bool = Field(
        default=False, strict=True, description="Let calls that change something into sessions."
    )
    limits: LimitsSpec = Field(
        default_factory=lambda: LimitsSpec(wall_s=60, memory_mb=512, output_bytes=1_048_576),
        description="The most a call may use.",
    )
    effect: Effect = Field(
        default=Effect.DESTRUCTIVE,
        description="Of tools whose effect the operator does not say.",
    )
    unlisted: Unlisted = Field(
        default=Unlisted.OFFER,
        description="offer or hide: tools that are not under `tools`.",
    )
    resources: Beside = Field(
        default=Beside.HIDE,
        description="offer or hide: its resources; reading one is a call like any other.",
    )
    prompts: Beside = Field(
        default=Beside.HIDE,
        description="offer or hide: its prompts; each is accepted and asked for as a tool is.",
    )
    system: Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,63}$")] | None = Field(
        default=None, description="What its tools act on; the server's name if absent."
    )
    open_world: bool = Field(
        default=False, strict=True, description="Whether they reach people or systems outside."
    )
    returns: list[Taint] = Field(
        default_factory=lambda: [Taint.UNTRUSTED],
        max_length=4,
        description="What results may hold: untrusted (others' words), sensitive, or both.",
    )
    environment: EnvironmentSpec | None = Field(default=None, description="Where its tools act.")
    egress: EgressList = Field(default_factory=list)
    credentials: CredentialList = Field(default_factory=list)
    mode: Mode = Field(
        default=Mode.ENFORCE,
        description="enforce, or shadow: policy decides and is recorded, and calls go on.",
    )
    tools: list[ServerToolSpec] = Field(
        default_factory=list, max_length=1_000, description="What the operator says of its tools."
    )
