"""Keys that the gateway makes for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import Code, ConfigError
from remit.secret import kept_key


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "one.key"
    key = kept_key(path)
    assert len(key) == 32
    assert kept_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert kept_key(tmp_path / "keys" / "two.key") != key


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_key_that_is_none_is_refused_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "one.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as fault:
        kept_key(path)
    assert fault.value.code is Code.SECRET_UNAVAILABLE
    assert path.read_bytes() == content


def test_a_key_whose_place_cannot_be_had_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        kept_key(tmp_path / "file" / "one.key")
