"""Recorded decisions for `remit policy`: where they are read, and what of them can be asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remit import canonical
from remit.cli.output import note, print_error
from remit.errors import Code, ConfigError, InputError, LedgerFault, NotFound, Unverified
from remit.visible import visible

if TYPE_CHECKING:
    from remit.cli.invocation import Invocation
    from remit.ledger.decisions import RecordedDecision

MAX_INPUTS_BYTES = 256 * 1024 * 1024
MAX_DEPTH = 128
"""Of an input: arguments nested as deep as a caller may nest them stand some way inside it."""

_NAMED = 5

ledger_option = click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A ledger's file or an export made with --with-values; else that of the configuration.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The newest recorded decisions, and those of them whose inputs can be asked again.

    `altered` and `unreadable` are the ids of those whose input is not the recorded one, or is
    none that can be asked (policy failed before there was one).
    """

    found: int
    decisions: tuple[RecordedDecision, ...]
    questions: tuple[Mapping[str, Any], ...]
    erased: int
    altered: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def ids(self) -> Sequence[str]:
        """The id of the decision that each question is of."""
        return [each.id for each in self.decisions]

    def not_under(self, revision: str) -> int:
        """How many of what can be asked another revision decided."""
        return sum(each.revision != revision for each in self.decisions)

    def facts(self) -> dict[str, Any]:
        """The counts, for programs."""
        return {
            "decisions": self.found,
            "erased": self.erased,
            "altered": list(self.altered),
            "unreadable": list(self.unreadable),
        }


def ledger_at(given: Path | None, invocation: Invocation | None) -> Path:
    """The file as given, else that of the configuration.

    Raises:
        ConfigError: there is no configuration to name one.
    """
    if given is not None:
        return given
    if invocation is None or not invocation.config.exists():
        raise ConfigError(
            Code.CONFIG_NOT_FOUND, "there is no configuration that names a ledger",
            hint="name the ledger's file or an export with --ledger",
        )  # fmt: skip
    return invocation.settings().ledger_path


def history(path: Path, last: int) -> History:
    """The newest so many decisions of a ledger or an export, oldest first.

    Raises:
        LedgerFault, Unverified: it cannot be read, or nothing in it can be asked again.
        ConfigError: the inputs are too large together.
    """
    from remit.ledger.decisions import Kept, last_decisions

    found = last_decisions(path, last)
    if sum(len(each.input) for each in found) > MAX_INPUTS_BYTES:
        raise ConfigError(
            Code.CONFIG_INVALID, "these inputs are too large together", place=str(path),
            hint="ask fewer with --last",
        )  # fmt: skip
    whole = [(each, _document(each)) for each in found if each.kept is Kept.WHOLE]
    asked = [(each, document) for each, document in whole if document is not None]
    return History(
        found=len(found),
        decisions=tuple(each for each, _ in asked),
        questions=tuple(document for _, document in asked),
        erased=sum(each.kept is Kept.ERASED for each in found),
        altered=tuple(each.id for each in found if each.kept is Kept.ALTERED),
        unreadable=tuple(each.id for each, document in whole if document is None),
    )


def refuse_empty(past: History, path: Path) -> None:
    """Nothing asked must not pass for nothing that differs.

    Raises:
        LedgerFault: `not_found`: no input of the history can be asked again.
    """
    if not past.questions:
        raise LedgerFault(
            Code.NOT_FOUND,
            f"none of the {past.found} recorded decisions here has an input that can be asked again",
            place=str(path),
            hint="an export has inputs only if it was made with --with-values",
        )


def say_altered(past: History) -> None:
    """Say on stderr which inputs were refused because they are not what was recorded."""
    for each in past.altered[:_NAMED]:
        print_error(_not_recorded(each))
    if len(past.altered) > _NAMED:
        note(f"error: {len(past.altered) - _NAMED} more inputs are not what was recorded")


def decision_at(path: Path, decision_id: str) -> tuple[RecordedDecision, dict[str, Any]]:
    """One recorded decision, with the document that policy was asked.

    Raises:
        LedgerFault, Unverified: the file cannot be read, or the input is not the recorded one.
        NotFound: there is no such decision, or its input is not there any more.
    """
    from remit.ledger.decisions import Kept, find_decision

    found = find_decision(path, decision_id)
    if found is None:
        raise NotFound(
            Code.NOT_FOUND, "there is no recorded decision of this id", place=str(path),
            hint="`remit audit search --event decision` lists them",
        )  # fmt: skip
    if found.kept is Kept.ALTERED:
        raise _not_recorded(found.id)
    document = _document(found) if found.kept is Kept.WHOLE else None
    if document is None:
        erased = found.kept is Kept.ERASED
        raise NotFound(
            Code.NOT_FOUND,
            "the input of this decision was erased, or left out of this export" if erased
            else "policy failed before there was an input to ask about",
            place=f"{found.id}, entry {found.index}",
            hint=f"recorded is {_short(found)}; that cannot be checked without the input",
        )  # fmt: skip
    return found, document


def _short(found: RecordedDecision) -> str:
    return visible(f"{found.verdict} ({', '.join(found.reasons)}) under {found.revision}")


def _not_recorded(decision_id: str) -> Unverified:
    return Unverified(
        Code.LOG_TAMPERED,
        "the input that is kept for this decision is not the one that was recorded; it is not used",
        place=decision_id,
        hint="run `remit audit verify`, and keep the files",
    )


def _document(decision: RecordedDecision) -> dict[str, Any] | None:
    try:
        found = canonical.parse(decision.input, max_depth=MAX_DEPTH)
    except InputError:
        return None
    return found if isinstance(found, dict) else None
