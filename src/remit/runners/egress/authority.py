"""A certificate authority for one run, which nobody trusts but that run, and only for hours.

Made ahead of need, because a run should not wait for it. The key never leaves this process and is
forgotten with the run. RFC 5280; EC P-256.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
import ssl
import time
from collections import OrderedDict, deque

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from remit.addresses import is_address

LIFE_S = 4 * 3_600
"""Life of an authority and all its certificates: a waiting slot's hour, a run's hour, and slack."""

STOCK = 8
_STALE_S = 1_800.0
_EARLIER = datetime.timedelta(minutes=5)
_MAX_HOSTS = 256


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


class Authority:
    """One run's own: `pem` is its certificate. Contexts of hosts are kept, a few hundred at most."""

    def __init__(self) -> None:
        self.made = time.monotonic()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"Remit run {secrets.token_hex(8)}")]
        )
        now = datetime.datetime.now(datetime.UTC)
        self._from, self._until = now - _EARLIER, now + datetime.timedelta(seconds=LIFE_S)
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, SHA256())
        )
        self.pem = certificate.public_bytes(Encoding.PEM)
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._from)
            .not_valid_after(self._until)
        )

    def context(self, host: str) -> ssl.SSLContext:
        """A server's TLS as this host, HTTP/1.1 only, at least TLS 1.2."""
        if (kept := self._contexts.get(host)) is not None:
            return kept
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(["http/1.1"])
        made.num_tickets = 0
        made.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        _load(made, self._leaf(host) + self._leaf_pem())
        self._contexts[host] = made
        if len(self._contexts) > _MAX_HOSTS:
            self._contexts.popitem(last=False)
        return made

    def _leaf_pem(self) -> bytes:
        return self._leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _leaf(self, host: str) -> bytes:
        name: x509.GeneralName = x509.DNSName(host)
        if is_address(host):
            name = x509.IPAddress(ipaddress.ip_address(host))
        public = self._leaf_key.public_key()
        certificate = (
            self._builder(x509.Name([]), public)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier),
                critical=False,
            )
            .sign(self._key, SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """The ssl module reads certificates only from files: this one has no name and is gone at once."""
    fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class Authorities:
    """Authorities ready to be taken, and those that were taken by name."""

    def __init__(self) -> None:
        self._stock: deque[Authority] = deque()
        self._taken: dict[str, Authority] = {}

    def prepare(self, name: str) -> Authority:
        """The authority of this name, made now if it has to be."""
        if name not in self._taken:
            while self._stock and time.monotonic() - self._stock[0].made > _STALE_S:
                self._stock.popleft()
            self._taken[name] = self._stock.popleft() if self._stock else Authority()
        return self._taken[name]

    def take(self, name: str) -> Authority | None:
        """The prepared authority of this name, for one run; it has no other after that."""
        return self._taken.pop(name, None)

    def of(self, name: str) -> Authority | None:
        """The prepared authority of this name, which stays prepared for runs that follow."""
        return self._taken.get(name)

    def stock_up(self) -> bool:
        """Make one if there are too few; whether there are still too few."""
        if len(self._stock) < STOCK:
            self._stock.append(Authority())
        return len(self._stock) < STOCK
