"""A published `server.json` gives ways to have the server, or a fault that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remit.errors import Code, ConfigError
from remit.upstreams.found import FoundServer, Kind
from remit.upstreams.inputs import MAX_ALIKE
from remit.upstreams.secretlike import Sign
from remit.upstreams.server_json import Published, is_server_json, read_server_json

PAT = "ghp_" + "Zx81Qw" * 6
SHA = "ab12" * 16
HEAD = {
    "$schema": "https://schemas.example.com/2025-12-11/server.schema.json",
    "name": "io.github.ann/weather",
    "description": "Weather",
    "version": "1.0.2",
}
NPM = {"registryType": "npm", "identifier": "@ann/weather", "version": "1.0.2"}
STDIO = {"transport": {"type": "stdio"}}


def _read(**keys: Any) -> Published:
    return read_server_json(json.dumps(HEAD | keys), path="a/server.json")


def _one(**package: Any) -> FoundServer:
    published = _read(packages=[NPM | STDIO | package])
    assert published.faults == ()
    (choice,) = published.choices
    return choice


def _line(server: FoundServer) -> list[str]:
    assert server.command is not None
    return [server.command.text, *(arg.text for arg in server.args)]


def test_a_package_of_npm_is_a_command_of_one_exact_version() -> None:
    server = _one(
        fileSha256=SHA,
        environmentVariables=[
            {"name": "API_KEY", "description": "Your key", "isRequired": True, "isSecret": True},
            {"name": "LEVEL", "default": "info", "choices": ["info", "debug"]},
            {"name": "MODE", "value": "fast"},
            {"name": "EXTRA"},
        ],
        packageArguments=[
            {"type": "positional", "value": "start"},
            {"type": "positional", "valueHint": "dir", "isRequired": True, "isRepeated": True},
            {"type": "positional", "valueHint": "more"},
            {"type": "named", "name": "--port", "default": "3000"},
            {"type": "named", "name": "--key", "isRequired": True, "isSecret": True},
            {"type": "named", "name": "-v"},
            {"type": "named", "name": "--opt", "format": "number"},
        ],
    )
    assert _line(server) == [
        "npx", "-y", "@ann/weather@1.0.2", "start", "{dir}", "--port=3000", "--key={key}", "-v",
    ]  # fmt: skip
    assert {key: one.text for key, one in server.env.items()} == {
        "API_KEY": "{API_KEY}",
        "LEVEL": "info",
        "MODE": "fast",
        "EXTRA": "{EXTRA}",
    }
    asked = {one.name: (one.secret, one.required) for one in server.questions}
    assert asked == {
        "API_KEY": (True, True),
        "EXTRA": (False, False),
        "dir": (False, True),
        "key": (True, True),
    }
    assert server.ignored == (
        "/packages/0/packageArguments/2",
        "/packages/0/packageArguments/6",
    )
    assert server.package is not None
    assert server.package.sha256 == SHA
    assert server.secrets == {}


def test_packages_of_other_kinds_have_their_runners() -> None:
    pypi = _one(registryType="pypi", identifier="mcp-server-time", runtimeHint="uvx")
    assert _line(pypi) == ["uvx", "mcp-server-time@1.0.2"]
    dnx = _one(
        registryType="nuget",
        identifier="Ann.Weather",
        packageArguments=[{"type": "positional", "value": "mcp"}],
    )
    assert _line(dnx) == ["dnx", "--yes", "Ann.Weather@1.0.2", "--", "mcp"]
    image = _one(
        registryType="oci",
        identifier="reg.example/ann/weather",
        environmentVariables=[{"name": "TOKEN", "isSecret": True}],
        runtimeArguments=[
            {
                "type": "named",
                "name": "--mount",
                "value": "type=bind,src={from},dst={to}",
                "variables": {"from": {"isRequired": True}, "to": {"default": "/project"}},
            },
            {"type": "named", "name": "-e", "value": "A={from}", "variables": {"from": {}}},
        ],
    )
    assert _line(image) == [
        "docker", "run", "-i", "--rm", "-e", "TOKEN", "reg.example/ann/weather:1.0.2",
    ]  # fmt: skip
    assert image.ignored == ("runtimeArguments/0 (--mount)", "runtimeArguments/1 (-e)")
    assert [question.name for question in image.questions] == ["TOKEN"]
    pinned = _one(registryType="oci", identifier=f"ann/w@sha256:{SHA}", version=None)
    assert _line(pinned)[-1] == f"ann/w@sha256:{SHA}"
    other = _one(runtimeHint="node")
    assert (_line(other)[0], other.ignored) == ("npx", ("runtimeHint",))


def test_remotes_keep_their_variables_and_headers() -> None:
    published = _read(
        websiteUrl="https://x.example",
        remotes=[
            {
                "type": "streamable-http",
                "url": "https://{tenant}.x.example/mcp",
                "variables": {"tenant": {"isRequired": True, "choices": ["a", "b"]}},
                "headers": [
                    {
                        "name": "Authorization",
                        "value": "Bearer {key}",
                        "isSecret": True,
                        "variables": {"key": {"isSecret": True, "isRequired": True}},
                    }
                ],
            },
            {"type": "sse", "url": "{base}/sse", "variables": {"base": {}}, "extra": 1},
        ],
    )
    assert published.ignored == ("websiteUrl",)
    http, sse = published.choices
    assert (http.kind, sse.kind) == (Kind.HTTP, Kind.SSE)
    assert [(one.name, one.choices) for one in http.questions] == [
        ("tenant", ("a", "b")),
        ("key", ()),
    ]
    assert http.url is not None
    assert [reference.text for reference in http.url.references] == ["{tenant}"]
    assert http.secrets == {"/headers/Authorization": Sign.DECLARED}
    assert sse.ignored == ("extra",)
    assert sse.place.pointer == "/remotes/1"


def test_the_first_schemas_and_answers_of_a_registry_are_read() -> None:
    old = {
        "name": "io.github.ann/weather",
        "description": "d",
        "status": "active",
        "version_detail": {"version": "0.5.0"},
        "packages": [
            {
                "registry_type": "pypi",
                "identifier": "weather-mcp",
                "version": "0.5.0",
                "runtime_hint": "uvx",
                "environment_variables": [
                    {"name": "WEATHER_API_KEY", "is_required": True, "is_secret": True}
                ],
                "package_arguments": [
                    {"type": "positional", "value_hint": "x", "is_required": True}
                ],
            }
        ],
        "remotes": [{"transport_type": "sse", "url": "https://x.example/sse"}],
    }
    text = json.dumps({"server": old, "_meta": {}})
    published = read_server_json(text, path="p")
    assert (published.version, published.faults) == ("0.5.0", ())
    first, second = published.choices
    assert _line(first) == ["uvx", "weather-mcp@0.5.0", "{x}"]
    assert first.questions[0].secret
    assert first.place.pointer == "/server/packages/0"
    assert second.kind is Kind.SSE


def test_a_secret_that_was_published_is_marked_and_not_shown() -> None:
    server = _one(
        environmentVariables=[
            {"name": "ONE", "value": PAT},
            {"name": "TWO", "default": "hush", "isSecret": True},
        ],
        packageArguments=[{"type": "named", "name": "--api-key", "value": "hush"}],
    )
    assert server.secrets == {
        "/args/2": Sign.NAME,
        "/env/ONE": Sign.PREFIX,
        "/env/TWO": Sign.DECLARED,
    }
    assert not any(secret in f"{server!r}{server.questions}" for secret in (PAT, "hush"))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (json.dumps(HEAD | {"packages": [NPM]}), True),
        (json.dumps({"server": HEAD, "_meta": {}}), True),
        (json.dumps({"mcpServers": {}} | HEAD), False),
        (json.dumps({"servers": {}} | HEAD), False),
        (json.dumps({"name": "x"}), False),
        (json.dumps({"name": {}, "version": "1"}), False),
        (json.dumps([HEAD]), False),
        ('{"name": "a/b", "name": "c/d", "version": "1"}', False),
        ("[" * 9_999, False),
        ("", False),
    ],
)
def test_a_document_is_known_by_its_keys(text: str, is_one: bool) -> None:
    assert is_server_json(text) is is_one


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"registryType": "mcpb"}, "/registryType"),
    ({"registryType": None}, "/registryType"),
    ({"identifier": "--help"}, "/identifier"),
    ({"identifier": "https://x.example/a.tgz"}, "/identifier"),
    ({"identifier": "weather@1.0"}, "/identifier"),
    ({"identifier": "../up"}, "/identifier"),
    ({"identifier": "w" * 256}, "/identifier"),
    ({"version": None}, "/version"),
    ({"version": "latest"}, "/version"),
    ({"version": "^1.2.3"}, "/version"),
    ({"version": "1.x"}, "/version"),
    ({"version": "1.*"}, "/version"),
    ({"version": ">=1 --flag"}, "/version"),
    ({"registryType": "oci", "identifier": "ann/w", "version": None}, "/version"),
    ({"registryType": "oci", "identifier": "ann/w:latest", "version": None}, "/version"),
    ({"fileSha256": SHA.upper()}, "/fileSha256"),
    ({"transport": {"type": "streamable-http", "url": "http://127.0.0.1:1"}}, "/transport"),
    ({"transport": "stdio"}, "/transport"),
    ({"runtimeHint": "node", "runtimeArguments": [{"name": "--x"}]}, "/runtimeHint"),
    ({"registry_type": "npm"}, ""),
    ({"environmentVariables": [{"value": PAT}]}, "/environmentVariables/0/name"),
    ({"environmentVariables": [{"name": "A=B"}]}, "/environmentVariables/0/name"),
    ({"environmentVariables": [{"name": "A"}, {"name": "A"}]}, "/environmentVariables/1"),
    ({"environmentVariables": {"A": PAT}}, "/environmentVariables"),
    ({"environmentVariables": [{"name": "A", "isSecret": "yes"}]},
     "/environmentVariables/0/isSecret"),
    ({"packageArguments": [{"type": "both", "value": PAT}]}, "/packageArguments/0/type"),
    ({"packageArguments": [{"type": "named", "name": "--a b"}]}, "/packageArguments/0/name"),
    ({"packageArguments": [PAT]}, "/packageArguments/0"),
]  # fmt: skip


@pytest.mark.parametrize(("package", "pointer"), WRONG)
def test_a_way_that_cannot_be_taken_is_a_fault_beside_the_others(
    package: dict[str, Any], pointer: str
) -> None:
    remote = {"type": "sse", "url": "https://x.example/sse"}
    published = _read(packages=[NPM | STDIO | package], remotes=[remote])
    assert [choice.kind for choice in published.choices] == [Kind.SSE]
    (fault,) = published.faults
    assert fault.code is Code.CONFIG_INVALID
    assert fault.place == f"a/server.json#/packages/0{pointer}"
    assert fault.hint
    assert PAT not in f"{fault} {fault.hint}"


@pytest.mark.parametrize(
    ("remote", "pointer"),
    [
        ({"type": "stdio"}, "/type"),
        ({"type": "sse"}, "/url"),
        ({"type": "sse", "url": "ftp://x.example"}, "/url"),
        ({"type": "sse", "url": "https://x.example", "headers": [{"name": "A B"}]},
         "/headers/0/name"),
        ({"type": "sse", "url": "https://x.example",
          "headers": [{"name": "A", "value": "b\nc"}]}, "/headers/0"),
        ({"type": "sse", "url": "https://x.example",
          "headers": [{"name": "A"}, {"name": "a"}]}, "/headers"),
    ],
)  # fmt: skip
def test_a_wrong_remote_is_a_fault(remote: dict[str, Any], pointer: str) -> None:
    (fault,) = _read(remotes=[remote]).faults
    assert fault.place == f"a/server.json#/remotes/0{pointer}"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"name": "weather", "packages": [NPM]},
        {"name": f"x/{'y' * 300}", "packages": [NPM]},
        {"version": None, "packages": [NPM]},
        {"packages": {}},
        {"title": 7.5e3, "description": [], "packages": [NPM]},
    ],
)
def test_a_document_that_is_none_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        _read(**keys)
    assert caught.value.code is Code.CONFIG_INVALID
    assert caught.value.hint


KEYS = (
    "name type value default isRequired isSecret variables choices description valueHint url "
    "headers registryType identifier version transport runtimeHint runtimeArguments "
    "packageArguments environmentVariables is_secret registry_type"
)
WORDS = "npm oci 1.0 a/b stdio sse named --x {a} https://{a}.example latest \ud800"


def test_different_questions_of_one_name_are_few() -> None:
    def asking(count: int) -> Published:
        values = [
            {"value": "{a}", "variables": {"a": {"description": str(n)}}} for n in range(count)
        ]
        return _read(packages=[NPM | STDIO | {"packageArguments": values}])

    (most,) = asking(MAX_ALIKE).choices
    assert len(most.questions) == MAX_ALIKE
    refused = asking(MAX_ALIKE + 1)
    assert refused.choices == ()
    assert refused.faults[0].code is Code.CONFIG_INVALID


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([*WORDS.split(), PAT]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*KEYS.split(), PAT]), inner, max_size=6)
    ),
    max_leaves=25,
)


@given(package=TREES, remote=TREES, other=TREES)
@example(package={"name": {}}, remote={"variables": {PAT: {"value": PAT}}}, other={PAT: 1})
def test_any_json_gives_choices_or_our_fault(package: Any, remote: Any, other: Any) -> None:
    if isinstance(package, dict):
        package = NPM | STDIO | package
    if isinstance(remote, dict):
        remote = {"type": "sse", "url": "https://x.example"} | remote
    more = other if isinstance(other, dict) else {"title": other}
    try:
        published = _read(packages=[package], remotes=[remote], **more)
    except ConfigError as raised:
        faults: tuple[ConfigError, ...] = (raised,)
    else:
        faults = published.faults
        shown = repr(published.choices) + repr(published.ignored)
        assert PAT not in shown
        for choice in published.choices:
            json.dumps([one.text for _, one in choice.values()], ensure_ascii=False).encode()
            asked = {question.name for question in choice.questions}
            for _, one in choice.values():
                assert {reference.name for reference in one.references} <= asked
    for fault in faults:
        assert PAT not in f"{fault} {fault.hint}"
        str(fault).encode()


@given(st.text(max_size=100))
def test_any_text_gives_choices_or_our_fault(text: str) -> None:
    with pytest.raises(ConfigError):
        read_server_json(text, path="p")
