"""Asking a real `opa` executable, where there is one, to check or format a policy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import Code, ConfigError, RemitError

if TYPE_CHECKING:
    from remit.cli.invocation import Invocation
    from remit.policy.bundle import PolicyBundle
    from remit.policy.finding import Finding

TIMEOUT_S = 120
INSTALL = "go install github.com/open-policy-agent/opa@v1.22.2"


def capabilities_text() -> str:
    """The capabilities file of the portable profile."""
    file = resources.files("remit").joinpath("schemas/remit-rego-1.capabilities.json")
    return file.read_text("utf-8")


def opa_at(given: Path | None, invocation: Invocation | None) -> Path:
    """The executable: as given, else the one of the configuration, else the one on PATH.

    Raises:
        ConfigError: `config_not_found`, with how to install one.
    """
    found = given or _configured(invocation) or _on_path()
    if found is None or not os.access(found, os.X_OK) or not found.is_file():
        raise ConfigError(
            Code.CONFIG_NOT_FOUND,
            "there is no opa executable",
            place=str(found) if found is not None else None,
            hint=f"install it with `{INSTALL}`, or name it with --opa or policy.opa.binary",
        )
    return found


def _configured(invocation: Invocation | None) -> Path | None:
    if invocation is None or not invocation.config.exists():
        return None
    try:
        return invocation.settings().policy.opa.binary
    except (RemitError, AttributeError):
        return None  # what is wrong with the configuration is for other commands to say


def _on_path() -> Path | None:
    found = shutil.which("opa")
    return None if found is None else Path(found)


def check_with(opa: Path, bundle: PolicyBundle) -> list[Finding]:
    """What `opa check --strict` says of a policy under the capabilities of the profile.

    Raises:
        ConfigError: `config_invalid`: the executable cannot be run, or is no OPA.
    """
    from remit.policy.finding import Finding

    with _written(bundle) as folder:
        argv = ["check", "--strict", "--format", "json", "--max-errors", "0"]
        argv += ["--capabilities", str(folder / "capabilities.json")]
        argv += ["--schema", str(folder / "schemas"), str(folder / "policy")]
        done = run(opa, argv)
        if done.returncode == 0:
            return []
        return [
            Finding(
                _place(error, folder / "policy"),
                f"opa: {error['message']}",
                "the embedded engine may take it; OPA, under the portable profile, does not",
            )
            for error in _errors(done)
        ]


def _errors(done: subprocess.CompletedProcess[bytes]) -> Sequence[dict[str, Any]]:
    for said in (done.stdout, done.stderr):
        try:
            told = json.loads(said)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("errors"), list):
            return [error for error in told["errors"] if "message" in error]
    raise ConfigError(
        Code.CONFIG_INVALID,
        f"opa ended with {done.returncode} and said nothing that can be read",
        hint=f"use OPA 1.17 or later: {INSTALL}",
    )


def _place(error: dict[str, Any], folder: Path) -> str:
    where = error.get("location") or {}
    name = str(where.get("file", "")).removeprefix(f"{folder}/")
    return f"{name}:{where['row']}" if name and "row" in where else name or "the policy"


def run(opa: Path, argv: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run it without our environment.

    Raises:
        ConfigError: `config_invalid`: it cannot be run, or does not end.
    """
    try:
        return subprocess.run(
            [str(opa.absolute()), *argv],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "did not end in time" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise ConfigError(
            Code.CONFIG_INVALID, f"opa cannot be run: {why}", place=str(opa), hint=INSTALL
        ) from None


@contextmanager
def _written(bundle: PolicyBundle) -> Iterator[Path]:
    """Exactly what the bundle holds, as files, with capabilities and schemas beside it."""
    from remit.policy.schemas import NAMES, for_opa

    with tempfile.TemporaryDirectory(prefix="remit-opa-") as made:
        folder = Path(made)
        for name, text in {**bundle.modules, **bundle.tests}.items():
            file = folder / "policy" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        (folder / "policy" / "data.json").write_text(json.dumps(dict(bundle.data)), "utf-8")
        (folder / "capabilities.json").write_text(capabilities_text(), "utf-8")
        (folder / "schemas").mkdir()
        for name in NAMES:
            (folder / "schemas" / f"{name}.json").write_text(json.dumps(for_opa(name)), "utf-8")
        yield folder
