"""The section `policy`, checked as a whole: layers, engine, server and trial as values.

What contradicts what is told here, each with its key; what can only be told by starting something
(a bundle that is signed otherwise, a server that is not there) is told at the start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remit.errors import Code, ConfigError
from remit.policy.layers import MAIN
from remit.policy.opa.address import contradictions
from remit.policy.signature import Verification
from remit.policy.source import check_url, is_url
from remit.settings.policy import PolicySection, SourceSection
from remit.settings.secret import SecretRef

PLACE = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSettings:
    """One layer. `place` is an absolute path or a URL; None: the library alone, or a server's own."""

    name: str
    place: str | None
    use: Mapping[str, Mapping[str, Any]]
    package: str
    verification: Verification | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @property
    def path(self) -> Path | None:
        """Where on this machine it is, None if it comes from elsewhere."""
        return None if self.place is None or is_url(self.place) else Path(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaSettings:
    """The OPA that evaluates: an executable that Remit starts, or a server of others."""

    binary: Path | None = None
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    socket_uids: tuple[int, ...] = ()
    pin_revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """What is asked besides, on trial: in which engine, and a candidate for the main layer."""

    engine: str
    candidate: Path | None
    sample: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementSettings:
    """All layers, the main one first; who evaluates; what is on trial.

    `trusted` are the files of public keys and certificates; `private` those of secrets.
    """

    layers: tuple[LayerSettings, ...]
    engine: str
    opa: OpaSettings
    portable: bool
    trial: TrialSettings | None
    trusted: tuple[Path, ...] = ()
    private: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file and directory here that decides, or by which what decides is known."""
        found = [layer.path for layer in self.layers if layer.path is not None]
        return (*found, *([self.opa.binary] if self.opa.binary else []), *self.trusted)

    @property
    def sockets(self) -> tuple[Path, ...]:
        """Where a server that decides is asked on this machine."""
        url = self.opa.url or ""
        return (Path(url.removeprefix("unix:")),) if url.startswith("unix:") else ()


class Check:
    """Makes the values, and collects what is wrong; each problem's place is its key."""

    def __init__(self, section: PolicySection, base: Path, environ: Mapping[str, str]) -> None:
        self._section = section
        self._base = base
        self._environ = environ
        self._trusted: list[Path] = []
        self._private: list[Path] = []
        self.problems: list[ConfigError] = []

    def settings(self) -> EnforcementSettings:
        section = self._section
        foreign = section.engine == "opa" and section.opa.url is not None
        layers = list(self._layers(foreign))
        self._names()
        if not layers:
            self._add("policy.path", "nothing decides: there is no path, no use and no layer",
                      "name the directory of a policy")  # fmt: skip
        opa = self._opa(layers)
        return EnforcementSettings(
            layers=tuple(layers),
            engine=section.engine,
            opa=opa,
            portable=self._portable(),
            trial=self._trial(layers),
            trusted=tuple(self._trusted),
            private=tuple(self._private),
        )

    # Layers

    def _layers(self, foreign: bool) -> Iterator[LayerSettings]:
        section = self._section
        place = section.path
        if foreign and "path" not in section.model_fields_set:
            place = None  # the server has its own, unless Remit is told to give it one
        own = place is not None or section.use or (foreign and not section.layers)
        if own or "package" in section.model_fields_set:
            yield self._layer(MAIN, section, place, PLACE, foreign)
        else:
            self._only_of_a_place(section, place, PLACE)
        for index, each in enumerate(section.layers):
            yield self._layer(each.name, each, each.path, f"policy.layers[{index}]", foreign)

    def _layer(
        self, name: str, section: SourceSection, place: str | None, at: str, foreign: bool
    ) -> LayerSettings:
        self._only_of_a_place(section, place, at)
        if place is None and not section.use and not foreign:
            self._add(f"{at}.path", "is missing, and use names no policy", "give one of them")
        if section.use and place is None and foreign:
            self._add(f"{at}.use", "is for a policy that Remit loads, and the server has its own",
                      "give path too, and have the server fetch the bundle from Remit")  # fmt: skip
        if section.package != "remit" and (not foreign or place is not None):
            self._add(f"{at}.package", "is for an OPA server with a policy of its own",
                      "name the package remit")  # fmt: skip
        return LayerSettings(
            name=name,
            place=None if place is None else self._placed(place, f"{at}.path"),
            use=section.use,
            package=section.package,
            verification=self._verification(section, at),
            token=self._secret(section.token, f"{at}.token"),
            ca_file=self._file(section.ca_file, self._trusted),
        )

    def _only_of_a_place(self, section: SourceSection, place: str | None, at: str) -> None:
        for key in ("token", "ca_file"):
            if getattr(section, key) is not None and not (place and is_url(place)):
                self._add(f"{at}.{key}", "is for a policy from a URL", "leave it out")
        if section.verify is not None and place is None:
            self._add(f"{at}.verify", "has nothing to verify: there is no path", "leave it out")

    def _names(self) -> None:
        seen = {MAIN}
        for index, each in enumerate(self._section.layers):
            if each.name in seen:
                why = "is the name of the layer of policy.path" if each.name == MAIN else "is twice"
                self._add(f"policy.layers[{index}].name", why, "give each layer its own name")
            seen.add(each.name)

    def _verification(self, section: SourceSection, at: str) -> Verification | None:
        wanted = section.verify
        if wanted is None:
            return None
        kind = self._private if wanted.algorithm == "HS256" else self._trusted
        key = self._secret(wanted.key, f"{at}.verify.key", lines=True, kind=kind)
        if key is None:
            return None
        try:
            return Verification(
                key=key,
                key_id=wanted.key_id,
                algorithm=wanted.algorithm,
                scope=wanted.scope,
            )
        except ConfigError as error:
            self._add(f"{at}.verify.key", error.message, error.hint or "", error.code)
            return None

    # Who evaluates

    def _opa(self, layers: list[LayerSettings]) -> OpaSettings:
        section, given = self._section, self._section.opa
        trial = section.shadow is not None and section.shadow.engine == "opa"
        if section.engine != "opa" and not trial:
            for key in sorted(given.model_fields_set):
                self._add(f"policy.opa.{key}", "has no effect: policy.engine is embedded",
                          "set policy.engine to opa, or leave it out")  # fmt: skip
            return OpaSettings()
        package = next((each.package for each in layers if each.package != "remit"), "remit")
        for wrong in contradictions(**given.model_dump(), package=package):
            self._add(f"policy.opa.{wrong.key}", wrong.message, wrong.hint)
        return OpaSettings(
            binary=self._file(given.binary),
            url=given.url,
            token=self._secret(given.token, "policy.opa.token"),
            ca_file=self._file(given.ca_file, self._trusted),
            cert_file=self._file(given.cert_file, self._trusted),
            key_file=self._file(given.key_file, self._private),
            socket_uids=() if given.socket_uid is None else (given.socket_uid,),
            pin_revision=given.pin_revision,
        )

    def _portable(self) -> bool:
        section = self._section
        portable = section.profile == "portable"
        if not portable and section.engine != "opa":
            self._add("policy.profile", "unsafe_any needs policy.engine opa",
                      "the embedded engine takes the portable profile only")  # fmt: skip
        return portable

    def _trial(self, layers: list[LayerSettings]) -> TrialSettings | None:
        section, shadow = self._section, self._section.shadow
        if shadow is None:
            return None
        engine = shadow.engine or section.engine
        if shadow.path is None and engine == section.engine:
            self._add("policy.shadow", "would ask the same policy in the same engine",
                      "name the other engine, or the path of a candidate")  # fmt: skip
        if shadow.path is not None and is_url(shadow.path):
            self._add("policy.shadow.path", "is a URL", "name a directory or a bundle (.tar.gz)")
        if shadow.path is not None and engine == "opa" and section.opa.url is not None:
            self._add("policy.shadow.path", "cannot be given to a server of your own",
                      "set policy.shadow.engine to embedded")  # fmt: skip
        if shadow.path is not None and all(each.name != MAIN for each in layers):
            self._add("policy.shadow.path", "is a candidate for policy.path, which is not there",
                      "name the other engine instead")  # fmt: skip
        unknown = [each for each in layers if each.place is None and not each.use]
        if [each for each in unknown if not (each.name == MAIN and shadow.path)]:
            self._add("policy.shadow", "needs policies that Remit loads, and a server has its own",
                      "give the path of each layer")  # fmt: skip
        if engine == "embedded" and section.profile != "portable":
            self._add("policy.shadow.engine", "takes the portable profile only",
                      "set policy.profile to portable")  # fmt: skip
        return TrialSettings(engine=engine, candidate=self._file(shadow.path), sample=shadow.sample)

    # Paths, secrets, problems

    def _placed(self, place: str, at: str) -> str:
        if not is_url(place):
            return str(self._file(place))
        try:
            check_url(place)
        except ConfigError as error:
            self._add(at, f"is refused: {error.message}", error.hint or "")
        return place

    def _file(self, text: str | None, kind: list[Path] | None = None) -> Path | None:
        if text is None:
            return None
        path = Path(os.path.normpath(self._base / text))
        if kind is not None:
            kind.append(path)
        return path

    def _secret(
        self,
        text: str | None,
        at: str,
        *,
        lines: bool = False,
        kind: list[Path] | None = None,
    ) -> str | None:
        if text is None:
            return None
        try:
            ref = SecretRef.parse(text)
            if ref.kind == "file":
                self._file(ref.where, self._private if kind is None else kind)
            return ref.read(self._base, self._environ, lines=lines).reveal()
        except ConfigError as error:
            self.problems.append(ConfigError(error.code, error.message, place=at, hint=error.hint))
            return None

    def _add(self, at: str, why: str, hint: str, code: Code = Code.CONFIG_INVALID) -> None:
        self.problems.append(ConfigError(code, f"{at} {why}", place=at, hint=hint))
