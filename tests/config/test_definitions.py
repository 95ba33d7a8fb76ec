"""`definition` of a server: a publisher's server.json says how it is had, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from remit.catalog.server_means import credentials_of, egress_of
from remit.config import Settings, examine
from remit.upstreams.installed import ENVIRONMENTS, Record, write_record

HEAD = {"name": "io.github.ann/small-mcp", "version": "1.0.0", "description": "Small things."}
NPM: dict[str, Any] = {
    "registryType": "npm",
    "identifier": "@own/small",
    "version": "1.0.0",
    "transport": {"type": "stdio"},
}
REMOTE: dict[str, Any] = {"type": "streamable-http", "url": "https://small.example.com/mcp"}
BEARER = {"name": "Authorization", "isRequired": True, "isSecret": True}
TOKEN = "ghp_0123456789abcdefABCDEF0123456789abcd"
HELD: dict[str, Any] = {
    "broker": "static",
    "secret": "env:X",
    "file": {"name": "t", "content": "{token}"},
}
PUT = {"host": "a.example", "port": 443, "header": "Authorization", "value": "{token}"}
INJECTED = {"broker": "static", "secret": "env:X", "inject": [PUT]}


class Desk:
    """A remit.yaml with one server, and the document that it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "remit.yaml"
        self.more: dict[str, Any] = {"runners": {"credentials": {"held": HELD, "put": INJECTED}}}

    def document(self, **keys: Any) -> None:
        (self.folder / "server.json").write_text(json.dumps(HEAD | keys))

    def stands(self, **keys: Any) -> None:
        """Something was installed for the server."""
        record = {
            "kind": "npm", "package": "@own/small", "asked": "1.0.0", "version": "1.0.0",
            "sha256": None, "program": "/usr/bin/node", "start": "node_modules/@own/small/x.js",
        }  # fmt: skip
        place = self.folder / ENVIRONMENTS / "small"
        place.mkdir(parents=True, exist_ok=True)
        write_record(place, Record(**(record | keys)))

    def taken(self, definition: Any, **keys: Any) -> Settings:
        settings, said = self._read(definition, keys)
        assert said == []
        assert settings is not None
        return settings

    def told(self, definition: Any, **keys: Any) -> str:
        _, said = self._read(definition, keys)
        return "\n".join(said)

    def _read(self, definition: Any, keys: dict[str, Any]) -> tuple[Settings | None, list[str]]:
        server = {"name": "small", "definition": definition, **keys}
        self.file.write_text(json.dumps({"catalog": {"servers": [server]}, **self.more}))
        settings, problems = examine(self.file, environ={})
        assert all((each.place or "").startswith(str(self.file)) for each in problems)
        return settings, [f"{each.message} | {each.hint}" for each in problems]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_path_alone_is_enough_where_there_is_one_way(desk: Desk) -> None:
    desk.document(remotes=[REMOTE])
    (spec,) = desk.taken("./server.json").servers
    assert spec.url == "https://small.example.com/mcp"
    assert [(rule.host, rule.port) for rule in egress_of(spec)] == [("small.example.com", 443)]
    desk.document(remotes=[REMOTE | {"type": "sse"}])
    assert desk.taken("server.json").servers[0].sse


def test_a_package_is_started_as_it_was_installed_with_what_was_answered(desk: Desk) -> None:
    arguments = [
        {"type": "positional", "value": "serve"},
        {"name": "--root", "isRequired": True, "valueHint": "dir"},
        {"name": "--verbose", "valueHint": "level"},
    ]
    env = [{"name": "REGION", "default": "eu"}, {"name": "LEFT_OUT"}]
    package = NPM | {"packageArguments": arguments, "environmentVariables": env}
    desk.document(packages=[package], remotes=[REMOTE])
    desk.stands()
    mount = {"name": "docs", "source": str(desk.folder)}
    mount["source"] = str(desk.folder / "docs")
    definition = {"file": "server.json", "package": 1, "answers": {"root": "/mnt/docs"}}
    settings = desk.taken({**definition, "mounts": [mount]}, session="shared")
    command = settings.servers[0].command
    assert command is not None
    assert command.argv == [
        "/usr/bin/node", "/mnt/small/node_modules/@own/small/x.js", "serve", "--root=/mnt/docs",
    ]  # fmt: skip
    assert command.env == {"REGION": "eu"}
    here = str(desk.folder / ENVIRONMENTS / "small")
    assert [(each.source, each.writable) for each in command.mounts] == [
        (here, False),
        (mount["source"], False),
    ]
    where = settings.sources.source("catalog.servers[0].command.argv")
    assert where is not None
    assert where.endswith("(server.json)")


def test_a_python_package_is_started_by_its_own_python(desk: Desk) -> None:
    desk.document(packages=[NPM | {"registryType": "pypi", "identifier": "own-small"}])
    desk.stands(kind="pypi", package="own-small", program=None, start="bin/own-small")
    command = desk.taken("server.json").servers[0].command
    assert command is not None
    assert command.argv == ["/mnt/small/bin/python", "/mnt/small/bin/own-small"]


def test_a_secret_is_a_credential_that_is_named(desk: Desk) -> None:
    keys = [{"name": name, "isSecret": True, "isRequired": True} for name in ("HELD", "PUT")]
    desk.document(packages=[NPM | {"environmentVariables": keys}])
    desk.stands()
    answers = {"HELD": "credential:held", "PUT": "credential:put"}
    way = [{"host": "a.example", "port": 443}]
    (spec,) = desk.taken({"file": "server.json", "answers": answers}, egress=way).servers
    assert {rule.ref for rule in credentials_of(spec)} == {"held", "put"}
    assert spec.command is not None
    assert spec.command.env == {"PUT": "put-in-by-remit"}


@pytest.mark.parametrize("value", [None, "Bearer {token}"])
def test_what_an_address_is_shown_is_a_credential_that_is_named(
    desk: Desk, value: str | None
) -> None:
    header: dict[str, Any] = dict(BEARER)
    if value is not None:
        header |= {"value": value, "variables": {"token": {"isRequired": True}}}
    desk.document(remotes=[REMOTE | {"headers": [header]}])
    name = "Authorization" if value is None else "token"
    definition = {"file": "server.json", "answers": {name: "credential:held"}}
    assert desk.taken(definition).servers[0].authorization == "held"
    # The operator's own key says the same, and then nothing has to be answered.
    assert desk.taken("server.json", authorization="held").servers[0].authorization == "held"


@pytest.mark.parametrize(
    ("written", "header"),
    [
        ({"name": "X-Api-Key"}, "X-Api-Key: {token}"),
        (
            {"value": "Token {key}", "variables": {"key": {"isRequired": True}}},
            "Authorization: Token {token}",
        ),
    ],
)
def test_an_address_is_shown_a_credential_in_the_header_that_its_publisher_names(
    desk: Desk, written: dict[str, Any], header: str
) -> None:
    desk.document(remotes=[REMOTE | {"headers": [BEARER | written]}])
    name = written.get("name", "key")
    definition = {"file": "server.json", "answers": {name: "credential:held"}}
    (spec,) = desk.taken(definition).servers
    assert (spec.authorization, spec.header) == ("held", header)
    # The operator's own keys say the same, and then nothing has to be answered.
    (own,) = desk.taken("server.json", authorization="held", header=header).servers
    assert (own.authorization, own.header) == ("held", header)


def test_a_header_that_is_not_sent_is_told_of(desk: Desk) -> None:
    desk.document(remotes=[REMOTE | {"headers": [{"name": "X-Tools", "value": "all"}]}])
    warnings = desk.taken("server.json").warnings()
    assert any("the header X-Tools, which Remit does not send" in each for each in warnings)


@pytest.mark.threat("T-57")
def test_another_file_than_the_one_that_was_looked_at_is_refused(desk: Desk) -> None:
    desk.document(remotes=[REMOTE])
    digest = hashlib.sha256((desk.folder / "server.json").read_bytes()).hexdigest()
    definition = {"file": "server.json", "sha256": digest}
    desk.taken(definition)
    desk.document(remotes=[REMOTE | {"url": "https://other.example.com/mcp"}])
    assert "is not the file that `sha256` names | look at what changed" in desk.told(definition)


@pytest.mark.threat("T-57")
@pytest.mark.parametrize(
    ("installed", "document"),
    [
        ({"asked": "1.0.1"}, {}),
        ({"package": "small"}, {}),
        ({"kind": "pypi"}, {}),
        ({}, {"fileSha256": "0" * 64}),
        ({"sha256": "1" * 64}, {"fileSha256": "0" * 64}),
    ],
)
def test_only_what_the_document_names_is_started(
    desk: Desk, installed: dict[str, Any], document: dict[str, Any]
) -> None:
    desk.document(packages=[NPM | document])
    desk.stands(**installed)
    assert "is not what stands in .remit-servers/small | remove" in desk.told("server.json")


@pytest.mark.threat("T-57")
def test_no_word_of_a_document_becomes_a_mount_or_an_argument_of_a_runner(desk: Desk) -> None:
    options = [{"type": "named", "name": "-v", "value": "/:/host"}]
    arguments = [{"type": "positional", "value": str(desk.folder)}]
    package = NPM | {"runtimeArguments": options, "packageArguments": arguments}
    desk.document(packages=[package])
    desk.stands()
    command = desk.taken("server.json").servers[0].command
    assert command is not None
    assert command.argv[2:] == [str(desk.folder)]
    assert [each.name for each in command.mounts] == ["small"]


@pytest.mark.threat("T-57")
def test_a_run_may_not_write_where_the_document_is(desk: Desk) -> None:
    desk.document(packages=[NPM])
    desk.stands()
    below = desk.folder / "docs"
    below.mkdir()
    (desk.folder / "server.json").rename(below / "server.json")
    definition = {"file": "docs/server.json"}
    mount = {"name": "docs", "source": str(below)}
    desk.taken({**definition, "mounts": [mount]})
    told = desk.told({**definition, "mounts": [{**mount, "writable": True}]})
    assert "would give a run Remit's own keys, ledger, policy or configuration" in told


TWO = {"packages": [NPM], "remotes": [REMOTE]}
KEY = {"name": "KEY", "isSecret": True, "isRequired": True}


@pytest.mark.parametrize(
    ("document", "definition", "said"),
    [
        (TWO, {}, "`package: 1` (npm @own/small), `remote: 1` (http)"),
        (TWO, {"package": 1, "remote": 1}, "both `package` and `remote`"),
        (TWO, {"package": 2}, "has no package of the number 2 | they are counted from 1"),
        (TWO, {"package": 1}, "@own/small (npm, 1.0.0) is not installed | install it once: remit init --install"),
        ({"packages": [NPM | {"version": "latest"}]}, {}, "no exact version"),
        ({"packages": [NPM | {"version": "latest"}], "remotes": [REMOTE]}, {"package": 1}, "no exact version"),
        ({}, {}, "there is no way to have this server"),
        ({"packages": [NPM | {"registryType": "oci", "identifier": "ann/x"}]}, {}, "is a container"),
        ({"packages": [NPM | {"registryType": "nuget", "identifier": "A"}]}, {}, "package of nuget"),
        ({"packages": [NPM | {"registryBaseUrl": "https://npm.example.com"}]}, {}, "name the way: package: N"),
        ({"remotes": [REMOTE | {"url": "http://127.0.0.1:1/mcp"}]}, {}, "without TLS"),
        ({"remotes": [REMOTE | {"url": "https://127.0.0.1:1/mcp"}]}, {}, "a private address"),
        ({"remotes": [REMOTE | {"url": "https://localhost/mcp"}]}, {}, "a private address"),
        ({"remotes": [REMOTE | {"url": "https://10.0.0.1/mcp"}]}, {}, "a private address"),
        ({"remotes": [REMOTE | {"url": "https://u@[fd00::1]:1/mcp"}]}, {}, "a private address"),
        ({"remotes": [REMOTE | {"url": "https://169.254.169.254/"}]}, {}, "a private address"),
        ({"remotes": [REMOTE]}, {"answers": {"key": "x"}}, "asks nothing of the name key | it asks nothing"),
        ({"remotes": [REMOTE]}, {"mounts": [{"name": "a", "source": "/srv/a"}]}, "mounts are for a package"),
        ({"remotes": [REMOTE | {"headers": [BEARER]}]}, {}, "write answers: {Authorization: credential:HANDLE}"),
        (
            {"remotes": [REMOTE | {"headers": [BEARER]}]},
            {"answers": {"Authorization": "credential:other"}},
            "names the credential other, which is not there",
        ),
        (
            {"remotes": [REMOTE | {"headers": [BEARER | {"name": "Cookie"}]}]},
            {"answers": {"Cookie": "credential:held"}},
            "would set Cookie",
        ),
        (
            {"remotes": [REMOTE | {"headers": [BEARER, BEARER | {"name": "X-Api-Key"}]}]},
            {"answers": {"Authorization": "credential:held", "X-Api-Key": "credential:held"}},
            "a second secret",
        ),
        (
            {"packages": [NPM | {"packageArguments": [{"name": "--key", "isRequired": True, "isSecret": True}]}]},
            {"answers": {"key": "credential:held"}},
            "a secret in its arguments or address",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_told_with_what_to_do(
    desk: Desk, document: dict[str, Any], definition: dict[str, Any], said: str
) -> None:
    desk.document(**document)
    told = desk.told({"file": "server.json", **definition})
    assert told.startswith("catalog.servers[0].definition cannot be taken: ")
    assert said in told
    assert "\n" not in told


@pytest.mark.parametrize("text", [TOKEN, "env:KEY", f"env:{TOKEN}", f"credential:{TOKEN}"])
def test_a_secret_is_never_an_answer_itself(desk: Desk, text: str) -> None:
    desk.document(packages=[NPM | {"environmentVariables": [KEY]}])
    desk.stands()
    told = desk.told({"file": "server.json", "answers": {"KEY": text}})
    said = "which is not there" if text.startswith("credential:") else "named by its handle alone"
    assert said in told
    assert "runners.credentials" in told
    assert TOKEN not in told


def test_a_file_that_cannot_be_read_is_told_of(desk: Desk) -> None:
    assert "is no file of at most" in desk.told("./server.json")
    assert "is no file of at most" in desk.told(".")
    (desk.folder / "server.json").write_text("{")
    assert "not valid JSON" in desk.told("./server.json")
    (desk.folder / "server.json").write_bytes(b"\xff")
    assert "is not UTF-8" in desk.told("./server.json")


def test_a_definition_stands_beside_no_other_way(desk: Desk) -> None:
    desk.document(remotes=[REMOTE])
    assert "has `url` beside it" in desk.told("server.json", url="https://a.example/mcp")
    assert "has `sse` beside it" in desk.told("server.json", sse=True)
    # What holds for every server at a URL holds for this one.
    assert "runner is for servers with a command" in desk.told("server.json", runner="x")


def test_a_mount_has_another_name_than_the_server(desk: Desk) -> None:
    desk.document(packages=[NPM])
    desk.stands()
    mount = {"name": "small", "source": "/srv/a"}
    told = desk.told({"file": "server.json", "mounts": [mount]})
    assert "has the server's name, at which its package is seen | give the mount another" in told


def test_what_was_installed_has_to_be_what_remit_wrote_down(desk: Desk) -> None:
    desk.document(packages=[NPM])
    desk.stands()
    (desk.folder / ENVIRONMENTS / "small" / "remit-installed.json").write_text('{"kind": 1}')
    assert "what was installed there cannot be told" in desk.told("server.json")
    desk.stands(program="/opt/node/bin/node")
    assert "/opt/node/bin/node, which no sandbox has" in desk.told("server.json")
