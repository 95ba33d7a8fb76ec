"""How a server elsewhere is known to be the right one: its certificate and its name."""

from __future__ import annotations

import os
import ssl

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where distributions keep their authorities, for a Python that looks elsewhere."""


def client_context(ca_pem: str) -> ssl.SSLContext:
    """Verifies certificates and names against the system's authorities and these."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        for path in _BUNDLES:
            if os.path.exists(path):
                context.load_verify_locations(path)
                break
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    if ca_pem:
        context.load_verify_locations(cadata=ca_pem)
    return context
