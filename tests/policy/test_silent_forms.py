"""Forms of Rego that would silently mean something else in the embedded engine: refused, each with
its place, and what is to be written instead is taken."""

from __future__ import annotations

import pytest

from remit.policy.bundle import bundle_of
from remit.policy.lint import lint
from tests.policy.world import HEAD

pytestmark = pytest.mark.threat("T-12")

LINE = HEAD.count("\n") + 1


def said(body: str) -> list[str]:
    """What the lint says of one more rule or two."""
    bundle = bundle_of({"policy.rego": HEAD + "visible := {}\n" + body}, {"names": {}})
    return [f"{each.place}: {each.message}" for each in lint(bundle)]


OBJECT = "an object stands as a pattern"
TWICE = "stands twice"
BRANCH = "may be absent although its conditions hold"
NO_VALUE = "gives no value"
SOME = "`some` declares"
NOT = "stands after `not` and nothing gives it a value"
LOOKED_UP = "a name of `every` or `walk`"
WALK = "with `walk` written so"
STEPS = "a head goes on behind what stands in brackets"
WHOLE = "is made field by field, and used as a whole"
KEYED = "`key, value in …`"
WITHIN = "`in` stands within something else"
BRACES = "`not` stands before braces"
MIXED = "under names that it finds"
LARGE = "2^64"
V1 = "the name v1"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('p if { {"a": x} := input.a; x }', OBJECT),
        ('p if { {"a": 1} = input.a }', OBJECT),
        ('p if { input.a = [{"a": 1}] }', OBJECT),
        ('p if { some {"a": x} in input.a; x }', OBJECT),
        ('f({"a": x}) := x\np := f(input.a)', OBJECT),
        ('f([{"a": x}]) := x\np := f(input.a)', OBJECT),
        ('p if { walk(input, [_, {"a": x}]); x }', OBJECT),
        ("g.a := 1\ng[k] := 2 if { some k in input.a }", MIXED),
        ("g.a.b := 1\ng.a[k] := 2 if { some k in input.a }", MIXED),
        ("f(x, x) := x\np := f(1, 2)", TWICE),
        ("p contains x if { some x, x in input.a }", TWICE),
        ("f(x) if { x == 1 } else := input.a\np if f(2)", BRANCH),
        ("f(x) := x.a if { x.b } else := 3\np := f(input.a)", BRANCH),
        ("f(x) := 1 if { x == 1 } else := x.a if { x == 2 } else := 3\np := f(1)", BRANCH),
        ("g := input.g\nf(x) := g if { x } else := 3\np := f(input.a)", BRANCH),
        ("g(x) := x.a\nf(x) := g(x) if { x } else := 3\np := f(input.a)", BRANCH),
        ("f(x) := 5 if { x == 1 } else if { x == 2 }\np if f(2)", NO_VALUE),
        ("x := 1\np if { some x; input.a[x] }", SOME),
        ("x := 1\np contains x if { some x in input.a }", SOME),
        ("p if { some v1; input.a[v1] }", SOME),
        ("p contains v1 if { some v1 in input.a }", V1),
        ("p if { input.a[v1] == 1 }", V1),
        ("p if { not input.a[_] == 1 }", NOT),
        ("p if { not input.a[i] == 1 }", NOT),
        ("p if { some i; not input.a[i] == 1 }", NOT),
        ("p if { not x = input.a }", NOT),
        ("p if { every x in input.a { not x[_] == 1 } }", NOT),
        ("p := [1 | not input.a[_] == 1]", NOT),
        ("p if { every x in input.a { not input.b[x].c } }", LOOKED_UP),
        ("p if { every i, x in input.a { x; not input.b[i] == 1 } }", LOOKED_UP),
        ("p contains x if { walk(input, [x, _]); not data.names[x] }", LOOKED_UP),
        ("p := [x | some x in walk(input)]", WALK),
        ("p := [x | x := walk(input)]", WALK),
        ("p if { [_, 1] = walk(input) }", WALK),
        ("p := count([1 | walk(input)])", WALK),
        ("p[x] contains 1 if { some x in input.a }", STEPS),
        ("p[x].a := 1 if { some x in input.a }", STEPS),
        ("p.a[x].b := 1 if { some x in input.a }", STEPS),
        ("g.a := 1 if input.a\np if count(g) == 0", WHOLE),
        ("g.a.b := 1 if input.a\np := g.a", WHOLE),
        ("g.a.b := 1 if input.a\ng[x] := 2 if some x in input.b\np := count(g)", WHOLE),
        ("g.a := 1 if input.a\np := object.get(data.remit.g, input.k, 0)", WHOLE),
        ("p if { input.a, input.b in input.c }", KEYED),
        ("p if { x := input.a in input.b; x == false }", WITHIN),
        ("p contains (input.a in input.b)", WITHIN),
        ("p if { not {x | some x in input.a} == set() }", BRACES),
        ("p if { not {1, 2}[input.a] }", BRACES),
        ("p := 100000000000000000000", LARGE),
    ],
)
def test_form_that_the_engines_read_differently_is_refused(body: str, why: str) -> None:
    found = said(body)
    assert any(why in each and each.startswith("policy.rego:") for each in found), found


@pytest.mark.parametrize(
    "body",
    [
        "p if { x := input.a; x.a == 1 }",
        'p if { input.a == {"a": 1} }',
        'p if { {"a": 1} in input.a }',
        "p if { [x, 1] = input.a; x }",
        "p if { some [x, _] in input.a; x }",
        "f([x, y]) := [y, x]\np := f(input.a)",
        "p contains x if { some _, x in input.a; some _ in input.b }",
        "f(x) := y if { y := x.a } else := 3\np := f(input.a)",
        "f(x) := x if { x.b } else := x.a if { x.c }\np := f(input.a)",
        "f(x) if { x == 1 } else if { x == 2 }\np if f(2)",
        'f(x) := concat("", ["a", x]) if { x } else := ""\np := f("b")',
        "default g := 1\ng := 2 if input.g\nf(x) := g if { x } else := 3\np := f(input.a)",
        "p := x.a if { x := input.a } else := 3",
        "x := 1\nf(x) := x\np if { every x in input.a { x > 1 } }",
        "p := input.v1",
        "p if { some i; input.a[i]; not input.b[i] == 1 }",
        "p if { x := input.a; not input.b[x] == 1 }",
        "p if { not any_one }\nany_one if input.a[_] == 1",
        "p if { not count([1 | input.a[_] == 1]) == 0 }",
        "f(x) if { not input.b[x] }\np if { every x in input.a { f(x) } }",
        "p if { every x in input.a { not x in input.b } }",
        "p contains x if { walk(input, [_, x]); not x == 1 }",
        "p := [x | walk(input, [_, x])]",
        "p.a contains x if { some x in input.a }",
        "p.a[x] := 1 if { some x in input.a }",
        "p[x] := 1 if { some x in input.a }\nq if count(p) == 0",
        "g.a := 1 if input.a\np := g.a",
        "g.a := 1\nh[k] := 2 if { some k in input.a }\np := [g.a, h]",
        "g.a := 1 if input.a\np := g[input.k]",
        "default g.a := 2\ng.a := 1 if input.a\np := count(g)",
        "p if { input.a in input.b; not input.c in input.d }",
        "p if { not set() == input.a }",
        "p := 1795405186867000000",
    ],
)
def test_form_that_both_engines_read_alike_is_taken(body: str) -> None:
    assert said(body) == []


def test_the_line_of_each_is_told() -> None:
    assert said("p if {\n\tinput.x\n\tnot input.a[_] == 1\n}")[0].startswith(
        f"policy.rego:{LINE + 3}: "
    )
