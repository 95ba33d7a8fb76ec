"""Which tools of one server can be offered, and which keep their names though they are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.servers.catalog import Absent, Candidate, Claim
from remit.servers.judging import judge
from remit.servers.known import Known
from remit.servers.tools import ServerTools
from tests.servers.make import SLY, item, spec

pytestmark = [pytest.mark.threat("T-43"), pytest.mark.threat("T-44")]

ODD = item(description=SLY)


def known(listed: dict[str, Any], *, held: bool = False, **said: Any) -> Known:
    """A server of which one tool is known, as the operator says of it."""
    of = spec(tools=[{"name": "read", **said}] if said else [])
    pinned = judge("files", {}, [listed], others=frozenset(), now_ms=5).pinned
    pinned = {name: replace(one, held=held) for name, one in pinned.items()}
    return Known(ServerTools(of), pinned)


def told(one: Known) -> list[tuple[type, str, Claim]]:
    return [(type(each), each.name, each.claim) for each in one.candidates()]


def test_what_was_accepted_is_offered_and_keeps_its_name_in_quarantine() -> None:
    assert told(known(item())) == [(Candidate, "files_read", Claim.PREFIXED)]
    assert told(known(item(), held=True)) == [(Absent, "files_read", Claim.PREFIXED)]


def test_what_nobody_accepted_keeps_no_name_but_one_that_the_operator_gave() -> None:
    assert told(known(ODD)) == []
    assert told(known(ODD, alias="look")) == [(Absent, "look", Claim.ALIAS)]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("listed", [item(), ODD])
def test_what_the_operator_hides_keeps_no_name(listed: dict[str, Any], held: bool) -> None:
    assert told(known(listed, held=held, hidden=True)) == []
    assert told(known(listed, held=held, hidden=True, alias="look")) == []


def test_an_alias_of_what_was_never_seen_is_kept_unless_it_is_hidden() -> None:
    never = Known(ServerTools(spec(tools=[{"name": "read", "alias": "look"}])), {})
    assert told(never) == [(Absent, "look", Claim.ALIAS)]
    hidden = [{"name": "read", "alias": "look", "hidden": True}]
    assert told(Known(ServerTools(spec(tools=hidden)), {})) == []
