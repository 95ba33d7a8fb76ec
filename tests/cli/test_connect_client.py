"""`remit connect CLIENT`: what it prints, what it does to a client's file, and how it is undone."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.cli.client_entry import CLIENTS, Door
from remit.cli.client_file import MAX_BYTES, backup_of, install, look, undo, write
from remit.cli.client_text import with_pieces
from remit.errors import Code, ConfigError, Conflict
from tests.cli.conftest import Remit

SECRET = "remit_agent_0123456789abcdef"
URL = "http://127.0.0.1:8700/mcp"

CLIENT = pytest.mark.parametrize("client", sorted(CLIENTS))
JSON_CLIENT = pytest.mark.parametrize(
    "client", sorted(name for name, each in CLIENTS.items() if each.form == "json")
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project and a home of one's own, with a key in the environment and in a file."""
    project = tmp_path / "project"
    project.mkdir()
    for directory in (".config", "Library/Application Support"):
        (tmp_path / directory).mkdir(parents=True)
    (project / "agent.token").write_text(SECRET + "\n")
    monkeypatch.chdir(project)
    for name in ("REMIT_URL", "CODEX_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("HOME", str(tmp_path)), ("REMIT_KEY", SECRET), ("REMIT_TOKEN", SECRET)):
        monkeypatch.setenv(name, value)
    return project


def read(text: str, client: str) -> dict[str, Any]:
    return json.loads(text) if CLIENTS[client].form == "json" else tomllib.loads(text)


def flags(client: str) -> list[str]:
    return ["--key-file", "agent.token"] if client == "claude-desktop" else []


def files() -> dict[str, bytes]:
    """Every file of the project and the home, to see what a command left."""
    found = [path for path in Path.home().rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): path.read_bytes() for path in found}


# What is printed


def test_each_client_is_given_what_its_file_holds(remit: Remit) -> None:
    def entry(client: str) -> Any:
        ended = remit("connect", client, *flags(client))
        assert ended.code == 0
        return read(ended.out, client)[CLIENTS[client].servers]["remit"]

    header = {"Authorization": "Bearer ${REMIT_TOKEN}"}
    assert entry("claude-code") == {"type": "http", "url": URL, "headers": header}
    header = {"Authorization": "Bearer ${env:REMIT_TOKEN}"}
    assert entry("cursor") == {"url": URL, "headers": header}
    header = {"Authorization": "Bearer ${input:remit-token}"}
    assert entry("vscode") == {"type": "http", "url": URL, "headers": header}
    assert entry("codex") == {"url": URL, "bearer_token_env_var": "REMIT_TOKEN"}
    args = ["connect", "--key-file", str(Path("agent.token").absolute())]
    assert entry("claude-desktop") == {"command": "remit", "args": args}


def test_vscode_asks_for_the_key_that_its_entry_names(remit: Remit) -> None:
    (asked,) = json.loads(remit("connect", "vscode").out)["inputs"]
    assert asked["id"] == "remit-token"
    assert asked["type"] == "promptString"
    assert asked["password"] is True


@CLIENT
def test_with_a_key_file_each_client_starts_the_bridge(remit: Remit, client: str) -> None:
    url = "http://remit.example:8700/mcp"
    words = ("--key-file", "agent.token", "--url", url, "--unsafe-plain-http")
    whole = read(remit("connect", client, *words).out, client)
    entry = whole[CLIENTS[client].servers]["remit"]
    key_file = str(Path("agent.token").absolute())
    assert entry["command"] == "remit"
    assert entry["args"] == ["connect", "--key-file", key_file, *words[2:]]
    assert set(whole) == {CLIENTS[client].servers}


@CLIENT
def test_printing_says_where_it_goes_and_writes_nothing(remit: Remit, client: str) -> None:
    before = files()
    ended = remit("connect", client, *flags(client))
    assert str(CLIENTS[client].file().absolute()) in ended.err
    assert files() == before


def test_home_files_are_where_their_clients_look(
    remit: Remit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(tmp_path / ".codex" / "config.toml") in remit("connect", "codex").err
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere" / "config.toml") in remit("connect", "codex").err
    monkeypatch.setattr("sys.platform", "darwin")
    file = tmp_path / "Library" / "Application Support" / "Claude" / "claude_desktop_config.json"
    assert str(file) in remit("connect", "claude-desktop", *flags("claude-desktop")).err


@CLIENT
def test_the_key_is_neither_printed_nor_written(remit: Remit, client: str) -> None:
    for words in ([], ["--key-file", "agent.token"]):
        for action in ([], ["--install"], ["--install"], ["--undo"]):
            ended = remit("connect", client, *words, *action)
            assert SECRET not in ended.out + ended.err
            found = [path for path, content in files().items() if SECRET.encode() in content]
            assert found == [str(Path("agent.token").absolute())]


def test_a_client_of_stdio_only_needs_a_key_file(remit: Remit) -> None:
    ended = remit("connect", "claude-desktop")
    assert ended.code == 2
    assert ended.out == ""
    assert "config_invalid" in ended.err
    assert "--key-file" in ended.err


@pytest.mark.parametrize(
    "url",
    [
        f"{URL}?key=abc",
        f"{URL}#abc",
        "http://127.0.0.1:8700/${HOME}",
        "http://127.0.0.1:8700/\u202e",
    ],
)
def test_an_address_that_could_hold_a_key_or_be_expanded_is_refused(remit: Remit, url: str) -> None:
    for words in ([], ["--key-file", "agent.token"]):
        ended = remit("connect", "cursor", "--url", url, *words)
        assert ended.code == 2
        assert ended.out == ""
        assert "config_invalid" in ended.err


def test_an_address_to_which_a_key_must_not_be_sent_is_refused(remit: Remit) -> None:
    plain = ("--url", "http://remit.example/mcp")
    assert "address_refused" in remit("connect", "cursor", *plain).err
    assert remit("connect", "cursor", *plain, "--unsafe-plain-http").code == 0
    assert remit("connect", "cursor", "--url", "https://u:p@remit.example/mcp").code == 2


def test_a_key_file_whose_path_a_client_would_expand_is_refused(remit: Remit) -> None:
    Path("${HOME}").write_text("x")
    assert remit("connect", "cursor", "--key-file", "${HOME}").code == 2


def test_install_and_undo_need_a_client_and_exclude_each_other(remit: Remit) -> None:
    for words in (["--install"], ["--undo"], ["cursor", "--install", "--undo"], ["emacs"]):
        ended = remit("connect", *words)
        assert ended.code == 2
        assert "Error" in ended.err


# Install


@CLIENT
def test_a_new_file_holds_what_is_printed_and_undo_removes_it(remit: Remit, client: str) -> None:
    before, printed = files(), remit("connect", client, *flags(client)).out
    assert remit("connect", client, *flags(client), "--install").code == 0
    path = CLIENTS[client].file().absolute()
    assert path.read_text() == printed
    assert set(files()) == {*before, str(path)}
    assert remit("connect", client, *flags(client), "--undo").code == 0
    assert files() == before


KEPT = {
    "json": '{ "other": {"a": 1.10, "b": [1,2 ,3]},\n\t"@servers@": {\n\t\t"git": {"command": "x",'
    ' "env": {"T": "s\\u0065cret", "url": "\u2603"}}},\n "inputs": [ {"id": "one"} ], "n": null}',
    "toml": '# mine\nmodel = "x"   # odd\n[@servers@.git]\ncommand = "x"\nenv = { T = "y" }\n'
    "[[list]]\na = 1\n[last]\nb = 1.10",
}


@CLIENT
def test_other_entries_and_unknown_keys_stay_byte_for_byte(remit: Remit, client: str) -> None:
    how = CLIENTS[client]
    path, text = Path("its file"), KEPT[how.form].replace("@servers@", how.servers)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o640)
    assert remit("connect", client, *flags(client), "--install", path).code == 0
    after = path.read_text(encoding="utf-8")
    new = read(after, client)
    entry = new[how.servers].pop("remit")
    if how.asks:
        assert new["inputs"].pop(0)["id"] == "remit-token"
    assert new == read(text, client)
    assert entry == read(remit("connect", client, *flags(client)).out, client)[how.servers]["remit"]
    rest = iter(after)
    assert all(character in rest for character in text)  # only ever added to
    assert path.stat().st_mode & 0o777 == 0o640
    assert backup_of(path).read_text(encoding="utf-8") == text
    assert backup_of(path).stat().st_mode & 0o777 == 0o600


@CLIENT
def test_twice_is_the_same_as_once_and_undo_restores(remit: Remit, client: str) -> None:
    how = CLIENTS[client]
    path, text = Path("its file"), KEPT[how.form].replace("@servers@", how.servers)
    path.write_text(text, encoding="utf-8")
    before = files()
    words = ("connect", client, *flags(client))
    assert remit(*words, "--install", path).code == 0
    once = files()
    assert remit(*words, "--install", path).code == 0
    assert files() == once
    assert remit(*words, "--undo", path).code == 0
    assert files() == before


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text() | st.sampled_from(["servers", "inputs"]), values, max_size=4)


@given(objects, st.sampled_from([None, 0, 2, "\t"]), st.booleans(), st.booleans())
def test_whatever_else_a_json_file_holds_stays(
    whole: dict[str, Any], indent: Any, ascii_only: bool, crlf: bool
) -> None:
    door = Door(url=URL, usual_url=True, plain=False, key_file=None)
    pieces = CLIENTS["vscode"].pieces(door)
    for key, kind in (("servers", dict), ("inputs", list)):
        if not isinstance(whole.get(key, kind()), kind):
            del whole[key]
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
    text = text.replace("\n", "\r\n") if crlf else text
    try:
        before = text.encode()
    except UnicodeEncodeError:
        return
    after = with_pieces(before, pieces, "json")
    new = json.loads(after)
    assert new["servers"].pop("remit") == pieces["servers"]["remit"]
    assert new["inputs"].pop(0) == pieces["inputs"][0]
    assert {"servers": {}, "inputs": [], **whole} == new
    assert with_pieces(after, pieces, "json") == after


def test_line_ends_and_indentation_are_those_of_the_file(remit: Remit) -> None:
    Path(".mcp.json").write_bytes(b'{\r\n\t"mcpServers": {\r\n\t\t"a": {}\r\n\t}\r\n}\r\n')
    assert remit("connect", "claude-code", "--install").code == 0
    lines = Path(".mcp.json").read_bytes().split(b"\r\n")
    assert lines[2] == b'\t\t"remit": {'
    assert b"\n" not in b"".join(lines)


# What is refused


def refused(remit: Remit, client: str, code: str, exit_code: int) -> str:
    """Install into `its file`: refused, and nothing on the disk is other than before."""
    before = files()
    ended = remit("connect", client, *flags(client), "--install", "its file")
    assert ended.code == exit_code
    assert f"error[{code}]" in ended.err
    assert "its file" in ended.err
    assert "hint:" in ended.err
    assert files() == before
    return ended.err


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"a": 1,}', '// note\n{"a": 1}', '{"a": "s3cret", "a": 2}', '{"a": NaN}', "[1]",
     '{"mcpServers": []}', "\ufeff{}", '{"a": ' + "[" * 100_000],
    ids=str,
)  # fmt: skip
def test_a_file_that_is_not_valid_json_is_left_alone(remit: Remit, text: str) -> None:
    Path("its file").write_text(text, encoding="utf-8")
    assert "s3cret" not in refused(remit, "claude-code", "config_invalid", 2)


@pytest.mark.parametrize(
    "text",
    ["a = ", "a = 1\na = 2", "mcp_servers = 3", "mcp_servers = { git = { command = 's3cret' } }"],
)
def test_a_file_that_is_not_valid_toml_or_cannot_grow_is_left_alone(
    remit: Remit, text: str
) -> None:
    Path("its file").write_text(text)
    assert "s3cret" not in refused(remit, "codex", "config_invalid", 2)


def test_bytes_that_are_not_utf_8_are_left_alone(remit: Remit) -> None:
    Path("its file").write_bytes(b'{"a": "\xff"}')
    refused(remit, "cursor", "config_invalid", 2)


@CLIENT
def test_another_entry_of_the_name_is_not_overwritten(remit: Remit, client: str) -> None:
    how = CLIENTS[client]
    other = {
        "json": '{"%s": {"remit": {"command": "s3cret"}}}',
        "toml": "[%s.remit]\ncommand = 's3cret'\n",
    }
    Path("its file").write_text(other[how.form] % how.servers)
    assert "s3cret" not in refused(remit, client, "wrong_state", 1)


def test_another_question_of_the_name_is_not_overwritten(remit: Remit) -> None:
    Path("its file").write_text('{"inputs": [{"id": "remit-token", "type": "command"}]}')
    refused(remit, "vscode", "wrong_state", 1)


@CLIENT
def test_a_symbolic_link_is_not_followed(remit: Remit, client: str) -> None:
    Path("target").write_text("{}" if CLIENTS[client].form == "json" else "")
    Path("its file").symlink_to("target")
    refused(remit, client, "config_invalid", 2)
    assert Path("its file").is_symlink()
    Path("target").unlink()
    refused(remit, client, "config_invalid", 2)


def test_what_is_no_regular_file_is_left_alone(remit: Remit) -> None:
    os.mkfifo("its file")
    refused(remit, "codex", "config_invalid", 2)  # nothing to read is valid TOML
    Path("its file").unlink()
    Path("its file").mkdir()
    refused(remit, "cursor", "config_invalid", 2)


def test_a_file_that_is_too_large_is_left_alone(remit: Remit) -> None:
    Path("its file").write_text("{}" + " " * MAX_BYTES)
    refused(remit, "cursor", "config_invalid", 2)


def test_a_directory_that_is_not_there_is_said(remit: Remit) -> None:
    ended = remit("connect", "cursor", "--install", "no/such/mcp.json")
    assert ended.code == 2
    assert "error[config_invalid]" in ended.err


def test_where_no_backup_can_be_written_the_file_stays(remit: Remit) -> None:
    Path("its file").write_text("{}")
    backup_of(Path("its file")).mkdir()
    refused(remit, "cursor", "config_invalid", 2)


def test_a_backup_does_not_go_through_a_link(remit: Remit) -> None:
    Path("its file").write_text("{}")
    Path("victim").write_text("mine")
    backup_of(Path("its file")).symlink_to("victim")
    assert remit("connect", "cursor", "--install", "its file").code == 0
    assert Path("victim").read_text() == "mine"
    assert not backup_of(Path("its file")).is_symlink()


def test_a_file_of_somebody_else_stays_theirs_and_its_backup_is_for_them_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An administrator who edits a person's file must not take it away from them."""
    path = Path("its file")
    path.write_text("{}")
    path.chmod(0o640)
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: given.append((uid, gid)))
    seen = look(path)
    assert seen is not None
    write(path, b"[]", mode=seen.mode, owner=seen.owner)
    assert given == []
    theirs = (seen.owner[0] + 1, seen.owner[1] + 1)
    write(path, b"[1]", mode=seen.mode, owner=theirs)
    assert given == [theirs]
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"[1]", 0o640)


@pytest.mark.parametrize("first", [None, b"{}"])
def test_a_file_that_changes_meanwhile_is_left_alone(first: bytes | None) -> None:
    path = Path("its file")
    if first is not None:
        path.write_bytes(first)

    def edit(_: bytes | None) -> bytes:
        path.write_bytes(b"theirs")
        return b"ours"

    with pytest.raises(Conflict) as caught:
        install(path, edit)
    assert caught.value.code is Code.WRONG_STATE
    assert path.read_bytes() == b"theirs"
    assert [each for each in os.listdir() if each.startswith(".remit-")] == []


# Undo


def not_undone(remit: Remit, *words: str) -> None:
    before = files()
    ended = remit("connect", "cursor", "--undo", "its file", *words)
    assert ended.code == 1
    assert "error[wrong_state]: nothing was put back" in ended.err
    assert files() == before


def test_undo_without_a_file_or_an_install_says_why_not(remit: Remit) -> None:
    not_undone(remit)
    Path("its file").write_text("{}")
    not_undone(remit)


def test_undo_leaves_what_changed_since(remit: Remit) -> None:
    path = Path("its file")
    path.write_text('{"a": 1}')
    assert remit("connect", "cursor", "--install", path).code == 0
    wrote = path.read_bytes()
    path.write_bytes(wrote + b"\n")
    not_undone(remit)
    path.write_bytes(wrote)
    not_undone(remit, "--url", "http://127.0.0.1:8701/mcp")
    assert remit("connect", "cursor", "--undo", path).code == 0
    assert path.read_text() == '{"a": 1}'
    not_undone(remit)


def test_undo_leaves_a_file_that_it_made_and_others_added_to(remit: Remit) -> None:
    path = Path("its file")
    assert remit("connect", "cursor", "--install", path).code == 0
    text = path.read_text().replace("{\n", '{\n  "a": 1,\n', 1)
    path.write_text(text)
    not_undone(remit)


def test_undo_does_not_take_a_planted_backup(remit: Remit) -> None:
    path = Path("its file")
    path.write_text('{"a": 1}')
    assert remit("connect", "cursor", "--install", path).code == 0
    backup_of(path).write_text('{"mcpServers": {"evil": {"command": "sh"}}}')
    not_undone(remit)
    backup_of(path).unlink()
    not_undone(remit)
    backup_of(path).symlink_to("elsewhere")
    assert remit("connect", "cursor", "--undo", path).code == 2


def test_undo_of_a_file_that_changes_meanwhile_leaves_it() -> None:
    path = Path("its file")
    path.write_bytes(b"first")
    install(path, lambda _: b"ours")

    def edit(_: bytes | None) -> bytes:
        path.write_bytes(b"theirs")
        return b"ours"

    with pytest.raises(Conflict):
        undo(path, edit)
    assert path.read_bytes() == b"theirs"
    assert backup_of(path).read_bytes() == b"first"


def test_without_a_client_it_is_the_bridge_and_says_so_when_it_cannot(
    remit: Remit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REMIT_KEY")
    ended = remit("connect")
    assert ended.code == 2
    assert ended.err.startswith("remit connect: there is no API key")


def test_errors_of_the_system_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("its file")
    path.write_bytes(b"first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError) as caught:
        install(path, lambda _: b"ours")
    assert caught.value.place == "its file"
    assert sorted(os.listdir()) == ["agent.token", "its file"]
    assert path.read_bytes() == b"first"
    assert not backup_of(path).exists()
