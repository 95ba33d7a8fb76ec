"""The documents are complete: each code, metric, command and setting has its line, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from remit.errors import Code
from remit.telemetry import REGISTRY
from tests.house.source import DOCS, name, tracked
from tests.plugins.machine import ROOT


def _rows(page: str, prefix: str = "") -> list[str]:
    """The first cell of each table row that holds one word in backticks."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^\| `({prefix}[^`]+)` \|", text, flags=re.MULTILINE)


def test_each_error_code_has_its_line_and_each_line_its_code() -> None:
    assert sorted(_rows("errors.md")) == sorted(code.value for code in Code)


def test_each_error_says_what_it_means_and_what_to_do() -> None:
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    for code in Code:
        (row,) = re.findall(rf"^\| `{code.value}` \|(.*)\|$", text, flags=re.MULTILINE)
        assert [part for part in row.split(" | ") if len(part.strip()) < 8] == []
        assert row.count(" | ") == 1


def test_each_metric_has_its_line_and_each_line_its_metric() -> None:
    assert sorted(_rows("metrics.md", "remit_")) == sorted(m.name for m in REGISTRY.collect())


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for word, child in sorted(command.commands.items()):
            if not child.hidden:
                yield from _commands(child, f"{path} {word}")


def test_each_command_and_option_has_its_line() -> None:
    from remit.cli.main import cli

    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    missing = []
    for path, command in _commands(cli, "remit"):
        if f"`{path}" not in text:
            missing.append(path)
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        missing += [
            f"{path} {option.opts[-1]}"
            for option in options
            if not any(f"`{flag}" in text or f" {flag}" in text for flag in option.opts)
        ]
    assert missing == []


def _settings(schema: dict[str, Any], top: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every key of the configuration, dotted, from its JSON Schema."""
    if "$ref" in schema:
        schema = top["$defs"][schema["$ref"].rpartition("/")[2]]
    for key, child in schema.get("properties", {}).items():
        here = f"{path}.{key}" if path else key
        yield here
        yield from _settings(child, top, here)
    for part in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            yield from _settings(part, top, path)
    for part in schema.get("anyOf", []) + schema.get("oneOf", []):
        yield from _settings(part, top, path)


def test_each_setting_has_its_line() -> None:
    from remit.config import schema

    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    whole = schema()
    paths = set(_settings(whole, whole))
    assert len(paths) > 50
    assert sorted(p for p in paths if f"| `{p}` |" not in text and f"## {p}\n" not in text) == []


def test_the_shipped_schema_is_the_one_the_settings_make() -> None:
    from remit.config import schema

    shipped = ROOT / "src" / "remit" / "schemas" / "remit.yaml.json"
    assert json.loads(shipped.read_text(encoding="utf-8")) == schema()


def _pages() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


@pytest.mark.parametrize("page", _pages(), ids=name)
def test_each_link_and_named_file_exists(page: Path) -> None:
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    dead = [
        link
        for link in links
        if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists()
    ]
    named = re.findall(r"`((?:src|tests|docs|bench|requirements|\.ci)/[\w./-]+)`", text)
    dead += [path for path in named if not (ROOT / path).exists()]
    assert dead == []


@pytest.mark.parametrize("page", _pages(), ids=name)
def test_each_anchor_is_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    dead = []
    for link, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)]+)\)", text):
        target = page.parent / link if link else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        if anchor not in slugs:
            dead.append(f"{link}#{anchor}")
    assert dead == []
