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
from remit.servers.tools import ServerTools
from remit.upstreams.definitions import read_definition
from tests.servers.make import SLY, item, spec
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


def older(pins: dict[str, Pinned]) -> dict[str, Any]:
    """What a file held before it named a digest of itself."""

    def facts(seen: Sighting | None) -> dict[str, Any] | None:
        if seen is None:
            return None
        return {
            "digest": seen.definition.digest,
            "fault": seen.fault,
            "unchecked": list(seen.unchecked),
            "signs": [[each.sign, each.place, each.excerpt] for each in seen.signs],
            "definition": seen.definition.parts(),
        }

    tools = [
        {
            "name": name,
            "held": one.held,
            "accepted_by": one.accepted_by,
            "accepted_ms": one.accepted_ms,
            "accepted": facts(one.accepted),
            "last": facts(one.last),
        }
        for name, one in sorted(pins.items())
    ]
    return {"schema": "remit.pins/1", "server": "files", "tools": tools}


@given(listed=st.lists(TOOLS, max_size=4, unique_by=lambda tool: str(tool["name"])))
def test_what_is_read_fast_is_what_is_read_with_care(
    tmp_path_factory: pytest.TempPathFactory, listed: list[dict[str, Any]]
) -> None:
    store = PinStore(tmp_path_factory.mktemp("pins"))
    seen = [examine(read_definition("files", each), frozenset()) for each in listed]
    pins = {
        each.definition.name: Pinned(name=each.definition.name, accepted=each, last=each)
        for each in seen
    }
    store.write("files", pins)
    fast = store.read("files")
    path = store._path("files")
    path.write_text(json.dumps(older(pins)))
    slow = store.read("files")
    assert fast == slow == pins
    tools = ServerTools(spec())
    for name, one in fast.items():
        assert one.accepted is not None
        kept, fresh = one.accepted.definition, seen[listed.index(_named(listed, name))].definition
        assert kept.digest == read_definition("files", kept.parts()).digest == fresh.digest
        try:
            made = tools.tool(kept)
        except ConfigError:
            continue
        assert made == tools.tool(fresh)


def _named(listed: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(each for each in listed if each["name"] == name)


@given(data=st.data())
def test_no_byte_of_a_file_can_be_another(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = PinStore(tmp_path_factory.mktemp("pins"))
    store.write("files", pinned())
    path = store._path("files")
    text = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(text) - 1))
    if data.draw(st.booleans()):
        text[at] ^= data.draw(st.integers(1, 255))
    else:
        del text[at:]
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        store.read("files")
    assert caught.value.code is Code.CATALOG_INVALID


def test_the_file_of_another_server_is_an_error(tmp_path: Path) -> None:
    store = PinStore(tmp_path)
    store.write("files", pinned())
    (tmp_path / "files.json").rename(tmp_path / "mail.json")
    with pytest.raises(ConfigError):
        store.read("mail")


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
def test_a_damaged_older_file_is_an_error_and_no_guess(tmp_path: Path, damage: Any) -> None:
    store = PinStore(tmp_path)
    path = tmp_path / "files.json"
    facts = older(pinned())
    path.write_text(json.dumps(facts))
    assert store.read("files") == pinned()
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


def test_the_file_is_not_longer_for_how_deep_a_definition_is(tmp_path: Path) -> None:
    inner: Any = [0] * 1_000
    for _ in range(50):
        inner = [inner]
    schema = {"type": "object", "x-deep": inner}
    seen = examine(read_definition("s", item("a", inputSchema=schema)), frozenset())
    kept = {"a": Pinned(name="a", last=seen)}
    store = PinStore(tmp_path)
    store.write("s", kept)
    assert store.read("s") == kept
    assert (tmp_path / "s.json").stat().st_size < 10_000
