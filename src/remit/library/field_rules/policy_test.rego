package remit.library.field_rules

import future.keywords.not
import rego.v1

set_up := {"rules": [
	{
		"tools": ["restart_service"],
		"environments": ["production"],
		"fields": {
			"service": {"one_of": ["web", "checkout"]},
			"replicas": {"minimum": 1, "maximum": 3, "optional": true},
			"spec/name": {"matches": "[a-z]+", "optional": true},
		},
	},
	{"tools": ["kube_*"], "forbidden": ["--context[= ]prod"]},
	{"fields": {"reason": {}}, "tools": ["wipe"]},
]}

call(tool, arguments) := {
	"schema": "remit.input/1",
	"phase": "call",
	"tool": {"name": tool},
	"arguments": arguments,
	"context": {"environment": "production"},
}

restart(more) := call("restart_service", object.union({"service": "web"}, more))

verdict := decision.decision

found contains [reason.code, object.get(reason, "path", "")] if some reason in decision.reasons

# ------------------------------------------------------------------------------------ fields

test_permitted_value_is_allowed if {
	verdict == "allow" with input as restart({}) with data.library.field_rules as set_up
	found == {["field_rules.hold", ""]} with input as restart({}) with data.library.field_rules as set_up
	verdict == "allow" with input as restart({"service": "checkout", "replicas": 3})
		with data.library.field_rules as set_up
}

test_other_value_is_denied if {
	found == {["field_rules.value", "/service"]} with input as restart({"service": "ledger-db"})
		with data.library.field_rules as set_up
	verdict == "deny" with input as restart({"service": "ledger-db"})
		with data.library.field_rules as set_up
}

test_each_item_of_a_list_must_be_permitted if {
	verdict == "allow" with input as restart({"service": ["web", "checkout"]})
		with data.library.field_rules as set_up
	verdict == "deny" with input as restart({"service": ["web", "ledger-db"]})
		with data.library.field_rules as set_up
	verdict == "deny" with input as restart({"service": []}) with data.library.field_rules as set_up
}

test_argument_with_a_rule_must_be_there if {
	found == {["field_rules.missing", "/service"]} with input as call("restart_service", {})
		with data.library.field_rules as set_up
	found == {["field_rules.missing", "/reason"]} with input as call("wipe", {})
		with data.library.field_rules as set_up
	verdict == "allow" with input as call("wipe", {"reason": 0}) with data.library.field_rules as set_up
}

test_number_outside_its_bounds_is_denied if {
	every replicas in [0, 4, -1, 1000000000] {
		found == {["field_rules.value", "/replicas"]} with input as restart({"replicas": replicas})
			with data.library.field_rules as set_up
	}
	every replicas in [1, 3] {
		verdict == "allow" with input as restart({"replicas": replicas})
			with data.library.field_rules as set_up
	}
}

test_what_is_no_number_meets_no_bound if {
	lowest := {"rules": [{"fields": {"replicas": {"minimum": 1}}}]}
	highest := {"rules": [{"fields": {"replicas": {"maximum": 3}}}]}
	every value in ["2", null, false, true, {}, []] {
		verdict == "deny" with input as restart({"replicas": value}) with data.library.field_rules as lowest
		verdict == "deny" with input as restart({"replicas": value}) with data.library.field_rules as highest
	}
}

test_expression_must_match_the_whole_text if {
	verdict == "allow" with input as restart({"spec": {"name": "web"}})
		with data.library.field_rules as set_up
	every name in ["web1", "1web", "", "web\n", "web\nx", "x\nweb"] {
		found == {["field_rules.value", "/spec/name"]} with input as restart({"spec": {"name": name}})
			with data.library.field_rules as set_up
	}
	verdict == "deny" with input as restart({"spec": {"name": 7}})
		with data.library.field_rules as set_up
}

test_either_side_of_an_alternative_must_match_the_whole_text if {
	either := {"rules": [{"fields": {"service": {"matches": "web|shop"}}}]}
	verdict == "allow" with input as restart({"service": "shop"}) with data.library.field_rules as either
	verdict == "deny" with input as restart({"service": "webby"}) with data.library.field_rules as either
	verdict == "deny" with input as restart({"service": "myshop"}) with data.library.field_rules as either
}

test_nested_argument_whose_parent_is_no_object_is_absent if {
	nested := {"rules": [{"fields": {"spec/name": {"one_of": ["web"]}}}]}
	every parent in ["web", 1, null, ["web"], {}] {
		found == {["field_rules.missing", "/spec/name"]} with input as restart({"spec": parent})
			with data.library.field_rules as nested
	}
}

test_null_is_a_value_and_not_absent if {
	verdict == "deny" with input as restart({"replicas": null}) with data.library.field_rules as set_up
	verdict == "deny" with input as restart({"service": null}) with data.library.field_rules as set_up
}

test_zero_and_one_are_values_and_not_absent if {
	every value in [0, 1] {
		found == {["field_rules.value", "/service"]} with input as restart({"service": value})
			with data.library.field_rules as set_up
	}
}

# ----------------------------------------------------------------------------- where they hold

test_rule_for_another_environment_does_not_hold if {
	elsewhere := object.union(restart({"service": "ledger-db"}), {"context": {"environment": "staging"}})
	verdict == "allow" with input as elsewhere with data.library.field_rules as set_up
}

test_rule_for_another_tool_does_not_hold if {
	verdict == "allow" with input as call("restart_service_2", {}) with data.library.field_rules as set_up
}

test_rule_without_tools_and_environments_holds_everywhere if {
	always := {"rules": [{"fields": {"reason": {}}}]}
	verdict == "deny" with input as call("any", {}) with data.library.field_rules as always
}

test_no_rule_means_no_objection if {
	verdict == "allow" with input as call("any", {}) with data.library.field_rules as {"rules": []}
}

# --------------------------------------------------------------------------------- forbidden

test_forbidden_text_is_found_anywhere if {
	every arguments in [
		{"flags": "get pods --context=prod"},
		{"deep": {"er": ["x", "--context=production"]}},
		{"argv": ["get", "--context", "prod"]},
		{"--context=prod": ""},
	] {
		question := call("kube_run", arguments)
		verdict == "deny" with input as question with data.library.field_rules as set_up
		every pair in found {
			pair[0] == "field_rules.forbidden"
		} with input as question with data.library.field_rules as set_up
	}
}

test_text_that_is_not_forbidden_is_allowed if {
	every arguments in [
		{"flags": "--context=staging"},
		{"argv": ["--context", "staging"]},
		{"argv": ["--context", 1, "prod"]},
		{"number": 12, "nothing": null, "list": [[1, {}], []]},
	] {
		verdict == "allow" with input as call("kube_run", arguments)
			with data.library.field_rules as set_up
	}
}

test_forbidden_text_of_another_tool_is_allowed if {
	verdict == "allow" with input as call("helm", {"flags": "--context=prod"})
		with data.library.field_rules as set_up
}

test_path_of_what_is_forbidden_is_a_json_pointer if {
	found == {["field_rules.forbidden", "/a~1b/~0c/0"]} with input as call("kube_run", {"a/b": {"~c": ["--context=prod", 1]}})
		with data.library.field_rules as set_up
}

test_path_too_long_for_a_reason_is_left_out if {
	long := concat("", [text | some _ in numbers.range(1, 600); text := "x"])
	found == {["field_rules.forbidden", ""]} with input as call("kube_run", {long: "--context=prod"})
		with data.library.field_rules as set_up
	fits := substring(long, 0, 511)
	found == {["field_rules.forbidden", concat("", ["/", fits])]} with input as call("kube_run", {fits: "--context=prod"})
		with data.library.field_rules as set_up
}

test_there_are_at_most_32_reasons if {
	many := {format_int(n, 10): "--context=prod" | some n in numbers.range(1, 100)}
	count(decision.reasons) == 32 with input as call("kube_run", many)
		with data.library.field_rules as set_up
}

# ---------------------------------------------------------------------------------- the whole

test_preview_keeps_to_the_rules_too if {
	question := object.union(restart({"service": "ledger-db"}), {"phase": "preview"})
	found == {["field_rules.value", "/service"]} with input as question
		with data.library.field_rules as set_up
}

test_each_reason_is_a_denial_that_the_caller_is_shown if {
	every reason in decision.reasons {
		reason.denies
		reason.audience == "user"
	} with input as restart({"service": "x", "replicas": 0}) with data.library.field_rules as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call("any", {})
	odd := [
		{},
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"tool": {"name": null}}),
		object.union(ask, {"context": {"environment": null}}),
		object.union(ask, {"arguments": null}),
	]
	every question in odd {
		found == {["field_rules.no_rule", ""]} with input as question
			with data.library.field_rules as set_up
		verdict == "deny" with input as question with data.library.field_rules as set_up
	}
	verdict == "deny" with input as ask with data.library.field_rules as {}
	verdict == "deny" with input as ask with data.library.field_rules as {"rules": {}}
}

test_nothing_is_hidden if {
	visible == {"a": true, "b": true} with input as {"tools": [{"name": "a"}, {"name": "b"}]}
}

test_faulty_expressions_are_told if {
	problems == {
		{"place": ["rules", 1, "forbidden", 1], "message": "this is not a regular expression (RE2)"},
		{"place": ["rules", 2, "fields", "x", "matches"], "message": "this is not a regular expression (RE2)"},
	} with data.library.field_rules as {"rules": [
		{"forbidden": ["a"], "fields": {"x": {"matches": "a"}, "y": {}}},
		{"forbidden": ["a", "("]},
		{"fields": {"x": {"matches": "["}}},
	]}
}
