"""What the portable profile refuses is found when a policy is loaded, with its line and a mend."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import PolicyFault
from remit.policy.builtins import ALLOWED, REFUSED, why_refused
from remit.policy.bundle import bundle_of
from remit.policy.lint import Finding, lint
from remit.policy.process import run_once, try_frame
from tests.policy.world import HEAD

LINES = HEAD.count("\n")
VISIBLE = "package remit\nimport rego.v1\nimport future.keywords.not\nvisible := {}\n"


def _lint(*modules: str, data: dict[str, Any] | None = None, test: str = "") -> list[Finding]:
    texts = {f"m{number}.rego": text for number, text in enumerate(modules)}
    texts["visible.rego"] = VISIBLE
    return lint(bundle_of(texts, data or {}, {"m_test.rego": test} if test else {}))


def _said(*modules: str, **more: Any) -> list[str]:
    return [f"{each.place}: {each.message}" for each in _lint(*modules, **more)]


def test_clean_policy_has_no_finding() -> None:
    helper = "package remit.lib\nimport rego.v1\nimport future.keywords.not\ng(x) := x\n"
    using = 'f(x) := lower(x)\nx := f("A")\ny := lib.g(1)\nz := data.remit.lib.g(2)\n'
    text = HEAD.replace("import rego.v1\n", "import rego.v1\nimport data.remit.lib\n") + using
    assert _lint(text, helper) == []


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("name", ["rego.v1", "future.keywords.not"])
def test_missing_import_is_found_even_where_a_comment_or_string_names_it(name: str) -> None:
    text = HEAD.replace(f"import {name}\n", f"# import {name}\n")
    text += f'x := "import {name}" if not input.y\n'
    said = _said(text)
    assert f"m0.rego:1: the module does not import {name}" in said


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("name", ["rego.v1", "future.keywords.not"])
def test_missing_import_is_found_in_each_module_and_in_tests(name: str) -> None:
    other = "package remit.other\nimport rego.v1\nimport future.keywords.not\nx if not input.y\n"
    bad = other.replace(f"import {name}\n", "")
    assert _said(HEAD, bad) == [f"m1.rego:1: the module does not import {name}"]
    assert _said(HEAD, test=bad) == [f"m_test.rego:1: the module does not import {name}"]


def test_module_without_not_needs_no_import_of_it_as_opa_fmt_leaves_it() -> None:
    assert _lint(HEAD.replace("import future.keywords.not\n", "")) == []
    nested = HEAD.replace("import future.keywords.not\n", "") + "x := [1 | not input.y]\n"
    assert _said(nested) == ["m0.rego:1: the module does not import future.keywords.not"]


CALLS = {
    "http.send": 'http.send({"method": "get", "url": "http://127.0.0.1"})',
    "time.now_ns": "time.now_ns()",
    "rand.intn": 'rand.intn("a", 5)',
    "uuid.rfc4122": 'uuid.rfc4122("a")',
    "opa.runtime": "opa.runtime()",
    "io.jwt.decode": 'io.jwt.decode("a")',
    "crypto.sha256": 'crypto.sha256("a")',
    "net.lookup_ip_addr": 'net.lookup_ip_addr("localhost")',
    "strings.count": 'strings.count("11", "1")',
    "json.match_schema": "json.match_schema({}, {})",
    "graph.reachable_paths": 'graph.reachable_paths({}, ["a"])',
    "rego.metadata.rule": "rego.metadata.rule()",
    "trace": 'trace("a")',
    "object.subset": "object.subset([1], [])",
    "json.patch": "json.patch({}, [])",
    "units.parse": 'units.parse("1Q")',
    "urlquery.decode": 'urlquery.decode("%")',
}


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("name", list(CALLS))
def test_refused_builtin_is_found_with_its_line(name: str) -> None:
    for text in (f"x := {CALLS[name]}\n", f"x if {{\n\tnot {CALLS[name]} }}\n"):
        (finding, *_) = _lint(HEAD + "\n" + text)
        assert finding.message == f"the builtin {name} is refused"
        assert finding.place in (f"m0.rego:{LINES + 2}", f"m0.rego:{LINES + 3}")
        assert finding.mend


def test_builtin_only_named_in_a_comment_or_string_is_no_finding() -> None:
    assert _lint(HEAD + '# http.send(1)\nx := "http.send(1) time.now_ns()"\n') == []


@pytest.mark.threat("T-12")
def test_refused_builtin_is_found_behind_an_alias_too() -> None:
    text = HEAD.replace("import rego.v1\n", "import rego.v1\nimport data.remit as http\n")
    assert any("http.send is refused" in line for line in _said(text + "x := http.send({})\n"))


def test_name_that_is_no_function_is_found() -> None:
    (said,) = _said(HEAD + "x := no.such_thing(1)\n")
    assert "no.such_thing is neither a builtin" in said


def test_allowed_and_refused_builtins_do_not_overlap() -> None:
    assert [name for name in sorted(ALLOWED) if why_refused(name)] == []
    assert all(REFUSED.values())


@pytest.mark.slow
def test_each_allowed_builtin_exists_in_the_engine() -> None:
    """The engine says so by complaining about arguments, not about the name."""
    missing = []
    for name in sorted(ALLOWED):
        text = f"package probe\nimport rego.v1\nx := {name}()\n"
        frame = try_frame({"a.rego": text}, {}, ["data.probe.x"], {})
        try:
            told = run_once(frame).decode()
        except PolicyFault as fault:
            told = fault.message
        if "could not find function" in told:
            missing.append(name)
    assert missing == []


@pytest.mark.threat("T-12")
def test_policy_must_have_a_default_that_denies() -> None:
    without = HEAD.replace("default decision", "default verdict")
    assert _said(without) == ["package remit: there is no default for the rule `decision`"]
    allowing = HEAD.replace('"decision": "deny"', '"decision": "allow"')
    assert _said(allowing) == ["m0.rego:4: the default of `decision` is not a denial"]
    elsewhere = without.replace("package remit\n", "package remit.other\n")
    assert len(_said(elsewhere)) == 1
    in_test = HEAD.replace("default verdict", "default decision")
    assert "no default" in _said(without, test=in_test)[0]


@pytest.mark.threat("T-12")
def test_data_may_not_replace_rules() -> None:
    (finding,) = _lint(HEAD, data={"remit": {"decision": {"decision": "allow"}}})
    assert "would replace rules" in finding.message


def test_package_outside_the_root_is_found() -> None:
    other = "package system.authz\nimport rego.v1\nimport future.keywords.not\nx := 1\n"
    assert _said(HEAD, other) == ["m1.rego:1: the package system.authz is not under `remit`"]
    close = other.replace("system.authz", "remitted")
    assert _said(HEAD, close) == ["m1.rego:1: the package remitted is not under `remit`"]


def test_with_is_for_tests_only() -> None:
    text = "x if { decision with input as {} }\n"
    assert _said(HEAD + text) == [f"m0.rego:{LINES + 1}: `with` stands outside a test"]
    test = "package remit\nimport rego.v1\nimport future.keywords.not\ntest_" + text
    assert _lint(HEAD, test=test) == []


def test_import_of_a_later_language_is_found() -> None:
    text = HEAD.replace("import rego.v1\n", "import rego.v1\nimport rego.v2\n")
    assert _said(text) == ["m0.rego:3: the import rego.v2 is not in the portable profile"]


@pytest.mark.threat("T-27")
@pytest.mark.parametrize(
    "text",
    [
        "f(n) := f(n + 1)\n",
        "f(n) := g(n)\ng(n) := data.remit.f(n)\n",
        "f(n) := [m | some m in [1]; m == f(n)]\n",
    ],
)
def test_function_that_calls_itself_is_found(text: str) -> None:
    assert any("calls itself" in line for line in _said(HEAD + text))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x := \n", f"m0.rego:{LINES + 2}:1"),
        ("x if { y }\n", f"m0.rego:{LINES + 1}:8"),
        ('x := $"a {1}"\n', f"m0.rego:{LINES + 1}:6"),
        ("x = 1 { true }\n", f"m0.rego:{LINES + 1}:7"),
    ],
)
def test_what_the_engine_cannot_read_is_found_with_its_place(text: str, place: str) -> None:
    (finding,) = _lint(HEAD + text)
    assert finding.place == place
    assert finding.message
    assert "backtrace" not in finding.message


def test_error_counts_what_else_is_wrong() -> None:
    findings = _lint("package other\nx if not input.y\n")
    assert len(findings) == 3
    assert "(and 2 more)" in str(findings[0].error(of=3))
