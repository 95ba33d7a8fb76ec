"""What an operator may write as a tool, and what each mistake says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from remit.catalog.command import tool_digest
from remit.catalog.spec import ToolSpec
from remit.catalog.store import CommandCatalog
from remit.errors import Code, ConfigError
from remit.model import Effect, InputMode, Risk, Taint
from tests.catalog.make import SCHEMA, described, refused, tool, with_argv


def test_a_tool_is_what_its_description_says() -> None:
    made = tool()
    assert made.effect is Effect.WRITE
    assert made.command.argv[-1] == "{service}"
    assert made.digest.startswith("sha256:")
    assert made.input_schema.value()["additionalProperties"] is False


@pytest.mark.parametrize(
    ("effect", "risk"),
    [("read", Risk.LOW), ("write", Risk.MEDIUM), ("destructive", Risk.HIGH)],
)
def test_risk_follows_from_the_effect_unless_said(effect: str, risk: Risk) -> None:
    assert tool(effect=effect).risk is risk
    assert tool(effect=effect, risk="critical").risk is Risk.CRITICAL


CHANGES: dict[str, dict[str, Any]] = {
    "name": {"name": "restart2"},
    "title": {"title": "x"},
    "description": {"description": "x"},
    "schema": {"input_schema": {**SCHEMA, "title": "x"}},
    "argv": with_argv("/usr/bin/systemctl", "stop", "--", "{service}"),
    "env": {"command": {"argv": ["/bin/true"], "env": {"A": "b"}}},
    "effect": {"effect": "destructive", "risk": "medium"},
    "risk": {"risk": "low"},
    "idempotent": {"idempotent": True},
    "on_cancel": {"on_cancel": "stop"},
    "environment": {"environment": {"fixed": "production"}},
    "result": {"result": "json"},
    "preview": {"preview": {"command": {"argv": ["/bin/true"]}}},
    "consequence": {"consequence": "x"},
    "limits": {"limits": {"wall_s": 31}},
    "tags": {"tags": ["x"]},
    "system": {"system": "tickets"},
    "open_world": {"open_world": True},
    "returns": {"returns": ["untrusted"]},
}


@pytest.mark.threat("T-10")
@pytest.mark.parametrize("what", sorted(CHANGES))
def test_any_change_to_a_tool_changes_its_digest(what: str) -> None:
    assert tool(**CHANGES[what]).digest != tool().digest


def test_digest_is_the_same_for_the_same_tool_and_checks_itself() -> None:
    assert tool().digest == tool().digest == tool_digest(tool())


def test_effect_has_no_default() -> None:
    with pytest.raises(ValidationError, match="effect"):
        ToolSpec.model_validate(described(effect=None))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, "é", "a\n"])
def test_name_outside_the_protocols_letters_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        ToolSpec.model_validate(described(name=name))


@pytest.mark.threat("T-11")
class TestArgv:
    def test_misspelt_placeholder_says_which_is_meant(self) -> None:
        error = refused(**with_argv("/bin/x", "{servce}"))
        assert error.place == "command.argv[1]"
        assert "did you mean service?" in str(error.hint)

    @pytest.mark.parametrize("name", ["note", "names"])
    def test_placeholder_that_may_be_absent_or_compound_is_refused(self, name: str) -> None:
        assert "required" in str(refused(**with_argv("/bin/x", f"{{{name}}}")).hint)

    def test_argument_with_a_default_can_be_a_placeholder(self) -> None:
        tool(**with_argv("/bin/x", "{count}"))

    @pytest.mark.parametrize("program", ["git", "./x", "{service}", "/usr/bin/../x", "/usr//x", ""])
    def test_program_that_is_not_an_absolute_path_is_refused(self, program: str) -> None:
        assert refused(**with_argv(program)).place == "command.argv[0]"

    @pytest.mark.parametrize(
        "element", ["-{service}", "--{service}", "-n{count}", "--x{service}=1"]
    )
    def test_value_that_could_choose_an_option_is_refused(self, element: str) -> None:
        assert "option" in refused(**with_argv("/bin/x", element)).message

    @pytest.mark.parametrize("element", ["--x={service}", "-target={service}", "a{service}"])
    def test_value_behind_an_equals_sign_is_allowed(self, element: str) -> None:
        tool(**with_argv("/bin/x", element))

    @pytest.mark.parametrize(
        "argv",
        [
            ["/bin/sh", "-c", "systemctl restart {service}"],
            ["/bin/sh", "-c", "{service}"],
            ["/bin/bash", "-euo", "pipefail", "-c", "echo {service}"],
            ["/bin/bash", "-ec", "echo {service}"],
            ["/usr/bin/env", "sh", "-c", "echo {service}"],
            ["/usr/bin/timeout", "5", "/bin/dash", "-c", "echo {service}"],
            ["/bin/busybox", "sh", "-c", "echo {service}"],
            ["/usr/bin/python3", "-c", "print('{service}')"],
            ["/usr/bin/python3.11", "-c", "print('{service}')"],
            ["/usr/bin/perl", "-ne", "print {count}"],
            ["/usr/bin/node", "--eval", "f('{service}')"],
            ["/usr/bin/node", "--eval={service}"],
            ["/usr/bin/perl", "-e$x={count}"],
            ["/bin/su", "root", "-c", "echo {service}"],
            ["/bin/sh", "-c", 'echo "$1"', "sh", "x {service}"],
            ["/bin/sh", "-c", "-x", "echo {service}"],
        ],
        ids=lambda argv: " ".join(argv)[:40],
    )
    def test_value_in_program_text_is_refused_with_the_mend(self, argv: list[str]) -> None:
        assert "sh -c" in str(refused(**with_argv(*argv)).hint)

    @pytest.mark.parametrize(
        "argv",
        [
            ["/bin/sh", "-c", 'exec systemctl restart -- "$1"', "sh", "{service}"],
            ["/usr/bin/python3", "-c", "import sys; print(sys.argv)", "{service}"],
            ["/usr/bin/python3", "-I", "script.py", "--name={service}"],
            ["/usr/bin/git", "-c", "core.pager=cat", "log", "a{service}"],
            ["/usr/bin/terraform", "plan", "--command={service}"],
        ],
        ids=lambda argv: " ".join(argv)[:40],
    )
    def test_value_as_an_argument_of_its_own_is_allowed(self, argv: list[str]) -> None:
        tool(**with_argv(*argv))


@pytest.mark.threat("T-11")
class TestSurroundings:
    @pytest.mark.parametrize(
        "name", ["LD_PRELOAD", "PATH", "PYTHONPATH", "BASH_ENV", "IFS", "GIT_SSH_COMMAND", "HOME"]
    )
    def test_value_in_a_loaders_variable_is_refused(self, name: str) -> None:
        command = {"argv": ["/bin/true"], "env": {name: "/x/{service}"}}
        assert refused(command=command).place == f"command.env.{name}"

    def test_operators_own_text_in_that_variable_is_allowed(self) -> None:
        tool(command={"argv": ["/bin/true"], "env": {"PATH": "/usr/bin", "WHO": "{service}"}})

    @pytest.mark.parametrize("name", ["A=B", "", "A B", "REMIT_ARG_X"])
    def test_variable_with_another_name_is_refused(self, name: str) -> None:
        refused(command={"argv": ["/bin/true"], "env": {name: "x"}})

    @pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../b", "", ".", "a//b", "a\0"])
    def test_working_file_outside_the_job_directory_is_refused(self, path: str) -> None:
        refused(command={"argv": ["/bin/true"], "files": [{"path": path}]})

    @pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"]])
    def test_working_files_in_each_others_way_are_refused(self, paths: list[str]) -> None:
        refused(command={"argv": ["/bin/true"], "files": [{"path": path} for path in paths]})

    @pytest.mark.threat("T-16")
    @pytest.mark.parametrize("source", ["/", "/proc", "/sys/fs", "/dev", "/run", "x", "/a/../b"])
    def test_mount_that_would_undo_the_sandbox_is_refused(self, source: str) -> None:
        refused(command={"argv": ["/bin/true"], "mounts": [{"name": "m", "source": source}]})

    def test_read_tool_and_preview_may_not_write_to_a_mount(self) -> None:
        command = {
            "argv": ["/bin/true"],
            "mounts": [{"name": "m", "source": "/srv", "writable": True}],
        }
        assert refused(command=command, effect="read").place == "command.mounts"
        assert refused(preview={"command": command}).place == "preview.command.mounts"
        tool(command=command)


def test_file_input_brings_the_arguments_in_a_file() -> None:
    made = tool(command={"argv": ["/bin/cat", "arguments.json"], "input": "file"})
    assert made.command.input is InputMode.FILE
    assert [(file.path, file.arguments) for file in made.command.files] == [
        ("arguments.json", True)
    ]


def test_env_input_whose_names_collide_or_are_open_is_refused() -> None:
    command = {"argv": ["/bin/true"], "input": "env"}
    both = {"type": "object", "properties": {"a": {"type": "string"}, "A": {"type": "string"}}}
    refused(command=command, input_schema=both)
    refused(command=command, input_schema={"type": "object", "additionalProperties": True})


@pytest.mark.parametrize(
    ("environment", "hint"),
    [
        ({"fixed": "a", "argument": "environment"}, "one of the two"),
        ({}, "one of the two"),
        ({"argument": "enviroment"}, "did you mean environment?"),
        ({"argument": "service"}, "enum"),
        ({"argument": "count"}, "enum"),
    ],
)
def test_environment_that_policy_could_not_trust_is_refused(
    environment: dict[str, str], hint: str
) -> None:
    assert hint in str(refused(environment=environment).hint)


@pytest.mark.parametrize(
    "preview",
    [
        {"digest": "file"},
        {"digest_file": "a"},
        {"digest": "normalised"},
        {"normaliser": ["/bin/cat"]},
        {"digest": "file", "digest_file": "../a"},
        {"digest": "normalised", "normaliser": ["cat"]},
    ],
)
def test_preview_that_does_not_say_what_is_digested_is_refused(preview: dict[str, Any]) -> None:
    refused(preview={"command": {"argv": ["/bin/true"]}, **preview})


@pytest.mark.threat("T-24")
@pytest.mark.parametrize("text", ["Restart {servce}.", "a\nb", "a\u202eb", "{"])
def test_consequence_that_names_no_argument_or_hides_text_is_refused(text: str) -> None:
    assert refused(consequence=text).place == "consequence"


@pytest.mark.threat("T-24")
def test_description_with_hidden_characters_is_refused() -> None:
    assert refused(description="Reads\u200b.").place == "description"


def test_default_that_breaks_its_own_rule_is_refused() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}}
    assert refused(input_schema=schema).place == "input_schema.properties.n.default"


def test_output_schema_needs_structured_output() -> None:
    refused(output_schema={"type": "object"})
    assert tool(output_schema={"type": "object"}, result="json").output_schema is not None


def test_catalog_gives_tools_by_exact_name_in_one_order() -> None:
    catalog = CommandCatalog([tool(name="b"), tool(name="a")])
    assert [found.name for found in catalog.tools()] == ["a", "b"]
    assert catalog.tool("a") is catalog.tools()[0]
    assert catalog.tool("A") is None


@pytest.mark.parametrize("other", ["restart", "Restart"])
def test_two_tools_with_one_name_are_refused(other: str) -> None:
    with pytest.raises(ConfigError) as error:
        CommandCatalog([tool(), tool(name=other)])
    assert error.value.code is Code.CATALOG_INVALID
    one = tool()
    with pytest.raises(ConfigError):
        CommandCatalog([one, one])


def test_what_a_tool_acts_on_and_returns_is_the_operators_word() -> None:
    plain = tool()
    assert (plain.system, plain.open_world, plain.returns) == ("command", False, ())
    said = tool(system="tickets", open_world=True, returns=["untrusted", "sensitive", "untrusted"])
    assert (said.system, said.open_world) == ("tickets", True)
    assert said.returns == (Taint.SENSITIVE, Taint.UNTRUSTED)


@pytest.mark.parametrize("system", ["", "*", "Tickets", "a b", "a/b", "-a", "x" * 65])
def test_a_system_is_one_plain_word(system: str) -> None:
    with pytest.raises(ValidationError):
        ToolSpec.model_validate(described(system=system))


@pytest.mark.parametrize("name", ["remit_can_i", "remit_", "Remit_anything"])
def test_the_gateways_own_names_are_not_to_be_had(name: str) -> None:
    assert "gateway's own" in refused(name=name).message
    assert tool(name="remit-tool").name == "remit-tool"
