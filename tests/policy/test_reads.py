"""What the rule `visible` reads is found however it is spelt; in doubt it reads everything."""

from __future__ import annotations

import pytest

from remit.document import list_document
from remit.policy.bundle import bundle_of, load_bundle
from remit.policy.reads import ALL, STEADY, passing_reads
from tests.policy.world import CALLER, HEAD, NOW, RESTART, STARTER, policy

pytestmark = pytest.mark.threat("T-03")

LIB = "package remit.lib\nimport rego.v1\nimport future.keywords.not\n"


def _reads(body: str, **modules: str) -> frozenset[str]:
    named = {f"{name}.rego": LIB + text for name, text in modules.items()}
    return passing_reads(bundle_of({"policy.rego": HEAD + body, **named}, {}))


@pytest.mark.parametrize(
    "body",
    [
        'visible["a"] := true\n',
        'visible[t.name] := true if { some t in input.tools; t.effect == "read" }\n',
        'visible["a"] := true if "x" in input.caller.groups\n',
        'visible["a"] := true if input.caller[input.tools[0].name] == "x"\n',
        'visible["a"] := true if input["caller"]["subject"] == "x"\n',
        'visible["a"] := true if data.grants[input.caller.subject]\n',
        'visible["a"] := true if own\nown if input.phase == "list"\n',
        'visible["a"] := true if count(input.answers.given) == 0\n',
        # Time is read, but not from `visible` on.
        'visible["a"] := true\nlate if input.context.time > "2030"\n',
    ],
)
def test_rule_over_tools_and_caller_reads_nothing_that_passes(body: str) -> None:
    assert _reads(body) == frozenset()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('visible["a"] := true if input.context.time > "2030"\n', {"context.time"}),
        ('visible["a"] := true if input["context"]["time"] > "2030"\n', {"context.time"}),
        ('visible["a"] := true if input["context"].time > "2030"\n', {"context.time"}),
        ('visible[input.context.time] := true\n', {"context.time"}),
        ('visible["a"] := input.context.time > "2030"\n', {"context.time"}),
        ('visible["a"] := true if l\nl if not e\ne if input.context.time < "2"\n', {"context.time"}),
        ('default visible := {}\nvisible := {"a": 1} if input.claims\n', {"claims"}),
        ('visible["a"] := true if f(input.context)\nf(c) if c.time\n', {"context"}),
        ('visible["a"] := true if { some k; input.context[k] == "x" }\n', {"context"}),
        ('visible["a"] := true if input.context.source_ip == "::1"\n', {"context.source_ip"}),
        ('visible["a"] := true if input.claims.ticket\n', {"claims.ticket"}),
        ('visible["a"] := true if count(input.history.systems) > 1\n', {"history.systems"}),
        ('visible["a"] := true if input.usage.calls > 1\n', {"usage.calls"}),
        ('visible["a"] := true if input.something_new\n', {"something_new"}),
        ('visible.a.b := input.usage\n', {"usage"}),
        ('visible["a"] := [x | some x in input.history.systems]\n', {"history.systems"}),
        ('visible["a"] := true if { every s in input.history { s == "x" } }\n', {"history"}),
        ('visible["a"] := true if { x := 1 } else := false if { input.usage }\n', {"usage"}),
        ('visible["a"] := true if time.now_ns() > 1\n', {"time.now_ns"}),
        ('visible["a"] := true if rand.intn("x", 2) == 1\n', {"rand.intn"}),
        ('visible["a"] := true if uuid.rfc4122("x")\n', {"uuid.rfc4122"}),
    ],
)  # fmt: skip
def test_what_passes_is_named(body: str, expected: set[str]) -> None:
    assert _reads(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        'visible["a"] := true if { x := input; x.context.time }\n',
        'visible["a"] := true if { x = input; x.caller }\n',
        'visible["a"] := true if { [x, y] := [input, 1]; x.context.time > y }\n',
        'visible["a"] := true if object.get(input, ["context", "time"], "")\n',
        'visible["a"] := true if json.filter(input, ["context/time"])\n',
        'visible["a"] := true if { walk(input, [_, "x"]) }\n',
        'visible["a"] := true if { some k, v in input; k == v }\n',
        'visible["a"] := true if { some k; input[k].time }\n',
        'visible["a"] := true if input[concat("", ["con", "text"])].time\n',
        'visible["a"] := true if input[`context`].time\n',
        'visible["a"] := true if f(input)\nf(x) if x.context.time\n',
        'visible["a"] := true if { y := {"i": input}; y.i.context.time }\n',
        'visible["a"] := true if count({v | v := input}) > 0\n',
        'visible["a"] := true if own with input as {"context": {"time": "x"}}\nown if input.phase\n',
        # Every rule of the package may be meant, and one reads everything.
        'visible["a"] := true if data.remit[input.phase]\nother := input\n',
        'visible["a"] := true if { some k; data[k].other }\nother := input\n',
        'visible["a"] := true if { walk(data, [_, "x"]) }\nother := input\n',
    ],
)
def test_input_handed_on_as_a_whole_counts_as_everything(body: str) -> None:
    assert _reads(body) == ALL


@pytest.mark.parametrize(
    ("body", "lib"),
    [
        ('import data.remit.lib\nvisible["a"] := true if lib.late\n', "late if input.context.time"),
        ('import data.remit.lib.late as l\nvisible["a"] := true if l\n', "late if input.context.time"),
        ('visible["a"] := true if data.remit.lib.late\n', "late if input.context.time"),
        ('visible["a"] := true if data.remit["lib"]["late"]\n', "late if input.context.time"),
        ('visible["a"] := true if data.remit.lib[input.phase]\n', "late if input.context.time"),
        ('visible["a"] := true if data.remit.lib.late(1)\n', "late(_) if input.context.time"),
        ('visible["a"] := true if data.remit.lib.deep.down\n', "deep.down if input.context.time"),
        ('visible["a"] := true if data.remit.lib.deep\n', "deep.down if input.context.time"),
        ('visible["a"] := 1 if data.remit.lib.x\n', "import input.context.time as at\nx if y\ny if at"),
        ('visible["a"] := 1 if data.remit.lib.x\n', "import input.context\nx if context.time"),
    ],
)  # fmt: skip
def test_other_modules_and_imports_are_followed(body: str, lib: str) -> None:
    first = "package remit\nimport rego.v1\nimport future.keywords.not\n"
    modules = {"a.rego": HEAD, "b.rego": first + body, "lib.rego": LIB + lib + "\n"}
    assert passing_reads(bundle_of(modules, {})) == {"context.time"}


def test_module_of_the_same_package_may_define_the_rule() -> None:
    more = "package remit\nimport rego.v1\nimport future.keywords.not\n"
    bundle = bundle_of(
        {"a.rego": HEAD, "b.rego": more + 'visible["a"] := true if input.usage\n'}, {}
    )
    assert passing_reads(bundle) == {"usage"}


def test_every_entry_is_looked_at() -> None:
    other = LIB + 'visible["a"] := true if input.context.time\n'
    bundle = bundle_of(
        {"a.rego": HEAD + 'visible["a"] := true\n', "b.rego": other},
        {},
        entries=("remit", "remit.lib"),
    )
    assert passing_reads(bundle) == {"context.time"}


def test_tests_of_a_policy_are_not_asked() -> None:
    source = LIB + "test_late if input.context.time\nvisible := input\n"
    bundle = bundle_of({"a.rego": HEAD + 'visible["a"] := true\n'}, {}, {"a_test.rego": source})
    assert passing_reads(bundle) == frozenset()


def test_module_that_cannot_be_read_counts_as_reading_everything() -> None:
    assert passing_reads(policy('visible := $"x"\n')) == ALL


def test_starter_policy_reads_nothing_that_passes() -> None:
    assert passing_reads(load_bundle(STARTER)) == frozenset()


def test_what_counts_as_steady_is_the_caller_and_the_tools_or_empty_in_every_list_question() -> (
    None
):
    document = list_document(caller=CALLER, tools=[RESTART], now_ms=NOW, source_ip="::1")
    for path in STEADY - {("schema",), ("phase",), ("caller",), ("tools",)}:
        value = document
        for step in path:
            value = value[step]
        assert not value or not any(value.values())
