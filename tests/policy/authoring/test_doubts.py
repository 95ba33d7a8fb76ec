"""Warnings: each is given where it is meant, not where it is not, and none refuses a policy."""

from __future__ import annotations

import pytest

from remit.policy.bundle import bundle_of, read_bundle
from remit.policy.doubts import doubts
from remit.policy.finding import Severity
from remit.policy.lint import lint
from tests.policy.authoring.terminal import IMPORTS, WHOLE
from tests.policy.world import STARTER

BELOW = WHOLE.count("\n")


def said(more: str, whole: str = WHOLE) -> list[str]:
    found = doubts(bundle_of({"p.rego": whole + more}, {}))
    assert {each.severity for each in found} <= {Severity.WARNING}
    assert all(each.mend for each in found)
    return [f"{each.place}: {each.message}" for each in found]


def test_small_and_starter_policy_have_no_warning() -> None:
    assert said("") == []
    assert doubts(read_bundle(STARTER)) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("x := 1.5\n", "a number with a fraction"),
        ("x if input.callr.subject\n", "the input has no field input.callr"),
        ("x if input.tool.nam\n", "the input has no field input.tool.nam"),
        ('x if input["context"].tim\n', "the input has no field input.context.tim"),
        (
            'x if input.arguments.service != "a"\n',
            "`!=` is undefined where input.arguments.service",
        ),
        ('x if "a" != input.arguments.a.b\n', "`!=` is undefined where input.arguments.a.b"),
        ('deny contains sprintf("%s", [x]) if x := input.phase\n', "sprintf in a denial"),
        (
            "denials contains input.arguments.name if true\n",
            "a denial is built with input.arguments",
        ),
        ('denials contains {"at": input.arguments.a} if true\n', "a denial is built with"),
    ],
)
def test_each_doubt_is_told_with_its_line(rule: str, message: str) -> None:
    (told,) = [line for line in said(rule) if message in line]
    assert told.startswith(f"p.rego:{BELOW + 1}: ")


@pytest.mark.parametrize(
    "rule",
    [
        "x := 15\n",
        "x if input.arguments.anything.at.all\n",
        "x if input.caller.subject\n",
        "x if { some k; input.context[k] }\n",
        "x if input.preview.data.deep.field\n",
        "x if input.usage.calls > 1\n",
        'x if input.phase != "list"\n',
        'x if not input.arguments.service == "a"\n',
        'denials contains {"at": object.get(input.arguments, "a", "")} if true\n',
        'text contains sprintf("%s", [x]) if x := input.phase\n',
        'denials contains "fixed" if not input.arguments.a\n',
    ],
)
def test_what_is_meant_is_not_doubted(rule: str) -> None:
    assert said(rule) == []


def test_not_in_what_a_grant_needs_is_doubted_and_in_a_denial_it_is_not() -> None:
    granting = WHOLE.replace("\tgroup in data.groups\n", "\tgroup in data.groups\n\tnot bad\n")
    told = said("bad if input.claims.ticket\n", granting)
    assert [line.split(": ")[1] for line in told] == ["`not` in a rule that grants"]
    direct = WHOLE.replace("\tgranted\n", "\tgranted\n\tnot input.arguments.force\n")
    assert len(said("", direct)) == 1
    denied = WHOLE.replace("\tgranted\n", "\tgranted\n\tnot denied\n")
    rules = 'denied if count(denials) > 0\ndenials contains "a" if not input.arguments.a\n'
    assert said(rules, denied) == []
    counted = WHOLE.replace("\tgranted\n", "\tgranted\n\tcount(denials) == 0\n")
    assert said('denials contains "a" if not input.arguments.a\n', counted) == []


def test_not_in_what_makes_a_tool_visible_is_doubted() -> None:
    whole = WHOLE.replace("visible := {}\n", "")
    rule = "visible[name] := true if {\n\tsome tool in input.tools\n\tname := tool.name\n"
    assert said(rule + "}\n", whole) == []
    assert len(said(rule + '\tnot tool.effect == "write"\n}\n', whole)) == 1


ASKS = """decision := {
	"schema": "remit.decision/1",
	"decision": "require_approval",
	"reasons": [{"code": "asks", "message": "Someone has to agree."}],
	"approvals": {"required": 1},
} if {
	needed
}

"""


def test_approval_that_is_asked_in_preview_too_is_doubted() -> None:
    (told,) = said(ASKS + 'needed if input.tool.effect == "write"\n')
    assert "an approval is asked in every phase" in told
    assert said(ASKS + 'needed if input.phase == "call"\n') == []
    starter = read_bundle(STARTER).modules["remit.rego"]
    always = starter.replace('\tinput.phase == "call"\n', "").replace(
        'not input.phase in {"preview", "call"}', "input.request_id"
    )
    assert always != starter
    assert any(
        "in every phase" in each.message for each in doubts(bundle_of({"p.rego": always}, {}))
    )


def test_tests_of_a_policy_are_not_doubted() -> None:
    test = f"package remit\n{IMPORTS}test_x if {{ input.nothing != 1.5 }}\n"
    assert doubts(bundle_of({"p.rego": WHOLE}, {}, {"p_test.rego": test})) == []


def test_what_is_doubted_still_loads() -> None:
    assert lint(bundle_of({"p.rego": WHOLE + "x := 1.5\ny if input.callr\n"}, {})) == []
