"""The servers that real clients speak to: git, a package index, and whatever else, all over TLS.

Each demands the credential that only the egress proxy puts in.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import select
import socket
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GIT_USER = "x-access-token"


class Handler(BaseHTTPRequestHandler):
    """`/git/` is `git http-backend`, `/simple/` an index, `/who` says who asked."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer(self._body())

    def do_POST(self) -> None:
        self._answer(self._body())

    def log_message(self, *words: Any) -> None:
        return

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, body: bytes) -> None:
        given = self.headers.get("Authorization", "")
        self.server.asked.append((self.command, self.path, given))
        if given not in self.server.accepted:
            self._say(401, b"who are you?", ("WWW-Authenticate", 'Basic realm="git"'))
        elif self.path.startswith("/git/"):
            self._git(body)
        elif self.path.startswith("/simple/"):
            self._index()
        else:
            # What is sent back holds the credential, as careless servers do.
            said = {
                "path": self.path,
                "headers": {name.title(): value for name, value in self.headers.items()},
                "body": body.decode(),
            }
            self._say(200, json.dumps(said).encode(), ("Content-Type", "application/json"))

    def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _git(self, body: bytes) -> None:
        """RFC 3875, as far as git needs it."""
        path, _, query = self.path.removeprefix("/git").partition("?")
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True)
        head, _, said = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        status = next((int(value[:3]) for name, value in headers if name == "Status"), 200)
        self._say(status, said, *[(n, v) for n, v in headers if n != "Status"])

    def _index(self) -> None:
        wheel, name = self.server.wheel, "parcel-1.0-py3-none-any.whl"
        if self.path == "/simple/parcel/":
            digest = hashlib.sha256(wheel).hexdigest()
            page = f'<!DOCTYPE html><a href="/simple/files/{name}#sha256={digest}">{name}</a>'
            self._say(200, page.encode(), ("Content-Type", "text/html"))
        elif self.path == f"/simple/files/{name}":
            self._say(200, wheel, ("Content-Type", "application/octet-stream"))
        else:
            self._say(404, b"no such project")


class Server(ThreadingHTTPServer):
    """One place for all of them; `accepted` are the credentials that it knows."""

    daemon_threads = True

    def __init__(self, chain: Path, repositories: Path, secret: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = repositories
        self.wheel = wheel()
        self.asked: list[tuple[str, str, str]] = []
        pair = base64.b64encode(f"{GIT_USER}:{secret}".encode()).decode()
        self.accepted = {f"Bearer {secret}", f"Basic {pair}"}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # a client that goes away is no matter


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wheel() -> bytes:
    """A package that is nothing but its name."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("parcel.py", "WHAT = 'arrived'\n")
        head = "parcel-1.0.dist-info"
        archive.writestr(f"{head}/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        archive.writestr(
            f"{head}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{head}/RECORD", "")
    return whole.getvalue()


def repository(folder: Path) -> str:
    """A bare repository `work.git` with one commit; its id."""

    def git(*words: str, where: Path) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        argv = ["git", *identity, "-c", "init.defaultBranch=main", *words]
        environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/"}
        done = subprocess.run(argv, cwd=where, env=environ, check=True, capture_output=True)
        return done.stdout.decode().strip()

    work = folder / "work"
    work.mkdir(parents=True)
    git("init", "-q", where=work)
    (work / "file").write_text("kept in git\n" * 5_000)
    git("add", ".", where=work)
    git("commit", "-qm", "first", where=work)
    git("clone", "-q", "--bare", "work", "work.git", where=folder)
    return git("rev-parse", "HEAD", where=work)


class Relay:
    """TLS in front of a plain server: what comes out of it is what went in."""

    def __init__(self, chain: Path, port: int) -> None:
        self._behind = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(one,), daemon=True).start()

    def _pass(self, one: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(one, server_side=True) as here,
            socket.create_connection(("127.0.0.1", self._behind)) as there,
        ):
            while True:
                if not here.pending():
                    ready, _, _ = select.select([here, there], [], [], 30)
                    if not ready:
                        return
                    if there in ready:
                        if not (data := there.recv(65_536)):
                            return
                        here.sendall(data)
                        continue
                if not (data := here.recv(65_536)):
                    return
                there.sendall(data)
