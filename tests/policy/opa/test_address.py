"""Settings of `policy.opa` that cannot be meant are found without asking anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remit.errors import ConfigError
from remit.policy.opa.address import address_of, contradictions
from tests.policy.opa.certificates import Authority

URL = "https://opa.example:8181"

SOUND: list[dict[str, Any]] = [
    {"binary": "/usr/bin/opa"},
    {"url": URL},
    {"url": "https://opa.example/opa/east"},
    {"url": URL, "token": "t", "ca_file": "c", "cert_file": "a", "key_file": "b"},
    {"url": URL, "pin_revision": "r1", "package": "acme.agents"},
    {"url": "unix:/run/opa/opa.sock", "token": "t", "socket_uid": 990},
    {"url": "http://127.0.0.1:8181"},
    {"url": "http://[::1]:8181"},
    {"url": "http://localhost", "token": "t"},
]

ODD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, ["binary"]),
    "both": ({"binary": "/o", "url": URL}, ["url"]),
    "token_for_binary": ({"binary": "/o", "token": "t"}, ["token"]),
    "files_for_binary": (
        {"binary": "/o", "ca_file": "c", "cert_file": "a", "key_file": "b"},
        ["ca_file", "cert_file", "key_file"],
    ),
    "pin_for_binary": ({"binary": "/o", "pin_revision": "r"}, ["pin_revision"]),
    "user_for_binary": ({"binary": "/o", "socket_uid": 0}, ["socket_uid"]),
    "package_for_binary": ({"binary": "/o", "package": "acme"}, ["package"]),
    "cert_without_key": ({"url": URL, "cert_file": "a"}, ["key_file"]),
    "key_without_cert": ({"url": URL, "key_file": "a"}, ["cert_file"]),
    "ca_for_http": ({"url": "http://127.0.0.1", "ca_file": "c"}, ["ca_file"]),
    "cert_for_unix": ({"url": "unix:/o", "cert_file": "a", "key_file": "b"}, ["cert_file", "key_file"]),
    "user_for_https": ({"url": URL, "socket_uid": 0}, ["socket_uid"]),
    "http_to_others": ({"url": "http://opa.example:8181"}, ["url"]),
    "http_to_a_lookalike": ({"url": "http://127.0.0.1.example"}, ["url"]),
    "user_in_url": ({"url": "https://me:hunter2@opa.example"}, ["url"]),
    "query_in_url": ({"url": "https://opa.example/?x=1"}, ["url"]),
    "steps_up": ({"url": "https://opa.example/a/../b"}, ["url"]),
    "no_host": ({"url": "https:///v1"}, ["url"]),
    "bad_port": ({"url": "https://opa.example:http"}, ["url"]),
    "other_scheme": ({"url": "ftp://opa.example"}, ["url"]),
}  # fmt: skip


@pytest.mark.parametrize("given", SOUND, ids="-".join)
def test_settings_that_fit_together_are_not_remarked_on(given: dict[str, Any]) -> None:
    assert contradictions(**given) == []


@pytest.mark.parametrize("case", list(ODD))
def test_settings_that_contradict_each_other_are_named(case: str) -> None:
    given, keys = ODD[case]
    found = contradictions(**given)
    assert [each.key for each in found] == keys
    assert all(each.message and each.hint for each in found)
    assert "hunter2" not in str(found)


@pytest.mark.threat("T-29")
@pytest.mark.parametrize(
    "case", [case for case, (_, keys) in ODD.items() if keys == ["url"] and case != "both"]
)
def test_url_that_cannot_be_meant_gives_no_address(case: str) -> None:
    with pytest.raises(ConfigError) as raised:
        address_of(ODD[case][0]["url"])
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "authority", "prefix"),
    [
        ("https://opa.example", "opa.example:443", ""),
        ("https://opa.example:9/opa/", "opa.example:9", "/opa"),
        ("http://[::1]", "[::1]:8181", ""),
        ("unix:/run/opa.sock", "opa", ""),
    ],
)
def test_url_says_host_port_and_prefix(url: str, authority: str, prefix: str) -> None:
    address = address_of(url)
    assert (address.authority, address.prefix) == (authority, prefix)
    assert (address.tls is not None) is url.startswith("https")


@pytest.mark.threat("T-26")
def test_token_is_not_shown() -> None:
    assert "hunter2" not in repr(address_of("unix:/run/opa.sock", token="hunter2"))


@pytest.mark.parametrize("token", ["", "two words", "line\r\nX-More: 1", "é"])
def test_token_that_a_header_cannot_hold_is_refused_unseen(token: str) -> None:
    with pytest.raises(ConfigError) as raised:
        address_of("unix:/run/opa.sock", token=token)
    assert not token or token not in str(raised.value)


def test_files_that_are_no_certificates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    pair = Authority(tmp_path, "ours").issue("remit")
    other = Authority(tmp_path, "theirs").issue("other")
    cases: list[dict[str, Any]] = [
        {"ca_file": tmp_path / "missing"},
        {"ca_file": tmp_path / "empty"},
        {"cert_file": tmp_path / "empty", "key_file": pair.key},
        {"cert_file": pair.cert, "key_file": other.key},
    ]
    for files in cases:
        with pytest.raises(ConfigError):
            address_of(URL, **files)
    assert address_of(URL, cert_file=pair.cert, key_file=pair.key).tls is not None
