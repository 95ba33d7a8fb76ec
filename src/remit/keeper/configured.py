"""The credentials that are configured: for each handle its broker, its digest, how it is delivered."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.canonical import digest_of
from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import FACTORIES, KEEPS, Broker, Issuer, Kit, Sealed
from remit.runners.credentials.render import fields_of
from remit.secret import SecretRef

_SEVERAL_LINES = frozenset({"private_key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One section of `runners.credentials`, with its broker. `looks`: the operator wrote that it is
    lent outside of runs too, to see what a server offers."""

    ref: str
    kind: str
    broker: Broker
    digest: str
    inject: tuple[Mapping[str, Any], ...]
    file: Mapping[str, Any] | None
    ttl_s: int | None
    looks: bool = False

    @property
    def delivered(self) -> str:
        return "proxy" if self.file is None else "file"


class Opener:
    """Makes credentials of sections; reads all that they name now, for later it may not.

    Args:
        base: the directory that relative references and files are relative to.
        issuer: for brokers that log in with a token.
        now: milliseconds since the epoch.
        sealed: opens the place for what brokers keep; called where one needs it.
    """

    def __init__(
        self,
        base: Path,
        issuer: Issuer | None,
        now: Callable[[], int],
        sealed: Callable[[], Sealed],
    ) -> None:
        self._base = base
        self._sealed = sealed
        self._issuer = issuer
        self._now = now

    def open(self, ref: str, section: Mapping[str, Any]) -> Credential:
        """The credential of one section.

        Raises:
            ConfigError: with the place in remit.yaml.
        """
        try:
            broker = self._broker(ref, section)
            inject = tuple(section.get("inject") or ())
            file = section.get("file")
            if (file is None) == (not inject):
                raise _wrong("needs either inject or file", None)
            _check_templates(inject, file, broker.gives)
        except ConfigError as exc:
            place = ".".join(part for part in ("runners.credentials", ref, exc.place) if part)
            raise ConfigError(exc.code, exc.message, place=place, hint=exc.hint) from None
        return Credential(
            ref=ref,
            kind=str(section["broker"]),
            broker=broker,
            digest=self._digest(section),
            inject=inject,
            file=file,
            ttl_s=section.get("ttl_s"),
            looks=section.get("unsafe_look") is True or bool(section.get("unsafe_look_as")),
        )

    def _broker(self, ref: str, section: Mapping[str, Any]) -> Broker:
        target = FACTORIES.get(str(section.get("broker")))
        if target is None:
            raise _wrong("is of no broker that there is", "broker")
        module, _, name = target.partition(":")
        made: Broker = getattr(importlib.import_module(module), name)(
            Kit(
                ref=ref,
                section=section,
                secret=lambda name: self._secret(section, name),
                read_file=lambda name: self._read_file(section, name),
                issuer=self._issuer,
                now=self._now,
                sealed=self._sealed() if section["broker"] in KEEPS else None,
            )
        )
        return made

    def _secret(self, section: Mapping[str, Any], name: str) -> str:
        try:
            where = SecretRef.parse(section.get(name))
        except ValueError as exc:
            raise ConfigError(Code.CONFIG_INVALID, str(exc), place=name) from None
        try:
            return where.read(self._base, os.environ, lines=name in _SEVERAL_LINES).reveal()
        except ConfigError as exc:
            raise ConfigError(exc.code, exc.message, place=name, hint=exc.hint) from None

    def _read_file(self, section: Mapping[str, Any], name: str) -> bytes | None:
        where = section.get(name)
        if where is None:
            return None
        try:
            return (self._base / str(where)).read_bytes()
        except OSError as exc:
            raise _wrong(f"cannot be read: {exc.strerror}", name) from None

    def _digest(self, section: Mapping[str, Any]) -> str:
        """Over all that decides what is lent, but for the secrets themselves."""
        issuer = None if self._issuer is None else self._issuer.url
        facts = {key: value for key, value in section.items() if value is not None}
        return digest_of("remit.credential/1", {"section": facts, "issuer": issuer})


def _check_templates(
    inject: tuple[Mapping[str, Any], ...],
    file: Mapping[str, Any] | None,
    gives: frozenset[str] | None,
) -> None:
    for index, each in enumerate(inject):
        if (each.get("value") is None) == (each.get("basic_user") is None):
            raise _wrong("needs either value or basic_user", f"inject[{index}]")
        for name in ("value", "basic_user"):
            if each.get(name) is not None:
                _check_template(each[name], gives, f"inject[{index}].{name}")
    if file is not None:
        _check_template(file["content"], gives, "file.content")


def _check_template(text: str, gives: frozenset[str] | None, place: str) -> None:
    try:
        named = fields_of(text)
    except ValueError as exc:
        raise _wrong(f"has {exc}", place) from None
    if gives is not None and (odd := sorted(named - gives)):
        raise _wrong(f"names a field that the broker does not give: {odd[0]}", place)


def _wrong(message: str, place: str | None) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, place=place)
