"""Regular expressions of schemas, matched in time linear in the text.

Python's `re` backtracks: `(a+)+$` against forty characters takes hours. Patterns are therefore
compiled by the Rust `regex` engine, which pydantic-core carries, and which has no look-around and
no back-references to go wrong with. As in ECMA 262, `$` is the very end of the text.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

from remit.errors import Code, ConfigError

MAX_PATTERN = 512
"""Longest pattern, in characters."""

MAX_REPEATS = 10_000
"""Largest product of all the counts in a pattern: matching costs at most this for a character."""

_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> SchemaValidator:
    """Compile a pattern.

    Raises:
        ConfigError: `catalog_invalid` if it is too long, repeats too often, or is not in the
            syntax that can be matched in linear time.
    """
    if len(pattern) > MAX_PATTERN:
        raise _invalid(f"is longer than {MAX_PATTERN} characters")
    counts = [int(high or low) for low, high in _COUNT.findall(pattern)]
    if math.prod(count for count in counts if count) > MAX_REPEATS:
        raise _invalid(f"repeats more than {MAX_REPEATS} times; use maxLength for lengths")
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as exc:
        why = str(exc).rsplit("error: ", maxsplit=1)[-1].strip().splitlines()[0]
        raise _invalid(f"cannot be used: {why}") from None


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text (JSON Schema 2020-12 §6.3.3)."""
    return compile_pattern(pattern).isinstance_python(text, strict=True)


def _invalid(why: str) -> ConfigError:
    return ConfigError(
        Code.CATALOG_INVALID,
        f"a pattern {why}",
        hint="patterns are RE2 syntax: no look-around, no back-references",
    )
