"""`remit tools check`: what arguments would run, and previews tried out in a real sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Remit
from tests.runners.fixtures import reachable

pytestmark = pytest.mark.slow

__all__ = ["reachable"]

sandboxed = pytest.mark.needs("bwrap", "userns", "cgroup")


@pytest.fixture
def tools(home: Path) -> Any:
    """Put tools with these previews into the configuration; each is called by its name."""

    def put(**previews: dict[str, Any]) -> Path:
        path = home / "remit.yaml"
        whole = yaml.safe_load(path.read_text())
        whole["catalog"] = {
            "tools": [
                {
                    "name": name,
                    "description": "For a test.",
                    "effect": "destructive",
                    "input_schema": {
                        "type": "object",
                        "properties": {"word": {"type": "string", "maxLength": 40}},
                        "required": ["word"],
                        "additionalProperties": False,
                    },
                    "command": {"argv": ["/bin/echo", "--", "{word}"]},
                    "consequence": "Say {word}.",
                    "preview": preview,
                }
                for name, preview in previews.items()
            ]
        }
        path.write_text(yaml.safe_dump(whole))
        return path

    return put


def check(remit: Remit, tool: str, word: str = "hello") -> tuple[int, dict[str, Any]]:
    ended = remit("tools", "check", tool, "--arguments", json.dumps({"word": word}), "-o", "json")
    return ended.code, json.loads(ended.out) if ended.out else {}


def sh(script: str) -> dict[str, Any]:
    return {"command": {"argv": ["/bin/sh", "-c", script]}}


@sandboxed
@pytest.mark.threat("T-25")
def test_preview_that_gives_the_same_twice_is_well(remit: Remit, tools: Any) -> None:
    tools(steady={"command": {"argv": ["/bin/echo", "would say", "{word}"]}})
    code, found = check(remit, "steady")
    assert (code, found["preview"]["same"]) == (0, True)
    assert found["preview"]["first"] == found["preview"]["second"]
    assert found["preview"]["text"] == "would say hello\n"
    assert found["argv"] == ["/bin/echo", "--", "hello"]
    assert found["consequence"] == "Say hello."


@sandboxed
@pytest.mark.threat("T-25")
@pytest.mark.parametrize("script", ["date +%s", "cat /proc/sys/kernel/random/uuid"])
def test_preview_with_a_time_or_a_random_word_in_it_is_refused_with_the_difference(
    remit: Remit, tools: Any, script: str
) -> None:
    tools(unsteady=sh(f"echo always; {script}"))
    code, found = check(remit, "unsteady")
    assert (code, found["preview"]["same"]) == (1, False)
    changed = [line for line in found["preview"]["difference"].splitlines() if line[0] in "+-"]
    assert len(changed) == 4
    assert not any("always" in line for line in changed)
    ended = remit("tools", "check", "unsteady", "--arguments", '{"word": "x"}')
    assert "it could never be approved" in ended.out


@sandboxed
def test_normaliser_takes_out_what_changes(remit: Remit, tools: Any) -> None:
    normaliser = ["/bin/sed", "-e", "/^at /d"]
    tools(
        cleaned=sh("echo plan; date '+at %s'") | {"digest": "normalised", "normaliser": normaliser}
    )
    code, found = check(remit, "cleaned")
    assert (code, found["preview"]["same"], found["preview"]["difference"]) == (0, True, "")


@sandboxed
def test_file_is_digested_and_not_what_is_printed(remit: Remit, tools: Any) -> None:
    tools(
        filed=sh("date +%s; echo plan >plan.out") | {"digest": "file", "digest_file": "plan.out"},
        absent=sh("true") | {"digest": "file", "digest_file": "plan.out"},
    )
    assert check(remit, "filed")[0] == 0
    ended = remit("tools", "check", "absent", "--arguments", '{"word": "x"}')
    assert (ended.code, "error[preview_failed]" in ended.err) == (1, True)


@sandboxed
def test_preview_that_fails_says_how_and_what_it_printed(remit: Remit, tools: Any) -> None:
    tools(fails=sh("echo cannot see the state >&2; exit 3"))
    ended = remit("tools", "check", "fails", "--arguments", '{"word": "x"}')
    assert ended.code == 1
    assert "status 3: cannot see the state" in ended.err


@sandboxed
def test_check_leaves_no_record_and_no_files(home: Path, remit: Remit, tools: Any) -> None:
    tools(steady={"command": {"argv": ["/bin/echo", "{word}"]}})
    before = sorted((home / ".remit").rglob("*"))
    assert check(remit, "steady")[0] == 0
    assert sorted((home / ".remit").rglob("*")) == before


def test_without_a_sandbox_it_could_not_find_out(home: Path, remit: Remit, tools: Any) -> None:
    path = tools(steady={"command": {"argv": ["/bin/echo", "{word}"]}})
    path.write_text(path.read_text() + "runners: {sandbox: {bwrap: /nonexistent/bwrap}}\n")
    ended = remit("tools", "check", "steady", "--arguments", '{"word": "x"}')
    assert (ended.code, "error[runner_unavailable]" in ended.err) == (3, True)
    assert "hint: " in ended.err


@pytest.mark.threat("T-11")
def test_arguments_are_checked_before_anything_runs(remit: Remit, tools: Any) -> None:
    tools(steady={"command": {"argv": ["/bin/echo", "{word}"]}})
    ended = remit("tools", "check", "steady", "--arguments", '{"word": "-x", "more": 1}')
    assert (ended.code, "error[invalid_arguments]" in ended.err) == (1, True)


@sandboxed
@pytest.mark.threat("T-23")
def test_hostile_output_of_a_preview_does_not_reach_the_terminal(remit: Remit, tools: Any) -> None:
    tools(rude=sh(r"printf '\033[2Jgone\n'"))
    ended = remit("tools", "check", "rude", "--arguments", '{"word": "x"}')
    assert ended.code == 0
    assert "\x1b" not in ended.out
