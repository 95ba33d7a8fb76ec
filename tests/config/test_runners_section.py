"""Profiles, egress and credentials as operators write them wrong; and as they become values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.config import Settings, examine, load
from remit.errors import Code
from remit.model import EgressRule
from remit.profile import BaseKind, Profile, RunnerKind, Tls
from remit.settings.lending import _FRAMING

TOOL: dict[str, Any] = {
    "name": "act",
    "description": "Acts.",
    "effect": "write",
    "command": {"argv": ["/bin/true"]},
}
API = {"host": "api.example.com", "port": 443}
STATIC = {"broker": "static", "secret": "env:TOKEN"}
INJECT = {**API, "value": "Bearer {token}"}
ISSUER = {"url": "https://remit.example.com"}
DIGEST = "sha256:" + "a" * 64


def written(tmp_path: Path, runners: dict[str, Any], *tools: dict[str, Any]) -> Path:
    path = tmp_path / "remit.yaml"
    named = [{**TOOL, "name": f"t{n}", **tool} for n, tool in enumerate(tools)]
    whole = {"runners": runners, "catalog": {"tools": named}}
    path.write_text(yaml.safe_dump(json.loads(json.dumps(whole))))  # without aliases
    return path


def loaded(tmp_path: Path, runners: dict[str, Any], *tools: dict[str, Any]) -> Settings:
    return load(written(tmp_path, runners, *tools), environ={})


def problems(tmp_path: Path, runners: dict[str, Any], *tools: dict[str, Any]) -> list[str]:
    _, found = examine(written(tmp_path, runners, *tools), environ={})
    for each in found:
        assert each.hint, each
        assert each.place, each
    return [each.message for each in found]


def test_the_default_profile_is_there_though_no_file_names_it(tmp_path: Path) -> None:
    assert dict(loaded(tmp_path, {}).profiles) == {"sandbox": Profile()}


def test_profile_becomes_a_value_with_all_that_was_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    section = {
        "runner": "gvisor",
        "base": {"kind": "image", "path": "bases/small.erofs", "digest": DIGEST},
        "mounts": [{"name": "data", "source": str(tmp_path / "data"), "writable": True}],
        "limits": {"memory_mb": 128},
        "io_mb_per_s": 20,
        "egress": [{**API, "methods": ["GET"]}],
    }
    found = loaded(tmp_path, {"profiles": {"small": section}}).profiles["small"]
    assert (found.name, found.runner, found.tls) == ("small", RunnerKind.GVISOR, Tls.TERMINATE)
    assert found.base.kind is BaseKind.IMAGE
    assert found.base.path == str(tmp_path / "bases/small.erofs")
    assert found.ceilings.memory_mb == 128
    assert found.ceilings.wall_s is None
    assert found.egress == (EgressRule(host="api.example.com", port=443, methods=("GET",)),)
    assert (found.mounts[0].target, found.mounts[0].writable) == ("/mnt/data", True)
    slots = loaded(tmp_path, {"profiles": {"warm": {"warm": {"shell": 2}}}}).profiles["warm"]
    assert (slots.warm.shell, slots.runner) == (2, RunnerKind.SANDBOX)


@pytest.mark.threat("T-37")
@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"base": {"kind": "directory", "path": "/srv/base"}}, "needs both path and digest"),
        ({"base": {"kind": "image", "digest": DIGEST}}, "needs both path and digest"),
        ({"base": {"kind": "host", "path": "/srv/base"}}, "has neither"),
        ({"mounts": [{"name": "a", "source": "/proc"}]}, "would undo the sandbox"),
        ({"mounts": [{"name": "a", "source": "a/../b"}]}, "absolute path"),
        ({"mounts": [{"name": "a", "source": "/srv"}] * 2}, "the same name twice"),
        ({"egress": [{"host": "*.example.com", "port": 443}]}, "not one exact name"),
        ({"tls": "passthrough", "egress": [{**API, "path_prefix": "/v1"}]}, "passes through"),
        ({"runner": "gvisor", "warm": {"shell": 1}}, "keeps no slot"),
    ],
)
def test_profile_that_could_be_read_in_two_ways_is_refused(
    tmp_path: Path, section: dict[str, Any], words: str
) -> None:
    (found,) = problems(tmp_path, {"profiles": {"small": section}})
    assert words in found
    assert "runners.profiles.small" in found


@pytest.mark.threat("T-37")
@pytest.mark.parametrize("key", ["mounts", "base"])
def test_profile_may_not_show_runs_what_is_remits_own(tmp_path: Path, key: str) -> None:
    (tmp_path / ".remit").mkdir()
    section: dict[str, Any] = {
        "mounts": [{"name": "a", "source": str(tmp_path / ".remit")}],
        "base": {"kind": "directory", "path": ".", "digest": DIGEST},
    }
    (found,) = problems(tmp_path, {"profiles": {"small": {key: section[key]}}})
    assert "Remit's own" in found


@pytest.mark.threat("T-32")
@pytest.mark.parametrize("key", ["internal", "unsafe_plain"])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("169.254.169.254:80", "metadata"),
        ("169.254.170.2:80", "metadata"),
        ("metadata.google.internal:80", "metadata"),
        ("[fd00:ec2::254]:80", "metadata"),
        ("[::ffff:169.254.169.254]:80", "metadata"),
        ("*:443", "not one exact"),
        ("*.corp:443", "not one exact"),
        ("10.0.0.0/8:443", "not one exact"),
        ("registry.corp:0", "not one exact"),
        ("registry.corp:70000", "not one exact"),
        ("Registry.corp:443", "not one exact"),
    ],
)
def test_internal_destinations_are_exact_and_never_metadata(
    tmp_path: Path, key: str, place: str, words: str
) -> None:
    (found,) = problems(tmp_path, {"egress": {key: [place]}})
    assert words in found or (words == "metadata" and "not one exact" in found)


def test_plain_destinations_of_credentials_are_an_unsafe_choice(tmp_path: Path) -> None:
    settings = loaded(tmp_path, {"egress": {"unsafe_plain": ["127.0.0.1:8080"]}})
    assert "unsafe_plain" in settings.unsafe()
    assert any("unsafe_plain" in each for each in settings.warnings())


@pytest.mark.parametrize(
    ("profile", "tool", "words"),
    [
        ({}, {"runner": "absent"}, "not there"),
        (
            {"tls": "passthrough"},
            {"runner": "small", "egress": [{**API, "methods": ["GET"]}]},
            "TLS passes through",
        ),
        (
            {"mounts": [{"name": "a", "source": "/srv", "writable": True}]},
            {"runner": "small", "effect": "read"},
            "only reads",
        ),
        (
            {"mounts": [{"name": "a", "source": "/srv", "writable": True}]},
            {"runner": "small", "preview": {"command": {"argv": ["/bin/true"]}}},
            "has a preview",
        ),
        (
            {"mounts": [{"name": "a", "source": "/srv"}]},
            {
                "runner": "small",
                "command": {"argv": ["/bin/true"], "mounts": [{"name": "a", "source": "/opt"}]},
            },
            "same name",
        ),
    ],
)
def test_tool_and_its_profile_have_to_fit(
    tmp_path: Path, profile: dict[str, Any], tool: dict[str, Any], words: str
) -> None:
    (found,) = problems(tmp_path, {"profiles": {"small": profile}}, tool)
    assert "the tool t0" in found
    assert words in found


def credential(**more: Any) -> dict[str, Any]:
    return {"credentials": {"ci": {**STATIC, "inject": [INJECT], **more}}}


def test_credential_that_is_injected_becomes_a_delivery(tmp_path: Path) -> None:
    tool = {"egress": [API], "credentials": [{"ref": "ci"}]}
    settings = loaded(tmp_path, credential(), tool)
    found = settings.deliveries["ci"]
    assert found.file is None
    assert found.inject == (EgressRule(host="api.example.com", port=443),)


@pytest.mark.threat("T-33")
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"inject": []}, "either inject or file"),
        ({"file": {"name": "token"}}, "either inject or file"),
        ({"inject": [{**INJECT, "host": "*.example.com"}]}, "not one exact host"),
        ({"inject": [{**INJECT, "host": "169.254.169.254"}]}, "metadata"),
        ({"inject": [{**INJECT, "path_prefix": "/a/../b"}]}, "not a plain path"),
        ({"inject": [{**INJECT, "header": "Host"}]}, "no header for a credential"),
        ({"inject": [{**INJECT, "basic_user": "x"}]}, "either value or basic_user"),
        ({"inject": [{**API}]}, "either value or basic_user"),
        ({"inject": [{**INJECT, "value": "Bearer {password}"}]}, "does not give: password"),
        ({"inject": [{**INJECT, "value": "Bearer {token"}]}, "brace"),
        ({"inject": [], "file": {"name": "t", "content": "{secret}"}}, "does not give: secret"),
    ],
)
def test_credential_that_cannot_be_delivered_is_refused(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    (found,) = problems(tmp_path, credential(**more))
    assert words in found
    assert "runners.credentials.ci" in found


BY_ISSUER: dict[str, dict[str, Any]] = {
    "oidc": {"broker": "oidc", "audience": "aud"},
    "vault": {"broker": "vault", "address": "https://vault.example.com", "role": "r"},
    "aws": {"broker": "aws", "role_arn": "arn:aws:iam::1:role/r"},
    "exchange": {
        "broker": "exchange",
        "token_url": "https://idp.example.com/token",
        "subject_audience": "idp",
    },
}
AWS_FILE = {"name": "aws", "content": "id={access_key_id} {{}} {session_token}"}


@pytest.mark.parametrize("name", sorted(BY_ISSUER))
def test_broker_that_logs_in_by_a_token_needs_the_issuer(tmp_path: Path, name: str) -> None:
    file = AWS_FILE if name == "aws" else {"name": "token"}
    runners: dict[str, Any] = {"credentials": {"ci": {**BY_ISSUER[name], "file": file}}}
    (found,) = problems(tmp_path, runners)
    assert "issuer" in found
    loaded(tmp_path, {**runners, "issuer": ISSUER})


def test_fields_that_only_the_server_knows_are_let_through(tmp_path: Path) -> None:
    section = {**BY_ISSUER["vault"], "path": "database/creds/app", "file": {"name": "db", "content": "{username}"}}  # fmt: skip
    loaded(tmp_path, {"credentials": {"db": section}, "issuer": ISSUER})


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({"credentials": [{"ref": "other"}]}, "which is not there"),
        ({"egress": [API], "credentials": [{"ref": "ci", "scopes": ["read"]}]}, "narrowed"),
        ({"credentials": [{"ref": "ci"}]}, "its egress does not name that"),
        ({"egress": [{**API, "port": 8443}], "credentials": [{"ref": "ci"}]}, "does not name"),
        (
            {"runner": "through", "egress": [API], "credentials": [{"ref": "ci"}]},
            "cannot be injected",
        ),
        (
            {"egress": [API], "credentials": [{"ref": "ci"}, {"ref": "also"}]},
            "both of which go into requests",
        ),
    ],
)
def test_tool_and_its_credentials_have_to_fit(
    tmp_path: Path, tool: dict[str, Any], words: str
) -> None:
    runners = credential()
    runners["credentials"]["also"] = {**STATIC, "inject": [INJECT]}
    runners["profiles"] = {"through": {"tls": "passthrough"}}
    (found,) = problems(tmp_path, runners, tool)
    assert "the tool t0" in found
    assert words in found


@pytest.mark.parametrize(
    ("egress", "refs", "fits"),
    [
        ([API], ["aws"], True),
        ([{**API, "methods": ["GET"]}, {**API, "host": "sts.example.com"}], ["aws"], True),
        ([{**API, "methods": ["GET"]}], ["aws"], False),
        ([{**API, "path_prefix": "/logs"}], ["aws"], False),
        ([API], ["aws", "ci"], False),
        ([API, {**API, "port": 8443}], ["aws", "ci"], True),
        ([], ["aws"], True),
        ([{**API, "methods": ["GET"]}], ["ci"], True),
    ],
)
def test_requests_that_aws_clients_sign_need_a_rule_that_leaves_their_signature(
    tmp_path: Path, egress: list[dict[str, Any]], refs: list[str], fits: bool
) -> None:
    runners = credential()
    runners["credentials"]["aws"] = {**BY_ISSUER["aws"], "file": AWS_FILE}
    tool = {"egress": egress, "credentials": [{"ref": ref} for ref in refs]}
    found = problems(tmp_path, {**runners, "issuer": ISSUER}, tool)
    assert fits == (found == []), found
    assert all("signature" in each for each in found)


def test_two_handles_that_come_to_one_variable_are_refused(tmp_path: Path) -> None:
    files = {name: {**STATIC, "file": {"name": name[-1]}} for name in ("ci/a", "ci-a")}
    files["ci-a"]["file"] = {"name": "other"}
    tool = {"credentials": [{"ref": "ci/a"}, {"ref": "ci-a"}]}
    (found,) = problems(tmp_path, {"credentials": files}, tool)
    assert "REMIT_CREDENTIAL_FILE_CI_A" in found


def test_no_problem_echoes_where_a_secret_is(tmp_path: Path) -> None:
    runners = credential(secret="exec:/opt/get --key hunter2", inject=[])
    assert not any("hunter2" in each for each in problems(tmp_path, runners))


def test_problem_of_a_tool_names_its_line(tmp_path: Path) -> None:
    _, (found,) = examine(written(tmp_path, {}, {}, {"runner": "absent"}), environ={})
    assert found.code is Code.CATALOG_INVALID
    text = (tmp_path / "remit.yaml").read_text().splitlines()
    line = int(str(found.place).rpartition(":")[2])
    assert "name: t1" in text[line - 1]


def test_headers_that_frame_a_request_are_all_in_lower_case() -> None:
    assert all(name == name.lower() for name in _FRAMING)


@pytest.mark.parametrize(
    ("runners", "place", "keys"),
    [
        (
            {"credentials": {"t": {**STATIC, "file": "token"}}},
            "file",
            "its keys are: name, content",
        ),
        ({"egress": "all"}, "runners.egress", "its keys are: internal, ca_file"),
        ({"profiles": {"small": "small.erofs"}}, "profiles.small", "its keys are: runner, base"),
    ],
)
def test_word_where_a_mapping_belongs_is_told_with_the_keys_of_that_mapping(
    tmp_path: Path, runners: dict[str, Any], place: str, keys: str
) -> None:
    _, found = examine(written(tmp_path, runners), environ={})
    assert found[0].message.endswith(f"{place}: must be a mapping of keys to values")
    assert str(found[0].hint).startswith(keys)
