"""Resources as servers list them: what is passed on, what two servers have, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remit import canonical
from remit.catalog.server_spec import ServerSpec
from remit.model import Effect, Method
from remit.servers.announced import Announced
from remit.servers.shelves import (
    MAX_EXPRESSIONS,
    MAX_TEMPLATES,
    MAX_TEXT,
    Shelf,
    ShelfStore,
    Shelves,
    shelf_of,
)
from remit.upstreams.lists import Words
from tests.servers.make import spec

pytestmark = pytest.mark.threat("T-50")


def resource(uri: str, **more: Any) -> dict[str, Any]:
    return {"uri": uri, "name": "n", **more}


def template(text: str, **more: Any) -> dict[str, Any]:
    return {"uriTemplate": text, "name": "n", **more}


def words(*items: dict[str, Any], completes: bool = False) -> Words:
    return Words(
        resources=[each for each in items if "uri" in each],
        templates=[each for each in items if "uriTemplate" in each],
        completes=completes,
    )


def offered(name: str) -> ServerSpec:
    return spec(name, resources="offer")


def shelves(folder: Path, **lists: Words) -> Shelves:
    made = Shelves([offered(name) for name in lists], ShelfStore(folder), Announced(folder))
    for name, each in lists.items():
        made.take(name, each, 7)
    return made


def test_a_resource_is_passed_on_with_its_own_words_and_nothing_that_leads_away() -> None:
    whole = resource(
        "note://a", title="A", description="Two\nlines.", mimeType="text/plain", size=3,
        icons=[{"src": "https://a.example"}], _meta={"a": 1}, other=1,
    )  # fmt: skip
    (item,) = shelf_of(words(whole), 7).resources.values()
    kept = ("uri", "name", "title", "description", "mimeType", "size")
    assert item.value() == {name: whole[name] for name in kept}


@pytest.mark.parametrize(
    "item",
    [
        resource("note://a\u200b"),
        resource("note://a b"),
        resource("note://" + "a" * 2_050),
        resource("note://a", name=None),
        resource("note://a", description="a\u202eb"),
        resource("note://a", title=["a"]),
        resource("note://a", description="a" * (MAX_TEXT + 1)),
        template("{+uri}"),
        template("note://{"),
    ],
)
def test_what_no_client_can_be_given_is_left_out_and_counted(item: dict[str, Any]) -> None:
    found = shelf_of(words(resource("note://fine"), item), 7)
    assert (list(found.resources), dict(found.templates)) == (["note://fine"], {})
    assert found.left_out == 1


def test_templates_are_no_more_than_can_be_looked_through_for_each_read() -> None:
    many = [template(f"note://{number}/{{a}}") for number in range(MAX_TEMPLATES + 5)]
    found = shelf_of(words(*many), 7)
    assert (len(found.templates), found.left_out) == (MAX_TEMPLATES, 5)
    long = [template(f"note://{number}/" + "{+a}-" * 10) for number in range(MAX_EXPRESSIONS)]
    found = shelf_of(words(*long), 7)
    assert len(found.templates) == MAX_EXPRESSIONS // 10
    assert found.left_out == MAX_EXPRESSIONS - len(found.templates)


def test_a_uri_that_two_servers_have_is_read_of_neither_and_operators_are_told(
    tmp_path: Path,
) -> None:
    made = shelves(
        tmp_path,
        a=words(resource("x://same"), resource("x://a"), resource("y://7")),
        b=words(resource("x://same"), template("y://{id}")),
    )
    assert made.reader("x://a") == "resources/read:a"
    assert made.reader("y://8") == "resources/read:b"
    assert made.reader("x://same") is made.reader("y://7") is made.reader("x://none") is None
    a, b = made.resources()
    assert [uri for uri, _ in a.resources] == ["x://a"]
    assert a.refused == ("x://same", "y://7")
    assert (b.resources, b.refused) == ((), ("x://same",))
    (status,) = made.status("a")
    assert "x://same, y://7" in (status.why or "")


def test_a_template_that_two_servers_have_is_listed_for_neither(tmp_path: Path) -> None:
    made = shelves(
        tmp_path,
        a=words(template("x://{id}"), template("y://{id}")),
        b=words(template("x://{id}")),
    )
    assert made.reader("x://1") is None
    assert made.reader("y://1") == "resources/read:a"
    a, b = made.resources()
    assert ([text for text, _ in a.templates], b.templates) == (["y://{id}"], ())
    assert (a.refused, b.refused) == (("x://{id}",), ("x://{id}",))


def test_entries_are_there_once_the_server_was_seen_to_have_them_and_only_read(
    tmp_path: Path,
) -> None:
    made = Shelves([offered("a"), spec("hides")], ShelfStore(tmp_path), Announced(tmp_path))
    assert made.unseen("a")
    assert not made.unseen("hides")
    assert made.entries() == []
    made.take("a", words(resource("x://a"), completes=True), 7)
    made.take("hides", words(resource("x://b")), 7)
    read, complete = made.entries()
    assert (read.name, read.method) == ("resources/read:a", Method.RESOURCES_READ)
    assert (complete.name, complete.method) == ("completion/complete:a", Method.COMPLETE)
    assert read.effect is complete.effect is Effect.READ
    assert made.reader("x://b") is None


def test_what_was_seen_last_is_there_after_a_restart_and_what_is_damaged_is_asked_again(
    tmp_path: Path,
) -> None:
    listed = words(resource("x://a"), template("y://{id}"), completes=True)
    first = shelves(tmp_path, a=listed)
    again = Shelves([offered("a")], ShelfStore(tmp_path), Announced(tmp_path))
    assert again.resources() == first.resources()
    assert again.unseen("a")  # what it tells by itself is not known
    Announced(tmp_path).put("a", frozenset())
    assert not Shelves([offered("a")], ShelfStore(tmp_path), Announced(tmp_path)).unseen("a")
    file = tmp_path / "a.resources.json"
    for text in (b"{", b"[]", b'{"schema":"remit.resources/1","server":"b"}', b"\xff"):
        file.write_bytes(text)
        damaged = Shelves([offered("a")], ShelfStore(tmp_path), Announced(tmp_path))
        assert damaged.unseen("a")
        assert (damaged.entries(), damaged.resources()) == ([], [])


@pytest.mark.parametrize(("key", "value"), [("server", "b"), ("schema", "remit.resources/0")])
def test_what_was_kept_of_another_server_or_in_another_way_is_not_read(
    tmp_path: Path, key: str, value: str
) -> None:
    shelves(tmp_path, a=words(resource("x://a")))
    file = tmp_path / "a.resources.json"
    file.write_bytes(canonical.encode({**json.loads(file.read_bytes()), key: value}))
    assert ShelfStore(tmp_path).read("a") is None


def test_a_server_that_has_no_resources_any_more_has_none_to_read(tmp_path: Path) -> None:
    made = shelves(tmp_path, a=words(resource("x://a")))
    made.take("a", Words(), 8)
    assert (made.entries(), made.resources(), made.reader("x://a")) == ([], [], None)
    assert ShelfStore(tmp_path).read("a") == Shelf(seen_ms=8)
