"""Servers at a URL are asked at import too: without a credential, within bounds, each for itself."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.cli.imports import discovery
from remit.cli.imports.discovery import pins_of
from remit.config import load
from remit.servers.pins import PinStore
from tests.cli.conftest import Ended, Remit
from tests.cli.test_import import TOKEN, claude, held_nowhere, project, written
from tests.ports import free_port

__all__ = ["project"]

TOOLS = [
    {"name": "find", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "change", "inputSchema": {"type": "object"}},
]


class _Crm(BaseHTTPRequestHandler):
    """A server of 2025-11-25; it wants a token where its path says so, and says nothing else."""

    protocol_version = "HTTP/1.1"
    shown: list[str | None]

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.shown.append(self.headers["Authorization"])
        if self.path == "/closed":
            self._answer(401, None)
            return
        result: Any = None
        if message["method"] == "initialize":
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "crm", "version": "1"},
            }
        elif message["method"] == "tools/list":
            result = {"tools": TOOLS}
        if "id" not in message:
            self._answer(202, None)
        elif result is None:
            error = {"code": -32601, "message": "no such method"}
            self._answer(200, {"jsonrpc": "2.0", "id": message["id"], "error": error})
        else:
            self._answer(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})

    def do_GET(self) -> None:
        self._answer(405, None)

    def do_DELETE(self) -> None:
        self._answer(405, None)

    def _answer(self, status: int, value: Mapping[str, Any] | None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def crm() -> Iterator[tuple[str, list[str | None]]]:
    shown: list[str | None] = []
    handler = type("Crm", (_Crm,), {"shown": shown})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", shown
        finally:
            server.shutdown()
            thread.join()


def nobody() -> str:
    """An address at which nothing listens."""
    return f"http://127.0.0.1:{free_port()}/mcp"


def imported(remit: Remit, project: Path, *words: str) -> Ended:
    return remit("init", "gateway", "--import", ".mcp.json", *words)


def test_what_it_lists_is_pinned_and_reads_are_proposed(project: Path, remit: Remit) -> None:
    with crm() as (url, shown):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        claude(project / ".mcp.json", crm={"type": "http", "url": f"{url}/mcp", "headers": bearer})
        ended = imported(remit, project, "--accept-hints", "--rewrite")
    assert ended.code == 0, ended.err
    assert "2 tools pinned" in ended.out
    root = project / "gateway"
    spec = written(root)["crm"]
    assert [(tool.name, tool.effect.value) for tool in spec.tools] == [("find", "read")]
    assert set(PinStore(pins_of(load(root / "remit.yaml"))).read("crm")) == {"find", "change"}
    granted = (root / "policy" / "data.json").read_text()
    assert "crm_find" in granted
    assert "crm_change" in granted
    # Nothing of the client's secrets was shown for it, and none stays in the client's file.
    assert set(shown) == {None}
    assert spec.authorization == "crm-token"
    held_nowhere(project, ended)


@pytest.mark.threat("T-33")
@pytest.mark.parametrize(
    ("sent", "header"),
    [
        ({"X-Api-Key": TOKEN}, "X-Api-Key: {token}"),
        ({"Authorization": f"Token {TOKEN}"}, "Authorization: Token {token}"),
        ({"authorization": TOKEN, "X-Level": "low"}, "authorization: {token}"),
    ],
)
def test_a_secret_in_another_header_moves_out_of_the_clients_file_too(
    project: Path, remit: Remit, sent: dict[str, str], header: str
) -> None:
    with crm() as (url, _):
        claude(project / ".mcp.json", crm={"type": "http", "url": f"{url}/mcp", "headers": sent})
        ended = imported(remit, project, "--rewrite")
    assert ended.code == 0, ended.err
    root = project / "gateway"
    spec = written(root)["crm"]
    assert (spec.authorization, spec.header) == ("crm-token", header)
    assert (root / ".remit/secrets/crm-token").read_text().strip() == TOKEN
    held_nowhere(project, ended)
    assert remit("check", "gateway/remit.yaml").code == 0


def test_one_that_wants_a_token_is_told_what_to_write(project: Path, remit: Remit) -> None:
    with crm() as (url, shown):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        claude(
            project / ".mcp.json",
            bare={"type": "http", "url": f"{url}/closed"},
            shown={"type": "http", "url": f"{url}/closed", "headers": bearer},
        )
        ended = imported(remit, project)
    assert ended.code == 0, ended.err
    assert set(shown) == {None}
    assert "bare was asked and gave no list of tools: it wants to be shown a token" in ended.err
    assert "`authorization: HANDLE`" in ended.err
    for broker in ("static", "client_credentials", "authorization_code"):
        assert broker in ended.err
    assert "`unsafe_look: true` in runners.credentials.shown-token" in ended.err
    assert set(written(project / "gateway")) == {"bare", "shown"}


def test_one_that_is_dead_costs_the_others_nothing(project: Path, remit: Remit) -> None:
    with crm() as (url, _):
        claude(
            project / ".mcp.json",
            gone={"type": "http", "url": nobody()},
            crm={"type": "http", "url": f"{url}/mcp"},
        )
        ended = imported(remit, project)
    assert ended.code == 0, ended.err
    assert "gone was asked and gave no list of tools" in ended.err
    assert "2 tools pinned" in ended.out
    assert set(written(project / "gateway")) == {"gone", "crm"}


def test_one_that_says_nothing_is_waited_for_no_longer_than_the_bound(
    project: Path, remit: Remit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "ASKED_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        claude(project / ".mcp.json", mute={"type": "http", "url": url})
        ended = imported(remit, project)
    assert ended.code == 0, ended.err
    assert "mute was asked and gave no list of tools" in ended.err


def test_nobody_is_asked_where_that_is_not_wanted(project: Path, remit: Remit) -> None:
    with crm() as (url, shown):
        claude(project / ".mcp.json", crm={"type": "http", "url": f"{url}/mcp"})
        assert imported(remit, project, "--no-start").code == 0
        assert shown == []
    content = yaml.safe_load((project / "gateway" / "remit.yaml").read_text())
    assert "tools" not in content["catalog"]["servers"][0]


@pytest.mark.threat("T-41")
def test_a_name_of_an_address_that_may_not_be_reached_is_not_asked(
    project: Path, remit: Remit
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:
        url = f"https://localhost.:{here.getsockname()[1]}/mcp"
        claude(project / ".mcp.json", near={"type": "http", "url": url})
        ended = imported(remit, project)
        here.setblocking(False)
        with pytest.raises(BlockingIOError):
            here.accept()
    assert "near" in ended.err
