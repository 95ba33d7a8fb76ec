"""Install a published server once, at one exact version, into a directory of its own.

Nothing of the package is run while it is installed: npm is told to run no script, and pip takes
built wheels only. What was installed is locked in the directory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from remit.errors import Code, ConfigError
from remit.upstreams.installed import Installed, Record, write_record
from remit.upstreams.launcher import Launch

SECONDS = 600
"""How long an installation may take."""

_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")


def install_package(launch: Launch, directory: Path) -> Installed:
    """Install a package; the directory is made, and removed again if it fails.

    Raises:
        ConfigError: `config_invalid`: no installer, no such package, no program in it.
    """
    directory.mkdir(parents=True, mode=0o755)
    try:
        installed = _npm(launch, directory) if launch.kind == "npm" else _pypi(launch, directory)
        program = None if installed.program is None else str(installed.program)
        record = Record(
            kind=launch.kind,
            package=launch.package,
            asked=launch.version,
            version=installed.version,
            sha256=launch.sha256,
            program=program,
            start=installed.start,
        )
        write_record(directory, record)
        (directory / ".gitignore").write_text("*\n", encoding="utf-8")
        return installed
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _npm(launch: Launch, directory: Path) -> Installed:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise _failed(launch, "npm or node is not on this machine's PATH", "install Node.js")
    wanted = f"{launch.package}@{launch.version or 'latest'}"
    (directory / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    _run(
        launch,
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
         "--save-exact", "--omit=dev", "--", wanted],
        directory,
    )  # fmt: skip
    if launch.sha256 is not None:
        _check_npm(launch, launch.sha256, npm, directory)
    home = directory / "node_modules" / launch.package
    facts = _facts(launch, home / "package.json")
    program = _npm_program(launch, facts.get("bin"))
    start = (home / program).resolve()
    if not start.is_relative_to(directory.resolve()) or not start.is_file():
        raise _failed(launch, "the program that it names is not in it", "use another package")
    return Installed(
        directory=directory,
        version=str(facts.get("version")),
        program=Path(node),
        start=str(start.relative_to(directory.resolve())),
    )


def _check_npm(launch: Launch, sha256: str, npm: str, directory: Path) -> None:
    """Hold the package's file against its publisher's digest, and what npm installed against the
    file: the lock has only the SHA-512 that npm went by (npm documentation, package-lock.json)."""
    folder = directory / ".packed"
    folder.mkdir()
    try:
        _run(
            launch,
            [npm, "pack", "--ignore-scripts", "--no-update-notifier", "--pack-destination",
             str(folder), "--", f"{launch.package}@{launch.version or 'latest'}"],
            directory,
        )  # fmt: skip
        (packed,) = (path.read_bytes() for path in folder.iterdir())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    locked = _facts(launch, directory / "package-lock.json").get("packages", {})
    integrity = locked.get(f"node_modules/{launch.package}", {}).get("integrity")
    digest = base64.b64encode(hashlib.sha512(packed).digest()).decode()
    if hashlib.sha256(packed).hexdigest() != sha256 or integrity != f"sha512-{digest}":
        raise _other(launch)


def _other(launch: Launch) -> ConfigError:
    return _failed(
        launch,
        "the registry's file is not the one of the publisher's `fileSha256`",
        "do not use it before its publisher has said why",
    )


def _npm_program(launch: Launch, programs: Any) -> str:
    """The file that npx would start: the one asked for, or the only one, or that of its name."""
    if isinstance(programs, str):
        return programs
    table = programs if isinstance(programs, dict) else {}
    name = launch.program or launch.package.rpartition("/")[2]
    found = table.get(name)
    if found is None and launch.program is None and len(set(table.values())) == 1:
        found = next(iter(table.values()))
    if not isinstance(found, str):
        raise _failed(
            launch, "it has no program of that name", "name it: npx --package PACKAGE PROGRAM"
        )
    return found


def _pypi(launch: Launch, directory: Path) -> Installed:
    python = next((each for each in _PYTHONS if os.access(each, os.X_OK)), None)
    if python is None:
        raise _failed(launch, "there is no Python under /usr", "install the system's python3")
    _run(launch, [python, "-m", "venv", str(directory)], directory)
    wanted = launch.package + (f"=={launch.version}" if launch.version else "")
    lock = directory / "remit-lock.json"
    own = str(directory / "bin" / "python")
    _run(
        launch,
        [own, "-m", "pip", "install", "--only-binary=:all:", "--no-input", "--quiet",
         "--disable-pip-version-check", "--report", str(lock), "--", wanted],
        directory,
    )  # fmt: skip
    asked: dict[str, Any] = next(
        (each for each in _facts(launch, lock)["install"] if each.get("requested")), {}
    )
    hashes = asked.get("download_info", {}).get("archive_info", {}).get("hashes", {})
    if launch.sha256 is not None and hashes.get("sha256") != launch.sha256:
        raise _other(launch)
    program = launch.program or launch.package
    start = directory / "bin" / program
    if os.path.basename(program) != program or not start.is_file():
        raise _failed(
            launch, "it has no program of that name", "name it: uvx --from PACKAGE PROGRAM"
        )
    return Installed(
        directory=directory,
        version=str(asked.get("metadata", {}).get("version")),
        program=None,
        start=f"bin/{program}",
    )


def _facts(launch: Launch, path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        facts = None
    if not isinstance(facts, dict):
        raise _failed(launch, "what it is cannot be read", "try again")
    return facts


def _run(launch: Launch, argv: list[str], directory: Path) -> None:
    try:
        subprocess.run(
            argv, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=SECONDS, check=True, umask=0o022,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        # An installer's words may hold addresses with a password in them: they are not shown.
        raise _failed(
            launch,
            f"`{os.path.basename(argv[0])}` ended with {error.returncode}",
            f"see what it says: {_by_hand(launch)}",
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise _failed(launch, f"it failed ({type(error).__name__})", "try again") from None


def _by_hand(launch: Launch) -> str:
    if launch.kind == "npm":
        return f"npm view {launch.package}@{launch.version or 'latest'}"
    pinned = f"=={launch.version}" if launch.version else ""
    return f"python3 -m pip download --no-deps --only-binary=:all: {launch.package}{pinned}"


def _failed(launch: Launch, why: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, f"could not install {launch}: {why}", hint=hint)
