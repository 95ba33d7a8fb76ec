package remit.library.allowlist

import future.keywords.not
import rego.v1

set_up := {"environments": {
	"staging": {"agents": ["restart_service", "read_*"], "*": ["ping"]},
	"production": {"agents": ["read_status"], "custodians": ["*"]},
	"*": {"auditors": ["show"]},
}}

call(groups, tool, environment) := {
	"schema": "remit.input/1",
	"phase": "call",
	"caller": {"groups": groups},
	"tool": {"name": tool, "effect": "read"},
	"context": {"environment": environment},
}

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

test_listed_tool_is_allowed if {
	verdict == "allow" with input as call(["agents"], "restart_service", "staging")
		with data.library.allowlist as set_up
}

test_each_answer_has_its_reason if {
	codes == {"allowlist.listed"} with input as call([], "ping", "staging")
		with data.library.allowlist as set_up
}

test_preview_of_a_listed_tool_is_allowed if {
	question := object.union(call(["agents"], "restart_service", "staging"), {"phase": "preview"})
	verdict == "allow" with input as question with data.library.allowlist as set_up
}

test_tool_that_is_not_listed_is_denied if {
	codes == {"allowlist.not_listed"} with input as call(["agents"], "wipe", "staging")
		with data.library.allowlist as set_up
}

test_tool_listed_for_another_environment_is_denied if {
	verdict == "deny" with input as call(["agents"], "restart_service", "production")
		with data.library.allowlist as set_up
}

test_tool_listed_for_another_group_is_denied if {
	verdict == "deny" with input as call(["visitors"], "restart_service", "staging")
		with data.library.allowlist as set_up
	verdict == "deny" with input as call([], "restart_service", "staging")
		with data.library.allowlist as set_up
}

test_environment_that_is_not_listed_is_denied if {
	verdict == "deny" with input as call(["agents"], "read_status", "moon")
		with data.library.allowlist as set_up
	verdict == "deny" with input as call(["agents"], "read_status", "")
		with data.library.allowlist as set_up
}

test_beginning_with_a_star_lists_all_that_begin_so if {
	verdict == "allow" with input as call(["agents"], "read_logs", "staging")
		with data.library.allowlist as set_up
	verdict == "deny" with input as call(["agents"], "thread_logs", "staging")
		with data.library.allowlist as set_up
	verdict == "allow" with input as call(["custodians"], "anything", "production")
		with data.library.allowlist as set_up
}

test_name_without_a_star_lists_no_longer_name if {
	verdict == "deny" with input as call(["agents"], "restart_service_now", "staging")
		with data.library.allowlist as set_up
}

test_star_lists_for_everyone_and_for_every_environment if {
	verdict == "allow" with input as call([], "ping", "staging") with data.library.allowlist as set_up
	verdict == "allow" with input as call(["auditors"], "show", "moon")
		with data.library.allowlist as set_up
}

test_empty_list_allows_nothing if {
	verdict == "deny" with input as call(["agents"], "read_status", "staging")
		with data.library.allowlist as {"environments": {}}
	verdict == "deny" with input as call(["agents"], "read_status", "staging")
		with data.library.allowlist as {}
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call(["agents"], "read_status", "staging")
	every phase in ["list", "result", null] {
		question := object.union(ask, {"phase": phase})
		codes == {"allowlist.no_rule"} with input as question with data.library.allowlist as set_up
	}
	every question in [{}, object.union(call([], "wipe", "moon"), {"phase": "list"})] {
		codes == {"allowlist.no_rule"} with input as question with data.library.allowlist as set_up
		verdict == "deny" with input as question with data.library.allowlist as set_up
	}
}

catalog := [
	{"name": "read_status", "environments": ["production"]},
	{"name": "restart_service", "environments": ["production", "staging"]},
	{"name": "read_logs", "environments": ["production"]},
	{"name": "wipe", "environments": ["production", "staging"]},
]

test_only_what_is_listed_where_it_can_act_is_shown if {
	visible == {"read_status": true, "restart_service": true} with input as {
		"phase": "list",
		"caller": {"groups": ["agents"]},
		"tools": catalog,
	}
		with data.library.allowlist as set_up
}
