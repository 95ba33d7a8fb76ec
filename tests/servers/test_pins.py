"""What was accepted is kept whole and exactly, or its file is an error."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import Code, ConfigError
from remit.servers.pins import Pinned, PinStore
from remit.servers.sighting import Sighting, examine
from remit.upstreams.definitions import read_definition
from tests.servers.make import SLY, item
from tests.upstreams.listing import TOOLS

pytestmark = pytest.mark.threat("T-43")


def sighting(**more: Any) -> Sighting:
    return examine(read_definition("files", item(**more)), frozenset())


def pinned(**more: Any) -> dict[str, Pinned]:
    one = Pinned(
        name="read",
        accepted=sighting(),
        accepted_by="ada",
        accepted_ms=12,
        last=sighting(description=SLY),
        held=True,
    )
    return {"read": one, "new": Pinned(name="new", last=sighting(name="new")), **more}


def test_what_is_kept_is_read_again_as_it_was(tmp_path: Path) -> None:
    store = PinStore(tmp_path / "a" / "pins")
    assert store.read("files") == {}
    store.write("files", pinned())
    assert store.read("files") == pinned()
    store.write("files", {})
    assert store.read("files") == {}


@given(listed=st.lists(TOOLS, max_size=4, unique_by=lambda tool: str(tool["name"])))
def test_whatever_a_server_lists_is_kept_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, listed: list[dict[str, Any]]
) -> None:
    store = PinStore(tmp_path_factory.mktemp("pins"))
    found = {
        each["name"]: Pinned(
            name=each["name"],
            accepted=Sighting(definition=read_definition("files", each)),
        )
        for each in listed
    }
    store.write("files", found)
    assert store.read("files") == found


def test_a_file_of_pins_is_nobody_elses_to_read(tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        PinStore(tmp_path / "pins").write("files", pinned())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "pins").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "pins" / "files.json").stat().st_mode) == 0o600
    assert [each.name for each in (tmp_path / "pins").iterdir()] == ["files.json"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = PinStore(tmp_path)
    store.write("files", pinned())
    (tmp_path / "files.new").symlink_to("/dev/null")
    with pytest.raises(OSError, match="symbolic"):
        store.write("files", {})
    assert store.read("files") == pinned()


def _damage(path: tuple[str | int, ...], value: Any) -> Any:
    def change(facts: Any) -> None:
        here = facts
        for step in path[:-1]:
            here = here[step]
        here[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "damage",
    [
        _damage(("schema",), "remit.pins/2"),
        _damage(("server",), "other"),
        _damage(("tools",), {}),
        _damage(("tools", 0), None),
        _damage(("tools", 1, "held"), 1),
        _damage(("tools", 1, "accepted_by"), None),
        _damage(("tools", 1, "accepted_ms"), "12"),
        _damage(("tools", 1, "name"), "other"),
        _damage(("tools", 1, "more"), 1),
        _damage(("tools", 1, "accepted", "definition", "description"), "something else"),
        _damage(("tools", 1, "accepted", "digest"), "sha256:" + "0" * 64),
        _damage(("tools", 1, "accepted", "definition", "inputSchema"), {"type": "string"}),
        _damage(("tools", 1, "accepted", "fault"), 3),
        _damage(("tools", 1, "accepted", "unchecked"), [3]),
        _damage(("tools", 1, "last", "signs"), [["a", "b"]]),
        _damage(("tools", 1, "last", "more"), 1),
        lambda facts: facts["tools"].append(facts["tools"][0]),
        lambda facts: facts["tools"][1].pop("held"),
    ],
)
def test_a_damaged_file_is_an_error_and_no_guess(tmp_path: Path, damage: Any) -> None:
    store = PinStore(tmp_path)
    store.write("files", pinned())
    path = tmp_path / "files.json"
    facts = json.loads(path.read_text())
    assert [each["name"] for each in facts["tools"]] == ["new", "read"]
    damage(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(ConfigError) as caught:
        store.read("files")
    assert caught.value.code is Code.CATALOG_INVALID
    assert caught.value.place == str(path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"schema":1,"schema":1}', b"[" * 100_000])
def test_what_is_no_json_is_an_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "files.json").write_bytes(text)
    with pytest.raises(ConfigError):
        PinStore(tmp_path).read("files")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "files.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        PinStore(tmp_path).read("files")
