"""Real servers on loopback, for as long as a `with` lasts: OpenBao, PostgreSQL, moto."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.plugins.machine import moto_python, openbao_binary, postgres_programs
from tests.ports import free_port

READY_S = 30.0


@contextlib.contextmanager
def running(argv: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the `with`; its words go to `how["log"]`."""
    log: Path = how.pop("log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **how
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the address answers anything at all."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)  # between two looks
        else:
            return
    raise AssertionError(log.read_text())


class Bao:
    """An OpenBao development server; `run` is its own command line, as its operator uses it."""

    def __init__(self, binary: Path, address: str, home: Path) -> None:
        self.address = address
        self.root = "root"
        self._binary = binary
        self._home = home

    def run(self, *words: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [str(self._binary), *words],
            env=self.environ,
            cwd=self._home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "BAO_ADDR": self.address,
            "BAO_TOKEN": self.root,
            "HOME": str(self._home),
            "PATH": f"{self._binary.parent}:/usr/bin:/bin",
        }

    def ask(
        self, method: str, path: str, *, token: str, body: Any = None
    ) -> tuple[int, dict[str, Any]]:
        """One request with any token, as somebody who got hold of it would send it."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/v1/{path}", data=data, method=method)
        request.add_header("X-Vault-Token", token)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            return error.code, {}


@contextlib.contextmanager
def openbao(home: Path) -> Iterator[Bao]:
    """A development server: unsealed, in memory, root token `root`."""
    binary = openbao_binary()
    assert binary is not None
    address, log = f"127.0.0.1:{free_port()}", home / "bao.log"
    argv = [str(binary), "server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"]
    argv.append(f"-dev-listen-address={address}")
    with running(argv, env={"HOME": str(home), "PATH": os.environ["PATH"]}, log=log) as process:
        wait_for(f"http://{address}/v1/sys/health", process, log)
        yield Bao(binary, f"http://{address}", home)


class Postgres:
    """A cluster of its own; `ask` runs one statement as its superuser."""

    def __init__(self, programs: Path, port: int, password: str) -> None:
        self._programs = programs
        self.port = port
        self.password = password

    def ask(
        self, statement: str, *, user: str = "postgres", password: str | None = None
    ) -> str | None:
        """What psql prints; None if the server refuses."""
        argv = [str(self._programs / "psql"), "-X", "-A", "-t", "-h", "127.0.0.1", "-w"]
        argv += ["-p", str(self.port), "-U", user, "-d", "postgres", "-c", statement]
        done = subprocess.run(
            argv,
            env={"PGPASSWORD": self.password if password is None else password},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    def has_role(self, name: str) -> bool:
        assert name.replace("-", "").replace("_", "").isalnum()
        found = self.ask(f"select count(*) from pg_roles where rolname = '{name}'")
        assert found is not None
        return found == "1"


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        found = pwd.getpwnam("nobody")
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster in a directory of its own, on loopback, with one superuser."""
    programs = postgres_programs()
    assert programs is not None
    who, password, port = _unprivileged(), secrets.token_hex(16), free_port()
    home = Path(tempfile.mkdtemp(prefix="remit-pg-"))
    try:
        given = home / "password"
        given.write_text(password)
        if who:
            os.chown(home, who["user"], who["group"])
            os.chown(given, who["user"], who["group"])
        data = home / "data"
        argv = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--no-sync"]
        argv += ["--auth=scram-sha-256", f"--pwfile={given}", "--locale=C", "--encoding=UTF8"]
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
        made = subprocess.run(argv, env=environ, cwd=home, capture_output=True, **who)
        assert made.returncode == 0, made.stderr
        argv = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-F"]
        argv += ["-h", "127.0.0.1", "-k", ""]
        server = Postgres(programs, port, password)
        with running(argv, env=environ, cwd=home, log=home / "log", **who) as process:
            deadline = time.monotonic() + READY_S
            while server.ask("select 1") != "1":
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.05)  # between two looks
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def moto(home: Path) -> Iterator[str]:
    """moto's server; gives its address."""
    python = moto_python()
    assert python is not None
    port, log = free_port(), home / "moto.log"
    argv = [str(python.parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    with running(argv, env=environ, log=log) as process:
        wait_for(f"http://127.0.0.1:{port}/moto-api/", process, log)
        yield f"http://127.0.0.1:{port}"
