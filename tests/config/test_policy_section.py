"""The section `policy`: what fits together becomes layers, what contradicts itself is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import Code
from remit.settings.enforcement import EnforcementSettings
from tests.config.test_config import loaded, refused

PEM = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "remit.yaml"


def policy(file: Path, text: str, **environ: str) -> EnforcementSettings:
    return loaded(file, "policy:\n  " + text, environ).policy


def test_default_is_one_layer_of_the_directory_beside_the_file(file: Path) -> None:
    found = loaded(file, "# nothing\n").policy
    assert [(each.name, each.path) for each in found.layers] == [("policy", file.parent / "policy")]
    assert (found.engine, found.portable, found.trial) == ("embedded", True, None)


def test_layers_are_named_and_their_paths_absolute(file: Path) -> None:
    found = policy(
        file,
        "path: ./here/../mine\n  layers: [{name: org, path: https://policy.example/org.tar.gz},"
        " {name: team, path: team.tar.gz}]",
    )
    assert [(each.name, each.place) for each in found.layers] == [
        ("policy", str(file.parent / "mine")),
        ("org", "https://policy.example/org.tar.gz"),
        ("team", str(file.parent / "team.tar.gz")),
    ]
    assert found.paths == (file.parent / "mine", file.parent / "team.tar.gz")


def test_library_alone_is_a_policy(file: Path) -> None:
    found = policy(file, "path: null\n  use: {read_only: {}}")
    assert [(each.name, each.place, dict(each.use)) for each in found.layers] == [
        ("policy", None, {"read_only": {}})
    ]


def test_layers_without_a_main_one_are_enough(file: Path) -> None:
    found = policy(file, "path: null\n  layers: [{name: org, path: org}]")
    assert [each.name for each in found.layers] == ["org"]


def test_secrets_are_read_at_the_start_and_never_printed(file: Path) -> None:
    (file.parent / "key.pem").write_text(PEM)
    found = policy(
        file,
        "path: https://p.example/b\n  token: env:T\n"
        "  verify: {key: file:key.pem, key_id: k, algorithm: EdDSA}",
        T="hunter2",
    )
    main = found.layers[0]
    assert main.token == "hunter2"
    assert main.verification is not None
    assert main.verification.key_id == "k"
    assert "hunter2" not in repr(found)
    assert "BEGIN PUBLIC KEY" not in repr(found)


def test_server_of_ones_own_needs_no_path_and_may_have_another_package(file: Path) -> None:
    text = "engine: opa\n  package: acme.gate\n  opa: {url: 'https://opa.example:8181'}"
    found = policy(file, text)
    assert [(each.place, each.package) for each in found.layers] == [(None, "acme.gate")]
    assert found.opa.url == "https://opa.example:8181"


def test_opa_that_remit_runs_loads_the_policy(file: Path) -> None:
    found = policy(file, "engine: opa\n  opa: {binary: bin/opa}")
    assert found.opa.binary == file.parent / "bin/opa"
    assert found.layers[0].path == file.parent / "policy"
    assert file.parent / "bin/opa" in found.paths


def test_unsafe_profile_is_said_to_be_unsafe(file: Path) -> None:
    text = "policy: {engine: opa, profile: unsafe_any, opa: {binary: opa}}"
    settings = loaded(file, text)
    assert not settings.policy.portable
    assert "unsafe_any" in settings.unsafe()


def test_trial_of_a_candidate_is_in_the_engine_in_force(file: Path) -> None:
    trial = policy(file, "shadow: {path: next, sample: 1}").trial
    assert trial is not None
    assert (trial.engine, trial.candidate, trial.sample) == ("embedded", file.parent / "next", 1)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("path: null", "policy.path"),
        ("path: null\n  verify: {key: env:K, key_id: k}", "policy.verify"),
        ("layers: [{name: policy, path: p}]", "policy.layers[0].name"),
        ("layers: [{name: a, path: p}, {name: a, path: q}]", "policy.layers[1].name"),
        ("layers: [{name: a}]", "policy.layers[0].path"),
        ("path: http://p.example/b", "policy.path"),
        ("path: https://ann:word@p.example/b", "policy.path"),
        ("layers: [{name: a, path: 'http://10.0.0.1/b'}]", "policy.layers[0].path"),
        ("token: env:K", "policy.token"),
        ("ca_file: ca.pem", "policy.ca_file"),
        ("layers: [{name: a, path: p, token: env:K}]", "policy.layers[0].token"),
        ("package: acme", "policy.package"),
        ("opa: {url: 'https://o'}", "policy.opa.url"),
        ("opa: {binary: opa}", "policy.opa.binary"),
        ("engine: opa", "policy.opa.binary"),
        ("engine: opa\n  opa: {binary: opa, url: 'https://o'}", "policy.opa.url"),
        ("engine: opa\n  opa: {binary: opa, pin_revision: r}", "policy.opa.pin_revision"),
        ("engine: opa\n  opa: {url: 'http://opa.example'}", "policy.opa.url"),
        ("engine: opa\n  package: a.b\n  opa: {binary: opa}", "policy.package"),
        ("engine: opa\n  use: {read_only: {}}\n  opa: {url: 'https://o'}", "policy.use"),
        ("profile: unsafe_any", "policy.profile"),
        ("shadow: {sample: 1}", "policy.shadow"),
        ("shadow: {engine: embedded}", "policy.shadow"),
        ("shadow: {engine: opa}", "policy.opa.binary"),
        ("shadow: {path: 'https://p.example/b'}", "policy.shadow.path"),
        ("path: null\n  layers: [{name: a, path: p}]\n  shadow: {path: q}", "policy.shadow.path"),
        ("engine: opa\n  opa: {url: 'https://o'}\n  shadow: {engine: embedded}", "policy.shadow"),
        (
            "engine: opa\n  profile: unsafe_any\n  opa: {binary: opa}\n  shadow: {engine: embedded}",
            "policy.shadow.engine",
        ),
        ("engine: opa\n  opa: {url: 'https://o'}\n  shadow: {path: q}", "policy.shadow.path"),
    ],
)
def test_keys_that_contradict_each_other_are_told_by_name(file: Path, text: str, key: str) -> None:
    error = refused(file, "policy:\n  " + text, {"K": "secret"})
    assert error.code is Code.CONFIG_INVALID
    assert error.message.startswith(f"{key} "), error.message
    assert "word" not in str(error)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("path: https://p.example/b\n  token: env:NONE", Code.SECRET_UNAVAILABLE),
        ("verify: {key: env:NONE, key_id: k}", Code.SECRET_UNAVAILABLE),
        ("verify: {key: env:K, key_id: k}", Code.CONFIG_INVALID),
    ],
)
def test_secret_that_is_not_there_or_no_key_is_told_without_it(
    file: Path, text: str, code: Code
) -> None:
    error = refused(file, "policy:\n  " + text, {"K": "hunter2"})
    assert error.code is code
    assert "hunter2" not in str(error)


@pytest.mark.threat("T-01")
def test_run_may_not_write_where_any_layer_lies(file: Path) -> None:
    error = refused(
        file,
        """
        policy: {layers: [{name: org, path: /srv/org-policy}]}
        catalog:
          tools:
            - name: say
              description: Says a word.
              effect: write
              command:
                argv: [/bin/echo]
                mounts: [{name: p, source: /srv/org-policy, writable: true}]
        """,
    )
    assert error.code is Code.CATALOG_INVALID
    assert "would give a run" in error.message


@pytest.mark.threat("T-29")
@pytest.mark.parametrize(
    ("section", "source", "writable"),
    [
        ("{path: 'https://p.example/b', ca_file: trust/ca.pem}", "trust", True),
        ("{verify: {key: 'file:trust/key.pem', key_id: k, algorithm: EdDSA}}", "trust", True),
        ("{verify: {key: 'file:trust/key.txt', key_id: k, algorithm: HS256}}", "trust", False),
        ("{path: 'https://p.example/b', token: 'file:trust/token'}", "trust", False),
        ("{engine: opa, opa: {url: 'https://o', ca_file: trust/ca.pem}}", "trust", True),
        (
            "{engine: opa, opa: {url: 'https://o', cert_file: c.pem, key_file: trust/k.pem}}",
            "trust",
            False,
        ),
        ("{engine: opa, opa: {url: 'unix:/srv/opa/opa.sock'}}", "/srv/opa", True),
    ],
)
def test_run_may_not_reach_what_says_whose_policy_is_believed(
    file: Path, section: str, source: str, writable: bool
) -> None:
    (file.parent / "trust").mkdir()
    (file.parent / "trust/key.pem").write_text(PEM)
    for name in ("key.txt", "token"):
        (file.parent / "trust" / name).write_text("x" * 40)
    error = refused(
        file,
        f"""
        policy: {section}
        catalog:
          tools:
            - name: say
              description: Says a word.
              effect: write
              command:
                argv: [/bin/echo]
                mounts: [{{name: p, source: {file.parent / source}, writable: {str(writable).lower()}}}]
        """,
    )
    assert error.code is Code.CATALOG_INVALID
    assert "would give a run" in error.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("use: [read_only]", "write use: {…}, and use: {} where"),
        ("use: {read_only: }", "write read_only: {…}, and read_only: {} where"),
    ],
)
def test_library_that_is_used_as_a_list_or_without_data_is_told_how_it_is_written(
    file: Path, text: str, hint: str
) -> None:
    error = refused(file, "policy:\n  " + text)
    assert "must be a mapping of keys to values" in error.message
    assert str(error.hint).startswith(hint)
