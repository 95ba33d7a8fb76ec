"""What can be told of credentials before anything is lent: handles, destinations, templates.

Nothing here reads a secret.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from remit.backends import Delivery
from remit.command import Placeholder, parse_template
from remit.errors import Code, ConfigError
from remit.loopback import address_fault
from remit.model import CredentialRule, EgressRule, Tool
from remit.profile import Profile, Tls
from remit.reach import meet_egress, plain_host, plain_path
from remit.settings.credentials import (
    AwsCredential,
    ClientCredential,
    ConsentCredential,
    CredentialSection,
    ExchangeCredential,
    InjectSection,
    OidcCredential,
    StaticCredential,
    VaultCredential,
)
from remit.settings.profiles import Add, is_metadata
from remit.settings.runners import RunnersSection
from remit.stages.means import file_variable
from remit.upstreams.secretlike import shown

_TOKEN = frozenset({"token"})
_AWS = frozenset({"access_key_id", "secret_access_key", "session_token", "expiration"})
_BY_ISSUER = (OidcCredential, VaultCredential, AwsCredential, ExchangeCredential)

_ADDRESSES = (
    "address",
    "endpoint",
    "api",
    "token_url",
    "revocation_url",
    "issuer",
    "resource",
    "authorization_url",
)

_FRAMING = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
    "trailer", "expect", "proxy-authorization", "proxy-connection", "accept-encoding",
})  # fmt: skip
"""Headers by which a request is delimited or sent on; none of them is a credential."""


def read_deliveries(section: RunnersSection, add: Add) -> Mapping[str, Delivery]:
    """How each credential reaches a run, each section checked."""
    if section.issuer is not None:
        _check_address("runners.issuer.url", section.issuer.url, add)
    for ref, each in section.credentials.items():
        _check(section, each, f"runners.credentials.{ref}", add)
    return {ref: _delivery(each) for ref, each in section.credentials.items()}


def _delivery(section: CredentialSection) -> Delivery:
    return Delivery(
        file=None if section.file is None else section.file.name,
        inject=tuple(
            EgressRule(host=each.host, port=each.port, path_prefix=each.path_prefix)
            for each in section.inject
        ),
    )


def _check(runners: RunnersSection, section: CredentialSection, place: str, add: Add) -> None:
    if (section.file is None) == (not section.inject):
        add(
            place, "needs either inject or file", "inject it where that can be: no run sees it then"
        )
    if isinstance(section, _BY_ISSUER) and runners.issuer is None:
        add(
            place,
            f"is of the broker {section.broker}, which needs a token of Remit's own issuer",
            "write runners.issuer with the address at which its keys can be read",
        )
    for name in _ADDRESSES:
        _check_address(f"{place}.{name}", getattr(section, name, None), add)
    if isinstance(section, ClientCredential):
        _check_client(section, place, add)
    if isinstance(section, ConsentCredential):
        _check_consent(section, place, add)
    known = _fields(section)
    for index, each in enumerate(section.inject):
        _check_inject(each, known, f"{place}.inject[{index}]", add)
    if section.file is not None:
        _check_template(section.file.content, known, f"{place}.file.content", add)


def _check_address(place: str, url: str | None, add: Add) -> None:
    """An address from which secrets come, or at which others look for what vouches for tokens."""
    if url is not None and (fault := address_fault(url)) is not None:
        add(place, fault, "write https://")


def _check_client(section: ClientCredential, place: str, add: Add) -> None:
    """Where the authorization server is, and how a client shows itself: each said in one way."""
    if section.find_issuer == (section.issuer is not None or section.token_url is not None):
        add(
            place,
            "needs issuer or token_url, or else find_issuer",
            "write the issuer of the authorization server",
        )
    if section.revocation_url is not None and section.token_url is None:
        add(
            f"{place}.revocation_url",
            "is found in the server's metadata, where token_url is",
            "write token_url too, or leave it out",
        )
    by_key = section.client_auth == "private_key_jwt"
    if section.find_issuer and not by_key:
        add(
            f"{place}.find_issuer",
            "would show the client's secret to whomever the resource names",
            "write the issuer, or have a client with a key (private_key_jwt)",
        )
    needed, other = ("private_key", "client_secret") if by_key else ("client_secret", "private_key")
    if getattr(section, needed) is None or getattr(section, other) is not None:
        add(
            f"{place}.{needed}",
            f"is what {section.client_auth} needs, and {other} is not",
            f"write {needed}",
        )
    if section.unsafe_keep_s is not None and section.ttl_s is not None:
        add(
            f"{place}.unsafe_keep_s",
            "keeps a token for several runs, and ttl_s gives each run its own",
            "leave one of them out",
        )


def _check_consent(section: ConsentCredential, place: str, add: Add) -> None:
    """Where people consent, said in one way, and who Remit is there."""
    if (section.authorization_url is None) != (section.token_url is None):
        add(place, "has authorization_url without token_url, or the reverse", "write both, or none")
    if section.revocation_url is not None and section.token_url is None:
        why = "is found in the server's metadata, where token_url is"
        add(f"{place}.revocation_url", why, "write token_url too, or leave it out")
    how = section.client_auth
    if (section.client_id is None) != (how is None):
        add(f"{place}.client_id", "goes with client_auth", "write both, or none")
    if section.authorization_url is not None and section.client_id is None:
        why = "is needed where the endpoints are written"
        add(f"{place}.client_id", why, "register Remit there by hand")
    needs = {"private_key_jwt": "private_key", None: "", "none": ""}.get(how, "client_secret")
    for name in ("private_key", "client_secret"):
        if (getattr(section, name) is not None) != (name == needs):
            why = "is what client_auth needs" if name == needs else "is not what client_auth needs"
            add(f"{place}.{name}", why, "see docs/credentials/authorization_code.md")
    if needs == "client_secret" and section.issuer is None and section.token_url is None:
        why = "is needed: the client's secret would be shown to whomever the resource names"
        add(f"{place}.issuer", why, "write the issuer of the authorization server")
    if section.ttl_s is not None:
        why = "would shorten a token that belongs to a person's consent, and cannot"
        add(f"{place}.ttl_s", why, "leave it out")


def _fields(section: CredentialSection) -> frozenset[str] | None:
    """What the broker gives; None where only its server knows."""
    if isinstance(section, AwsCredential):
        return _AWS
    if isinstance(section, VaultCredential) and section.path is not None:
        return None
    return _TOKEN


def _check_inject(
    section: InjectSection, known: frozenset[str] | None, place: str, add: Add
) -> None:
    if not plain_host(section.host):
        add(f"{place}.host", "is not one exact host in lower case", "write each host out")
    elif is_metadata(section.host):
        add(f"{place}.host", "is a metadata service", "no run may ever reach it")
    if section.path_prefix is not None and not plain_path(section.path_prefix):
        add(f"{place}.path_prefix", "is not a plain path", "begin with /, without .., // and %")
    if section.header.lower() in _FRAMING:
        add(f"{place}.header", "is no header for a credential", "such as Authorization")
    if (section.value is None) == (section.basic_user is None):
        add(place, "needs either value or basic_user", 'such as value: "Bearer {token}"')
    for name in ("value", "basic_user"):
        text = getattr(section, name)
        if text is not None:
            _check_template(text, known, f"{place}.{name}", add)


def _check_template(text: str, known: frozenset[str] | None, place: str, add: Add) -> None:
    try:
        parts = parse_template(text)
    except ValueError as error:
        add(place, f"has {error}", "{field} stands for what the broker gave; write {{ for a brace")
        return
    named = {part.name for part in parts if isinstance(part, Placeholder)}
    if known is not None and (odd := sorted(named - known)):
        add(
            place,
            f"names a field that the broker does not give: {odd[0]}",
            "it gives: " + ", ".join(sorted(known)),
        )


def check_tools(
    tools: Sequence[Tool],
    section: RunnersSection,
    deliveries: Mapping[str, Delivery],
    profiles: Mapping[str, Profile],
) -> list[ConfigError]:
    """What is wrong between tools and the credentials that they name."""
    problems: list[ConfigError] = []
    for tool in tools:
        told = [
            *_missing(tool, section),
            *_undeliverable(tool, deliveries, profiles.get(tool.runner)),
            *_clashing(tool, deliveries),
            *_unsigned(tool, section, deliveries),
        ]
        problems += [
            ConfigError(
                Code.CATALOG_INVALID, f"the tool {tool.name} {why}", place=tool.name, hint=hint
            )
            for why, hint in told
        ]
    return problems


def unsafe(section: RunnersSection) -> Mapping[str, bool]:
    """The unsafe choices of credentials, by the name of their key."""
    names = ("unsafe_keep_s", "unsafe_look", "unsafe_look_as")
    found = [(name, each) for name in names for each in section.credentials.values()]
    return {
        name: any(bool(getattr(e, name, None)) for n, e in found if n == name) for name in names
    }


def hears(section: RunnersSection) -> frozenset[str]:
    """The handles that servers are shown to be heard for everybody: the gateway's own, and never
    what one person consented to (`unsafe_look_as`)."""
    found = section.credentials.items()
    return frozenset(ref for ref, each in found if getattr(each, "unsafe_look", False) is True)


def looks(section: RunnersSection) -> frozenset[str]:
    """The handles that are lent to look at servers too."""
    names = ("unsafe_look", "unsafe_look_as")
    found = section.credentials.items()
    return frozenset(ref for ref, each in found if any(getattr(each, n, None) for n in names))


_Told = Iterator[tuple[str, str]]


def _missing(tool: Tool, section: RunnersSection) -> _Told:
    for rule in tool.credentials:
        found = section.credentials.get(rule.ref)
        if found is None:
            yield (
                f"names the credential {shown(rule.ref)}, which is not there",
                "write the name of a section of runners.credentials, never a secret itself",
            )
        elif isinstance(found, StaticCredential) and rule.scopes:
            yield (
                f"names scopes of {rule.ref}, a static secret, which cannot be narrowed",
                "leave the scopes out, or use a broker that narrows what it lends",
            )


def _undeliverable(
    tool: Tool, deliveries: Mapping[str, Delivery], profile: Profile | None
) -> _Told:
    for rule in _known(tool, deliveries):
        inject = deliveries[rule.ref].inject
        for each in inject:
            if not meet_egress([each], tool.egress):
                where = f"{each.host}:{each.port}"
                why = f"uses {rule.ref}, which is for {where}, and its egress does not name that"
                yield why, "add the destination to the tool's egress"
        if inject and profile is not None and profile.tls is Tls.PASSTHROUGH:
            why = f"uses {rule.ref}, which cannot be injected where TLS passes through"
            yield why, f"write `tls: terminate` for the profile {profile.name}"


def _unsigned(tool: Tool, section: RunnersSection, deliveries: Mapping[str, Delivery]) -> _Told:
    """Requests that the proxy can read lose their Authorization, which is an AWS client's signature."""
    known = _known(tool, deliveries)
    signs = [r.ref for r in known if isinstance(section.credentials[r.ref], AwsCredential)]
    put = {(each.host, each.port) for rule in known for each in deliveries[rule.ref].inject}
    carried = any(
        rule.methods is None and rule.path_prefix is None and (rule.host, rule.port) not in put
        for rule in tool.egress
    )
    if signs and tool.egress and not carried:
        yield (
            f"signs requests by {signs[0]}, and all of its egress takes the signature away",
            "give AWS's host a rule of host and port alone; the session policy says what is allowed",
        )


def _clashing(tool: Tool, deliveries: Mapping[str, Delivery]) -> _Told:
    """Two credentials in one place would leave open which of them is used."""
    taken: dict[str, set[str]] = defaultdict(set)
    for rule in _known(tool, deliveries):
        delivery = deliveries[rule.ref]
        if delivery.file is not None:
            taken[f"the file {delivery.file}"].add(rule.ref)
            taken[f"the variable {file_variable(rule.ref)}"].add(rule.ref)
        for each in delivery.inject:
            taken[f"requests to {each.host}:{each.port}{each.path_prefix or ''}"].add(rule.ref)
    for where, refs in taken.items():
        if len(refs) > 1:
            names = " and ".join(sorted(refs))
            yield f"uses {names}, both of which go into {where}", "use one of them, or rename it"


def _known(tool: Tool, deliveries: Mapping[str, Delivery]) -> list[CredentialRule]:
    return [rule for rule in tool.credentials if rule.ref in deliveries]
