"""`policy.notify`, checked: the channels that an obligation may name, with their tokens read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from remit.errors import Code, ConfigError
from remit.loopback import is_loopback
from remit.notify import HttpChannel
from remit.settings.policy import ChannelSection
from remit.settings.secret import SecretRef


def read_channels(
    sections: Mapping[str, ChannelSection],
    base: Path,
    environ: Mapping[str, str],
    problems: list[ConfigError],
) -> Iterator[tuple[str, HttpChannel]]:
    """Each channel that can be used; what is wrong with the others goes into `problems`.

    Args:
        base: the directory that files of references are relative to.
        environ: the environment that references name.
    """
    for name, section in sections.items():
        at = f"policy.notify.{name}"
        try:
            _check_url(section.url, f"{at}.url")
            token = None
            if section.token is not None:
                token = SecretRef.parse(section.token).read(base, environ).reveal()
                _check_token(token)
        except ConfigError as error:
            place = error.place if error.place == f"{at}.url" else f"{at}.token"
            problems.append(ConfigError(error.code, error.message, place=place, hint=error.hint))
            continue
        yield name, HttpChannel(url=section.url, token=token, timeout_ms=section.timeout_ms)


def _check_url(url: str, at: str) -> None:
    """A message says who did what: it does not cross a network in the clear."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if not host or parts.username is not None or parts.fragment:
        raise _invalid("the channel's URL is not one of a host", at, "https://host/path")
    if parts.scheme == "http" and not is_loopback(host):
        raise _invalid("the channel is plain http to another machine", at, "use https")


def _check_token(token: str) -> None:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise _invalid("the channel's token cannot stand in a header", "", "see what it names")


def _invalid(message: str, at: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, place=at, hint=hint)
