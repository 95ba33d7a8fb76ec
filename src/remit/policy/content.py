"""What the files of a policy mean, the same whether a directory or an archive held them.

Names and meanings are OPA's: `.rego` modules and `data.json` at any depth, the directory being the
path below `data`; `.manifest`; `.signatures.json`. What OPA would load and Remit does not is
refused, never passed over: else the two would decide by different policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remit import canonical
from remit.errors import InputError
from remit.policy import bundle as limits
from remit.policy import manifest as manifests
from remit.policy.bundle import TEST_SUFFIX, PolicyBundle, bundle_of, invalid, too_large
from remit.policy.manifest import Manifest, check_roots, manifest_json, manifest_of

MANIFEST = manifests.NAME
SIGNATURES = ".signatures.json"
DATA = "data.json"
MAX_MANIFEST_BYTES = 256 * 1024
MAX_SIGNATURES_BYTES = 1024 * 1024

_REFUSED = {
    "policy.wasm": "build the bundle of Rego: opa build -t rego",
    "plan.json": "build the bundle of Rego: opa build -t rego",
    "plan.pb": "build the bundle of Rego: opa build -t rego",
    "patch.json": "give a whole bundle: a patch cannot be signed",
    "data.yaml": "write the data as JSON, in data.json",
    "data.yml": "write the data as JSON, in data.json",
}


def means_something(name: str) -> bool:
    """Whether a file is part of a policy, or would be to OPA."""
    base = name.rpartition("/")[2]
    return (
        name.endswith((".rego", ".manifest", ".manifest.pb"))
        or base in (DATA, SIGNATURES)
        or base in _REFUSED
        or _is_beside(name)
    )


def limit_of(name: str) -> int:
    """The most bytes that a file of that name may have."""
    if name.endswith(".rego"):
        return limits.MAX_MODULE_BYTES
    if name == MANIFEST:
        return MAX_MANIFEST_BYTES
    if name == SIGNATURES:
        return MAX_SIGNATURES_BYTES
    return limits.MAX_DATA_BYTES


def assemble(files: Mapping[str, bytes], *, place: str, directory: bool = False) -> PolicyBundle:
    """The policy that these files are.

    Args:
        files: contents by name; names as in a bundle, without a leading slash.
        place: where they were, for errors.
        directory: `data.*.json` beside `data.json` counts as data, as in no OPA bundle.

    Raises:
        ConfigError: `policy_invalid` with the file that is wrong.
    """
    modules: dict[str, str] = {}
    tests: dict[str, str] = {}
    for name, content in sorted(files.items()):
        if means_something(name):
            _check_name(name, directory)
        if name.endswith(".rego"):
            (tests if name.endswith(TEST_SUFFIX) else modules)[name] = _text(content, name)
    if not modules:
        raise invalid("there is no .rego file", place, "`remit init` writes a starter policy")
    if len(modules) > limits.MAX_MODULES:
        raise invalid(f"more than {limits.MAX_MODULES} modules", place, "join small modules")
    manifest = _manifest(files)
    bundle = bundle_of(modules, _data(files), tests, label=manifest.label, entries=manifest.entries)
    check_roots(bundle, manifest.roots)
    return bundle


def files_of(bundle: PolicyBundle) -> dict[str, bytes]:
    """The files of a bundle that Remit writes: what decides, without tests."""
    files = {name: text.encode() for name, text in bundle.modules.items()}
    files[DATA] = canonical.encode(dict(bundle.data))
    files[MANIFEST] = canonical.encode(manifest_json(bundle))
    return files


def _check_name(name: str, directory: bool) -> None:
    parts = name.split("/")
    if parts[-1] in _REFUSED:
        raise invalid("Remit does not take this kind of file", name, _REFUSED[parts[-1]])
    if name in (MANIFEST, SIGNATURES):
        return
    # OPA takes the first name that ends so for the manifest, and any directory's signatures.
    if name.endswith((".manifest", ".manifest.pb")) or parts[-1] == SIGNATURES:
        raise invalid(
            "is not the bundle's own", name, f"only {MANIFEST} and {SIGNATURES} at the top"
        )
    if any(part.startswith(".") for part in parts):
        raise invalid("a hidden file is part of the policy", name, "rename it, or leave it out")
    if _is_beside(name) and not directory:
        raise invalid(
            "OPA would not read this data", name, "`remit policy build` joins it into data.json"
        )


def _is_beside(name: str) -> bool:
    return name.startswith("data.") and name.endswith(".json") and "/" not in name and name != DATA


def _manifest(files: Mapping[str, bytes]) -> Manifest:
    if MANIFEST not in files:
        return Manifest()
    return manifest_of(read_json(files[MANIFEST], MANIFEST))


def _data(files: Mapping[str, bytes]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    names = sorted(name for name in files if _is_data(name))
    if sum(len(files[name]) for name in names) > limits.MAX_DATA_BYTES:
        raise too_large("the data", limits.MAX_DATA_BYTES)
    for name in names:
        value = read_json(files[name], name)
        path = [] if _is_beside(name) else name.split("/")[:-1]
        if not path and not isinstance(value, dict):
            raise invalid("the data is not a JSON object", name, None)
        for step in reversed(path):
            value = {step: value}
        _merge(merged, value, name, deep=not _is_beside(name))
    return merged


def _is_data(name: str) -> bool:
    return name.rpartition("/")[2] == DATA or _is_beside(name)


def _merge(into: dict[str, Any], value: Mapping[str, Any], name: str, *, deep: bool) -> None:
    """Add data; two files may share objects on the way, as in OPA, but no value."""
    for key, new in sorted(value.items()):
        old = into.get(key)
        if key not in into:
            into[key] = new
        elif deep and isinstance(old, dict) and isinstance(new, dict):
            _merge(old, new, name, deep=True)
        else:
            raise invalid(f"the key {key} is in two data files", name, "keep each key in one file")


def read_json(content: bytes, name: str) -> Any:
    """JSON that can be read in one way only.

    Raises:
        ConfigError: `policy_invalid`, with the file and the place in it.
    """
    try:
        return canonical.parse(content, max_bytes=limit_of(name))
    except InputError as error:
        place = f"{name}: {error.place}" if error.place else name
        raise invalid(error.message, place, error.hint) from None


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("is not valid UTF-8", name, "remove it, or save it as text") from None
