"""What each credential handle means: a broker, and how what it lends reaches the run.

The keeper is given these sections; only it reads what their references name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from remit.catalog.spec import Count, Strict
from remit.settings.fields import FilePath, Reference, Subject

Url = Annotated[str, Field(pattern=r"^https?://[!-~]{1,2000}$")]
Word = Annotated[str, Field(pattern=r"^[!-~]{1,256}$")]
Template = Annotated[str, Field(max_length=8_192)]


_LOOK = (
    "Show it to an MCP server at a url also to list its tools: without a call, a policy's word and "
    "a record."
)


class InjectSection(Strict):
    """A header that the egress proxy sets on requests to one destination; the run never sees it."""

    host: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        description="One exact host in lower case, or an IP address; the tool's egress names it too."
    )
    port: Count = Field(default=443, ge=1, le=65_535, description="Its port.")
    path_prefix: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Whole segments that the path begins with; any, where absent."
    )
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = Field(
        default="Authorization", description="The header; what the client sent of it is dropped."
    )
    value: Template | None = Field(
        default=None,
        description="Its value, with `{field}` for what the broker gave, as `Bearer {token}`.",
    )
    basic_user: Template | None = Field(
        default=None,
        description="Instead of value: Basic authentication with this name and `{token}` (or "
        "`{password}`, where the broker gives one).",
    )


class LentFileSection(Strict):
    """A file below /run/remit/credentials, for clients to which nothing can be injected."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        description="Its name; REMIT_CREDENTIAL_FILE_<HANDLE> holds its path."
    )
    content: Template = Field(
        default="{token}", description="Its text, with `{field}` for what the broker gave."
    )


class _Credential(Strict):
    inject: list[InjectSection] = Field(
        default_factory=list, max_length=16, description="Destinations that it is injected for."
    )
    file: LentFileSection | None = Field(
        default=None, description="Instead of inject: a file in the run, where it must be one."
    )
    ttl_s: Count | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description="Longest life; never longer than the run's deadline and 60 s.",
    )


class StaticCredential(_Credential):
    """A long-lived secret, from a file or the environment. Gives `token`."""

    broker: Literal["static"] = Field(description="static")
    secret: Reference = Field(description="Where it is (env:NAME, file:PATH, exec:COMMAND).")
    unsafe_look: bool = Field(default=False, strict=True, description=_LOOK)


class OidcCredential(_Credential):
    """A token of Remit's own issuer, minted for each run. Gives `token`."""

    broker: Literal["oidc"] = Field(description="oidc")
    audience: Word = Field(description="Whom the token is for, unless the tool says.")


class VaultCredential(_Credential):
    """A secret of Vault or OpenBao. Gives the fields of the secret (`username`, `password`, ...)."""

    broker: Literal["vault"] = Field(description="vault")
    address: Url = Field(description="Its address; https, but for loopback.")
    ca_file: FilePath | None = Field(default=None, description="Authorities of its certificate.")
    namespace: Word | None = Field(default=None, description="Its namespace, where it has several.")
    mount: Word = Field(default="jwt", description="Where its JWT method is mounted.")
    role: Word = Field(description="The role that the login asks for.")
    audience: Word = Field(default="vault", description="Audience of the token that logs in.")
    path: Word | None = Field(
        default=None,
        description="The secret that is read, such as database/creds/app; without it the token "
        "itself is given, as `token`.",
    )


class AwsCredential(_Credential):
    """AWS credentials by AssumeRoleWithWebIdentity. Gives `access_key_id`, `secret_access_key`,
    `session_token` and `expiration`."""

    broker: Literal["aws"] = Field(description="aws")
    role_arn: Word = Field(description="The role.")
    endpoint: Url | None = Field(default=None, description="Another STS than the region's.")
    region: Word = Field(default="us-east-1", description="The region whose STS is asked.")
    audience: Word = Field(default="sts.amazonaws.com", description="Audience of the token.")
    policy: Template | None = Field(
        default=None, description="A session policy (JSON), which narrows the role."
    )


class GithubCredential(_Credential):
    """An installation token of a GitHub App. Gives `token`.

    Scopes are `repository:NAME` and `permission:NAME=LEVEL`; the token gets those that both the
    plan and this section name.
    """

    broker: Literal["github"] = Field(description="github")
    app_id: Word = Field(description="The App's id or client id.")
    installation_id: Word = Field(description="The installation.")
    private_key: Reference = Field(description="Where the App's private key (PEM) is.")
    api: Url = Field(default="https://api.github.com", description="The API's address.")
    repositories: list[Word] = Field(
        default_factory=list, max_length=500, description="The most it may be for."
    )
    permissions: dict[Word, Literal["read", "write", "admin"]] = Field(
        default_factory=dict, max_length=64, description="The most it may do."
    )


class ExchangeCredential(_Credential):
    """A token by OAuth 2.0 token exchange (RFC 8693). Gives `token`."""

    broker: Literal["exchange"] = Field(description="exchange")
    token_url: Url = Field(description="The authorization server's token endpoint.")
    audience: Word | None = Field(default=None, description="`audience` of the request.")
    resource: Url | None = Field(default=None, description="`resource` of the request.")
    subject_audience: Word = Field(description="Audience of Remit's own token that is exchanged.")
    client_id: Word | None = Field(default=None, description="Remit's client id there.")
    client_secret: Reference | None = Field(default=None, description="Where its secret is.")
    revocation_url: Url | None = Field(
        default=None, description="Where tokens are revoked (RFC 7009), if they can be."
    )


class ClientCredential(_Credential):
    """A token for Remit itself by OAuth client credentials, for one resource. Gives `token`."""

    broker: Literal["client_credentials"] = Field(description="client_credentials")
    resource: Url = Field(
        description="What the token is for (RFC 8707), such as an MCP server's url; a server that "
        "is shown it is at this address or below it."
    )
    issuer: Url | None = Field(
        default=None,
        description="The authorization server's issuer; its metadata (RFC 8414) names the rest.",
    )
    token_url: Url | None = Field(
        default=None, description="Its token endpoint, instead of what its metadata says."
    )
    revocation_url: Url | None = Field(
        default=None, description="With token_url: where tokens are revoked (RFC 7009)."
    )
    find_issuer: bool = Field(
        default=False,
        strict=True,
        description="Instead of issuer: ask the resource for it (RFC 9728); not with a secret.",
    )
    ca_file: FilePath | None = Field(default=None, description="Authorities of the certificates.")
    client_id: Word = Field(description="Remit's client id there.")
    client_auth: Literal["private_key_jwt", "client_secret_basic", "client_secret_post"] = Field(
        description="How Remit shows that it is this client."
    )
    private_key: Reference | None = Field(
        default=None, description="Where its key (PEM: P-256, Ed25519 or RSA) is."
    )
    key_id: Word | None = Field(default=None, description="`kid` of what the key signs.")
    assertion_audience: Word | None = Field(
        default=None, description="Whom that is for; the issuer, or else token_url, if absent."
    )
    client_secret: Reference | None = Field(default=None, description="Where its secret is.")
    audience: Word | None = Field(default=None, description="`audience` of the request.")
    scopes: list[Word] = Field(
        default_factory=list,
        max_length=64,
        description="The most that is asked for; all of it, where a tool names no scopes.",
    )
    unsafe_keep_s: Count | None = Field(
        default=None,
        ge=60,
        le=3_600,
        description="Lend a token to further runs for so long; it outlives them then.",
    )
    unsafe_look: bool = Field(default=False, strict=True, description=_LOOK)


class ConsentCredential(_Credential):
    """A token that a person gave for Remit to act for them (OAuth authorization code). Gives `token`.

    Without client_id Remit is known by the address of its metadata, or registers itself.
    """

    broker: Literal["authorization_code"] = Field(description="authorization_code")
    resource: Url = Field(
        description="What tokens are for (RFC 8707): an MCP server's url; a server that is shown one "
        "is at this address or below it."
    )
    issuer: Url | None = Field(
        default=None,
        description="The authorization server's issuer; without it the resource is asked (RFC 9728).",
    )
    authorization_url: Url | None = Field(
        default=None, description="Where people consent, instead of what its metadata says."
    )
    token_url: Url | None = Field(
        default=None, description="With authorization_url: its token endpoint."
    )
    revocation_url: Url | None = Field(
        default=None, description="With token_url: where tokens are revoked (RFC 7009)."
    )
    ca_file: FilePath | None = Field(default=None, description="Authorities of the certificates.")
    client_id: Word | None = Field(default=None, description="Remit's client id there.")
    client_auth: (
        Literal["none", "private_key_jwt", "client_secret_basic", "client_secret_post"] | None
    ) = Field(default=None, description="With client_id: how Remit shows that it is this client.")
    private_key: Reference | None = Field(
        default=None, description="Where its key (PEM: P-256, Ed25519 or RSA) is."
    )
    key_id: Word | None = Field(default=None, description="`kid` of what the key signs.")
    assertion_audience: Word | None = Field(
        default=None, description="Whom that is for; the issuer, or else token_url, if absent."
    )
    client_secret: Reference | None = Field(default=None, description="Where its secret is.")
    scopes: list[Word] = Field(
        default_factory=list,
        max_length=64,
        description="The most that people are asked for; all of it, where a tool names no scopes.",
    )
    unsafe_look_as: Subject | None = Field(
        default=None,
        description="Show an MCP server at a url what this person gave also to list its tools: "
        "without a call, a policy's word and a record.",
    )


CredentialSection = Annotated[
    StaticCredential
    | OidcCredential
    | VaultCredential
    | AwsCredential
    | GithubCredential
    | ExchangeCredential
    | ClientCredential
    | ConsentCredential,
    Field(discriminator="broker"),
]


class IssuerSection(Strict):
    """Remit as an OpenID Connect issuer: who trusts it gives runs access by what their tokens say."""

    url: Url = Field(
        description="Its public https address, where /.well-known/openid-configuration and its "
        "keys can be read; the MCP door serves them."
    )
    algorithm: Literal["RS256", "ES256"] = Field(
        default="RS256", description="RS256, which every cloud takes, or ES256."
    )
    rotate_days: Count = Field(
        default=30, ge=1, le=365, description="Age at which a new key takes over."
    )
    ttl_s: Count = Field(default=300, ge=30, le=3_600, description="Longest life of a token.")
