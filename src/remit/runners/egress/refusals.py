"""Every reason for which the proxy lets something not through, and what the run is told."""

from __future__ import annotations

from http import HTTPStatus

REFUSALS: dict[str, tuple[int, str]] = {
    "not_allowed": (403, "no rule of this run allows this host and port"),
    "method": (403, "no rule of this run allows this method there"),
    "path": (403, "no rule of this run allows this path, or it can be read in two ways"),
    "not_tls": (403, "what came through the tunnel is not TLS"),
    "client_tls": (403, "the run's side did not come to TLS, as if it trusted another authority"),
    "sni_mismatch": (403, "the name in the TLS greeting is not the host that was asked for"),
    "host_mismatch": (403, "the Host header is not the host that was asked for"),
    "upgrade": (403, "changing the protocol is not allowed"),
    "address": (403, "the host's address is private, local or a metadata service"),
    "malformed": (400, "this is not HTTP/1.1 as the proxy accepts it"),
    "too_many": (429, "the run has too many connections open"),
    "too_much": (403, "the run has sent and received as much as it may"),
    "fenced": (403, "the run is over"),
    "resolve": (502, "the host's name could not be resolved"),
    "connect": (502, "the host could not be connected to"),
    "upstream_tls": (502, "the host's certificate or TLS was not accepted"),
    "upstream": (
        502,
        "the host's answer was broken off or is not HTTP/1.1 as the proxy accepts it",
    ),
    "encoded": (502, "the host's answer is compressed in a way that the proxy cannot look into"),
    "timeout": (504, "nothing came for too long"),
    "internal": (500, "the proxy itself failed"),
}
"""Code: HTTP status and a sentence. A run's record holds the code alone."""


class Refusal(Exception):
    """Something is not let through; `code` is one of `REFUSALS`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Unwilling(ValueError):
    """The gateway or the keeper asked for something that is not done; the message quotes nothing."""


def answer(code: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body that tell a run why; nothing that it sent is in them."""
    status, sentence = REFUSALS[code]
    body = f"Remit egress: {sentence} [{code}].\n".encode("ascii")
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("X-Remit-Refused", code),
        ("Connection", "close"),
    ]
    return status, headers, body


def answer_bytes(code: str) -> bytes:
    """The same as one HTTP/1.1 message."""
    status, headers, body = answer(code)
    # Of a CONNECT that fails, clients show this line at most, and never the body.
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase} (Remit egress: {code})"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
