"""Header lines that h11 reads, in time that grows with their length and no faster.

h11 tries a line that is no header once for each space after its colon: with 60,000 of them, for half
a minute, in which its process does nothing else.
"""

from __future__ import annotations

import re

from h11 import _readers

_SLOW, _QUICK = rb":[ \t]*(", rb":[ \t]*+("
"""Space that is never given back (`*+`) changes nothing of what matches."""


def read_in_time() -> None:
    """Have h11 read lines so, in this process. To be called before it reads a hostile answer;
    again does no harm.

    Raises:
        RuntimeError: this h11 reads lines in a way that is not known here.
    """
    pattern = _readers.header_field_re.pattern
    if _QUICK in pattern:
        return
    if _SLOW not in pattern:
        raise RuntimeError("h11 reads header lines in another way than the one that was compared")
    _readers.header_field_re = re.compile(pattern.replace(_SLOW, _QUICK))
