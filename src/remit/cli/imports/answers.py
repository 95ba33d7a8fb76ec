"""What a `server.json` leaves open, and a person's answers to it.

A secret is answered by where it is, never by itself: it would stand in the history of a shell.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from remit.cli.output import note
from remit.upstreams.forms import Answer, Form, NoAnswer
from remit.upstreams.found import FoundServer, Question, Source
from remit.upstreams.refused import refused
from remit.upstreams.secretlike import shown, sign_of
from remit.visible import quoted, visible

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

Ask = Callable[[Question, bool], str]
"""Asks a person a question; the flag says that a secret is asked for. Gives "" for no answer."""


def answered(server: FoundServer, given: Sequence[str], ask: Ask | None = None) -> FoundServer:
    """The server with its questions answered, by `NAME=VALUE` texts or by a person.

    What is not required and has no answer falls away with the value that it is for.

    Args:
        given: the answers, of which none is shown.
        ask: asks a person; by default at a terminal, and nobody where there is none.

    Raises:
        ConfigError: `config_invalid`: a required answer lacks or cannot be taken, an answer is to
            no question, or a secret is asked for where Remit cannot keep one.
    """
    if ask is None and sys.stdin.isatty():
        ask = _asked
    form = Form(server, _kept, other_way="--choice")
    answers = _read(server, form, given)
    for question in form.missing(answers):
        text = "" if ask is None else ask(question, question.name in form.secret)
        if text:
            answers[question.name] = form.checked(question, text)
    if missing := form.missing(answers):
        flags = " ".join(
            f"--answer {shown(one.name)}={'env:NAME' if one.name in form.secret else 'VALUE'}"
            for one in missing
        )
        about = ", ".join(_described(one) for one in missing)
        raise refused(server, "", visible(f"leaves open what a person must say: {about}"), flags)
    filled = form.filled(answers)
    for line in form.notes:
        note(line)
    return filled


def _described(question: Question) -> str:
    about = f" ({quoted(question.description)})" if question.description.strip() else ""
    return f"{shown(question.name)}{about}"


def _asked(question: Question, secret: bool) -> str:
    where = ", as env:NAME or file:PATH" if secret else ""
    if question.choices:
        where += ", one of " + ", ".join(quoted(one) for one in question.choices)
    text: str = click.prompt(
        visible(f"{_described(question)}{where}"), default="", show_default=False, err=True
    )
    return text


def _read(server: FoundServer, form: Form, given: Sequence[str]) -> dict[str, Answer]:
    """The answers by question."""
    found: dict[str, Answer] = {}
    for text in given:
        names = [name for name in form.questions if text.startswith(f"{name}=")]
        if not names:
            open_ = ", ".join(shown(name) for name in form.questions) or "nothing"
            raise refused(
                server,
                "",
                f"does not ask what an --answer answers; it asks {open_}",
                "write it as --answer NAME=VALUE",
            )
        name = max(names, key=len)
        if name in found:
            raise form.wrong(form.questions[name], "is answered twice", "answer it once")
        found[name] = form.checked(form.questions[name], text[len(name) + 1 :])
    return found


def _kept(text: str) -> Answer | NoAnswer:
    """Where a secret is, as a person says it."""
    scheme, _, name = text.partition(":")
    if scheme == "env" and _VARIABLE.fullmatch(name) and sign_of(name) is None:
        return Answer(text=name, source=Source.ENV)
    if scheme == "file" and name:
        path = Path(name).expanduser().absolute()
        if path.is_file():
            return Answer(text=str(path), source=Source.FILE)
        return NoAnswer(why="is answered by a file that is not there", hint="write it first")
    return NoAnswer(
        why="is a secret, which is answered by where it is alone",
        hint="give env:NAME, or file:PATH of a file that holds nothing else",
    )
