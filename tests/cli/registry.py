"""A package registry of one's own on loopback, for npm and pip: one package each, made here."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSIONS = ("1.0.0", "1.2.0")


@contextmanager
def registry(program: str, python: str) -> Iterator[str]:
    """Serves `small` as npm package `@own/small` and as wheel `own-small`; gives the address.

    Args:
        program: JavaScript of the npm package's one program.
        python: source of the wheel's module, whose `main` is its one program.
    """
    pages: dict[str, bytes] = {}

    class Pages(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = pages.get(self.path.split("?")[0].rstrip("/").lower())
            self.send_response(404 if content is None else 200)
            kind = "text/html" if self.path.startswith("/simple/") else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content or b"")))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        pages |= _npm(address, program) | _pypi(python)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield address
        finally:
            server.shutdown()
            thread.join()


def _npm(address: str, program: str) -> dict[str, bytes]:
    pages: dict[str, bytes] = {}
    versions = {}
    for version in VERSIONS:
        facts = {
            "name": "@own/small",
            "version": version,
            "bin": {"small": "small.js"},
            "scripts": {"postinstall": "touch ran-at-installation"},
        }
        tarball = _tar({"package.json": json.dumps(facts), "small.js": program})
        digest = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        where = f"/tarballs/small-{version}.tgz"
        pages[where] = tarball
        dist = {"tarball": address + where, "integrity": f"sha512-{digest}"}
        versions[version] = {**facts, "dist": dist}
    tags = {"latest": VERSIONS[-1]}
    document = {"name": "@own/small", "dist-tags": tags, "versions": versions}
    pages["/@own%2fsmall"] = json.dumps(document).encode()
    return pages


def _tar(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _pypi(python: str) -> dict[str, bytes]:
    pages, links = {}, []
    for version in VERSIONS:
        name = f"own_small-{version}-py3-none-any.whl"
        wheel = _wheel(version, python)
        pages[f"/simple/own-small/{name}"] = wheel
        links.append(f'<a href="{name}#sha256={hashlib.sha256(wheel).hexdigest()}">{name}</a>')
    listing = "".join(links) + '<a href="own_small-9.tar.gz">own_small-9.tar.gz</a>'
    pages["/simple/own-small"] = f"<!DOCTYPE html><html><body>{listing}</body></html>".encode()
    return pages


def _wheel(version: str, python: str) -> bytes:
    info = f"own_small-{version}.dist-info"
    files = {
        "own_small.py": python,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: own-small\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nown-small = own_small:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return buffer.getvalue()
