"""Header lines that h11 reads, in time that grows with their length and no faster.

h11 tries a line that is no header once for each space after its colon: with 60,000 of them, for half
a minute, in which its process does nothing else. Whoever reads hostile answers with h11 imports this.
"""

from __future__ import annotations

import re

from h11 import _readers

_readers.header_field_re = re.compile(
    # Space that is never given back (`*+`) changes nothing of what matches.
    _readers.header_field_re.pattern.replace(rb":[ \t]*(", rb":[ \t]*+(")
)
