"""A policy as files: a directory of `.rego` modules and `data.json`, frozen with its revision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remit import canonical
from remit.errors import Code, ConfigError, InputError

MAX_MODULE_BYTES = 256 * 1024
MAX_MODULES = 64
MAX_DATA_BYTES = 16 * 1024 * 1024
TEST_SUFFIX = "_test.rego"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBundle:
    """A policy that may be loaded.

    `revision` is a digest over what decides: the modules, the data and the entries. `tests` are
    the `*_test.rego` modules; they are never loaded for decisions and not part of the revision.
    `label` is what its maker called it (the revision in its `.manifest`), for people only.
    `entries` are the packages that are asked; each has a rule `decision` and a rule `visible`.
    """

    modules: Mapping[str, str]
    data: Mapping[str, Any]
    revision: str
    tests: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    entries: tuple[str, ...] = ("remit",)


def load_bundle(path: Path) -> PolicyBundle:
    """Read and check the policy in a directory.

    Reads every `.rego` file below it, and `data.json` and `data.*.json` directly in it, whose
    top-level keys must not overlap. Hidden files and directories are left out.

    Raises:
        ConfigError: `config_not_found`, or `policy_invalid` with the file and line of the first
            thing that is wrong, what is wrong, and how to mend it.
    """
    from remit.policy.lint import lint

    bundle = read_bundle(path)
    findings = lint(bundle)
    if findings:
        raise findings[0].error(of=len(findings))
    return bundle


def read_bundle(path: Path) -> PolicyBundle:
    """The policy in a directory, unchecked but for names, sizes and JSON.

    Raises:
        ConfigError: `config_not_found` or `policy_invalid`.
    """
    if not path.is_dir():
        raise ConfigError(
            Code.CONFIG_NOT_FOUND,
            "the policy directory does not exist",
            place=str(path),
            hint="`remit init` writes a starter policy",
        )
    modules: dict[str, str] = {}
    tests: dict[str, str] = {}
    for name in _module_names(path):
        text = _read(path / name, name, MAX_MODULE_BYTES)
        (tests if name.endswith(TEST_SUFFIX) else modules)[name] = _text(text, name)
    if not modules:
        raise _invalid("there is no .rego file", str(path), "`remit init` writes a starter policy")
    if len(modules) > MAX_MODULES:
        raise _invalid(f"more than {MAX_MODULES} modules", str(path), "join small modules")
    return bundle_of(modules, _data(path), tests)


def bundle_of(
    modules: Mapping[str, str],
    data: Mapping[str, Any],
    tests: Mapping[str, str] | None = None,
    *,
    label: str = "",
    entries: tuple[str, ...] = ("remit",),
) -> PolicyBundle:
    """A bundle with its revision, unchecked."""
    content: dict[str, Any] = {"modules": dict(modules), "data": dict(data)}
    if entries != ("remit",):
        content["entries"] = list(entries)
    return PolicyBundle(
        modules=modules,
        data=data,
        tests={} if tests is None else tests,
        revision=canonical.digest_of("remit.policy-bundle/1", content),
        label=label,
        entries=entries,
    )


def _module_names(path: Path) -> list[str]:
    names = []
    for directory, below, files in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]
        names += [
            (Path(directory) / name).relative_to(path).as_posix()
            for name in files
            if name.endswith(".rego") and not name.startswith(".")
        ]
    return sorted(names)


def _data(path: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for file in sorted(path.glob("data*.json")):
        if file.name != "data.json" and not file.name.startswith("data."):
            continue
        try:
            value = canonical.parse(
                _read(file, file.name, MAX_DATA_BYTES), max_bytes=MAX_DATA_BYTES
            )
        except InputError as error:
            place = f"{file.name}: {error.place}" if error.place else file.name
            raise _invalid(error.message, place, error.hint) from None
        if not isinstance(value, dict):
            raise _invalid("the data is not a JSON object", file.name, None)
        overlap = sorted(value.keys() & merged.keys())
        if overlap:
            raise _invalid(
                f"the key {overlap[0]} is in two data files", file.name, "keep each key in one file"
            )
        merged.update(value)
    return merged


def _read(file: Path, name: str, most: int) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise _invalid(f"cannot be read: {error.strerror}", name, None) from None
    if len(content) > most:
        raise _invalid(f"is larger than {most // 1024} KiB", name, "split it")
    return content


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid("is not valid UTF-8", name, None) from None


def _invalid(message: str, place: str, hint: str | None) -> ConfigError:
    return ConfigError(Code.POLICY_INVALID, message, place=place, hint=hint)
