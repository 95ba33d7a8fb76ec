"""What a `server.json` leaves open, and the answers that are put in its places.

A secret is answered by where it is, never by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from remit.errors import ConfigError
from remit.upstreams.entries import signed_command
from remit.upstreams.found import FoundServer, Question, Reference, Source, Value
from remit.upstreams.refused import refused
from remit.upstreams.secretlike import Sign, names_a_secret, shown, sign_of
from remit.visible import quoted

MAX_ANSWER = 4_096
"""Characters of one answer."""

_OPTION = re.compile(r"-{1,2}[A-Za-z0-9][\w.-]*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer: its text, or where a secret is; not a person's own if it is a default."""

    text: str
    source: Source | None = None
    own: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Why a text does not say where a secret is, as the end of a sentence, and what would."""

    why: str
    hint: str


Kept = Callable[[str], Answer | NoAnswer]
"""Reads from an answer where a secret is."""


class Form:
    """The questions of one server that something of it refers to.

    Args:
        kept: reads the answer to a question for a secret.
        other_way: how another way to have the server is chosen, for a hint.

    Raises:
        ConfigError: a secret is asked for where Remit cannot keep one.
    """

    def __init__(self, server: FoundServer, kept: Kept, *, other_way: str) -> None:
        self._server = server
        self._kept = kept
        used = {each.name for _, one in server.values() for each in one.references}
        self.questions = {one.name: one for one in server.questions if one.name in used}
        self.secret = {
            name for name, one in self.questions.items() if one.secret or names_a_secret(name)
        }
        self.notes: list[str] = []
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
                    f"choose another way to have it ({other_way}), or one that takes a variable",
                )

    def _words(self) -> Iterator[tuple[str, Value]]:
        """What a value cannot be taken out of."""
        return (
            (part, one)
            for part, one in self._server.values()
            if not part.startswith(("/env/", "/headers/"))
        )

    def missing(self, answers: Mapping[str, Answer]) -> list[Question]:
        """The questions without which the server cannot be had and that have no answer."""
        return [
            one
            for name, one in self.questions.items()
            if (one.required or name in self._fixed)
            and (one.default is None or name in self.secret)
            and name not in answers
        ]

    def checked(self, question: Question, text: str) -> Answer:
        """An answer that can be taken.

        Raises:
            ConfigError: it cannot; the message has nothing of it.
        """
        if not text.strip() or len(text) > MAX_ANSWER or not text.isprintable():
            hint = f"give 1 to {MAX_ANSWER} printable characters"
            raise self.wrong(question, "is answered by no text that can be taken", hint)
        if question.name in self.secret:
            found = self._kept(text)
            if isinstance(found, NoAnswer):
                raise self.wrong(question, found.why, found.hint)
            return found
        if question.choices and text not in question.choices:
            hint = "give one of " + ", ".join(quoted(one) for one in question.choices)
            raise self.wrong(question, "is answered by none of its choices", hint)
        if sign_of(text, name=question.name) is not None:
            hint = "give no secret here: this would stand in remit.yaml"
            raise self.wrong(question, "is answered by what looks like a secret", hint)
        return Answer(text=text)

    def wrong(self, question: Question, why: str, hint: str) -> ConfigError:
        """An error about one answer; `why` is the end of a sentence about the question."""
        return refused(self._server, "", f"asks {shown(question.name)}, which {why}", hint)

    def filled(self, answers: Mapping[str, Answer]) -> FoundServer:
        """The server with the answers in their places.

        What is not required and has no answer falls away with the value that it is for; `notes`
        then says so.
        """
        known = dict(answers)
        for name, one in self.questions.items():
            if name not in known and one.default is not None and name not in self.secret:
                known[name] = Answer(text=one.default.text, own=False)
        server = self._server
        words = [] if server.command is None else [server.command, *server.args]
        line = signed_command(tuple(_value("", one, known) for one in words))
        url = None if server.url is None else _value("url", server.url, known)
        return replace(
            server,
            command=line[0] if line else None,
            args=line[1:],
            url=url,
            env=self._table(server.env, known),
            headers=self._table(server.headers, known),
            questions=(),
        )

    def _table(
        self, table: Mapping[str, Value], answers: Mapping[str, Answer]
    ) -> Mapping[str, Value]:
        """The variables or headers whose questions all have an answer."""
        found = {}
        for name, one in table.items():
            if any(each.name not in answers for each in one.references):
                self.notes.append(
                    f"{shown(name)} is left out: it is not required, and has no answer"
                )
                continue
            value = _value(name, one, answers)
            alone = len(value.references) == 1 and value.text.strip() == value.references[0].text
            if name.lower() == "authorization" and alone:
                self.notes.append(
                    f"{shown(name)}: Remit puts `Bearer` before the token; give the token alone"
                )
                value = replace(value, text=f"Bearer {value.text.strip()}")
            found[name] = value
        return MappingProxyType(found)


def _value(name: str, one: Value, answers: Mapping[str, Answer]) -> Value:
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


def _only_an_answer(one: Value, answers: Mapping[str, Answer]) -> bool:
    """Whether the value, or that of its option, is a person's answer and nothing beside it.

    The publisher could put `/../..` behind an answer, so no other path is looked for here.
    """
    if len(one.references) != 1 or not answers[one.references[0].name].own:
        return False
    return _OPTION.sub("", one.text, count=1) == one.references[0].text
