"""Whose a name is follows from what the operator wrote, never from what a server lists."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.model import Tool
from remit.ports import Catalog
from remit.servers.catalog import Absent, Arranged, Candidate, Claim, WholeCatalog, arrange
from remit.servers.tools import ServerTools
from remit.testing.catalog import CatalogContract
from remit.upstreams.definitions import read_definition
from remit.upstreams.names import skeleton
from tests.servers.make import command_tool, item, spec

pytestmark = pytest.mark.threat("T-44")


class TestContract(CatalogContract):
    @pytest.fixture
    def build(self) -> Callable[[Sequence[Tool]], Catalog]:
        return lambda tools: WholeCatalog(arrange(tools, [], {}).tools)


def candidate(server: str, listed: str, prefix: str | None = None, alias: str = "") -> Candidate:
    said = [{"name": listed, "alias": alias}] if alias else []
    maker = ServerTools(spec(server, prefix=prefix, tools=said))
    return Candidate(
        server=server,
        listed=listed,
        tool=maker.tool(read_definition(server, item(listed))),
        claim=Claim.ALIAS if alias else Claim.PREFIXED,
    )


def offered(arranged: Arranged) -> list[str]:
    return [tool.name for tool in arranged.tools]


def test_tools_of_several_servers_are_offered_beside_command_tools() -> None:
    found = arrange(
        [command_tool("say")],
        [candidate("files", "read"), candidate("git", "read")],
        {"files": "files", "git": "git"},
    )
    assert offered(found) == ["files_read", "git_read", "say"]
    assert found.refused == {}


@pytest.mark.parametrize("listed", ["say", "SAY"])
def test_a_command_tool_keeps_its_name_against_any_server(listed: str) -> None:
    found = arrange([command_tool("say")], [candidate("files", listed, "")], {"files": ""})
    assert offered(found) == ["say"]
    assert "command tool say" in found.refused[("files", listed)]


def test_of_two_tools_of_one_name_neither_is_offered_and_both_are_told_why() -> None:
    pair = [candidate("a", "read", ""), candidate("b", "read", "")]
    for order in itertools.permutations(pair):
        found = arrange([], order, {"a": "", "b": ""})
        assert offered(found) == []
        assert set(found.refused) == {("a", "read"), ("b", "read")}
        assert "read of b" in found.refused[("a", "read")]


@pytest.mark.parametrize("other", ["Read_file", "read-file", "read.file", "READ_FILE"])
def test_of_two_names_that_look_alike_neither_is_offered(other: str) -> None:
    pair = [candidate("a", "read_file", ""), candidate("b", other, "")]
    found = arrange([], pair, {"a": "", "b": ""})
    assert offered(found) == []
    assert len(found.refused) == 2


def test_one_server_cannot_offer_two_names_that_look_alike() -> None:
    found = arrange([], [candidate("a", "read"), candidate("a", "READ")], {"a": "a"})
    assert offered(found) == []


def test_a_name_behind_a_prefix_is_that_servers_alone() -> None:
    prefixes = {"git": "git", "bad": "", "git-hub": "git-hub"}
    found = arrange(
        [],
        [
            candidate("bad", "git_status", ""),
            candidate("bad", "GIT-push", ""),
            candidate("git", "status"),
            candidate("git", "hub_issues"),
            candidate("git-hub", "issues"),
        ],
        prefixes,
    )
    assert offered(found) == ["git-hub_issues", "git_status"]
    assert found.refused == {
        ("bad", "git_status"): "its name stands behind the prefix of the server git",
        ("bad", "GIT-push"): "its name stands behind the prefix of the server git",
        ("git", "hub_issues"): "its name stands behind the prefix of the server git-hub",
    }


def test_an_alias_that_the_operator_gave_goes_before_what_servers_call_themselves() -> None:
    given_alias = candidate("git", "status", alias="look")
    found = arrange([], [candidate("bad", "look", ""), given_alias], {"git": "git", "bad": ""})
    assert offered(found) == ["look"]
    assert set(found.refused) == {("bad", "look")}


@pytest.mark.parametrize("claim", [Claim.PREFIXED, Claim.ALIAS])
def test_a_name_whose_tool_is_not_offered_goes_to_no_other_server(claim: Claim) -> None:
    away = Absent(server="good", listed="send", name="send", claim=claim)
    for name in ("send", "SEND"):
        found = arrange([], [candidate("bad", name, ""), away], {"good": "", "bad": ""})
        assert offered(found) == []
        assert "send of good" in found.refused[("bad", name)]


def test_what_is_not_offered_takes_no_name_that_is_not_its_own() -> None:
    away = Absent(server="bad", listed="git_status", name="git_status")
    found = arrange([], [candidate("git", "status"), away], {"git": "git", "bad": ""})
    assert offered(found) == ["git_status"]


SERVERS = {"a": "a", "a-b": "a-b", "ab": "", "c": ""}
LISTED = st.text("aAbB_-.", min_size=1, max_size=4)


@given(st.sets(st.tuples(st.sampled_from(sorted(SERVERS)), LISTED), max_size=8), st.randoms())
def test_what_is_offered_never_looks_alike_and_never_depends_on_the_order(
    listed: set[tuple[str, str]], random: object
) -> None:
    found = [candidate(server, name, SERVERS[server]) for server, name in sorted(listed)]
    commands = [command_tool("a_a")]
    arranged = arrange(commands, found, SERVERS)
    shapes = [skeleton(tool.name) for tool in arranged.tools]
    assert len(set(shapes)) == len(shapes)
    assert "a_a" in offered(arranged)
    assert len(arranged.tools) - 1 + len(arranged.refused) == len(found)
    backwards = arrange(commands, found[::-1], SERVERS)
    assert backwards.tools == arranged.tools
    assert backwards.refused.keys() == arranged.refused.keys()


def test_what_a_server_lists_never_takes_away_what_stands_behind_anothers_prefix() -> None:
    own = candidate("git", "status")
    for name in ("git_status", "GIT_status", "git-status", "git.status"):
        found = arrange([], [own, candidate("bad", name, "")], {"git": "git", "bad": ""})
        assert offered(found) == ["git_status"]


def test_the_catalog_is_the_same_object_until_something_changes() -> None:
    one, other = command_tool("one"), command_tool("other")
    catalog = WholeCatalog()
    assert catalog.put((one,))
    held = catalog.tools()
    assert not catalog.put((one,))
    assert catalog.tools() is held
    assert catalog.put((one, other))
    assert catalog.tool("other") is other
    assert catalog.put((one,))
    assert catalog.tool("other") is None
