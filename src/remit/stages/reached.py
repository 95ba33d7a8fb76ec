"""What the caller of a failed action hears of its way out.

Clients often hide why a proxy refused them: a `CONNECT` that fails is shown as a status, a retry or
nothing. So Remit says it in its own words, from the run's record.
"""

from __future__ import annotations

from remit.model import Connection, Traffic

MAX_TOLD = 5
"""Destinations that are named; the rest is counted."""

ADVICE: dict[str, str] = {
    "not_allowed": "no rule of this action names this host and port; an operator gives it in the "
    "tool's egress and in policy",
    "method": "the rules for it have other methods",
    "path": "the rules for it have other paths, or the path can be read in two ways",
    "not_tls": "what the client sent is not TLS; plain HTTP is asked for with http://",
    "client_tls": "the client does not trust this run's authority; it has to take the file that "
    "SSL_CERT_FILE names",
    "sni_mismatch": "TLS asked for another name than the one that was allowed",
    "host_mismatch": "the Host header is not the host that was asked for",
    "upgrade": "WebSocket and other changes of protocol need a rule of host and port alone",
    "address": "its address is private, local or a metadata service; an operator may name it under "
    "runners.egress.internal",
    "malformed": "what the client sent is not HTTP/1.1 as the proxy accepts it",
    "too_many": "too many connections were open at once",
    "too_much": "the run sent and received as much as it may",
    "fenced": "the run was over",
    "resolve": "its name could not be resolved",
    "connect": "it could not be connected to",
    "upstream_tls": "its certificate was not accepted; an operator names its authority under "
    "runners.egress.ca_file",
    "upstream": "its answer was broken off or is not HTTP/1.1 as the proxy accepts it",
    "encoded": "its answer is compressed in a way that cannot be searched",
    "timeout": "nothing came for too long",
    "internal": "the proxy itself failed",
    "lost": "the proxy was lost, and with it the way out",
}
"""What a refusal means to whoever asked, and who can do something about it."""

_NO_REQUEST = (
    "TLS to {place} was set up and no request came: a client that does not trust the file that "
    "SSL_CERT_FILE names gives up like this."
)
_UNUSED = (
    "It made no connection. Its only way out is the proxy that HTTPS_PROXY names, or "
    "REMIT_EGRESS_URL for clients that take a base URL and no proxy."
)


_NONE = (
    "It had no network: of the destinations that the tool declares, policy and the runner's profile "
    "gave none."
)


def way_out_said(traffic: Traffic | None, *, declared: bool = False) -> str | None:
    """What there is to say of a way out that may be why a run failed; None if there is nothing.

    Args:
        traffic: what went through it; None for a run that had none.
        declared: the run's tool declares destinations.

    Hosts are what the run itself asked for. Its caller may not see them where it may not see what
    the run printed.
    """
    if traffic is None:
        return _NONE if declared else None
    told = list(dict.fromkeys(map(_refusal, _refused(traffic))))
    if told:
        lines = [f"Its way out refused {each}." for each in told[:MAX_TOLD]]
        if len(told) > MAX_TOLD or traffic.more:
            lines.append(f"{traffic.refused} refusals in all; the run's record has them.")
        return "\n".join(lines)
    if traffic.refused:
        return f"Its way out refused {traffic.refused} times; the run's record has why."
    if not traffic.connections:
        return _UNUSED
    silent = [each for each in traffic.connections if each.kind == "https" and not each.requests]
    return _NO_REQUEST.format(place=_place(silent[0])) if silent else None


def _refused(traffic: Traffic) -> list[Connection]:
    return [each for each in traffic.connections if each.refused is not None]


def _refusal(each: Connection) -> str:
    code = each.refused or ""
    return f"{_place(each)} [{code}]: {ADVICE.get(code, 'the record has why')}"


def _place(each: Connection) -> str:
    return f"{each.host}:{each.port}" if each.host and each.port else "a connection"
