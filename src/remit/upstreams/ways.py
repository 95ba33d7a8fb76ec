"""Which ways of a publisher's `server.json` to have a server are taken, whoever asks for them."""

from __future__ import annotations

from urllib.parse import urlsplit

from remit.addresses import Reach, is_address, reach
from remit.loopback import is_loopback
from remit.upstreams.found import FoundServer
from remit.upstreams.refused import refused
from remit.upstreams.secretlike import shown
from remit.visible import quoted

INSTALLED = frozenset({"npm", "pypi"})
"""Kinds of packages that are installed."""


def refuse_plain_address(server: FoundServer) -> None:
    """Refuse a publisher's address of this machine or of a network of one's own: it would open a
    service there to agents.

    An address that is a person's answer as a whole is let by. What a name in an https address leads
    to is looked at when it is asked, and has to be public then; a private address that stands in a
    url is reached, since an operator wrote it. So no publisher may.

    Raises:
        ConfigError: `config_invalid`.
    """
    url = server.url
    if url is None or not url.foreign:
        return
    hint = "if it is a server of yours, write its `url` into remit.yaml yourself"
    if not url.text.lower().startswith("https://"):
        raise refused(server, "/url", "has an address without TLS, which its publisher wrote", hint)
    if _own(url.text):
        raise refused(server, "/url", "has a private address, which its publisher wrote", hint)


def _own(url: str) -> bool:
    """Whether an address names this machine, or by its number something that is not public."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return True  # nobody can say
    return is_loopback(host) or (is_address(host) and reach(host) < Reach.PUBLIC)


def refuse_what_is_not_installed(server: FoundServer, *, chosen: bool, choose: str) -> None:
    """Refuse a package that no client here would get, or would get from elsewhere than is said.

    Args:
        chosen: a person named this way, after its publisher's registry was shown.
        choose: what names the way.

    Raises:
        ConfigError: of a kind that is not installed; or of a registry that is named, without a
            digest: the package's name may be somebody else's in the registry that is asked here.
    """
    one = server.package
    if one is None or one.registry == "oci":
        return  # a container is refused where every container is
    if one.registry not in INSTALLED:
        raise refused(
            server,
            "/registryType",
            f"is a package of {one.registry}, which Remit does not install",
            "install it yourself, and write the program's own path as `command`",
        )
    if one.base_url is not None and one.sha256 is None and not chosen:
        raise refused(
            server,
            "/registryBaseUrl",
            f"is of the registry {quoted(shown(one.base_url, 200))}, as its publisher says; what "
            "is asked is the registry that npm or pip is set up for here",
            f"if that has the same packages, name the way: {choose}",
        )
