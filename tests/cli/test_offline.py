"""The commands that need no gateway: init, check, config, tools."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.config import load
from remit.identity.keys import token_hash
from remit.ledger.signer import FileSigner
from tests.cli.conftest import Remit


def test_init_writes_what_check_finds_well(home: Path, remit: Remit) -> None:
    ended = remit("check")
    assert (ended.code, ended.out.count("ok  ")) == (0, 3)


def test_init_points_editors_at_the_schema_it_wrote(home: Path) -> None:
    first = (home / "remit.yaml").read_text().splitlines()[0]
    match = re.fullmatch(r"# yaml-language-server: \$schema=(.*)", first)
    assert match is not None
    assert json.loads((home / match.group(1)).read_text())["title"] == "remit.yaml"


@pytest.mark.threat("T-01")
@pytest.mark.threat("T-26")
def test_init_keeps_keys_to_their_owner_and_out_of_the_configuration_and_of_git(
    home: Path,
) -> None:
    keys = home / ".remit" / "keys"
    assert {path.name for path in keys.iterdir()} == {"agent.token", "operator.token", "log.key"}
    for path in (home / ".remit", keys):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    text = (home / "remit.yaml").read_text()
    for path in keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().strip() not in text
    assert (home / ".remit" / ".gitignore").read_text() == "*\n"
    settings = load(home / "remit.yaml", environ={})
    assert settings.callers[0].sha256 == token_hash((keys / "agent.token").read_text().strip())
    assert FileSigner.load(settings.key_file).origin == settings.sections.ledger.origin


def test_init_prints_the_key_with_which_the_log_is_verified(tmp_path: Path, remit: Remit) -> None:
    ended = remit("init", tmp_path)
    key = FileSigner.load(tmp_path / ".remit/keys/log.key").verifier_key
    assert ended.err.splitlines()[-1].strip() == key


def test_audit_verify_without_a_key_says_where_it_is_had(home: Path, remit: Remit) -> None:
    ended = remit("audit", "verify", "log.jsonl")
    assert ended.code == 2
    assert "`remit init` printed it" in ended.err


def test_audit_says_what_is_wrong_as_every_command_does(home: Path, remit: Remit) -> None:
    key = FileSigner.load(home / ".remit/keys/log.key").verifier_key
    (home / "here").write_text("")
    for words, code, said in (
        (["verify", "nope", "--key", key], 3, "error[not_found]"),
        (["verify", "here", "--key", "nonsense"], 2, "error[signature_invalid]"),
        (["export", "nope", "out"], 3, "error[ledger_unavailable]"),
    ):
        ended = remit("audit", *words)
        assert (ended.code, ended.err.startswith(said)) == (code, True), ended.err


def test_admin_url_that_is_none_is_wrong_usage(home: Path, remit: Remit) -> None:
    ended = remit("approvals", "list", "--url", "nonsense")
    assert ended.code == 2
    assert "http://127.0.0.1:8701" in ended.err


def test_init_makes_other_keys_each_time(home: Path, remit: Remit) -> None:
    assert remit("init", "other").code == 0
    one, other = ((at / ".remit/keys/agent.token").read_text() for at in (home, home / "other"))
    assert one != other


def test_init_overwrites_nothing(home: Path, remit: Remit) -> None:
    def everything() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    before = everything()
    ended = remit("init")
    assert ended.code == 2
    assert "remit init DIRECTORY" in ended.err
    (home / "remit.yaml").rename(home / "mine.yaml")
    assert remit("init").code == 2
    (home / "mine.yaml").rename(home / "remit.yaml")
    assert everything() == before


@pytest.mark.parametrize("there", ["remit.yaml", ".remit/keys/mine"])
def test_init_that_refuses_leaves_nothing_behind(tmp_path: Path, remit: Remit, there: str) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("mine")
    assert remit("init", tmp_path).code == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]


def test_init_keeps_a_policy_that_is_there(tmp_path: Path, remit: Remit) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "mine.rego").write_text("package mine\n")
    ended = remit("init", tmp_path)
    assert "kept policy/" in ended.err
    assert [path.name for path in (tmp_path / "policy").iterdir()] == ["mine.rego"]


def test_init_where_nothing_can_be_written_says_so(tmp_path: Path, remit: Remit) -> None:
    (tmp_path / "file").write_text("")
    ended = remit("init", tmp_path / "file" / "x")
    assert ended.code == 2
    assert "choose a directory" in ended.err


def test_starter_policy_knows_the_starter_tools(home: Path) -> None:
    granted = json.loads((home / "policy/data.json").read_text())["grants"]["agents"]
    tools = {tool.name for tool in load(home / "remit.yaml", environ={}).tools}
    assert tools <= set(granted)


def test_check_lists_everything_that_is_wrong(home: Path, remit: Remit) -> None:
    path = home / "remit.yaml"
    path.write_text(
        path.read_text().replace("listen:", "lisen:").replace("hold_s: 50", "hold_s: x")
    )
    ended = remit("check")
    assert ended.code == 2
    assert "did you mean listen?" in ended.out
    assert "approvals.hold_s" in ended.out
    assert re.search(r"remit\.yaml:\d+: ", ended.out)


def test_check_says_when_only_the_policy_is_wrong(home: Path, remit: Remit) -> None:
    (home / "policy/remit.rego").write_text("package remit\n\nallow if {\n")
    ended = remit("check", "remit.yaml", "-o", "json")
    document = json.loads(ended.out)
    assert ended.code == 2
    assert [(line["check"], line["ok"]) for line in document["checks"]] == [
        ("configuration", True), ("catalog", True), ("policy", False),
    ]  # fmt: skip


def test_check_names_an_opa_that_is_not_there(home: Path, remit: Remit) -> None:
    path = home / "remit.yaml"
    opa = "  engine: opa\n  opa: {binary: nowhere/opa}\n"
    path.write_text(path.read_text().replace("policy:\n", "policy:\n" + opa, 1))
    ended = remit("check")
    assert ended.code == 2
    assert f"fail  opa: {home}/nowhere/opa" in ended.out
    assert "policy.opa.binary: the OPA binary that is named there does not exist" in ended.out


def test_check_looks_at_the_policy_on_trial_as_the_start_does(home: Path, remit: Remit) -> None:
    path = home / "remit.yaml"
    path.write_text(path.read_text().replace("policy:\n", "policy:\n  shadow: {path: new}\n", 1))
    ended = remit("check")
    assert ended.code == 2
    assert f"fail  policy.shadow: {home}/new" in ended.out
    assert f"policy.shadow, {home}/new: the policy directory does not exist" in ended.out
    shutil.copytree(home / "policy", home / "new")
    ended = remit("check")
    assert ended.code == 0
    assert "ok    policy.shadow: revision sha256:" in ended.out


def test_check_doubts_what_can_hardly_be_meant(home: Path, remit: Remit) -> None:
    path = home / "remit.yaml"
    tool = {
        "name": "nope",
        "description": "has no program",
        "effect": "read",
        "command": {
            "argv": ["/bin/nope"],
            "mounts": [{"name": "gone", "source": "/nowhere/at/all"}],
        },
        "egress": [{"host": "api.example.com", "port": 443}],
    }
    base = {"kind": "directory", "path": "/nowhere/base", "digest": "sha256:" + "a" * 64}
    runners = {"profiles": {"small": {"base": base}}}
    path.write_text(json.dumps({"catalog": {"tools": [tool]}, "runners": runners}))
    ended = remit("check")
    assert ended.code == 0
    assert "no agent can call anything" in ended.err
    assert "there is no program /bin/nope here" in ended.err
    assert "there is no directory /nowhere/at/all" in ended.err
    assert "no runner gives" not in ended.err
    assert "the profile small: there is no base system /nowhere/base" in ended.err


def test_check_doubts_secrets_that_are_not_there_and_what_everybody_can_change(
    home: Path, remit: Remit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    open_to_all = home / "shared"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (home / "wide").write_text("x")
    (home / "wide").chmod(0o644)
    (home / "own").write_text("x")
    (home / "own").chmod(0o600)
    refs = {"a": "file:none", "b": "file:wide", "c": "env:NOT_SET", "d": "file:own"}
    credentials = {
        name: {"broker": "static", "secret": ref, "file": {"name": name}}
        for name, ref in refs.items()
    }
    mounts = [{"name": "m", "source": str(open_to_all)}]
    runners = {
        "sandbox": {"bwrap": "bin/none"},
        "profiles": {"small": {"mounts": mounts}},
        "credentials": credentials,
    }
    shown = home / "shown"
    shown.mkdir()
    shown.chmod(0o777)
    preview = {"argv": ["/bin/true"], "mounts": [{"name": "s", "source": str(shown)}]}
    tool = {
        "name": "act",
        "description": "Acts.",
        "effect": "write",
        "input_schema": {"type": "object"},
        "command": {"argv": ["/bin/true"]},
        "preview": {"command": preview},
    }
    whole = {"runners": runners, "catalog": {"tools": [tool]}}
    (home / "remit.yaml").write_text(json.dumps(whole))
    ended = remit("check")
    assert ended.code == 0, ended.err
    assert f"everybody can change what runs see of {shown}" in ended.err
    assert "runners.credentials.a.secret names none, which is no file" in ended.err
    assert "runners.credentials.b.secret names wide, which others can read" in ended.err
    assert "runners.credentials.c.secret names NOT_SET, which is not set here" in ended.err
    assert "runners.credentials.d" not in ended.err
    assert f"everybody can change what runs see of {open_to_all}" in ended.err
    assert "runners.sandbox.bwrap: there is no program bin/none here" in ended.err


def test_check_reads_the_file_of_authorities(home: Path, remit: Remit) -> None:
    (home / "remit.yaml").write_text(json.dumps({"runners": {"egress": {"ca_file": "ca.pem"}}}))
    (home / "ca.pem").write_text("nothing")
    ended = remit("check")
    assert ended.code == 2
    assert "runners.egress.ca_file) holds no certificates" in ended.out


def test_check_has_no_doubt_about_what_init_writes(home: Path, remit: Remit) -> None:
    ended = remit("check")
    assert ended.code == 0
    assert "there is no" not in ended.err


def test_config_show_gives_each_value_with_its_source_and_no_secret(
    home: Path, remit: Remit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMIT_LIMITS__CONCURRENT_RUNS", "3")
    rows = json.loads(remit("config", "show", "-o", "json").out)["settings"]
    assert rows["limits.concurrent_runs"] == {
        "value": 3, "source": "REMIT_LIMITS__CONCURRENT_RUNS",
    }  # fmt: skip
    assert rows["approvals.result_ttl_s"] == {"value": 900, "source": "default"}
    assert rows["server.listen"]["source"].startswith("remit.yaml:")
    assert rows["identity.keys[0].sha256"]["value"] == "***"


def test_config_show_masks_a_command_but_names_a_reference(home: Path, remit: Remit) -> None:
    path = home / "remit.yaml"
    token = (home / ".remit/keys/agent.token").read_text().strip()
    text = re.sub(r"sha256: .*", f"token: exec:/bin/echo {token}", path.read_text(), count=1)
    path.write_text(text)
    ended = remit("config", "show")
    assert token not in ended.out
    assert '"exec:***"' in ended.out


def test_config_schema_is_the_one_that_is_shipped(remit: Remit) -> None:
    import remit as package

    shipped = Path(str(package.__file__)).parent / "schemas/remit.yaml.json"
    assert remit("config", "schema").out == shipped.read_text()


def test_new_key_prints_the_token_once_and_the_lines_that_know_its_hash(remit: Remit) -> None:
    ended = remit("config", "new-key", "ci", "--subject", "ci-bot")
    token = ended.out.strip()
    assert token.startswith("remit_ci_")
    assert token not in ended.err
    assert f"sha256: {token_hash(token)}" in ended.err
    assert 'subject: "ci-bot"' in ended.err


def test_new_keys_lines_work_where_they_say_they_belong(home: Path, remit: Remit) -> None:
    ended = remit("config", "new-key", "second", "--operator")
    assert "[evaluate] alone" in ended.err
    stanza = "".join(line + "\n" for line in ended.err.splitlines() if not line.startswith("#"))
    path = home / "remit.yaml"
    path.write_text(path.read_text().replace("  operators:\n", "  operators:\n" + stanza))
    assert [key.id for key in load(path, environ={}).operators] == ["second", "operator"]


def test_new_key_goes_into_a_new_file_for_its_owner_alone(tmp_path: Path, remit: Remit) -> None:
    out = tmp_path / "token"
    assert remit("config", "new-key", "ci", "--out", out).out == ""
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    before = out.read_text()
    assert remit("config", "new-key", "ci", "--out", out).code == 2
    assert out.read_text() == before


@pytest.mark.parametrize("words", [["A_B"], ["ok", "--subject", "a b"]])
def test_new_key_with_a_name_no_key_can_have_is_refused(remit: Remit, words: list[str]) -> None:
    ended = remit("config", "new-key", *words)
    assert (ended.code, ended.out) == (2, "")


def test_tools_are_listed_and_shown(home: Path, remit: Remit) -> None:
    listed: list[Any] = [
        json.loads(line) for line in remit("tools", "list", "-o", "jsonl").out.splitlines()
    ]
    assert [tool["name"] for tool in listed] == ["apply_infra", "read_status", "restart_service"]
    assert "destructive" in remit("tools", "list").out
    shown = json.loads(remit("tools", "show", "read_status", "-o", "json").out)
    assert shown["digest"] == listed[1]["digest"]
    assert "read_status" in remit("tools", "show", "read_status").out


def test_tool_that_is_not_there_is_an_error_with_a_hint(home: Path, remit: Remit) -> None:
    ended = remit("tools", "show", "nope")
    assert ended.code == 1
    assert "remit tools list" in ended.err


def test_tools_check_shows_what_arguments_would_run(home: Path, remit: Remit) -> None:
    arguments = '{"service": "web", "environment": "staging"}'
    seen = json.loads(
        remit("tools", "check", "restart_service", "--arguments", arguments, "-o", "json").out
    )
    assert seen["argv"][-3:] == ["web", "staging", "1"]
    assert seen["consequence"] == "Restart web in staging, 1 replicas at a time."
    assert remit("tools", "check").code == 0


@pytest.mark.threat("T-11")
@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ('{"service": "-rf", "environment": "staging"}', 1, "invalid_arguments"),
        ('{"service": "web", "service": "db"}', 1, "duplicate_key"),
        ("[]", 2, "JSON object"),
        ("{", 1, "malformed_json"),
    ],
)
def test_tools_check_refuses_what_the_gateway_would(
    home: Path, remit: Remit, arguments: str, code: int, word: str
) -> None:
    ended = remit("tools", "check", "restart_service", "--arguments", arguments)
    assert ended.code == code
    assert word in ended.err


def test_check_doubts_consents_for_which_no_browser_finds_the_gateway(
    home: Path, remit: Remit
) -> None:
    path = home / "remit.yaml"
    whole = yaml.safe_load(path.read_text())
    whole["server"] |= {"listen": "0.0.0.0:8700", "allowed_hosts": ["remit.example.com"]}
    credential = {
        "broker": "authorization_code",
        "resource": "https://crm.example.com/mcp",
        "file": {"name": "token"},
    }
    whole["runners"] = {"credentials": {"crm": credential}}
    path.write_text(yaml.safe_dump(whole))
    ended = remit("check")
    assert ended.code == 0, ended.out
    assert "runners.credentials.crm: people consent in a browser, and none finds" in ended.err
    whole["server"]["public_url"] = "https://remit.example.com"
    whole["runners"]["credentials"]["crm"]["unsafe_look_as"] = "ann"
    path.write_text(yaml.safe_dump(whole))
    said = remit("check").err
    assert "people consent" not in said
    assert "unsafe_look_as is set" in said
    for odd in ("http://remit.example.com", "https://remit.example.com/path", "remit.example.com"):
        whole["server"]["public_url"] = odd
        path.write_text(yaml.safe_dump(whole))
        ended = remit("check")
        assert ended.code == 2
        assert "server.public_url" in ended.out
