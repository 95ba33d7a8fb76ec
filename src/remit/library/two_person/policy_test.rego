package remit.library.two_person

import future.keywords.not
import rego.v1

set_up := {
	"effects": ["destructive"],
	"tools": ["grant_access", "key_*"],
	"required": 2,
	"groups": ["sre"],
	"ttl_s": 900,
	"reason_required": true,
	"environments": {
		"staging": {"required": 1, "ttl_s": 3600, "reason_required": false},
		"sandbox": {"required": 0},
		"vault": {"required": 3, "groups": ["custodians"]},
	},
}

call(tool, effect, environment) := {
	"schema": "remit.input/1",
	"phase": "call",
	"tool": {"name": tool, "effect": effect},
	"context": {"environment": environment},
}

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

test_destructive_effect_needs_two_others if {
	question := call("wipe", "destructive", "production")
	verdict == "require_approval" with input as question with data.library.two_person as set_up
	codes == {"two_person.approval"} with input as question with data.library.two_person as set_up
	decision.approvals == {
		"required": 2,
		"groups": ["sre"],
		"separation_of_duties": true,
		"ttl_s": 900,
		"reason_required": true,
	} with input as question with data.library.two_person as set_up
}

test_other_effects_need_nobody if {
	every effect in ["read", "write"] {
		verdict == "allow" with input as call("tool", effect, "production")
			with data.library.two_person as set_up
		codes == {"two_person.not_needed"} with input as call("tool", effect, "production")
			with data.library.two_person as set_up
	}
}

test_effects_are_settings if {
	writes := object.union(set_up, {"effects": ["write"]})
	verdict == "require_approval" with input as call("tool", "write", "production")
		with data.library.two_person as writes
}

test_named_tool_needs_agreement_whatever_its_effect if {
	every tool in ["grant_access", "key_rotate", "key_"] {
		verdict == "require_approval" with input as call(tool, "read", "production")
			with data.library.two_person as set_up
	}
	every tool in ["grant_access_log", "monkey_list", "key"] {
		verdict == "allow" with input as call(tool, "read", "production")
			with data.library.two_person as set_up
	}
}

test_environment_has_its_own_rule if {
	decision.approvals == {
		"required": 1,
		"groups": ["sre"],
		"separation_of_duties": true,
		"ttl_s": 3600,
		"reason_required": false,
	} with input as call("wipe", "destructive", "staging") with data.library.two_person as set_up
	vault := decision.approvals with input as call("wipe", "destructive", "vault")
		with data.library.two_person as set_up
	vault.required == 3
	vault.groups == ["custodians"]
}

test_environment_may_need_nobody if {
	verdict == "allow" with input as call("wipe", "destructive", "sandbox")
		with data.library.two_person as set_up
}

test_environment_that_is_not_named_has_the_general_rule if {
	every environment in ["", "moon"] {
		decision.approvals.required == 2 with input as call("wipe", "destructive", environment)
			with data.library.two_person as set_up
	}
}

test_preview_needs_nobody if {
	question := object.union(call("wipe", "destructive", "production"), {"phase": "preview"})
	verdict == "allow" with input as question with data.library.two_person as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call("look", "read", "production")
	odd := [
		{},
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"tool": {"effect": "unheard_of"}}),
		object.union(ask, {"tool": {"effect": null}}),
		object.union(ask, {"tool": {"name": null}}),
		object.union(ask, {"context": {"environment": null}}),
	]
	every question in odd {
		codes == {"two_person.no_rule"} with input as question with data.library.two_person as set_up
		verdict == "deny" with input as question with data.library.two_person as set_up
	}
	every key in ["effects", "tools", "required", "environments"] {
		verdict == "deny" with input as ask with data.library.two_person as object.remove(set_up, [key])
	}
}

test_nothing_is_hidden if {
	visible == {"a": true, "b": true} with input as {"tools": [{"name": "a"}, {"name": "b"}]}
}
