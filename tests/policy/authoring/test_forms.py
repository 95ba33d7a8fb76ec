"""Forms, arguments and recursion that the two engines read differently are refused."""

from __future__ import annotations

import pytest

from remit.policy import bundle as limits
from remit.policy.bundle import bundle_of
from remit.policy.lint import lint
from tests.policy.authoring.terminal import WHOLE

BELOW = WHOLE.count("\n")


def said(more: str, **others: str) -> list[str]:
    modules = {"p.rego": WHOLE + more, **{f"{name}.rego": text for name, text in others.items()}}
    return [f"{each.place}: {each.message}" for each in lint(bundle_of(modules, {"groups": []}))]


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("x if { not { 1 == 2 } }\n", "`not` stands before braces"),
        ("x if { -input.arguments.a < 2 }\n", "a minus stands before"),
        ("x if input.arguments.if == 1\n", "the keyword if stands as a field"),
        ("f(a) := a\nx := f\n", "the function f is named without being called"),
        ("x := [1 | x[_]]\n", "a rule uses itself"),
        ("x := {y | some y in data.remit}\n", "a rule uses itself"),
        ("x if y\ny if x\n", "a rule uses itself"),
        ("x contains o.id if some o in input.approvals\n", "the head of `x` may have no value"),
        ('x if regex.match("^\\\\d+$", input.phase)\n', "the engines differ on \\d"),
        ("x if regex.match(`\\bword`, input.phase)\n", "the engines differ on \\b"),
        ('x if regex.match("[a-c&&b]", input.phase)\n', "the engines differ on &&"),
        ('x if regex.match("a{1,1001}", input.phase)\n', "repeats more than 1000 times"),
        ('x := regex.replace("a", "\\\\w", "b")\n', "the engines differ on \\w"),
        ('x if glob.match("a?", [], input.phase)\n', "the engines differ on ?"),
        ('x if glob.match("**/a", ["/"], input.phase)\n', "the engines differ on **/"),
        ('x if glob.match("[^a]", [], input.phase)\n', "the engines differ on [^"),
        ('x := sprintf("%5d", [1])\n', "the engines differ on %5 in sprintf"),
        ('x := sprintf("%s %s", ["a"])\n', "sprintf has 2 verbs and 1 values"),
        ('x := sprintf("a", ["a"])\n', "sprintf has 0 verbs and 1 values"),
        ('x := sprintf("50%", [])\n', "the engines differ on % in sprintf"),
        ('x := time.parse_duration_ns("1d")\n', "knows no days"),
        ('x := indexof("a", "")\n', "looks for is not a text written here"),
        ('x := indexof("a", input.phase)\n', "looks for is not a text written here"),
    ],
)
def test_what_the_engines_read_differently_is_refused_with_its_line(
    rule: str, message: str
) -> None:
    (told, *_) = [line for line in said(rule) if message in line]
    assert told.split(":")[1] in (str(BELOW + 1), str(BELOW + 2))


@pytest.mark.parametrize(
    "rule",
    [
        "x := 5 - 3\ny := -3\n",
        'x if input.arguments["if"] == 1\n',
        "x := {1, 2}\ny if not 3 in {1, 2}\n",
        "f(a) := a\nx := f(1)\ng(f) := f\n",
        "x[key] := value if { some key, value in data.groups }\ny := x.a\n",
        'x if regex.match("^[0-9]+[[:alpha:]]\\\\.\\\\x{41}$", input.phase)\n',
        'x if glob.match("{a,b}-*", [], input.phase)\n',
        'x := sprintf("%s is %d of 100 %%: %v %x", ["a", 1, true, 255])\n',
        'x := time.parse_duration_ns("24h30m")\n',
        'x := indexof("abc", "c")\n',
        "f(n) := n + 1\nx := f(f(1))\n",
    ],
)
def test_what_both_engines_read_alike_is_taken(rule: str) -> None:
    assert said(rule) == []


def test_recursion_through_another_package_is_found() -> None:
    other = "package remit.other\nimport rego.v1\ny if data.remit.x\n"
    told = said("x if data.remit.other.y\n", other=other)
    assert [line.split(": ")[1] for line in told] == ["a rule uses itself", "a rule uses itself"]


def test_bundle_that_was_not_read_from_files_is_held_to_the_same_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_MODULES", 1)
    monkeypatch.setattr(limits, "MAX_MODULE_BYTES", len(WHOLE.encode()))
    monkeypatch.setattr(limits, "MAX_DATA_BYTES", len('{"groups":[]}'))
    assert said("") == []
    assert said("# more\n") == ["p.rego: is larger than 0 KiB"]
    assert "the policy: has more than 1 modules" in said("", a="package remit.a\nimport rego.v1\n")
    monkeypatch.setattr(limits, "MAX_DATA_BYTES", 3)
    assert said("") == ["data.json: the data is larger than 0 MiB"]


def test_each_entry_needs_its_two_rules() -> None:
    other = "package remit.other\nimport rego.v1\nx := 1\n"
    bundle = bundle_of(
        {"p.rego": WHOLE, "o.rego": other}, {"groups": []}, entries=("remit", "remit.other")
    )
    assert [each.place for each in lint(bundle)] == ["package remit.other"] * 2
