"""The examples on the pages of the library: what an operator would give each policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.house.source import DOCS


def page(name: str) -> str:
    return (DOCS / "policies" / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str) -> list[str]:
    """Everything of a `remit.yaml` on a policy's page; the policy's own section comes first."""
    return re.findall(r"^```yaml\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)


def example(name: str) -> Mapping[str, Any]:
    """The data in the example of a policy's page."""
    data: Mapping[str, Any] = yaml.safe_load(blocks(name)[0])["policy"]["use"][name]
    return data
