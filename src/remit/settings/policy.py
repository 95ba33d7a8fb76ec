"""The section `policy` of `remit.yaml`: which policy answers, where it comes from, who evaluates it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from remit.catalog.spec import Count, Strict
from remit.settings.fields import FilePath, Reference

LayerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Package = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,7}$")]
LibraryName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Channel = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Url = Annotated[str, Field(pattern=r"^https?://[!-~]{1,2000}$")]


class VerifySection(Strict):
    """The pinned key that a bundle has to be signed with."""

    key: Reference = Field(
        description="The public key in PEM, or the secret of HS256: env:NAME or file:path."
    )
    key_id: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="The `keyid` that the signature has to name."
    )
    algorithm: Literal["RS256", "ES256", "EdDSA", "HS256"] = Field(
        default="RS256", description="The only algorithm that is accepted."
    )
    scope: Annotated[str, Field(max_length=128)] = Field(
        default="", description="The `scope` that the signature has to have."
    )


class SourceSection(Strict):
    """Where a policy comes from."""

    path: FilePath | None = Field(
        default=None,
        description="Directory, bundle (.tar.gz) or http(s) URL of a bundle; relative to this file.",
    )
    use: dict[LibraryName, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=16,
        description="Policies of the library to ask besides, by name, each with its data.",
    )
    verify: VerifySection | None = Field(
        default=None, description="The key that the bundle must be signed with."
    )
    token: Reference | None = Field(
        default=None, description="Bearer token for the URL: env:NAME or file:path."
    )
    ca_file: FilePath | None = Field(
        default=None, description="Certificates to trust for the URL, instead of the system's."
    )
    package: Package = Field(
        default="remit",
        description="The package that is asked. Only an OPA server of your own may have another.",
    )


class LayerSection(SourceSection):
    """A policy of an organisation or team, asked besides `policy.path`; all must permit."""

    name: LayerName = Field(description="Its name, in records and answers.")


class OpaSection(Strict):
    """The OPA server that evaluates, where `engine` is opa. Give `binary` or `url`."""

    binary: FilePath | None = Field(
        default=None, description="An `opa` executable; Remit starts and supervises it."
    )
    url: Annotated[str, Field(pattern=r"^(https?://[!-~]{1,2000}|unix:/[!-~]{1,100})$")] | None = (
        Field(default=None, description="A running server: https://host:port or unix:/path.")
    )
    token: Reference | None = Field(
        default=None, description="Bearer token for the server: env:NAME or file:path."
    )
    ca_file: FilePath | None = Field(default=None, description="Certificates to trust.")
    cert_file: FilePath | None = Field(default=None, description="Client certificate (mTLS).")
    key_file: FilePath | None = Field(default=None, description="Key of the client certificate.")
    socket_uid: Count | None = Field(
        default=None,
        ge=0,
        le=4_294_967_294,
        description="OS user that may own the server's Unix socket, besides root and Remit's own.",
    )
    pin_revision: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None, description="The only bundle revision whose answers count."
    )
    results: bool = Field(
        default=False,
        description="With `url`: whether its policy has a rule `result`, to be asked about results.",
    )


class ShadowSection(Strict):
    """A second policy or engine that is asked too, after the answer, and never changes it."""

    engine: Literal["embedded", "opa"] | None = Field(
        default=None, description="The other engine, with the policy in force."
    )
    path: FilePath | None = Field(
        default=None, description="A candidate policy: directory or bundle (.tar.gz)."
    )
    sample: float = Field(
        default=0.1, ge=0, le=1, allow_inf_nan=False, description="Part of decisions, from 0 to 1."
    )


class ChannelSection(Strict):
    """Where a `notify` obligation goes: a POST of JSON that has to be taken before anything runs."""

    url: Url = Field(description="Where to POST.")
    token: Reference | None = Field(
        default=None, description="Bearer token: env:NAME or file:path."
    )
    timeout_ms: Count = Field(default=3_000, ge=100, le=30_000, description="Longest answer.")


class PolicySection(SourceSection):
    """Which policy answers, and how long it may take."""

    path: FilePath | None = Field(
        default="policy",
        description="Directory of Rego modules, bundle (.tar.gz) or http(s) URL of a bundle; "
        "relative to this file.",
    )
    layers: list[LayerSection] = Field(
        default_factory=list,
        max_length=8,
        description="Policies of organisation and team, asked besides; the strictest answer holds.",
    )
    engine: Literal["embedded", "opa"] = Field(
        default="embedded", description="What evaluates: embedded, or opa (see `opa`)."
    )
    opa: OpaSection = Field(default_factory=OpaSection, description="The OPA server.")
    profile: Literal["portable", "unsafe_any"] = Field(
        default="portable",
        description="unsafe_any leaves the portable profile out; only with engine opa.",
    )
    deadline_ms: Count = Field(
        default=250, ge=10, le=10_000, description="Longest answer; a slower one is a denial."
    )
    workers: Count = Field(default=1, ge=1, le=16, description="Policy worker processes a layer.")
    reload_s: Count = Field(
        default=5,
        ge=0,
        le=86_400,
        description="How often a changed policy is looked for; 0: only at start.",
    )
    cache_ttl_s: Count = Field(
        default=10, ge=0, le=10, description="How long what a caller may see is remembered."
    )
    history_s: Count = Field(
        default=86_400,
        ge=60,
        le=604_800,
        description="How far back `input.history` reaches, in seconds.",
    )
    questions_per_minute: Count = Field(
        default=30,
        ge=0,
        le=10_000,
        description="How often a caller may use remit_can_i and remit_request_access; "
        "0 leaves both out.",
    )
    shadow: ShadowSection | None = Field(default=None, description="What is asked too, on trial.")
    notify: dict[Channel, ChannelSection] = Field(
        default_factory=dict, max_length=32, description="Channels of `notify` obligations."
    )
