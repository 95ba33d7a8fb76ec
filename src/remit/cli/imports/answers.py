"""What a `server.json` leaves open, and a person's answers to it.

A secret is answered by where it is, never by itself: it would stand in the history of a shell.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import click

from remit.cli.imports.faults import refused
from remit.cli.output import note
from remit.errors import ConfigError
from remit.upstreams.entries import signed_command
from remit.upstreams.found import FoundServer, Question, Reference, Source, Value
from remit.upstreams.secretlike import Sign, names_a_secret, shown, sign_of
from remit.visible import quoted, visible

MAX_ANSWER = 4_096
"""Characters of one answer."""

_OPTION = re.compile(r"-{1,2}[A-Za-z0-9][\w.-]*=")
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
    form = _Form(server)
    answers = form.read(given)
    for question in form.needed():
        if question.name not in answers and ask is not None:
            text = ask(question, question.name in form.secret)
            if text:
                answers[question.name] = form.checked(question, text)
    missing = [one for one in form.needed() if one.name not in answers]
    if missing:
        flags = " ".join(
            f"--answer {shown(one.name)}={'env:NAME' if one.name in form.secret else 'VALUE'}"
            for one in missing
        )
        about = ", ".join(_described(one) for one in missing)
        raise refused(server, "", visible(f"leaves open what a person must say: {about}"), flags)
    return form.filled(answers)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """One answer: its text, or where a secret is; not a person's own if it is a default."""

    text: str
    source: Source | None = None
    own: bool = True


class _Form:
    """The questions of one server that something of it refers to."""

    def __init__(self, server: FoundServer) -> None:
        self._server = server
        used = {each.name for _, one in server.values() for each in one.references}
        self._questions = {one.name: one for one in server.questions if one.name in used}
        self.secret = {
            name for name, one in self._questions.items() if one.secret or names_a_secret(name)
        }
        for holder, one in (*server.env.items(), *server.headers.items()):
            if one.sign or names_a_secret(holder) or holder.lower() == "authorization":
                self.secret |= {each.name for each in one.references}
        self._fixed = {each.name for _, one in self._words() for each in one.references}
        for part, one in self._words():
            if self.secret & {each.name for each in one.references}:
                raise refused(
                    server,
                    part,
                    "asks for a secret in its arguments or address, where Remit cannot keep one",
                    "choose another way to have it (--choice), or one that takes a variable",
                )

    def _words(self) -> Iterator[tuple[str, Value]]:
        """What a value cannot be taken out of."""
        return (
            (part, one)
            for part, one in self._server.values()
            if not part.startswith(("/env/", "/headers/"))
        )

    def needed(self) -> list[Question]:
        """The questions without which the server cannot be had."""
        return [
            one
            for name, one in self._questions.items()
            if (one.required or name in self._fixed)
            and (one.default is None or name in self.secret)
        ]

    def read(self, given: Sequence[str]) -> dict[str, _Answer]:
        """The answers by question."""
        found: dict[str, _Answer] = {}
        for text in given:
            names = [name for name in self._questions if text.startswith(f"{name}=")]
            if not names:
                open_ = ", ".join(shown(name) for name in self._questions) or "nothing"
                raise refused(
                    self._server,
                    "",
                    f"does not ask what an --answer answers; it asks {open_}",
                    "write it as --answer NAME=VALUE",
                )
            name = max(names, key=len)
            if name in found:
                raise self._wrong(self._questions[name], "is answered twice", "answer it once")
            found[name] = self.checked(self._questions[name], text[len(name) + 1 :])
        return found

    def checked(self, question: Question, text: str) -> _Answer:
        """An answer that can be taken."""
        if not text.strip() or len(text) > MAX_ANSWER or not text.isprintable():
            hint = f"give 1 to {MAX_ANSWER} printable characters"
            raise self._wrong(question, "is answered by no text that can be taken", hint)
        if question.name in self.secret:
            return self._reference(question, text)
        if question.choices and text not in question.choices:
            hint = "give one of " + ", ".join(quoted(one) for one in question.choices)
            raise self._wrong(question, "is answered by none of its choices", hint)
        if sign_of(text, name=question.name) is not None:
            hint = "give no secret here: this would stand in remit.yaml"
            raise self._wrong(question, "is answered by what looks like a secret", hint)
        return _Answer(text=text)

    def _reference(self, question: Question, text: str) -> _Answer:
        scheme, _, name = text.partition(":")
        if scheme == "env" and _VARIABLE.fullmatch(name) and sign_of(name) is None:
            return _Answer(text=name, source=Source.ENV)
        if scheme == "file" and name:
            path = Path(name).expanduser().absolute()
            if path.is_file():
                return _Answer(text=str(path), source=Source.FILE)
            raise self._wrong(question, "is answered by a file that is not there", "write it first")
        raise self._wrong(
            question,
            "is a secret, which is answered by where it is alone",
            "give env:NAME, or file:PATH of a file that holds nothing else",
        )

    def _wrong(self, question: Question, why: str, hint: str) -> ConfigError:
        return refused(self._server, "", f"asks {shown(question.name)}, which {why}", hint)

    def filled(self, answers: Mapping[str, _Answer]) -> FoundServer:
        """The server with the answers in their places."""
        known = dict(answers)
        for name, one in self._questions.items():
            if name not in known and one.default is not None and name not in self.secret:
                known[name] = _Answer(text=one.default.text, own=False)
        server = self._server
        words = [] if server.command is None else [server.command, *server.args]
        line = signed_command(tuple(_value("", one, known) for one in words))
        url = None if server.url is None else _value("url", server.url, known)
        return replace(
            server,
            command=line[0] if line else None,
            args=line[1:],
            url=url,
            env=_table(server.env, known),
            headers=_table(server.headers, known),
            questions=(),
        )


def _table(table: Mapping[str, Value], answers: Mapping[str, _Answer]) -> Mapping[str, Value]:
    """The variables or headers whose questions all have an answer."""
    found = {}
    for name, one in table.items():
        if any(each.name not in answers for each in one.references):
            note(f"{shown(name)} is left out: it is not required, and has no answer")
            continue
        value = _value(name, one, answers)
        alone = len(value.references) == 1 and value.text.strip() == value.references[0].text
        if name.lower() == "authorization" and alone:
            note(f"{shown(name)}: Remit puts `Bearer` before the token; give the token alone")
            value = replace(value, text=f"Bearer {value.text.strip()}")
        found[name] = value
    return MappingProxyType(found)


def _value(name: str, one: Value, answers: Mapping[str, _Answer]) -> Value:
    """A value with plain answers put in, from left to right, and secrets referred to."""
    done, rest, secrets = "", one.text, []
    plain = ""
    for each in one.references:
        before, _, rest = rest.partition(each.text)
        answer = answers[each.name]
        put = answer.text if answer.source is None else each.text
        if answer.source is not None:
            secrets.append(Reference(text=each.text, source=answer.source, name=answer.text))
        done += before + put
        plain += before + (put if answer.source is None else "")
    sign = Sign.DECLARED if secrets else one.sign or sign_of(plain + rest, name=name)
    foreign = not _only_an_answer(one, answers)
    return Value(text=done + rest, references=tuple(secrets), sign=sign, foreign=foreign)


def _only_an_answer(one: Value, answers: Mapping[str, _Answer]) -> bool:
    """Whether the value, or that of its option, is a person's answer and nothing beside it.

    The publisher could put `/../..` behind an answer, so no other path is looked for here.
    """
    if len(one.references) != 1 or not answers[one.references[0].name].own:
        return False
    return _OPTION.sub("", one.text, count=1) == one.references[0].text
