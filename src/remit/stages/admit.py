"""Step 3: freeze and the caller's own limits, before anything is planned.

A first look only: freeze is checked again when the intent is committed and when the run starts.
"""

from __future__ import annotations

from remit.errors import Code, Refused
from remit.model import AdmittedCall, NormalCall
from remit.ports import Ledger


async def admit(ledger: Ledger, normal: NormalCall) -> AdmittedCall:
    """The call, unless everything is frozen.

    Raises:
        Refused: `frozen`.
    """
    if await ledger.frozen() is not None:
        raise frozen()
    return AdmittedCall(normal=normal, limits=normal.tool.limits)


def frozen() -> Refused:
    return Refused(
        Code.FROZEN,
        "an operator has stopped all actions",
        hint="wait until an operator lets actions go on; do not retry in a loop",
    )
