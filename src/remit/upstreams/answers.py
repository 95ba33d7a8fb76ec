"""The answers of a caller to what a server asked it, as the server gets them."""

from __future__ import annotations

from typing import Any

from remit.errors import Code, UpstreamFault
from remit.model import UpstreamCall
from remit.upstreams.revisions import Revision


def extra_of(call: UpstreamCall, revision: Revision) -> dict[str, Any]:
    """The parameters of `tools/call` that bring answers (MCP 2026-07-28, `inputResponses`).

    The state is the server's own, as it gave it; nothing of it where it gave none.

    Raises:
        UpstreamFault: `upstream_invalid`: the server speaks a revision that has no such answers,
            and must not take the call for one without them. Nothing was sent.
    """
    if call.round is None:
        return {}
    if not revision.modern:
        raise UpstreamFault(
            Code.UPSTREAM_INVALID,
            f"the server speaks {revision.value}, in which a call cannot bring answers",
        )
    answers = call.round.answers.value()
    extra = {"inputResponses": answers} if answers else {}
    return extra if call.round.state is None else {**extra, "requestState": call.round.state}
