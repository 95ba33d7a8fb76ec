"""What of the configuration the keeper is told: sections as plain JSON, references as written.

The gateway reads no reference of a credential; it hands them on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from remit.secret import SecretRef
from remit.settings.credentials import CredentialSection
from remit.settings.runners import RunnersSection

REFERENCES = ("secret", "private_key", "client_secret")
"""Fields of credentials that hold references."""


def credential_sections(runners: RunnersSection) -> dict[str, dict[str, Any]]:
    """`runners.credentials` as plain JSON. Unlike a dump for people, commands are not masked."""
    return {ref: _plain(each) for ref, each in runners.credentials.items()}


def issuer_section(runners: RunnersSection) -> dict[str, Any] | None:
    """`runners.issuer` as plain JSON; None where there is none."""
    return None if runners.issuer is None else runners.issuer.model_dump(mode="json")


def named_variables(runners: RunnersSection, environ: Mapping[str, str]) -> dict[str, str]:
    """Of the environment, exactly what references of credentials name."""
    names = {ref.where for ref in _references(runners) if ref.kind == "env"}
    return {name: environ[name] for name in sorted(names) if name in environ}


def _plain(section: CredentialSection) -> dict[str, Any]:
    dumped: dict[str, Any] = BaseModel.model_dump(section, mode="json")
    written = {name: getattr(section, name) for name in REFERENCES if name in dumped}
    return {**dumped, **written}


def _references(runners: RunnersSection) -> Iterator[SecretRef]:
    for section in runners.credentials.values():
        for name in REFERENCES:
            text = getattr(section, name, None)
            if text is not None:
                yield SecretRef.parse(text)
