"""The sections of remit.yaml as they are written, for what mends a file that is not yet whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from remit.settings.problems import problems_of
from remit.settings.sections import Sections
from remit.settings.sources import gather


def written(path: Path, *, environ: Mapping[str, str] | None = None) -> Sections:
    """The sections as the file has them, before anything that they name was looked at.

    Raises:
        ConfigError: the first thing that is wrong with a key or a value.
    """
    sources = gather(path, os.environ if environ is None else environ, {})
    given = {key: value for key, value in sources.values.items() if value is not None}
    try:
        return Sections.model_validate(given)
    except ValidationError as exc:
        raise problems_of(exc, Sections, sources.where)[0] from None
