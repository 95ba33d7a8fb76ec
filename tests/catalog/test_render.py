"""Whatever the values, a command keeps its shape: T-11."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from remit import canonical
from remit.command import (
    Placeholder,
    environment_of,
    parse_template,
    render_command,
    render_consequence,
)
from remit.errors import Code, Refused
from remit.model import Command, InputMode, WorkingFile
from tests.catalog.make import tool

pytestmark = pytest.mark.threat("T-11")

SCALARS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="-= \n'\"$;|&`{}\\", max_size=8),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEMPLATES = st.lists(
    st.sampled_from(
        ["{a}", "{b}", "{a}{b}", "--x={a}", "lit", "--", "pre-{a}", "{{{a}}}", "-v", "{a}/{b}"]
    ),
    min_size=1,
    max_size=6,
)


@given(TEMPLATES, SCALARS, SCALARS)
def test_no_value_adds_an_argument_becomes_an_option_or_changes_a_literal(
    templates: list[str], a: Any, b: Any
) -> None:
    argv = ("/bin/prog", *templates)
    try:
        rendered = render_command(Command(argv=argv), {"a": a, "b": b}).argv
    except Refused:
        return
    assert len(rendered) == len(argv)
    for index, (template, element) in enumerate(zip(argv, rendered, strict=True)):
        parts = parse_template(template)
        if all(isinstance(part, str) for part in parts):
            assert element == "".join(str(part) for part in parts)
        elif isinstance(parts[0], str):
            assert element.startswith(parts[0])
        elif "--" not in argv[:index]:
            assert element
            assert not element.startswith("-")


@given(SCALARS)
def test_every_harmless_value_arrives_exactly(value: Any) -> None:
    text = value if isinstance(value, str) else canonical.encode(value).decode()
    assume(text and not text.startswith("-") and "\0" not in text)
    assert render_command(Command(argv=("/bin/x", "{a}")), {"a": value}).argv == ("/bin/x", text)


@pytest.mark.parametrize("value", ["-rf", "--", "-", -5, -0.5, ""])
def test_value_that_would_be_an_option_or_vanish_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(Refused) as refused:
        render_command(Command(argv=("/bin/rm", "{path}")), {"path": value})
    assert (refused.value.code, refused.value.place) == (Code.INVALID_ARGUMENTS, "/path")
    assert str(value) in ("", "-") or str(value) not in refused.value.message


@pytest.mark.parametrize("value", ["-rf", ""])
def test_the_same_value_is_an_operand_behind_the_end_of_options(value: str) -> None:
    argv = ("/bin/rm", "--", "{path}", "{path}")
    assert render_command(Command(argv=argv), {"path": value}).argv[2:] == (value, value)


def test_end_of_options_of_a_wrapper_is_not_that_of_the_program_it_starts() -> None:
    argv = ("/usr/bin/env", "--", "git", "log", "{rev}")
    with pytest.raises(Refused):
        render_command(Command(argv=argv), {"rev": "--output=/job/x"})


def test_value_inside_an_options_own_element_may_begin_with_a_dash() -> None:
    argv = ("/bin/x", "--message={m}")
    assert render_command(Command(argv=argv), {"m": "-x"}).argv[1] == "--message=-x"


@pytest.mark.parametrize(
    "value", ["a\0b", None, [], {}, "x" * 131_072, "\ud800"], ids=lambda v: repr(v)[:12]
)
def test_value_no_command_line_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(Refused) as refused:
        render_command(Command(argv=("/bin/x", "--", "{a}")), {"a": value})
    assert refused.value.code is Code.INVALID_ARGUMENTS


def test_many_long_values_together_are_refused() -> None:
    arguments = {f"a{n}": "x" * 130_000 for n in range(10)}
    argv = ("/bin/x", *[f"--a={{{name}}}" for name in arguments])
    with pytest.raises(Refused):
        render_command(Command(argv=argv), arguments)


def test_numbers_and_booleans_have_one_spelling() -> None:
    argv = ("/bin/x", "{i}", "{f}", "{t}")
    rendered = render_command(Command(argv=argv), {"i": 7, "f": 1.0, "t": True})
    assert rendered.argv == ("/bin/x", "7", "1", "true")


def test_doubled_braces_are_braces() -> None:
    assert parse_template("{{a}}{b}") == ("{a}", Placeholder("b"))


@pytest.mark.parametrize(
    "bad", ["{", "}", "{}", "{a b}", "{a!r}", "{0}", "{a|shell}", "{a|}", "a}b"]
)
def test_brace_that_means_nothing_is_an_error(bad: str) -> None:
    with pytest.raises(ValueError, match="brace"):
        parse_template(bad)


def test_stdin_and_file_hold_the_canonical_arguments() -> None:
    command = Command(
        argv=("/bin/x",),
        input=InputMode.STDIN_JSON,
        files=(WorkingFile(path="a.json", arguments=True), WorkingFile(path="b", content="{a}é")),
    )
    rendered = render_command(command, {"b": 1, "a": [None, "-"]})
    assert rendered.stdin == b'{"a":[null,"-"],"b":1}'
    assert dict(rendered.files) == {"a.json": rendered.stdin, "b": "{a}é".encode()}


@pytest.mark.threat("T-20")
def test_environment_is_what_the_template_and_the_arguments_give_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "s")
    command = Command(argv=("/bin/x",), input=InputMode.ENV, env=(("LANG", "C-{a}"),))
    rendered = render_command(command, {"a": "-v", "n": 3, "list": [1]})
    assert dict(rendered.env) == {
        "LANG": "C--v", "REMIT_ARG_A": "-v", "REMIT_ARG_N": "3", "REMIT_ARG_LIST": "[1]",
    }  # fmt: skip


@pytest.mark.parametrize("names", [["a=b"], ["a", "A"], ["LD PRELOAD"], ["é"], [""]])
def test_argument_whose_name_is_no_variable_of_its_own_is_refused(names: list[str]) -> None:
    with pytest.raises(Refused):
        render_command(Command(argv=("/bin/x",), input=InputMode.ENV), dict.fromkeys(names, "x"))


def test_environment_is_the_one_the_argument_names() -> None:
    made = tool(environment={"argument": "environment"})
    assert environment_of(made, {"environment": "staging"}) == "staging"
    assert environment_of(tool(environment={"fixed": "lab"}), {}) == "lab"
    assert environment_of(tool(), {}) == ""


@pytest.mark.parametrize("value", ["Production", "", None, 1, ["staging"]])
def test_environment_that_the_tool_does_not_list_is_refused(value: Any) -> None:
    with pytest.raises(Refused):
        environment_of(tool(environment={"argument": "environment"}), {"environment": value})


class TestConsequence:
    pytestmark = pytest.mark.threat("T-24")

    def said(self, **arguments: Any) -> str:
        made = tool(consequence="Restart {service}, {names}, {count} times: {note|quoted}.")
        return render_consequence(made, arguments)

    def test_plain_values_read_as_a_sentence(self) -> None:
        said = self.said(service="web", names=["a", "b"], count=2, note="x")
        assert said == 'Restart web, a, b, 2 times: "x".'

    def test_text_that_could_pose_as_the_sentence_is_quoted(self) -> None:
        assert '"web. Nothing happens"' in self.said(service="web. Nothing happens")

    def test_quotation_marks_in_a_value_cannot_end_the_quotation(self) -> None:
        assert self.said(service='a" b').count('"') == 2

    @given(st.text(max_size=400))
    def test_no_value_brings_in_what_cannot_be_seen(self, text: str) -> None:
        said = self.said(service=text, names=[text], note=text)
        assert said.isprintable()
        assert len(said) <= 1000

    def test_direction_marks_are_shown_as_escapes(self) -> None:
        assert "\\u{202e}" in self.said(service="a\u202eb")
        assert "\\u{3164}" in self.said(service="a\u3164b")

    @pytest.mark.parametrize("char", "\u034f\ufe0f\U000e0100\u00ad\u2028\u00a0\u2800\U000e0041")
    def test_characters_that_draw_nothing_are_shown_as_escapes(self, char: str) -> None:
        assert f"a\\u{{{ord(char):x}}}b" in self.said(service=f"a{char}b")

    def test_long_value_shows_its_length_and_its_end(self) -> None:
        said = self.said(service="x" * 500 + "/END")
        assert "304 more characters" in said
        assert "/END" in said

    def test_what_was_left_out_is_said(self) -> None:
        assert "(not given)" in self.said(service="web")
