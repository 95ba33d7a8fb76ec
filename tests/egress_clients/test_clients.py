"""Real clients in real runs: git, pip, curl, Python and Node get where they should, with a token that
none of them ever holds."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.runners.traces import forms
from tests.egress_clients.servers import GIT_USER, Server, repository, serving
from tests.egress_clients.world import Look, Place, Wait, libraries, opened
from tests.plugins.machine import node_binary
from tests.runners.egress.world import certificates

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.needs("bwrap", "userns", "cgroup", "git", "curl"),
    pytest.mark.threat("T-32", "T-33"),
]

PYTHON = "/usr/bin/python3"
URLLIB = """
import json, sys, urllib.request
from hold import hold
said = json.load(urllib.request.urlopen(sys.argv[1]))
print(said["path"], said["headers"].get("Authorization"))
hold()
"""
READER = """
import base64, os
from hold import hold
token = open(os.environ["REMIT_CREDENTIAL_FILE_ON_DISK"], "rb").read()
print("sent", base64.b64encode(token).decode())
hold()
"""
HTTPX = """
import sys, httpx2
from hold import hold
with httpx2.Client() as client:
    for method in ("GET", "POST"):
        said = client.request(method, sys.argv[1], content=b"x" * 10).json()
        print(said["path"], said["headers"].get("Authorization"))
hold()
"""
PIP = """
import os, sys
from pip._internal.cli.main import main
from hold import hold
code = main(["download", "--no-cache-dir", "--disable-pip-version-check", "--no-deps", "--dest", "/job/got",
             "--index-url", sys.argv[1], "parcel"])
print(code, os.listdir("/job/got"))
hold()
"""
NODE = """
const https = require("node:https"), fs = require("node:fs"), url = process.argv[2];
const asked = () => new Promise((done, failed) =>
  https.get(url, (answer) => {
    let text = "";
    answer.on("data", (part) => (text += part)).on("end", () => done(JSON.parse(text)));
  }).on("error", failed));
(async () => {
  for (const said of [await (await fetch(url)).json(), await asked()])
    console.log(said.path, said.headers.Authorization);
  fs.writeFileSync("/mnt/hold/ready", "");
  while (!fs.existsSync("/mnt/hold/go")) await new Promise((done) => setTimeout(done, 20));
})();
"""
CURL = 'curl -sS "$1" | cut -c1-2000; touch /mnt/hold/ready; while [ ! -e /mnt/hold/go ]; do sleep 0.02; done'
CLONE = (
    "mkdir hooks; cp hold.sh hooks/post-checkout; chmod +x hooks/post-checkout;"
    " git -c core.hooksPath=/job/hooks clone -q $1 /job/repo &&"
    " cd /job/repo && git rev-parse HEAD && head -n1 file"
)


class World:
    """The gateway with all clients as tools, and the server that they speak to."""

    def __init__(self, place: Place, server: Server, wait: Wait, head: str) -> None:
        self.place, self.server, self.wait, self.head = place, server, wait, head

    def watched(self, name: str) -> Look:
        self.server.asked.clear()
        look: Look = self.wait(self.place.watched(name))
        return look


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="remit-clients-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = certificates(folder)
        place = Place(folder / "gateway", made.authority)
        head = repository(folder / "repositories")
        server = Server(made.chain, folder / "repositories", place.secret)
        base = f"https://localhost:{server.port}"
        port = server.port
        place.reach(server.port)
        place.put_in(server.port)
        pip = libraries(folder / "pip", "pip")
        wanted = ("httpx2", "httpcore2", "h11", "anyio", "idna", "truststore", "typing_extensions")
        httpx = libraries(folder / "httpx", *wanted)
        (folder / "node").mkdir()
        if (node := node_binary()) is not None:
            shutil.copy(node.resolve(), folder / "node" / "node")
        # The rules of docs/egress.md, as narrow as each client can have them.
        place.tool(
            "clone", "/bin/sh", "-c", CLONE, "x", f"{base}/git/work.git",
            port=port, path_prefix="/git/work.git", credential="git",
        )  # fmt: skip
        place.tool(
            "pip", PYTHON, "-c", PIP, f"{base}/simple/",
            libraries=pip, port=port, methods=["GET"], path_prefix="/simple", credential="index",
        )  # fmt: skip
        place.tool("curl", "/bin/sh", "-c", CURL, "x", f"{base}/who", port=port)
        place.tool("urllib", PYTHON, "-c", URLLIB, f"{base}/who", port=port)
        place.tool("httpx", PYTHON, "-c", HTTPX, f"{base}/who", libraries=httpx, port=port)
        place.tool(
            "node", "/mnt/libraries/node", "/job/ask.js", f"{base}/who",
            libraries=folder / "node", ask__js=NODE, port=port,
        )  # fmt: skip
        place.tool("reader", PYTHON, "-c", READER, port=port, credential="on-disk")
        with serving(server), opened(place) as wait:
            yield World(place, server, wait, head)


def traces(world: World) -> list[bytes]:
    """Every spelling of what no run may hold."""
    pair = base64.b64encode(f"{GIT_USER}:{world.place.secret}".encode()).decode()
    return [*forms(world.place.secret), *forms(pair)]


def clean(world: World, look: Look) -> None:
    """The token reached the server, and is nowhere else; what was planted is found everywhere."""
    assert world.server.asked
    assert {given in world.server.accepted for _, _, given in world.server.asked} == {True}
    assert look.holds(*traces(world)) == []
    assert world.place.left(*traces(world)) == []
    planted = look.holds(world.place.marker.encode())
    for where in ("memory", "environ", "file /job/marker.txt"):
        assert any(name.startswith(where) for name in planted), (where, planted)
    assert world.place.secret not in json.dumps(world.wait(world.place.outcome()))
    assert world.place.secret not in look.said


def test_git_clones_with_a_token_that_is_put_in(world: World) -> None:
    look = world.watched("clone")
    assert world.head in look.said, look.said
    assert "kept in git" in look.said
    asked = [path for _, path, _ in world.server.asked]
    assert asked[0].startswith("/git/work.git/info/refs")
    assert "/git/work.git/git-upload-pack" in asked
    clean(world, look)


def test_pip_downloads_from_an_index_that_wants_a_token(world: World) -> None:
    look = world.watched("pip")
    assert "0 ['parcel-1.0-py3-none-any.whl']" in look.said, look.said
    clean(world, look)


@pytest.mark.parametrize(
    ("client", "times"),
    [
        ("curl", 1),
        ("urllib", 1),
        ("httpx", 2),
        pytest.param("node", 2, marks=pytest.mark.needs("node-env-proxy")),
    ],
)
def test_clients_of_an_api_get_through_and_see_blanks_for_the_token(
    world: World, client: str, times: int
) -> None:
    look = world.watched(client)
    assert look.said.count("/who") >= times, look.said
    assert look.said.count("Bearer ***") >= times, look.said
    assert len(world.server.asked) == times
    clean(world, look)
    outcome = world.wait(world.place.outcome())
    assert outcome["traffic"]["echoed"] is True


def test_a_token_that_the_run_had_would_be_found(world: World) -> None:
    """The same search over a run that was lent the very token as a file, and read it."""
    look = world.wait(world.place.watched("reader"))
    found = look.holds(*traces(world))
    assert "file /run/remit/credentials/token" in found
    assert any(name.startswith("memory") for name in found), found
    assert not any(name.startswith("environ") for name in found)  # no broker can put it there
    # It said it, in base64; not even that is kept.
    assert "sent ***" in look.said
    assert world.place.left(*traces(world)) == []
