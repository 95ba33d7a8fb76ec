"""What calls of a server are made with, by the operator's word: command, way out, credentials."""

from __future__ import annotations

from urllib.parse import urlsplit

from remit.catalog.reaching import credentials, egress
from remit.catalog.server_spec import ServerSpec
from remit.model import Command, CredentialRule, EgressRule, Mount
from remit.profile import ELSEWHERE

_PORTS = {"https": 443, "http": 80}


def prefix_of(spec: ServerSpec) -> str:
    """What stands before the names of its tools, without the `_`; empty for none."""
    return spec.name if spec.prefix is None else spec.prefix


def profile_of(spec: ServerSpec) -> str:
    """The runner profile that its calls are made in."""
    return spec.runner if spec.url is None else ELSEWHERE


def command_of(spec: ServerSpec, *, writes: bool) -> Command:
    """How the server is started; an empty argv for one that is reached at a URL.

    What the operator wrote is literal: a brace in it is no placeholder.

    Args:
        writes: whether it may write to the directories that are writable; else none is.
    """
    if spec.command is None:
        return Command(argv=())
    return Command(
        argv=tuple(_literal(each) for each in spec.command.argv),
        env=tuple((name, _literal(value)) for name, value in sorted(spec.command.env.items())),
        mounts=tuple(
            Mount(name=each.name, source=each.source, writable=each.writable and writes)
            for each in spec.command.mounts
        ),
    )


def egress_of(spec: ServerSpec) -> tuple[EgressRule, ...]:
    """All that a call could reach: the operator's rules, or the one address of its URL.

    Raises:
        ConfigError: `catalog_invalid`: a host or path that could be read in two ways.
    """
    if spec.url is None:
        return egress(spec.egress)
    parts = urlsplit(spec.url)
    return (EgressRule(host=parts.hostname or "", port=parts.port or _PORTS[parts.scheme]),)


def credentials_of(spec: ServerSpec) -> tuple[CredentialRule, ...]:
    """All that a call could use: the operator's rules, or what the server is shown."""
    if spec.url is None:
        return credentials(spec.credentials)
    if spec.authorization is None:
        return ()
    return (CredentialRule(ref=spec.authorization, scopes=tuple(sorted(set(spec.scopes)))),)


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
