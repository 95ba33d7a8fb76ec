package remit.library.budgets

import future.keywords.not
import rego.v1

set_up := {
	"caps": {"changes_1h": 10, "destructive_1h": 2, "usd_minor_1h": 5000},
	"subjects": {"deploy-bot": {"changes_1h": 20}},
}

usage(changes, destructive, money) := {
	"changes_1h": changes,
	"destructive_1h": destructive,
	"usd_minor_1h": money,
}

call(effect, used) := {
	"schema": "remit.input/1",
	"phase": "call",
	"caller": {"subject": "agent-7"},
	"tool": {"name": "tool", "effect": effect},
	"usage": used,
	"estimate": {"usd_minor": 100},
}

verdict := decision.decision

found contains [reason.code, reason.rule] if some reason in decision.reasons

test_change_within_the_caps_is_allowed if {
	every effect in ["write", "destructive"] {
		verdict == "allow" with input as call(effect, usage(9, 1, 4900)) with data.library.budgets as set_up
		decision.reasons[0].code == "budgets.within" with input as call(effect, usage(9, 1, 4900))
			with data.library.budgets as set_up
	}
}

test_change_beyond_a_cap_is_denied if {
	every effect in ["write", "destructive"] {
		found == {["budgets.spent", "changes_1h"]} with input as call(effect, usage(10, 0, 0))
			with data.library.budgets as set_up
		found == {["budgets.spent", "usd_minor_1h"]} with input as call(effect, usage(0, 0, 4901))
			with data.library.budgets as set_up
	}
	verdict == "deny" with input as call("write", usage(10, 0, 0)) with data.library.budgets as set_up
}

test_cap_on_what_destroys_is_about_nothing_else if {
	found == {["budgets.spent", "destructive_1h"]} with input as call("destructive", usage(0, 2, 0))
		with data.library.budgets as set_up
	verdict == "allow" with input as call("write", usage(0, 2, 0)) with data.library.budgets as set_up
}

test_reads_and_previews_are_not_counted if {
	verdict == "allow" with input as call("read", usage(99, 99, 9999)) with data.library.budgets as set_up
	every effect in ["write", "destructive"] {
		preview := object.union(call(effect, usage(99, 99, 9999)), {"phase": "preview"})
		verdict == "allow" with input as preview with data.library.budgets as set_up
	}
}

test_cap_without_its_counter_denies if {
	verdict == "deny" with input as call("write", {}) with data.library.budgets as set_up
	found == {["budgets.unknown", "changes_1h"], ["budgets.unknown", "usd_minor_1h"]} with input as call("write", {})
		with data.library.budgets as set_up
	["budgets.unknown", "destructive_1h"] in found with input as call("destructive", {})
		with data.library.budgets as set_up
	verdict == "allow" with input as call("read", {}) with data.library.budgets as set_up
}

test_counter_that_is_no_number_denies if {
	found == {["budgets.unknown", "changes_1h"]} with input as call("write", usage("1", 0, 0))
		with data.library.budgets as set_up
}

test_cost_that_is_not_known_denies if {
	question := object.union(object.remove(call("write", usage(0, 0, 0)), ["estimate"]), {"estimate": {}})
	found == {["budgets.unknown", "usd_minor_1h"]} with input as question
		with data.library.budgets as set_up
	odd := object.union(call("write", usage(0, 0, 0)), {"estimate": {"usd_minor": "1"}})
	found == {["budgets.unknown", "usd_minor_1h"]} with input as odd with data.library.budgets as set_up
}

test_no_cap_means_no_objection if {
	verdict == "allow" with input as call("destructive", {})
		with data.library.budgets as {"caps": {}, "subjects": {}}
}

test_cap_of_nothing_denies_the_first if {
	found == {["budgets.spent", "changes_1h"]} with input as call("write", {"changes_1h": 0})
		with data.library.budgets as {"caps": {"changes_1h": 0}, "subjects": {}}
}

test_caller_may_have_its_own_cap if {
	bot := object.union(call("write", usage(19, 0, 0)), {"caller": {"subject": "deploy-bot"}})
	verdict == "allow" with input as bot with data.library.budgets as set_up
	more := object.union(call("write", usage(20, 0, 0)), {"caller": {"subject": "deploy-bot"}})
	found == {["budgets.spent", "changes_1h"]} with input as more with data.library.budgets as set_up
	costly := object.union(call("write", usage(0, 0, 5000)), {"caller": {"subject": "deploy-bot"}})
	found == {["budgets.spent", "usd_minor_1h"]} with input as costly with data.library.budgets as set_up
}

test_each_reason_is_a_denial_that_the_caller_is_shown if {
	every reason in decision.reasons {
		reason.denies
		reason.audience == "user"
	} with input as call("write", {}) with data.library.budgets as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call("read", usage(0, 0, 0))
	odd := [
		{},
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"tool": {"effect": "unheard_of"}}),
		object.union(ask, {"caller": {"subject": null}}),
	]
	spent := object.union(call("write", usage(99, 99, 9999)), {"caller": {"subject": 7}})
	every question in array.concat(odd, [spent]) {
		verdict == "deny" with input as question with data.library.budgets as set_up
		decision.reasons[0].code == "budgets.no_rule" with input as question
			with data.library.budgets as set_up
	}
	every key in ["caps", "subjects"] {
		verdict == "deny" with input as ask with data.library.budgets as object.remove(set_up, [key])
	}
}

test_nothing_is_hidden if {
	visible == {"a": true, "b": true} with input as {"tools": [{"name": "a"}, {"name": "b"}]}
}
