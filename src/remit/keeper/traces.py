"""What runs were lent, in all forms in which it could come back, and searching for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from remit.keeper.entitled import Unentitled
from remit.runners.traces import all_forms, blank


class Traces:
    """The secrets of runs.

    Args:
        kept: of how many runs, the newest, they are known.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._forms: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()

    def learn(self, run_id: str, secrets: Sequence[str]) -> None:
        """From now on these are looked for in what comes from the run."""
        found = {*self._forms.get(run_id, ()), *all_forms(secrets)}
        self._forms[run_id] = tuple(sorted(found, key=lambda form: (-len(form), form)))
        while len(self._forms) > self._kept:
            self._forms.popitem(last=False)

    def forget_but(self, runs: Collection[str]) -> None:
        """Nothing comes any more from other runs than these."""
        for run_id in [name for name in self._forms if name not in runs]:
            del self._forms[run_id]

    def scrub(self, run_id: str, data: bytes) -> tuple[bytes, int]:
        """The data without a trace of the run's secrets, and how many there were.

        Raises:
            Unentitled: this keeper does not know what the run's secrets are.
        """
        if run_id not in self._forms:
            raise Unentitled("the keeper does not know this run's secrets")
        # Output ends where its limit is, which whoever calls the tool may know: a secret that the
        # limit cuts must not be had but for its last letter.
        return blank(data, self._forms[run_id], cut=True)
