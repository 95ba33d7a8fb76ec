"""The `.manifest` of a bundle: what it calls itself, and the part of `data` that it may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit.policy.bundle import DEFAULT_ENTRIES, PolicyBundle, invalid

NAME = ".manifest"
MAX_LABEL = 256
MAX_ROOTS = 256
MAX_ENTRIES = 32

_KNOWN = {"revision", "roots", "rego_version", "file_rego_versions", "metadata", "wasm"}
_ENTRIES = "remit_entries"
_ENTRY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,7}")
_PACKAGE = re.compile(
    r"(?:\s|#[^\n]*+)*+package[ \t]+([A-Za-z_]\w*+)((?:\.[A-Za-z_]\w*+|\[\"[^\"\\\n]*+\"\])*+)",
    re.ASCII,
)
_STEP = re.compile(r"\.(\w+)|\[\"([^\"]*)\"\]", re.ASCII)

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`roots` are paths below `data`; the empty path is all of it."""

    label: str = ""
    roots: tuple[Path, ...] = ((),)
    entries: tuple[str, ...] = DEFAULT_ENTRIES


def manifest_of(value: Any) -> Manifest:
    """What a manifest says.

    Takes what OPA takes, but for wasm modules, Rego of another version than 1, and keys that are
    unknown: one that a later OPA knows could change what the bundle means.

    Raises:
        ConfigError: `policy_invalid`.
    """
    if not isinstance(value, dict):
        raise _wrong("is not a JSON object")
    unknown = sorted(value.keys() - _KNOWN)
    if unknown:
        raise _wrong("has a key that is not known", "the keys are " + ", ".join(sorted(_KNOWN)))
    if value.get("wasm"):
        raise _wrong("names wasm modules", "build the bundle of Rego: opa build -t rego")
    versions = value.get("file_rego_versions") or {}
    if not isinstance(versions, dict):
        raise _wrong("has a file_rego_versions that is not an object")
    for version in (value.get("rego_version", 1), *versions.values()):
        if isinstance(version, bool) or version != 1:
            raise _wrong("is of another Rego than version 1", "write rego_version 1")
    return Manifest(
        label=_label(value.get("revision", "")),
        roots=_roots(value.get("roots")),
        entries=_entries(value.get("metadata") or {}),
    )


def manifest_json(bundle: PolicyBundle) -> dict[str, Any]:
    """The manifest of a bundle that Remit writes: its revision is the digest of its content."""
    manifest: dict[str, Any] = {
        "revision": bundle.revision,
        "rego_version": 1,
        "roots": ["/".join(root) for root in roots_of(bundle)],
    }
    if bundle.entries != DEFAULT_ENTRIES:
        manifest["metadata"] = {_ENTRIES: list(bundle.entries)}
    return manifest


def check_roots(bundle: PolicyBundle, roots: Sequence[Path]) -> None:
    """Refuse a module or data outside what the manifest says the bundle holds.

    Raises:
        ConfigError: `policy_invalid`, with the module, or the place in the data.
    """
    if () in roots:
        return
    for name, text in {**bundle.modules, **bundle.tests}.items():
        package = package_of(text)
        if package is None:
            raise invalid("does not begin with a package", name, "write `package remit` first")
        if not _within(package, roots):
            raise invalid("its package is outside the roots of the manifest", name, _ROOTS_HINT)
    outside = next(_outside(bundle.data, (), roots), None)
    if outside is not None:
        place = "data." + ".".join(outside)
        raise invalid("data is outside the roots of the manifest", place, _ROOTS_HINT)


_ROOTS_HINT = "add the path to `roots` in .manifest, or leave `roots` out"


def roots_of(bundle: PolicyBundle) -> tuple[Path, ...]:
    """The smallest set of roots that covers packages and data; all of `data` if that is unclear."""
    packages = [package_of(text) for text in bundle.modules.values()]
    found: set[Path] = {(key,) for key in bundle.data}
    for package in packages:
        if package is None:
            return ((),)
        found.add(package)
    # OPA takes what follows a percent sign in a root for an escape.
    if not found or any(not step or set(step) & {"/", "%"} for path in found for step in path):
        return ((),)
    return tuple(sorted(path for path in found if not _within(path, found - {path})))


def package_of(text: str) -> Path | None:
    """The package of a module, read from its first words; None if they are none."""
    match = _PACKAGE.match(text)
    if match is None:
        return None
    steps = [dotted or quoted for dotted, quoted in _STEP.findall(match[2])]
    return (match[1], *steps)


def _label(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_LABEL or not value.isprintable():
        raise _wrong(f"has a revision that is not one line of at most {MAX_LABEL} characters")
    return value


def _roots(value: Any) -> tuple[Path, ...]:
    if value is None:
        return ((),)
    if (
        not isinstance(value, list)
        or len(value) > MAX_ROOTS
        or not all(isinstance(root, str) for root in value)
    ):
        raise _wrong(f"has roots that are not a list of at most {MAX_ROOTS} paths")
    # OPA takes a root with and without the outer slashes.
    roots = [
        tuple(step for step in root.strip("/").split("/") if root.strip("/")) for root in value
    ]
    for index, root in enumerate(roots):
        if any(_prefix(root, other) or _prefix(other, root) for other in roots[index + 1 :]):
            raise _wrong("has roots that overlap", "keep the shorter one")
    return tuple(roots)


def _entries(metadata: Any) -> tuple[str, ...]:
    if not isinstance(metadata, dict):
        raise _wrong("has metadata that is not an object")
    value = metadata.get(_ENTRIES, list(DEFAULT_ENTRIES))
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= MAX_ENTRIES
        or not all(isinstance(one, str) and _ENTRY.fullmatch(one) for one in value)
        or len(set(value)) != len(value)
    ):
        raise _wrong(f"has metadata.{_ENTRIES} that is not a list of packages")
    return tuple(value)


def _outside(node: Any, path: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """Places in the data that no root covers. An object above a root may stand."""
    if _within(path, roots):
        return
    if isinstance(node, Mapping) and any(_prefix(path, root) for root in roots):
        for key, value in node.items():
            yield from _outside(value, (*path, key), roots)
    else:
        yield path


def _within(path: Path, roots: Sequence[Path] | set[Path]) -> bool:
    return any(_prefix(root, path) for root in roots)


def _prefix(shorter: Path, longer: Path) -> bool:
    return longer[: len(shorter)] == shorter


def _wrong(message: str, hint: str | None = None) -> Exception:
    return invalid(message, NAME, hint)
