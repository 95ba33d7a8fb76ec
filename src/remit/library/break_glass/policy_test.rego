package remit.library.break_glass

import future.keywords.not
import rego.v1

set_up := {
	"restricted": [
		{"effects": ["destructive"], "environments": ["production"]},
		{"tools": ["root_*", "unlock"]},
	],
	"groups": ["break-glass"],
	"approvers": ["incident-leads"],
	"required": 1,
	"ttl_s": 300,
	"channel": "security",
}

call(groups, tool, effect, environment) := {
	"schema": "remit.input/1",
	"phase": "call",
	"caller": {"groups": groups},
	"claims": {"ticket": "INC-7", "purpose": "the database is gone", "verified": false},
	"tool": {"name": tool, "effect": effect},
	"context": {"environment": environment, "break_glass": false},
}

emergency := call(["break-glass"], "restore", "destructive", "production")

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

kinds := [obligation.type | some obligation in decision.obligations]

# ------------------------------------------------------------------------------------- others

test_what_is_not_restricted_is_allowed if {
	every question in [
		call([], "restore", "destructive", "staging"),
		call([], "restart", "write", "production"),
		call(["break-glass"], "look", "read", "production"),
	] {
		verdict == "allow" with input as question with data.library.break_glass as set_up
		codes == {"break_glass.not_restricted"} with input as question
			with data.library.break_glass as set_up
		not decision.obligations with input as question with data.library.break_glass as set_up
	}
}

test_what_is_restricted_is_denied_to_others if {
	every question in [
		call([], "restore", "destructive", "production"),
		call(["agents"], "restore", "destructive", "production"),
		call(["agents"], "root_shell", "read", "staging"),
		call(["agents"], "unlock", "write", ""),
	] {
		codes == {"break_glass.restricted"} with input as question with data.library.break_glass as set_up
		kinds == ["log"] with input as question with data.library.break_glass as set_up
		preview := object.union(question, {"phase": "preview"})
		codes == {"break_glass.restricted"} with input as preview with data.library.break_glass as set_up
	}
	verdict == "deny" with input as call([], "restore", "destructive", "production")
		with data.library.break_glass as set_up
}

test_name_is_compared_as_a_whole if {
	every tool in ["unlock_door", "my_root_shell", "root"] {
		verdict == "allow" with input as call([], tool, "read", "staging")
			with data.library.break_glass as set_up
	}
}

test_others_are_not_asked_for_a_ticket if {
	silent := object.remove(call([], "restore", "destructive", "production"), ["claims"])
	codes == {"break_glass.restricted"} with input as silent with data.library.break_glass as set_up
}

test_claim_to_break_the_glass_is_worth_nothing if {
	claiming := object.union(
		call(["agents"], "restore", "destructive", "production"),
		{"context": {"break_glass": true}, "claims": {"purpose": "break-glass"}},
	)
	verdict == "deny" with input as claiming with data.library.break_glass as set_up
}

# ------------------------------------------------------------------------------- the emergency

test_member_needs_one_other_at_once if {
	verdict == "require_approval" with input as emergency with data.library.break_glass as set_up
	codes == {"break_glass.broken"} with input as emergency with data.library.break_glass as set_up
	decision.approvals == {
		"required": 1,
		"groups": ["incident-leads"],
		"separation_of_duties": true,
		"ttl_s": 300,
		"reason_required": true,
	} with input as emergency with data.library.break_glass as set_up
}

test_it_is_loud if {
	decision.obligations == [
		{"id": "break_glass_log", "type": "log", "properties": {"event": "break_glass"}},
		{"id": "break_glass_notify", "type": "notify", "properties": {"channel": "security"}},
	] with input as emergency with data.library.break_glass as set_up
}

test_preview_needs_nobody_and_is_as_loud if {
	preview := object.union(emergency, {"phase": "preview"})
	verdict == "allow" with input as preview with data.library.break_glass as set_up
	codes == {"break_glass.preview"} with input as preview with data.library.break_glass as set_up
	kinds == ["log", "notify"] with input as preview with data.library.break_glass as set_up
}

test_member_must_name_a_ticket_and_a_purpose if {
	every missing in ["", "  ", null] {
		codes == {"break_glass.ticket"} with input as object.union(emergency, {"claims": {"ticket": missing}})
			with data.library.break_glass as set_up
		codes == {"break_glass.purpose"} with input as object.union(emergency, {"claims": {"purpose": missing}})
			with data.library.break_glass as set_up
	}
	codes == {"break_glass.ticket", "break_glass.purpose"} with input as object.remove(emergency, ["claims"])
		with data.library.break_glass as set_up
}

test_member_needs_no_ticket_for_what_is_not_restricted if {
	quiet := object.remove(call(["break-glass"], "look", "read", "production"), ["claims"])
	verdict == "allow" with input as quiet with data.library.break_glass as set_up
}

test_each_denial_is_one_that_the_caller_is_shown if {
	every reason in decision.reasons {
		reason.denies
		reason.audience == "user"
	} with input as call([], "unlock", "read", "") with data.library.break_glass as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call([], "look", "read", "staging")
	odd := [
		{},
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"tool": {"effect": "unheard_of"}}),
		object.union(ask, {"tool": {"name": null}}),
		object.union(ask, {"context": {"environment": null}}),
	]
	every question in odd {
		codes == {"break_glass.no_rule"} with input as question with data.library.break_glass as set_up
		verdict == "deny" with input as question with data.library.break_glass as set_up
	}
	every key in object.keys(set_up) {
		verdict == "deny" with input as emergency
			with data.library.break_glass as object.remove(set_up, [key])
	}
	codes == {"break_glass.no_rule"} with input as ask with data.library.break_glass as {}
}

# --------------------------------------------------------------------------------- the list

catalog := [
	{"name": "restore", "effect": "destructive", "environments": ["production"]},
	{"name": "reset", "effect": "destructive", "environments": ["production", "staging"]},
	{"name": "root_shell", "effect": "read", "environments": ["staging", "production"]},
]

test_what_is_restricted_everywhere_is_hidden_from_others if {
	visible == {"reset": true} with input as {"caller": {"groups": ["agents"]}, "tools": catalog}
		with data.library.break_glass as set_up
}

test_member_sees_everything if {
	count(visible) == 3 with input as {"caller": {"groups": ["break-glass"]}, "tools": catalog}
		with data.library.break_glass as set_up
}
