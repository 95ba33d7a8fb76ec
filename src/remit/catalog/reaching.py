"""What the operator says a tool may reach at most: checked, and put into the one normal form."""

from __future__ import annotations

from collections.abc import Sequence

from remit.catalog.safety import invalid
from remit.catalog.spec import CredentialSpec, EgressSpec
from remit.model import CredentialRule, EgressRule
from remit.reach import normal_credentials, normal_egress, plain_host, plain_path


def egress(specs: Sequence[EgressSpec]) -> tuple[EgressRule, ...]:
    """The destinations that the operator named.

    Raises:
        ConfigError: `catalog_invalid`: a host or path that could be read in two ways.
    """
    for index, spec in enumerate(specs):
        if not plain_host(spec.host):
            raise invalid(
                "the host is not one exact name in lower case, nor an IP address in its usual form",
                f"egress[{index}].host",
                "write each host out; there are no wildcards",
            )
        if spec.path_prefix is not None and not plain_path(spec.path_prefix):
            raise invalid(
                "the path prefix is not a plain path",
                f"egress[{index}].path_prefix",
                "begin with /, without `..`, `//`, `%`, `?` and spaces",
            )
    return normal_egress(
        EgressRule(
            host=spec.host,
            port=spec.port,
            methods=None if spec.methods is None else tuple(spec.methods),
            path_prefix=spec.path_prefix,
        )
        for spec in specs
    )


def credentials(specs: Sequence[CredentialSpec]) -> tuple[CredentialRule, ...]:
    """The credentials that the operator named, by their handles."""
    return normal_credentials(
        CredentialRule(
            ref=spec.ref, scopes=tuple(spec.scopes), ttl_s=spec.ttl_s, audience=spec.audience
        )
        for spec in specs
    )
