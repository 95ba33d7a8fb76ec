"""Requests for access as text: who was denied what; the agent's own words last, and marked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.cli.output import away
from remit.visible import fold, quoted, shown, visible

_MAX_WORDS = 400

HEADING = "Requests for access. They grant nothing: change the policy, or close them."


def requests_text(requests: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The section of pending requests, newest first."""
    lines = [HEADING]
    for request in requests:
        lines += ["", *_request(request, now_ms)]
    return "\n".join([*lines, "", "To close one: remit approvals close ID --note TEXT"])


def _request(request: Mapping[str, Any], now_ms: int) -> Iterator[str]:
    caller, claimed = request["caller"], request["claimed"]
    where = f" in {shown(request['environment'])}" if request["environment"] else ""
    yield f"{visible(request['id'])}  {shown(request['tool'])}{where}"
    by = f"{shown(caller['subject'])} ({visible(caller['kind'])}), tenant {shown(caller['tenant'])}"
    yield f"  asked by {by}, {away(request['filed_ms'], now_ms)}"
    if caller["chain"]:
        chain = " → ".join(f"{shown(a['subject'])} ({visible(a['kind'])})" for a in caller["chain"])
        yield f"  on behalf of {chain}"
    codes = ", ".join(visible(code) for code in request["codes"])
    decision = f"; decision {visible(request['decision_id'])}" if request["decision_id"] else ""
    yield f"  denied for {codes or 'no reason given'}{decision}"
    yield "  The agent says (unverified):"
    yield f"    reason: {quoted(claimed['reason'], _MAX_WORDS)}"
    # As JSON each text in it has quotation marks of its own, and nothing but ASCII is written.
    words = json.dumps(claimed["arguments"], ensure_ascii=True, sort_keys=True)
    yield f"    arguments: {visible(fold(words, _MAX_WORDS))}"
