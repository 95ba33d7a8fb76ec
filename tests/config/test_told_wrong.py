"""What operators get wrong in `runners` is told by its place, its line and what to write instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remit.config import examine
from remit.errors import ConfigError
from remit.processes import authorities, sandbox_settings
from tests.config.test_runners_section import (
    API,
    INJECT,
    ISSUER,
    STATIC,
    loaded,
    problems,
    written,
)


@pytest.mark.parametrize(
    ("section", "message", "hint"),
    [
        ({"profiles": {"a": {"mout": []}}}, "unknown key runners.profiles.a.mout", "mounts?"),
        (
            {"profiles": {"a": {"limits": {"memory": 1}}}},
            "unknown key runners.profiles.a.limits.memory",
            "memory_mb?",
        ),
        (
            {"credentials": {"t": {**STATIC, "injct": []}}},
            "unknown key runners.credentials.t.injct",
            "inject?",
        ),
        (
            {"credentials": {"t": {**STATIC, "inject": [{**INJECT, "hostt": 1}]}}},
            "unknown key runners.credentials.t.inject[0].hostt",
            "host?",
        ),
        (
            {"credentials": {"t": {"broker": "statc", "secret": "env:TOKEN"}}},
            "runners.credentials.t.broker is not one that is known",
            "static, oidc, vault, aws, github, exchange",
        ),
        (
            {"credentials": {"t": {"secret": "env:TOKEN"}}},
            "runners.credentials.t.broker is missing",
            "static, oidc, vault, aws, github, exchange",
        ),
        (
            {"credentials": {"t": {"broker": "vault", "role": "r"}}},
            "runners.credentials.t.address is missing",
            "add it",
        ),
        ({"profiles": {"A B": {}}}, "runners.profiles.A B: must match pattern", "docs/"),
    ],
)
def test_misspelt_key_is_told_by_its_place_and_what_was_meant(
    tmp_path: Path, section: dict[str, Any], message: str, hint: str
) -> None:
    _, found = examine(written(tmp_path, section), environ={})
    assert found[0].message.startswith(message)
    assert hint in str(found[0].hint)
    assert "remit.yaml:" in str(found[0].place)


def _paths(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where a mapping stands in a document."""
    if isinstance(node, dict):
        return [path, *(p for key, value in node.items() for p in _paths(value, (*path, key)))]
    inner = enumerate(node) if isinstance(node, list) else ()
    return [found for number, value in inner for found in _paths(value, (*path, number))]


EVERYWHERE: dict[str, Any] = {
    "sandbox": {},
    "gvisor": {},
    "profiles": {
        "p": {
            "base": {},
            "mounts": [{"name": "m", "source": "/srv"}],
            "limits": {},
            "egress": [API],
            "warm": {},
        }
    },
    "egress": {},
    "credentials": {
        "s": {**STATIC, "inject": [INJECT], "file": {"name": "f"}},
        "g": {"broker": "github", "app_id": "1", "installation_id": "1", "private_key": "env:K"},
    },
    "issuer": ISSUER,
    "artifacts": {},
}


@pytest.mark.parametrize("path", _paths(EVERYWHERE), ids=lambda path: ".".join(map(str, path)))
def test_unknown_key_is_named_wherever_it_stands(
    tmp_path: Path, path: tuple[str | int, ...]
) -> None:
    section = json.loads(json.dumps(EVERYWHERE))
    node = section
    for part in path:
        node = node[part]
    node["zzz"] = 1
    assert any("zzz" in each for each in problems(tmp_path, section))


@pytest.mark.parametrize(
    "url",
    [
        "http://remit.example.com",
        "http://localhost.example.com",
        "https://user@remit.example.com",
        "https://remit.example.com/?a=b",
        "https://",
    ],
)
def test_tokens_are_neither_vouched_for_nor_got_over_plain_http(tmp_path: Path, url: str) -> None:
    assert "runners.issuer.url" in problems(tmp_path, {"issuer": {"url": url}})[0]
    vault = {"broker": "vault", "address": url, "role": "r", "file": {"name": "f"}}
    found = problems(tmp_path, {"issuer": ISSUER, "credentials": {"v": vault}})
    assert "runners.credentials.v.address" in found[0]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8200", "http://localhost:8200", "https://a.b/c"])
def test_addresses_are_https_or_of_this_machine(tmp_path: Path, url: str) -> None:
    vault = {"broker": "vault", "address": url, "role": "r", "file": {"name": "f"}}
    loaded(tmp_path, {"issuer": {"url": url}, "credentials": {"v": vault}})


@pytest.mark.parametrize("source", ["/etc", "/etc/ssl", "/boot", "/run/user", "/"])
def test_profile_may_not_show_what_no_run_may_see(tmp_path: Path, source: str) -> None:
    profile = {"mounts": [{"name": "m", "source": source}]}
    assert "undo the sandbox" in problems(tmp_path, {"profiles": {"p": profile}})[0]


def test_bubblewrap_and_runsc_are_found_beside_the_file(tmp_path: Path) -> None:
    section = {"sandbox": {"bwrap": "bin/bwrap"}, "gvisor": {"runsc": "bin/runsc"}}
    found = sandbox_settings(loaded(tmp_path, section), tmp_path, "g")
    assert (found.bwrap, found.runsc) == (tmp_path / "bin/bwrap", tmp_path / "bin/runsc")


@pytest.mark.parametrize(
    ("text", "fault"), [(None, "cannot be read"), ("not: a certificate\n", "no certificates")]
)
def test_file_of_authorities_that_holds_none_is_named(
    tmp_path: Path, text: str | None, fault: str
) -> None:
    if text is not None:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(ConfigError, match=f"runners.egress.ca_file.* {fault}") as caught:
        authorities(loaded(tmp_path, {"egress": {"ca_file": "ca.pem"}}))
    assert "remit.yaml:" in str(caught.value.place)
