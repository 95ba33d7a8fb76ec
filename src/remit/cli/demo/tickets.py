"""A ticket system for the demo: an HTTPS server on loopback that wants a token, and is careless with it."""

from __future__ import annotations

import datetime
import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Tickets(ThreadingHTTPServer):
    """Opens a ticket for whoever brings the token, and sends back what it was sent.

    `localhost` is its name; `authority` its own certificate in PEM.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.token = f"demo-{secrets.token_urlsafe(24)}"
        self.opened: list[str] = []
        self.refused = 0
        key, certificate = _certificate()
        self.authority = certificate.decode()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with TemporaryDirectory(prefix="remit-demo-tls-") as folder:
            both = Path(folder, "both.pem")
            both.write_bytes(key + certificate)
            self._context.load_cert_chain(both)
        self.socket = self._context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )


class _Request(BaseHTTPRequestHandler):
    server: Tickets
    timeout = 10

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 10_000))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.server.refused += 1
            self._answer(401, {"error": "no token, no ticket"})
            return
        self.server.opened.append(str(json.loads(body)["title"]))
        sent = {"Authorization": self.headers["Authorization"]}
        self._answer(201, {"ticket": len(self.server.opened), "you_sent": sent})

    def _answer(self, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing between the demo's own lines."""


def _certificate() -> tuple[bytes, bytes]:
    """A key and a certificate for `localhost` that is its own authority, both PEM, for a day."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the demo's ticket system")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)


@contextmanager
def serving() -> Iterator[Tickets]:
    """The ticket system, until the block ends."""
    server = Tickets()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
