"""What an operator gives a policy of the library: checked when it is loaded, with the place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from remit.errors import Code, ConfigError
from remit.policy.bundle import bundle_of, load_bundle
from remit.policy.library import data_schema, default_data, names, with_library
from tests.library.pages import example
from tests.policy.world import HEAD, STARTER


def refused(use: Mapping[str, Mapping[str, Any]]) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        with_library(None, use)
    assert raised.value.code is Code.POLICY_INVALID
    return raised.value


def test_there_are_eleven() -> None:
    assert len(names()) == 11


@pytest.mark.parametrize("name", names())
def test_defaults_and_example_fit_the_schema(name: str) -> None:
    schema = data_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    check.validate(default_data(name))
    check.validate(example(name))
    assert schema["properties"].keys() == default_data(name).keys()


@pytest.mark.parametrize("name", names())
def test_every_part_of_the_schema_that_can_be_wrong_says_what_is_meant(name: str) -> None:
    def parts(node: Any) -> Any:
        if isinstance(node, dict):
            for key in node.get("properties", {}):
                yield key, node["properties"][key]
            for value in node.values():
                yield from parts(value)

    schema = data_schema(name)
    found = list(parts(schema))
    assert found
    assert [key for key, part in found if "description" not in part and "$ref" not in part] == []


def test_key_replaces_its_default_as_a_whole_and_the_others_stay() -> None:
    bundle = with_library(None, {"two_person": {"effects": ["write"]}})
    assert bundle.data["library"]["two_person"] == default_data("two_person") | {
        "effects": ["write"]
    }


def test_unknown_policy_is_refused_with_the_nearest() -> None:
    error = refused({"two_persons": {}})
    assert (error.place, error.hint) == ("use.two_persons", "did you mean two_person?")
    assert "two_person" in (refused({"zzz": {}}).hint or "")


@pytest.mark.parametrize("name", ["../library/two_person", "two_person/", "", ".", "two_person\n"])
def test_name_is_never_a_path(name: str) -> None:
    assert refused({name: {}}).message == "the library has no policy of this name"


@pytest.mark.parametrize(
    ("name", "data", "place", "hint"),
    [
        ("two_person", {"effect": []}, "use.two_person.effect", "did you mean effects?"),
        (
            "two_person",
            {"environments": {"staging": {"ttl": 3}}},
            "use.two_person.environments.staging.ttl",
            "did you mean ttl_s?",
        ),
        (
            "field_rules",
            {"rules": [{}, {"zzz": 1}]},
            "use.field_rules.rules.0",
            "One rule: what it is about, and what must hold.",
        ),
        (
            "field_rules",
            {"rules": [{"zzz": 1}]},
            "use.field_rules.rules.0.zzz",
            "the keys here are: environments, fields, forbidden, tools",
        ),
    ],
)
def test_unknown_key_is_refused_with_its_place_and_the_nearest_known(
    name: str, data: Mapping[str, Any], place: str, hint: str
) -> None:
    error = refused({name: data})
    assert (error.place, error.hint) == (place, hint)


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("two_person", {"required": 6}, "use.two_person.required"),
        ("two_person", {"required": True}, "use.two_person.required"),
        ("two_person", {"required": 1.5}, "use.two_person.required"),
        ("two_person", {"tools": ["a*b"]}, "use.two_person.tools.0"),
        ("two_person", {"ttl_s": 604_801}, "use.two_person.ttl_s"),
        ("break_glass", {"required": 0}, "use.break_glass.required"),
        ("break_glass", {"ttl_s": 3_601}, "use.break_glass.ttl_s"),
        ("after_untrusted", {"required": 0}, "use.after_untrusted.required"),
        ("step_up", {"risks": {"high": {}}}, "use.step_up.risks.high"),
        ("step_up", {"risks": {"huge": {"acr": "x"}}}, "use.step_up.risks.huge"),
        ("budgets", {"caps": {"changes_1h": -1}}, "use.budgets.caps.changes_1h"),
        ("egress_allowlist", {"allow": [{"hosts": ["*"]}]}, "use.egress_allowlist.allow.0.hosts.0"),
        (
            "egress_allowlist",
            {"allow": [{"hosts": ["A.b"]}]},
            "use.egress_allowlist.allow.0.hosts.0",
        ),
        ("egress_allowlist", {"allow": [{}]}, "use.egress_allowlist.allow.0"),
        ("egress_allowlist", {"outside": "allow"}, "use.egress_allowlist.outside"),
        ("secrets", {"except": {"t": ["password"]}}, "use.secrets.except.t.0"),
        ("secrets", {"shapes": {"bad": "("}}, "use.secrets.shapes.bad"),
        ("secrets", {"names": ["ok", "["]}, "use.secrets.names.1"),
        ("field_rules", {"rules": [{"forbidden": ["("]}]}, "use.field_rules.rules.0.forbidden.0"),
        (
            "field_rules",
            {"rules": [{"fields": {"a": {"matches": "(?=x)"}}}]},
            "use.field_rules.rules.0.fields.a.matches",
        ),
        ("change_windows", {"time_zone": "Mars/Olympus"}, "use.change_windows"),
        (
            "change_windows",
            {"environments": {"a": {"time_zone": "Nowhere", "windows": []}}},
            "use.change_windows",
        ),
        (
            "change_windows",
            {"freezes": [{"from": "2026-12-24", "to": "2026-12-23"}]},
            "use.change_windows.freezes.0",
        ),
        (
            "change_windows",
            {"freezes": [{"from": "24.12.2026", "to": "2026-12-23"}]},
            "use.change_windows.freezes.0.from",
        ),
        (
            "change_windows",
            {
                "environments": {
                    "a": {"windows": [{"days": ["Monday"], "from": "09:00", "to": "09:00"}]}
                }
            },
            "use.change_windows.environments.a.windows.0",
        ),
    ],
)
def test_data_that_cannot_be_meant_is_refused_with_its_place(
    name: str, data: Mapping[str, Any], place: str
) -> None:
    assert refused({name: data}).place == place


def test_error_never_holds_the_value() -> None:
    error = refused({"two_person": {"groups": [{"hunter2": "hunter2"}]}})
    assert "hunter2" not in f"{error.message} {error.place} {error.hint}"


# --------------------------------------------------------------------- beside another policy


def test_library_stands_beside_the_operators_policy_as_further_entries() -> None:
    starter = load_bundle(STARTER)
    whole = with_library(starter, {"secrets": {}, "read_only": {}})
    assert whole.entries == ("remit", "remit.library.read_only", "remit.library.secrets")
    assert whole.modules.keys() - starter.modules.keys() == {
        "library/read_only/policy.rego",
        "library/secrets/policy.rego",
    }
    assert whole.tests == starter.tests
    assert whole.revision != starter.revision
    assert starter.entries == ("remit",)


def test_other_data_is_another_revision() -> None:
    found = {with_library(None, {"two_person": {"required": n}}).revision for n in (1, 2, 3)}
    assert len(found) == 3
    plain = with_library(None, {"two_person": {}})
    assert plain.revision == with_library(None, {"two_person": {"required": 2}}).revision


def test_order_of_use_does_not_matter() -> None:
    one = with_library(None, {"secrets": {}, "two_person": {}})
    other = with_library(None, {"two_person": {}, "secrets": {}})
    assert (one.revision, one.entries) == (other.revision, other.entries)


def test_using_nothing_changes_nothing() -> None:
    starter = load_bundle(STARTER)
    assert with_library(starter, {}) is starter


def test_data_key_of_the_library_is_its_own() -> None:
    mine = bundle_of({"a.rego": HEAD}, {"library": {"two_person": {"required": 0}}})
    with pytest.raises(ConfigError) as raised:
        with_library(mine, {"two_person": {}})
    assert raised.value.place == "data.json"


@pytest.mark.parametrize(
    "package",
    [
        "package remit.library.two_person",
        "package remit.library",
        "# about it\n\npackage\n  remit . library.x",
        "package # that\nremit # this\n.library",
        'package remit["library"].two_person',
        'package remit["lib\\u0072ary"]',
    ],
)
@pytest.mark.parametrize("file", ["mine.rego", "mine_test.rego"])
def test_package_of_the_library_is_its_own(package: str, file: str) -> None:
    text = f"{package}\n\nimport rego.v1\n\nfree if true\n"
    tests = {file: text} if "test" in file else {}
    mine = bundle_of({"a.rego": HEAD} | ({} if tests else {file: text}), {}, tests)
    with pytest.raises(ConfigError) as raised:
        with_library(mine, {"two_person": {}})
    assert raised.value.place == file


def test_directory_of_the_library_is_its_own() -> None:
    mine = bundle_of({"a.rego": HEAD, "library/two_person/policy.rego": HEAD}, {})
    with pytest.raises(ConfigError) as raised:
        with_library(mine, {"two_person": {}})
    assert raised.value.place == "library/two_person/policy.rego"


@pytest.mark.parametrize("package", ["remit.librarian", "remit.lib", "remit_library", "remit"])
def test_other_packages_are_free(package: str) -> None:
    mine = bundle_of({"a.rego": HEAD, "b.rego": f"package {package}\n"}, {})
    assert len(with_library(mine, {"two_person": {}}).modules) == 3
