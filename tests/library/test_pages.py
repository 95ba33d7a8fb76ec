"""Each policy of the library has its page, and the page says what is true of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remit.config import load
from remit.policy.library import data_schema, names, with_library
from tests.house.source import DOCS
from tests.library.pages import blocks, example, page


def test_index_lists_every_policy_once() -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\) \|", page("README"), re.MULTILINE)
    assert sorted(rows) == [(name, name) for name in names()]


def test_every_page_is_about_a_policy() -> None:
    pages = {path.stem for path in (DOCS / "policies").glob("*.md")}
    assert pages == {"README", *names()}


@pytest.mark.parametrize("name", names())
def test_page_has_a_row_for_each_key_of_the_data(name: str) -> None:
    rows = [line.split("|")[1] for line in page(name).splitlines() if line.startswith("| `")]
    told = {key for row in rows for key in re.findall(r"`(\w+)[^`]*`", row)}
    assert told == set(data_schema(name)["properties"])


@pytest.mark.parametrize("name", names())
def test_example_of_the_page_can_be_used(name: str) -> None:
    with_library(None, {name: example(name)})


def test_tools_of_a_page_are_ones_that_the_catalog_takes(tmp_path: Path) -> None:
    policy, catalog = blocks("after_untrusted")
    (tmp_path / "remit.yaml").write_text(policy + catalog)
    tools = load(tmp_path / "remit.yaml", environ={}).tools
    assert [(tool.system, sorted(tool.returns)) for tool in tools] == [
        ("tickets", ["untrusted"]),
        ("ci", []),
    ]


@pytest.mark.parametrize("name", names())
def test_page_says_what_it_stops_what_it_does_not_and_what_it_reads(name: str) -> None:
    text = page(name)
    assert all(word in text for word in ("**Stops**", "**It does not**", "**Reads**"))


READ = re.compile(r"\binput\.(\w+(?:\.\w+)?)")


@pytest.mark.parametrize("name", names())
def test_page_names_every_part_of_the_input_that_the_policy_reads(name: str) -> None:
    ((_, source),) = with_library(None, {name: {}}).modules.items()
    code = "\n".join(line.partition("#")[0] for line in source.splitlines())
    reads = {found for found in READ.findall(code) if not found.startswith("tools")}
    told = page(name).rpartition("**Reads**")[2]
    words = set(re.findall(r"`([\w.]+?)(?:\[\])?`", told))
    missing = [found for found in reads if not {found, found.split(".")[0]} & words]
    missing = [found for found in missing if found not in {"tool", "caller"}]
    assert missing == []
