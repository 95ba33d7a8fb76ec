"""Policies of random shape, for finding forms of Rego that the two engines read differently.

They call no builtin that may fail, so that an error of OPA's can only be a conflict of values.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FIELDS = ("a", "b", "c", "xs", "o", "s")
SCALARS = ("0", "1", "2", "-1", '"a"', '"b"', '""', '"é"', "`a`", "true", "false", "null")
VALUES = (0, 1, 2, -1, 1.5, "a", "b", "", "é", "1", True, False, None)
DATA = {"facts": {"a": 1, "b": "b", "xs": [1, 2, "a"], "o": {"a": "x", "b": ["a"]}}}
HEAD = "import rego.v1\nimport future.keywords.not\n\n"

Names = Sequence[str]


@dataclass
class Program:
    """One package. `asked` are its rules that are no functions, in the order they were made."""

    rng: random.Random
    package: str
    asked: list[str] = field(default_factory=list)
    _rules: list[tuple[str, str]] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _count: int = 0

    def text(self) -> str:
        for _ in range(self.rng.randint(2, 4)):
            self.rng.choice((self._complete, self._set, self._object, self._function))()
        if not self.asked:
            self._lines.append(f"last := {self._call(())}")
            self.asked.append("last")
        return f"package {self.package}\n{HEAD}" + "\n".join(self._lines) + "\n"

    # ------------------------------------------------------------------------------------ rules

    def _complete(self) -> None:
        name = self._fresh("c")
        if self._often(0.5):
            self._lines.append(f"default {name} := {self._scalar()}")
        for _ in range(self.rng.choice((1, 1, 2))):
            self._lines.append(name + self._branches(()))
        self._made("complete", name)

    def _set(self) -> None:
        name = self._fresh("s")
        for _ in range(self.rng.choice((1, 1, 2))):
            body, known = self._body(())
            self._lines.append(f"{name} contains {self._value(known)}{body}")
        self._made("set", name)

    def _object(self) -> None:
        name = self._fresh("o")
        for _ in range(self.rng.choice((1, 1, 2))):
            body, known = self._body(())
            key, value = self._value(known), self._value(known)
            heads = (f"[{key}] := {value}", f"[{key}]", f".{self._field()} := {value}")
            head = f"[{key}] contains {value}" if self._often(0.1) else self.rng.choice(heads)
            self._lines.append(f"{name}{head}{body}")
        self._made("object", name)

    def _function(self) -> None:
        name = self._fresh("f")
        if self._often(0.3):
            self._lines.append(f"default {name}(_) := {self._scalar()}")
        for _ in range(self.rng.choice((1, 2))):
            pattern, known = self._pattern(1)
            argument = self._scalar() if self._often(0.15) else pattern
            bound = () if argument != pattern else known
            self._lines.append(f"{name}({argument}){self._branches(bound)}")
        self._rules.append(("function", name))

    def _branches(self, given: Names) -> str:
        """What stands behind a name: a value, a body, and so many `else`."""
        body, known = self._body(given)
        text = (f" := {self._value(known)}" if self._often(0.7) else "") + body
        while self._often(0.3):
            body, known = self._body(given)
            value = f" := {self._value(known)}" if self._often(0.9) else ""
            text += f" else{value}{body}"
        return text

    # -------------------------------------------------------------------------------- conditions

    def _body(self, given: Names) -> tuple[str, Names]:
        lines, known = self._conditions(given, self.rng.choice((1, 1, 2, 3)))
        return " if {\n\t" + "\n\t".join(lines) + "\n}", known

    def _conditions(self, known: Names, count: int) -> tuple[list[str], Names]:
        lines = []
        for _ in range(count):
            line, known = self._condition(known)
            lines.append(line)
        return lines, known

    def _condition(self, known: Names) -> tuple[str, Names]:
        kind = self.rng.randrange(12)
        if kind == 0:
            pattern, names = self._pattern(2)
            return f"{pattern} {self.rng.choice((':=', '='))} {self._term(known)}", [*known, *names]
        if kind in (1, 2):
            pattern, names = self._pattern(1)
            key = self._fresh("k")
            pairs = self._often(0.5)
            some, found = (f"{key}, {pattern}", [key, *names]) if pairs else (pattern, names)
            return f"some {some} in {self._term(known)}", [*known, *found]
        if kind == 3:
            name = self._fresh("i")
            where = f"{self._reference(known)}[{name}]"
            return f"some {name}\n\t{where} == {self._term(known)}", [*known, name]
        if kind == 4:
            path, value = self._fresh("p"), self._fresh("w")
            return f"walk({self._reference(known)}, [{path}, {value}])", [*known, path, value]
        if kind == 5:
            return self._every(known), known
        if kind in (6, 7):
            return f"not {self._test(known)}", known
        return self._test(known), known

    def _every(self, known: Names) -> str:
        name = self._fresh("e")
        lines, _ = self._conditions([*known, name], self.rng.randint(1, 2))
        return f"every {name} in {self._term(known)} {{ {'; '.join(lines)} }}"

    def _test(self, known: Names) -> str:
        left, right = self._term(known), self._term(known)
        kind = self.rng.randrange(8)
        if kind < 3:
            return f"{left} {self.rng.choice(('==', '!='))} {right}"
        if kind == 3:
            return f"{self._reference(known)} {self.rng.choice('<>')} {self._scalar()}"
        if kind == 4:
            return f"{left} in {right}"
        if kind == 5 and self._often(0.2):
            return f"{left}, {self._scalar()} in {right}"
        return left

    def _pattern(self, depth: int) -> tuple[str, Names]:
        kind = self.rng.randrange(20)
        if depth and kind < 4:
            parts = [self._pattern(depth - 1) for _ in range(self.rng.randint(1, 2))]
            inner = [name for _, found in parts for name in found]
            return "[" + ", ".join(text for text, _ in parts) + "]", inner
        if depth and kind in (4, 5):
            text, names = self._pattern(depth - 1)
            return f'{{"{self._field()}": {text}}}', names
        name = self._fresh("x")
        return name, [name]

    # ------------------------------------------------------------------------------------- terms

    def _term(self, known: Names, depth: int = 2) -> str:
        kind = self.rng.randrange(14 if depth else 6)
        if kind < 4:
            return self._reference(known)
        if kind == 4:
            return self._scalar()
        if kind in (5, 6):
            return self.rng.choice(known) if known else self._reference(known)
        if kind == 7:
            return f"[{self._term(known, depth - 1)}]"
        if kind == 8:
            return f'{{"{self._field()}": {self._term(known, depth - 1)}}}'
        if kind == 9:
            lines, inner = self._conditions(known, 1)
            return f"[{self._value(inner)} | {'; '.join(lines)}]"
        if kind == 10:
            return f"type_name({self._term(known, depth - 1)})"
        return self._use(known) if self._rules else self._reference(known)

    def _use(self, known: Names) -> str:
        kind, name = self.rng.choice(self._rules)
        if kind == "function":
            return self._call(known, name)
        if kind == "complete":
            return name
        if kind == "set":
            return self.rng.choice((f"count({name})", f"{name}[{self._value(known)}]"))
        uses = (f"count({name})", f"{name}[{self._value(known)}]", f"{name}.{self._field()}", name)
        return self.rng.choice(uses)

    def _call(self, known: Names, name: str = "") -> str:
        return f"{name or self._rules[0][1]}({self._reference(known)})"

    def _reference(self, known: Names) -> str:
        if self._often(0.2):
            return "input.xs"
        text = self.rng.choice(("input", "input", "data.facts", *known))
        least = 1 if text in ("input", "data.facts") else 0
        for _ in range(self.rng.randint(least, 2)):
            steps = [f".{self._field()}", f".{self._field()}", "[0]", "[_]"]
            steps += [f"[{name}]" for name in known[:2]]
            text += self.rng.choice(steps)
        return text

    def _value(self, known: Names) -> str:
        """What a head holds: mostly what the body gave a name."""
        if not known or self._often(0.3):
            return self._scalar()
        name = self.rng.choice(known)
        return name if self._often(0.7) else f"{name}.{self._field()}"

    def _scalar(self) -> str:
        return self.rng.choice(SCALARS)

    def _field(self) -> str:
        return self.rng.choice(FIELDS)

    def _often(self, share: float) -> bool:
        return self.rng.random() < share

    def _made(self, kind: str, name: str) -> None:
        self._rules.append((kind, name))
        self.asked.append(name)

    def _fresh(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"


def document(rng: random.Random) -> Mapping[str, Any]:
    """An input with fields absent, of the wrong type, and odd; mostly with a list of objects."""
    found = {name: _json(rng, 2) for name in FIELDS if rng.random() < 0.7}
    if rng.random() < 0.8:
        found["xs"] = [_object(rng, 1) for _ in range(rng.randint(1, 3))]
    return found


def _json(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if not depth or kind < 0.4:
        return rng.choice(VALUES)
    if kind < 0.7:
        return [_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    return _object(rng, depth)


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    return {name: _json(rng, depth - 1) for name in rng.sample(FIELDS, rng.randrange(4))}
