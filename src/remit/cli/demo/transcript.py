"""How the demo speaks: a numbered transcript, coloured only on a terminal."""

from __future__ import annotations

import sys
import textwrap
from typing import TextIO

WIDTH = 92


class Transcript:
    """Prints acts and what happened in them, and counts what did not go as it should."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._colour = self._out.isatty()
        self._act = 0
        self.failures: list[str] = []

    def line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def act(self, title: str) -> None:
        self._act += 1
        self.line()
        self.line(self._paint(f"{self._act}. {title}", "1"))

    def asked(self, text: str) -> None:
        self.line(f"   agent     {text}")

    def fact(self, who: str, text: str) -> None:
        """One line of who and what; further lines of the text are set under it."""
        first, *rest = text.splitlines() or [""]
        wrapped = textwrap.wrap(first, WIDTH - 13) or [""]
        self.line(f"   {who:<9} {wrapped[0]}")
        for more in [*wrapped[1:], *rest]:
            self.line(f"   {'':<9} {more}")

    def expect(self, what: str, held: bool) -> None:
        """Say whether something that must hold did; the demo ends 1 if anything did not."""
        mark = self._paint("ok", "32") if held else self._paint("NOT SO", "31;1")
        self.line(f"   {mark:<9} {what}" if not self._colour else f"   {mark}{' ' * 8}{what}")
        if not held:
            self.failures.append(what)
