"""The file as newcomers write it wrong: each mistake has a code, a line, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from remit import config
from remit.config import Settings, examine, load
from remit.errors import Code, ConfigError, RemitError
from remit.identity.keys import KeyIdentity, new_key
from remit.settings.address import Address
from remit.settings.secret import SecretRef
from remit.settings.strict_yaml import dotted, read_yaml
from tests.config.reference import MARK, PAGE, reference
from tests.plugins.machine import ROOT

TOOL = {
    "name": "say",
    "description": "Says a word.",
    "effect": "read",
    "command": {"argv": ["/bin/echo", "hello"]},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "remit.yaml"


def loaded(file: Path, text: str, environ: dict[str, str] | None = None, **flags: Any) -> Settings:
    file.write_text(dedent(text))
    return load(file, environ=environ or {}, flags=flags)


def refused(file: Path, text: str, environ: dict[str, str] | None = None) -> ConfigError:
    """The first error, which must have all that an operator needs."""
    with pytest.raises(ConfigError) as error:
        loaded(file, text, environ)
    assert error.value.place
    assert error.value.hint
    return error.value


def at(error: RemitError) -> str:
    return str(error.place).rpartition("/")[2]


def test_empty_file_is_every_default(file: Path) -> None:
    settings = loaded(file, "# nothing yet\n")
    assert str(settings.listen) == "127.0.0.1:8700"
    assert settings.unsafe() == ()
    assert settings.warnings() == ()
    assert settings.data_dir == file.parent / ".remit"
    assert settings.key_file == file.parent / ".remit" / "keys" / "log.key"


def test_absent_file_says_what_writes_one(file: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(file, environ={})
    assert error.value.code is Code.CONFIG_NOT_FOUND
    assert "remit init" in str(error.value.hint)


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("sever:\n  listen: x\n", "remit.yaml:1", "did you mean server?"),
        ("server:\n  lisen: 127.0.0.1:1\n", "remit.yaml:2", "did you mean listen?"),
        ("server:\n  zzz: 1\n", "remit.yaml:2", "the keys here are: listen, admin"),
        ("identity:\n  keys:\n  - id: a\n    subjcet: b\n", "remit.yaml:3", "add it"),
        ("catalog:\n  tools:\n  - nam: x\n", "remit.yaml:3", ""),
    ],
)
def test_unknown_key_is_refused_with_its_line_and_the_nearest(
    file: Path, text: str, place: str, hint: str
) -> None:
    error = refused(file, text)
    assert at(error) == place
    assert hint in str(error.hint)


def test_everything_wrong_is_found_at_once_and_counted(file: Path) -> None:
    text = "server:\n  lisen: 1\n  body_limit_bytes: '5'\npolicy:\n  workers: 0\n"
    assert "and 2 more" in refused(file, text).message
    assert len(examine(file, environ={})[1]) == 3


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: b: c\n", 1),
        ("server:\n\tlisten: x\n", 2),
        ("server: {listen: x\n", 2),
        ("a: 1\na: 2\n", 2),
        ("a: &x 1\nb: *x\n", 1),
        ("a: !!python/object:os.system x\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("? [a]\n: 1\n", 1),
    ],
)
def test_bad_yaml_is_refused_with_its_line(file: Path, text: str, line: int) -> None:
    error = refused(file, text) if "[a]" not in text else _any(file, text)
    assert error.code is Code.CONFIG_INVALID
    assert at(error) == f"remit.yaml:{line}"


@pytest.mark.threat("T-06")
def test_key_that_stands_twice_is_refused_naming_both_lines(file: Path) -> None:
    error = refused(file, "policy: {workers: 1}\nserver:\n  body_limit_bytes: 2000\npolicy: {}\n")
    assert error.message == "the key policy stands here and on line 1"


def _any(file: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        loaded(file, text)
    return error.value


@pytest.mark.threat("T-06")
def test_yaml_words_that_readers_differ_on_are_text() -> None:
    value = read_yaml(
        b"{a: no, on: yes, c: 2026-01-01, d: 1:30, e: 0o7, f: 010, g: '1'}", "x"
    ).value
    assert value == {
        "a": "no", "on": "yes", "c": "2026-01-01", "d": "1:30", "e": "0o7", "f": 10, "g": "1",
    }  # fmt: skip


# Beyond this, JSON escapes in pairs that YAML does not know.
TEXT = st.text(alphabet=st.characters(max_codepoint=0xD7FF))
# A key that is written in one line has at most 1,024 characters in YAML, escapes counted.
KEY = st.text(alphabet=st.characters(max_codepoint=0xD7FF), max_size=150)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**15), 10**15) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_written_as_json_is_read_as_the_same(value: Any) -> None:
    assert read_yaml(json.dumps(value).encode(), "x").value == value


def test_each_place_leads_to_its_line() -> None:
    document = read_yaml(b"a:\n  - b: 1\n    c: [x,\n      y]\n", "x")
    assert document.line(dotted(("a", 0, "c", 1))) == 4
    assert document.line("a[0].missing.deep") == 2
    assert document.line("nothing") is None


def test_flag_wins_over_variable_over_file_over_default(file: Path) -> None:
    text = "server:\n  listen: 127.0.0.1:1\n  admin: 127.0.0.1:2\n"
    environ = {"REMIT_SERVER__LISTEN": "127.0.0.1:3", "REMIT_CONFIG": "x", "OTHER__X": "y"}
    settings = loaded(file, text, environ, **{"policy.workers": 2, "policy.path": None})
    assert (settings.listen.port, settings.admin.port) == (3, 2)
    assert settings.sections.policy.workers == 2
    source = settings.sources.source
    assert source("server.listen") == "REMIT_SERVER__LISTEN"
    assert source("server.admin") == f"{file}:3"
    assert source("policy.workers") == "--workers"
    assert source("policy.path") is None


def test_variable_holds_a_list_or_quoted_text(file: Path) -> None:
    environ = {"REMIT_SERVER__ALLOWED_HOSTS": "[a, 'b:*']", "REMIT_IDENTITY__TENANT": '"1"'}
    settings = loaded(file, "", environ)
    assert settings.sections.server.allowed_hosts == ["a", "b:*"]
    assert settings.sections.identity.tenant == "1"


def test_unknown_variable_is_refused_by_its_name(file: Path) -> None:
    error = refused(file, "", {"REMIT_SERVER__LISEN": "x"})
    assert error.place == "REMIT_SERVER__LISEN"
    assert error.hint == "did you mean listen?"


@pytest.mark.threat("T-26")
def test_no_error_echoes_the_value_that_is_wrong(file: Path) -> None:
    secret = "remit_a_hunter2"
    for text in (
        f"identity:\n  keys:\n  - {{id: a, subject: b, sha256: {secret}}}\n",
        f"identity:\n  keys:\n  - {{id: a, subject: b, token: {secret}}}\n",
        f"server:\n  listen: {secret}\n",
        f"server:\n  body_limit_bytes: {secret}\n",
        f"identity: {secret}\n",
        f"identity: [{secret}\n",
    ):
        file.write_text(text)
        for error in examine(file, environ={})[1]:
            assert secret not in f"{error} {error.hint}"


class TestAddresses:
    KEY = "identity:\n  keys: [{id: a, subject: b, sha256: %s}]\n" % ("0" * 64)

    @pytest.mark.threat("T-04")
    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "[::]", "10.0.0.1", "example.org", "127.0.0.1.nip.io"]
    )
    def test_wide_address_without_any_key_is_refused(self, file: Path, host: str) -> None:
        error = refused(file, f"server:\n  listen: '{host}:8700'\n  allowed_hosts: [x]\n")
        assert error.code is Code.ADDRESS_REFUSED
        assert "identity.keys" in str(error.hint)

    @pytest.mark.threat("T-04")
    def test_wide_address_without_named_hosts_is_refused(self, file: Path) -> None:
        error = refused(file, "server:\n  listen: 0.0.0.0:8700\n" + self.KEY)
        assert error.code is Code.ADDRESS_REFUSED
        assert "allowed_hosts" in str(error.hint)

    def test_wide_admin_address_needs_an_operator_not_a_caller(self, file: Path) -> None:
        text = "server:\n  admin: 0.0.0.0:8701\n  allowed_hosts: [x]\n" + self.KEY
        assert refused(file, text).code is Code.ADDRESS_REFUSED

    def test_wide_address_with_keys_and_hosts_warns_of_plain_http(self, file: Path) -> None:
        text = "server:\n  listen: 0.0.0.0:8700\n  allowed_hosts: [x]\n" + self.KEY
        assert "plain HTTP" in loaded(file, text).warnings()[0]

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
    def test_loopback_is_allowed_without_keys(self, file: Path, host: str) -> None:
        assert loaded(file, f"server:\n  listen: '{host}:0'\n").listen.loopback

    @pytest.mark.parametrize(
        "text", ["8700", ":8700", "a:b", "a:99999", "::1:8700", "[x]:1", "[a-b]:1", "a b:1"]
    )
    def test_text_that_is_no_address_is_refused(self, file: Path, text: str) -> None:
        assert "host:port" in refused(file, f"server:\n  listen: '{text}'\n").message or "[" in text
        with pytest.raises(ValueError, match="address"):
            Address.parse(text)

    def test_two_doors_at_one_address_are_refused(self, file: Path) -> None:
        refused(file, "server: {listen: '127.0.0.1:1', admin: '127.0.0.1:1'}\n")


class TestKeys:
    def entry(self, **more: Any) -> str:
        entry = {"id": "bot", "subject": "bot", **more}
        return yaml.safe_dump({"identity": {"keys": [entry]}})

    def test_key_becomes_a_caller_with_chain_and_expiry(self, file: Path) -> None:
        key = new_key("bot")
        settings = loaded(
            file,
            self.entry(sha256=key.sha256, on_behalf_of=["dana"], expires="2027-01-01T00:00:00Z"),
        )
        caller = settings.callers[0].caller
        assert caller.involves("dana")
        assert caller.expires_ms == 1_798_761_600_000

    def test_token_by_reference_is_the_same_key(self, file: Path) -> None:
        key = new_key("bot")
        (file.parent / "bot.token").write_text(key.token + "\n")
        for token in ("env:BOT", "file:bot.token", f"exec:/bin/echo {key.token}"):
            settings = loaded(file, self.entry(token=token), {"BOT": key.token})
            assert settings.callers[0].sha256 == key.sha256

    @pytest.mark.parametrize(
        ("token", "hint"),
        [
            ("env:REMIT_NOT_SET", "set the environment variable REMIT_NOT_SET"),
            ("file:none", "check the path"),
            ("exec:/bin/false", "by hand"),
            ("exec:/none", "by hand"),
            ("exec:'", "by hand"),
        ],
    )
    def test_secret_that_is_not_there_says_what_to_do(
        self, file: Path, token: str, hint: str
    ) -> None:
        error = refused(file, self.entry(token=token))
        assert error.code is Code.SECRET_UNAVAILABLE
        assert hint in str(error.hint)
        assert at(error).startswith("remit.yaml:")

    @pytest.mark.parametrize("token", ["remit_bot_x", "remit_other_" + "x" * 43, "two\nlines", ""])
    def test_reference_to_something_else_is_refused(self, file: Path, token: str) -> None:
        refused(file, self.entry(token="env:T"), {"T": token})

    @pytest.mark.threat("T-26")
    def test_literal_token_is_refused(self, file: Path) -> None:
        token = new_key("bot").token
        error = refused(file, self.entry(token=token))
        assert "by reference only" in error.message
        assert token not in str(error)

    def test_key_with_neither_or_both_is_refused(self, file: Path) -> None:
        refused(file, self.entry())
        refused(file, self.entry(sha256="0" * 64, token="env:T"), {"T": new_key("bot").token})

    def test_two_keys_of_one_id_are_refused(self, file: Path) -> None:
        keys = [{"id": "a", "subject": s, "sha256": s * 64} for s in "12"]
        assert "same id" in refused(file, yaml.safe_dump({"identity": {"keys": keys}})).message

    @pytest.mark.parametrize("expires", ["2027-01-01", "tomorrow", "2027-01-01T00:00:00"])
    def test_time_without_offset_is_refused(self, file: Path, expires: str) -> None:
        _any(file, self.entry(sha256="0" * 64, expires=expires))

    @pytest.mark.parametrize("subject", ["", "a b", "a\nb", "dаna"])
    @pytest.mark.threat("T-09")
    def test_subject_that_could_pass_for_another_is_refused(self, file: Path, subject: str) -> None:
        refused(
            file,
            self.entry(sha256="0" * 64).replace("subject: bot", f"subject: {json.dumps(subject)}"),
        )

    def test_operator_may_only_read_unless_said(self, file: Path) -> None:
        operator = {"id": "o", "subject": "olga", "sha256": "0" * 64}
        settings = loaded(file, yaml.safe_dump({"identity": {"operators": [operator]}}))
        assert settings.operators[0].operator.may == {"read"}

    def test_expired_key_is_read_and_refused_when_used(self, file: Path) -> None:
        text = self.entry(sha256="0" * 64, expires="2020-01-01T00:00:00+02:00")
        settings = loaded(file, text)
        identity = KeyIdentity(settings.callers, settings.operators, now=lambda: 2**41)
        assert identity.key_ids() == frozenset()


class TestTools:
    def catalog(self, *changes: dict[str, Any]) -> str:
        tools = [{**json.loads(json.dumps(TOOL)), **change} for change in changes]
        return yaml.safe_dump({"catalog": {"tools": tools}}, sort_keys=False)

    def test_tools_are_built(self, file: Path) -> None:
        assert [tool.name for tool in loaded(file, self.catalog({}, {"name": "b"})).tools] == [
            "say",
            "b",
        ]

    @pytest.mark.parametrize("name", ["say", "SAY"])
    def test_duplicate_name_is_refused_at_the_second(self, file: Path, name: str) -> None:
        error = refused(file, self.catalog({}, {"name": name}))
        assert error.code is Code.CATALOG_INVALID
        assert at(error) == "remit.yaml:10"

    def test_placeholder_typo_names_the_line_and_the_property(self, file: Path) -> None:
        text = """\
        catalog:
          tools:
            - name: x
              description: d
              effect: read
              input_schema:
                type: object
                properties: {service: {type: string}}
                required: [service]
              command:
                argv:
                  - /bin/echo
                  - "{servce}"
        """
        error = refused(file, text)
        assert at(error) == "remit.yaml:13"
        assert "did you mean service?" in str(error.hint)

    @pytest.mark.threat("T-16")
    @pytest.mark.threat("T-01")
    @pytest.mark.parametrize(
        ("where", "writable"),
        [("", False), (".remit", False), (".remit/keys", False), ("link", False), ("policy", True)],
    )
    def test_mount_over_remits_own_files_is_refused(
        self, file: Path, where: str, writable: bool
    ) -> None:
        (file.parent / ".remit").mkdir()
        (file.parent / "link").symlink_to(file.parent / ".remit")
        mount = {"name": "m", "source": str(file.parent / where), "writable": writable}
        command = {"argv": ["/bin/true"], "mounts": [mount]}
        error = refused(file, self.catalog({"command": command, "effect": "write"}))
        assert "Remit's own" in error.message

    def test_mount_beside_remits_own_files_is_allowed(self, file: Path) -> None:
        mount = {"name": "m", "source": str(file.parent / "data"), "writable": True}
        command = {"argv": ["/bin/true"], "mounts": [mount]}
        loaded(file, self.catalog({"command": command, "effect": "write"}))

    def test_demo_tools_are_valid(self, file: Path) -> None:
        text = (ROOT / "src/remit/templates/demo/tools.yaml").read_text()
        places = {
            "@state@": "/srv/state",
            "@notes@": "/srv/notes",
            "@port@": "1",
            "@tickets@": "443",
        }
        for word, value in places.items():
            text = text.replace(word, value)
        put_in = {"host": "localhost", "path_prefix": "/tickets", "value": "Bearer {token}"}
        token = {"broker": "static", "secret": "env:TOKEN", "inject": [put_in]}
        whole = {"catalog": yaml.safe_load(text), "runners": {"credentials": {"tickets": token}}}
        settings = loaded(file, yaml.safe_dump(whole))
        assert settings.tools
        assert [each.name for each in settings.servers] == ["notes"]


def test_unsafe_choices_are_listed_and_warned_of(file: Path) -> None:
    text = "identity: {unsafe_same_user: true}\nrunners: {sandbox: {unsafe_degraded: true}}\n"
    settings = loaded(file, text)
    assert settings.unsafe() == ("unsafe_same_user", "unsafe_degraded")
    assert len(settings.warnings()) == 2


@pytest.mark.threat("T-26")
def test_secret_never_prints_itself() -> None:
    secret = SecretRef.parse("env:X").read(Path(), {"X": "hunter2"})
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "hunter2"


def test_shipped_schema_is_the_settings_schema() -> None:
    shipped = json.loads((ROOT / "src/remit/schemas/remit.yaml.json").read_text())
    assert shipped == config.schema(), "write it anew: remit config schema"


def test_shipped_schema_takes_what_is_loaded_and_refuses_unknown_keys() -> None:
    validator = jsonschema.Draft202012Validator(config.schema())
    assert validator.is_valid({"catalog": {"tools": [TOOL]}, "server": {"listen": "127.0.0.1:1"}})
    assert not validator.is_valid({"sever": {}})


def test_reference_page_is_the_settings_reference() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index(MARK) :] == reference(), "run: python -m tests.config.reference"
