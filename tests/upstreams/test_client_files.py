"""What people have in their clients' files is read whole, or refused with what to do; no secret shows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remit.errors import Code, ConfigError
from remit.upstreams.client_files import Client, read_client_file
from remit.upstreams.found import Found, FoundServer, Kind, Source, value
from remit.upstreams.prefixes import MAX_PREFIX, propose_prefixes
from remit.upstreams.secretlike import Sign, names_a_secret, sign_of

JSON_CLIENTS = [client for client in Client if client is not Client.CODEX]
PAT = "ghp_" + "Zx81Qw" * 6
KEY = "9f86d081884c7d659a2feaa0c55ad015"
WORD = "hunter2secret"
SHA = hashlib.sha256(b"image").hexdigest()


def _read(client: Client, text: str) -> Found:
    return read_client_file(client, text, path="a/file")


def _one(client: Client, text: str) -> FoundServer:
    found = _read(client, text)
    assert found.faults == ()
    (server,) = found.servers
    return server


def _json(client: Client, **servers: Any) -> str:
    key = "servers" if client is Client.VSCODE else "mcpServers"
    return json.dumps({key: servers})


def _entry(entry: Any, client: Client = Client.CLAUDE_CODE) -> FoundServer:
    return _one(client, _json(client, it=entry))


def test_a_project_file_of_claude_code_is_read() -> None:
    text = """{"mcpServers": {
      "github": {"type": "http", "url": "https://api.example.com/mcp/",
                 "headers": {"Authorization": "Bearer ${GITHUB_TOKEN:-PAT}"}, "headersHelper": "x"},
      "fs": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/srv"],
             "env": {"LOG_LEVEL": "${LEVEL:-info}"}},
      "old": {"type": "sse", "url": "https://${HOST}/sse"}}}""".replace("PAT", PAT)  # fmt: skip
    github, fs, old = _read(Client.CLAUDE_CODE, text).servers
    assert (github.kind, fs.kind, old.kind) == (Kind.HTTP, Kind.STDIO, Kind.SSE)
    assert github.ignored == ("headersHelper",)
    assert github.secrets == {"/headers/Authorization": Sign.NAME}
    (reference,) = github.headers["Authorization"].references
    assert (reference.source, reference.name) == (Source.ENV, "GITHUB_TOKEN")
    assert reference.has_default
    assert [arg.text for arg in fs.args][1] == "@modelcontextprotocol/server-filesystem"
    assert fs.command is not None
    assert fs.command.text == "npx"
    assert fs.secrets == old.secrets == {}
    assert old.url is not None
    assert old.url.references[0].name == "HOST"
    assert fs.place.pointer == "/mcpServers/fs"
    assert fs.place.file == "Claude Code's .mcp.json"


def test_the_user_file_of_claude_code_gives_servers_of_user_and_projects() -> None:
    text = json.dumps(
        {
            "numStartups": 12345678901234567890,
            "mcpServers": {"mine": {"command": "uvx", "args": ["mcp-server-time"]}},
            "projects": {
                "/home/ann/shop": {
                    "allowedTools": [],
                    "mcpServers": {"db": {"command": "db-mcp", "env": {"DB_PASSWORD": WORD}}},
                },
                "/home/ann/empty": {},
            },
        }
    )
    mine, db = _read(Client.CLAUDE_CODE_USER, text).servers
    assert (mine.place.project, db.place.project) == (None, "/home/ann/shop")
    assert db.place.pointer == "/projects/~1home~1ann~1shop/mcpServers/db"
    assert db.secrets == {"/env/DB_PASSWORD": Sign.NAME}


def test_the_file_of_claude_desktop_is_read_and_may_have_no_servers() -> None:
    text = """{"globalShortcut": "", "mcpServers": {"slack": {"command": "npx",
      "args": ["-y", "mcp-remote", "https://mcp.example.com/sse", "--header", "Authorization:Bearer WORD"],
      "env": {"SLACK_TEAM_ID": "T01234567"}}}}""".replace("WORD", WORD)  # fmt: skip
    server = _one(Client.CLAUDE_DESKTOP, text)
    assert server.secrets == {"/args/4": Sign.NAME}
    assert _read(Client.CLAUDE_DESKTOP, '{"preferences": {}}') == Found()


def test_the_file_of_cursor_is_read() -> None:
    text = """{"mcpServers": {
      // ours
      "docs": {"url": "https://mcp.example.com/mcp", "headers": {"X-Api-Key": "${env:DOCS_KEY}"}},
      "tool": {"command": "${workspaceFolder}/bin/tool", "envFile": ".env", "disabled": true},
    }}"""
    docs, tool = _read(Client.CURSOR, text).servers
    assert docs.kind is Kind.HTTP
    assert docs.secrets == {}
    assert docs.headers["X-Api-Key"].references[0].name == "DOCS_KEY"
    assert tool.command is not None
    assert tool.command.references[0].source is Source.CLIENT
    assert tool.ignored == ("envFile",)
    assert (docs.enabled, tool.enabled) == (True, False)


def test_the_file_of_vs_code_is_read_with_comments_and_inputs() -> None:
    text = """\ufeff{
      /* what we
         ask */
      "inputs": [{"type": "promptString", "id": "key", "description": "Key", "password": true},
                 {"type": "pickString", "id": "env", "options": ["a", {"label": "B", "value": "b"}]},],
      "servers": {
        "p": {"type": "stdio", "command": "npx", "args": ["-y", "p", "//no comment"],
              "env": {"API_KEY": "${input:key}", "PORT": 8080, "GONE": null,
                      "URL": "http://x.example/a,]"}, "dev": {"watch": "x"},},
        "lost": {"type": "http", "url": "https://x.example/mcp", "headers": {"K": "${input:gone}"}},
      },
    }"""
    server, lost = _read(Client.VSCODE, text).servers
    assert server.args[2].text == "//no comment"
    assert server.env["URL"].text == "http://x.example/a,]"
    assert server.env["PORT"].text == "8080"
    assert server.ignored == ("dev", "env/GONE")
    (question,) = server.questions
    assert (question.name, question.secret, question.description) == ("key", True, "Key")
    assert server.secrets == {}
    assert [q.secret for q in lost.questions] == [True]


def test_the_file_of_codex_is_read() -> None:
    text = f"""
    model = "m"
    [mcp_servers.local]
    command = "uvx"
    args = ["mcp-server-git", "--repository", "/srv/x"]
    env_vars = ["LOCAL_TOKEN", {{ name = "FAR", source = "remote" }}]
    startup_timeout_sec = 20
    [mcp_servers.local.env]
    API_KEY = "{KEY}"
    [mcp_servers."far away"]
    url = "https://mcp.example.com/mcp"
    bearer_token_env_var = "FAR_TOKEN"
    http_headers = {{ "X-Region" = "eu" }}
    env_http_headers = {{ "X-Other" = "OTHER" }}
    enabled = false
    """
    local, far = _read(Client.CODEX, text).servers
    assert local.env["LOCAL_TOKEN"].references[0].name == "LOCAL_TOKEN"
    assert local.secrets == {"/env/API_KEY": Sign.NAME}
    assert local.ignored == ("startup_timeout_sec", "env_vars/FAR")
    assert far.headers["Authorization"].text == "Bearer ${FAR_TOKEN}"
    assert {key: len(one.references) for key, one in far.headers.items()} == {
        "X-Region": 0,
        "X-Other": 1,
        "Authorization": 1,
    }
    assert (far.kind, far.enabled, far.name) == (Kind.HTTP, False, "far away")


WRONG: list[tuple[Any, str]] = [
    ("npx server", "/mcpServers/it"),
    (None, "/mcpServers/it"),
    ({}, "/mcpServers/it"),
    ({"command": "x", "url": "https://x.example"}, "/mcpServers/it"),
    ({"transport": {"type": "http", "url": "https://x.example"}}, "/mcpServers/it"),
    ({"command": ["npx", WORD]}, "/mcpServers/it/command"),
    ({"command": ""}, "/mcpServers/it/command"),
    ({"command": "a\nb"}, "/mcpServers/it/command"),
    ({"command": "npx", "args": f"--token {WORD}"}, "/mcpServers/it/args"),
    ({"command": "npx", "args": [["-y"]]}, "/mcpServers/it/args/0"),
    ({"command": "npx", "args": ["a\0b"]}, "/mcpServers/it/args/0"),
    ({"command": "npx", "args": ["x"] * 513}, "/mcpServers/it/args"),
    ({"command": "npx", "args": ["x" * 40_000]}, "/mcpServers/it/args/0"),
    ({"command": "npx", "env": [f"TOKEN={WORD}"]}, "/mcpServers/it/env"),
    ({"command": "npx", "env": {"DEBUG": True}}, "/mcpServers/it/env/DEBUG"),
    ({"command": "npx", "env": {"A=B": "x"}}, "/mcpServers/it/env/A=B"),
    ({"command": "npx", "env": {PAT: ""}, "args": 1}, "/mcpServers/it/args"),
    ({"command": "npx", "env": {PAT: {}}}, "/mcpServers/it/env/***"),
    ({"command": "npx", "env": {"X": "\ud800"}}, "/mcpServers/it/env/X"),
    ({"type": "ws", "url": "https://x.example"}, "/mcpServers/it/type"),
    ({"type": ["http"], "url": "https://x.example"}, "/mcpServers/it/type"),
    ({"type": "http", "command": "npx"}, "/mcpServers/it/type"),
    ({"type": "stdio", "url": "https://x.example"}, "/mcpServers/it/type"),
    ({"url": "x.example/mcp"}, "/mcpServers/it/url"),
    ({"url": f"file:///{WORD}"}, "/mcpServers/it/url"),
    ({"url": "https://[x.example"}, "/mcpServers/it/url"),
    ({"url": "https://x.example/a b"}, "/mcpServers/it/url"),
    ({"url": "https://x.example", "headers": {"A:": "b"}}, "/mcpServers/it/headers/A:"),
    ({"url": "https://x.example", "headers": {"A": f"{WORD}\r\nB: c"}}, "/mcpServers/it/headers/A"),
    ({"url": "https://x.example", "headers": {"A": "b", "a": "c"}}, "/mcpServers/it/headers"),
    ({"command": "npx", "env": {f"V{n}": "" for n in range(513)}}, "/mcpServers/it/env"),
    ({"command": "npx", "env": {"x" * 50 + "-" + PAT: {}}}, "/mcpServers/it/env/***"),
    ({"command": "npx", "disabled": "no"}, "/mcpServers/it/disabled"),
]


@pytest.mark.parametrize(("entry", "pointer"), WRONG)
def test_a_wrong_entry_is_a_fault_beside_the_good_ones(entry: Any, pointer: str) -> None:
    text = _json(Client.CLAUDE_CODE, it=entry, good={"command": "uvx"})
    found = _read(Client.CLAUDE_CODE, text)
    assert [server.name for server in found.servers] == ["good"]
    (fault,) = found.faults
    assert fault.code is Code.CONFIG_INVALID
    assert fault.place == f"a/file#{pointer}"
    assert fault.hint
    assert "Claude Code's .mcp.json" in fault.message
    assert not any(secret in f"{fault!r} {fault} {fault.hint}" for secret in (WORD, PAT))


BROKEN: list[tuple[Client, str, str]] = [
    (Client.CLAUDE_CODE, "", "not valid JSON (line 1 column 1)"),
    (Client.CLAUDE_CODE, "[]", "must be a table"),
    (Client.CLAUDE_CODE, '{"servers": {}}', "has no `mcpServers`"),
    (Client.VSCODE, '{"mcpServers": {}}', "has no `servers`"),
    (Client.VSCODE, '{"servers": {}} /* open', "not valid JSON"),
    (Client.CLAUDE_CODE, '{"mcpServers": {}, // x\n}', "not valid JSON (line 1 column 20)"),
    (Client.CLAUDE_CODE, '{"mcpServers": {"a": {}, "a": {}}}', "the same key twice"),
    (Client.CLAUDE_CODE, '{"mcpServers": []}', "must be a table"),
    (Client.CLAUDE_CODE_USER, '{"projects": []}', "must be a table"),
    (Client.CLAUDE_CODE, '{"mcpServers":' + "[" * 100_000, "nested too deeply"),
    (Client.CLAUDE_CODE, " " * (8 * 1024 * 1024 + 1), "larger than is read"),
    (Client.VSCODE, '{"servers": {}, "inputs": [{"id": 7, "password": 1}]}', "true or false"),
    (Client.CODEX, f"[mcp_servers.x\ntoken = '{WORD}'", "not valid TOML (line 1, column 15)"),
    (Client.CLAUDE_CODE, '{"x": ' + "[" * 70 + "]" * 70 + "}", "nested too deeply"),
    (Client.CODEX, "# x\n" * 140_000, "larger than is read"),
    (Client.CODEX, "mcp_servers = 3", "must be a table"),
    (Client.CODEX, "a = " + "9" * 5000, "not valid TOML"),
    (Client.CODEX, "a = " + "[" * 8000, "nested too deeply"),
    (Client.CODEX, "a = '" + "x" * 20_000 + "'", "larger than is read"),
]


@pytest.mark.parametrize(("client", "text", "message"), BROKEN)
def test_a_file_that_is_none_is_refused(client: Client, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _read(client, text)
    assert caught.value.code is Code.CONFIG_INVALID
    assert message in caught.value.message
    assert caught.value.hint
    assert (caught.value.place or "").startswith("a/file")
    assert WORD not in str(caught.value)


def test_more_servers_than_the_bound_are_refused() -> None:
    servers = {f"s{n}": {"command": "x"} for n in range(513)}
    with pytest.raises(ConfigError, match="more than 512"):
        _read(Client.CLAUDE_CODE, json.dumps({"mcpServers": servers}))


def test_servers_of_all_projects_count_together() -> None:
    servers = {f"s{n}": {"command": "x"} for n in range(300)}
    projects = {path: {"mcpServers": servers} for path in ("/a", "/b")}
    with pytest.raises(ConfigError, match="more than 512 servers"):
        _read(Client.CLAUDE_CODE_USER, json.dumps({"projects": projects}))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201, "\ud800"])
def test_a_name_that_cannot_be_used_is_a_fault(name: str) -> None:
    (fault,) = _read(
        Client.CLAUDE_CODE, _json(Client.CLAUDE_CODE, **{name: {"command": "x"}})
    ).faults
    assert "a name cannot be used" in fault.message


@pytest.mark.parametrize("token", [PAT, "sk-abc", "Bearer abc"])
def test_a_token_where_codex_wants_the_name_of_a_variable_is_a_fault(token: str) -> None:
    text = f'[mcp_servers.x]\nurl = "https://x.example"\nbearer_token_env_var = "{token}"'
    found = _read(Client.CODEX, text)
    assert found.servers == ()
    assert token not in str(found.faults[0])
    assert "never write the secret itself" in (found.faults[0].hint or "")


@pytest.mark.parametrize(
    ("entry", "pointer", "sign"),
    [
        ({"command": "x", "env": {"FIELD": PAT}}, "/env/FIELD", Sign.PREFIX),
        ({"command": "x", "env": {"FIELD": KEY}}, "/env/FIELD", Sign.ENTROPY),
        ({"command": "x", "env": {"OPENAI_API_KEY": "sk-1"}}, "/env/OPENAI_API_KEY", Sign.NAME),
        ({"command": "x", "env": {"apiToken": "abcdef"}}, "/env/apiToken", Sign.NAME),
        ({"command": "x", "env": {"DB": "postgres://u:pw@h/d"}}, "/env/DB", Sign.URL),
        ({"command": "x", "args": ["--api-key", WORD]}, "/args/1", Sign.NAME),
        ({"command": "x", "args": [f"--api-key={WORD}"]}, "/args/0", Sign.NAME),
        ({"command": "docker", "args": ["run", "-e", f"TOKEN={WORD}"]}, "/args/2", Sign.NAME),
        ({"command": "sh", "args": ["-c", f"TOKEN={WORD} run it"]}, "/args/1", Sign.NAME),
        ({"command": f"run --password {WORD}"}, "/command", Sign.NAME),
        ({"url": f"https://x.example/?api_key={WORD}"}, "/url", Sign.URL),
        ({"url": f"https://x.example/s/{KEY}/mcp"}, "/url", Sign.URL),
        ({"url": f"https://ann:{WORD}@x.example/"}, "/url", Sign.URL),
        ({"url": "https://x.example", "headers": {"Authorization": f"Bearer {WORD}"}},
         "/headers/Authorization", Sign.NAME),
        ({"url": "https://x.example", "headers": {"X": "Bearer ${T:-" + PAT + "}"}},
         "/headers/X", Sign.PREFIX),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_marked_and_never_shown(
    entry: Any, pointer: str, sign: Sign
) -> None:
    server = _entry(entry)
    assert server.secrets == {pointer: sign}
    shown = f"{server!r} {server} {server.env} {server.headers} {server.args} {server.url!r}"
    assert not any(secret in shown for secret in (WORD, PAT, KEY, "sk-1", "abcdef", "u:pw"))


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "npx", "args": ["-y", "@upstash/context7-mcp@1.0.31"]},
        {"command": "uvx", "args": ["--from", "git+https://git.example/a/b@v1.2.3", "b"]},
        {"command": "docker", "args": ["run", "-i", "--rm", "-e", "GITHUB_TOKEN",
                                       f"reg.example/a/b@sha256:{SHA}"]},
        {"command": "x", "env": {"MAX_TOKENS": "4096", "TOKENIZERS_PARALLELISM": "false",
                                 "TOKEN_FILE": "/run/token", "AUTH_TYPE": "oauth",
                                 "PUBLIC_KEY": "age1", "SSH_AUTH_SOCK": "/run/x"}},
        {"command": "x", "env": {"API_KEY": "${API_KEY}", "TOKEN": "", "SECRET": "${env:S}"}},
        {"command": "x", "env": {"USE_TOKEN": "true"}},
        {"url": "https://x.example", "headers": {"Authorization": "Bearer ${T}"}},
        {"command": "x", "args": ["--token-file", "/run/t", "--token", "--verbose"]},
        {"command": "x", "args": ["/home/ann/projects/2026/customer-portal-2/src"]},
        {"url": "https://mcp.example.com/v1/mcp?region=eu&page_size=20"},
    ],
)  # fmt: skip
def test_what_people_usually_write_is_no_secret(entry: Any) -> None:
    assert _entry(entry).secrets == {}


def test_a_bare_dollar_name_is_plain_text() -> None:
    assert value("$HOME/x ${} ${A:-${B}}").references[0].name == "B"
    assert value("$HOME ${unclosed").references == ()


KEYS = (
    "mcpServers servers projects mcp_servers inputs it type command args env url headers cwd id "
    "disabled enabled env_vars http_headers bearer_token_env_var password default options"
)
NAMES = st.sampled_from(KEYS.split())
TEXTS = st.sampled_from(["npx", "http", "https://x.example", "${A:-b}", "\ud800", PAT, ""])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | TEXTS | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=25,
)


@given(client=st.sampled_from(JSON_CLIENTS), tree=TREES)
@example(client=Client.CLAUDE_CODE, tree={"mcpServers": {PAT: 1}})
@example(client=Client.CLAUDE_CODE, tree={"mcpServers": {"\ud800": {"command": "x"}}})
@example(client=Client.VSCODE, tree={"servers": {"a": {"command": "${input:\ud800}"}}})
def test_any_json_gives_servers_or_our_fault(client: Client, tree: Any) -> None:
    if isinstance(tree, dict) and client is not Client.VSCODE:
        tree = {"mcpServers": tree} if "mcpServers" not in tree else tree
    _no_other_end(client, json.dumps(tree))


@given(client=st.sampled_from(list(Client)), text=st.text(max_size=200))
@example(client=Client.VSCODE, text='{"servers": {"\\')
@example(client=Client.CODEX, text="[mcp_servers.x]\ncommand = 1979-05-27\nargs = [inf, -0.0]")
def test_any_text_gives_servers_or_our_fault(client: Client, text: str) -> None:
    _no_other_end(client, text)


def _no_other_end(client: Client, text: str) -> None:
    try:
        found = _read(client, text)
    except ConfigError as raised:
        faults: tuple[ConfigError, ...] = (raised,)
    else:
        faults = found.faults
        for server in found.servers:
            assert (server.command is None) == (server.kind is not Kind.STDIO)
            assert (server.url is None) == (server.kind is Kind.STDIO)
            json.dumps([one.text for _, one in server.values()], ensure_ascii=False).encode()
        assert PAT not in repr(found)
    for fault in faults:
        assert fault.code is Code.CONFIG_INVALID
        assert fault.hint
        assert PAT not in f"{fault} {fault.hint}"
        str(fault).encode()


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (Client.VSCODE, '"\\' * 400_000),
        (Client.VSCODE, "/*" * 400_000),
        (Client.VSCODE, "[" + ", " * 400_000),
        (Client.CLAUDE_CODE, "{" + '"a":' * 400_000),
        (Client.CODEX, "\n".join(["a" + ".a" * 4000 + " = 1"] * 3)),
        (Client.CLAUDE_CODE, _json(Client.CLAUDE_CODE, a={"command": "x", "args": ["a" * 32_000,
         "-eyJ" * 8000, "://" * 9000, "a.b+" * 8000, "${a:-" * 6000, "-----BEGIN " * 2900]})),
    ],
)  # fmt: skip
def test_hostile_text_takes_no_long_time(client: Client, text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(ConfigError):
        _read(client, text)
    assert time.process_time() - start < 10


def test_names_of_secrets_are_told_from_names_about_them() -> None:
    secret = "API_KEY apiKey X-Api-Key GITHUB_PAT Authorization DbPassword NPM_TOKEN client_secret"
    about = "KEYBOARD TOKEN_URL MONKEY PRIVATE_KEY_PATH AUTHOR PASSENGERS keyName TOKENS_PER_DAY"
    assert [name for name in secret.split() if not names_a_secret(name)] == []
    assert [name for name in about.split() if names_a_secret(name)] == []
    assert sign_of("") is None


def test_prefixes_are_short_names_without_separators() -> None:
    names = ["GitHub", "@scope/server-github", "io.example/weather_mcp", "mcp-server-git", "7zip"]
    assert propose_prefixes(names) == ("github", "github-2", "weather", "git", "s-7zip")
    assert propose_prefixes(["日本", PAT, "Ünï"], taken=["server"]) == (
        "server-2",
        "server-3",
        "uni",
    )


@given(st.lists(st.text(max_size=50)), st.sets(st.text(max_size=5)))
@example(["a" * 40] * 12, set())
def test_prefixes_never_collide(names: list[str], taken: set[str]) -> None:
    found = propose_prefixes(names, taken)
    assert len(found) == len(names)
    assert len(set(found)) == len(found)
    assert taken.isdisjoint(found)
    for prefix in found:
        assert 1 <= len(prefix) <= MAX_PREFIX
        assert prefix[0] in "abcdefghijklmnopqrstuvwxyz"
        assert not set(prefix) - set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert propose_prefixes(names, taken) == found
