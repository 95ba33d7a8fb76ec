package remit.library.read_only

import future.keywords.not
import rego.v1

set_up := {"kinds": ["agent"], "groups": ["auditors"], "subjects": ["intern"], "environments": ["*"]}

production_only := object.union(set_up, {"environments": ["production"]})

call(caller, effect) := {
	"schema": "remit.input/1",
	"phase": "call",
	"caller": object.union({"subject": "x", "kind": "service", "groups": [], "delegation": []}, caller),
	"tool": {"name": "tool", "effect": effect},
	"context": {"environment": "production"},
}

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

test_agent_may_read if {
	verdict == "allow" with input as call({"kind": "agent"}, "read") with data.library.read_only as set_up
}

test_each_answer_has_its_reason if {
	codes == {"read_only.holds"} with input as call({"kind": "agent"}, "read")
		with data.library.read_only as set_up
}

test_agent_may_not_change_anything if {
	every effect in ["write", "destructive"] {
		verdict == "deny" with input as call({"kind": "agent"}, effect)
			with data.library.read_only as set_up
	}
	codes == {"read_only.effect"} with input as call({"kind": "agent"}, "write")
		with data.library.read_only as set_up
}

test_tool_whose_effect_is_not_known_does_not_read if {
	verdict == "deny" with input as call({"kind": "agent"}, null) with data.library.read_only as set_up
}

test_preview_of_a_change_is_refused_too if {
	question := object.union(call({"kind": "agent"}, "write"), {"phase": "preview"})
	codes == {"read_only.effect"} with input as question with data.library.read_only as set_up
}

test_caller_that_is_not_named_may_change_things if {
	verdict == "allow" with input as call({}, "destructive") with data.library.read_only as set_up
}

test_group_is_read_only if {
	verdict == "deny" with input as call({"groups": ["a", "auditors"]}, "write")
		with data.library.read_only as set_up
}

test_other_group_is_not_read_only if {
	verdict == "allow" with input as call({"groups": ["a", "b"]}, "write")
		with data.library.read_only as set_up
}

test_subject_is_read_only if {
	verdict == "deny" with input as call({"subject": "intern"}, "write")
		with data.library.read_only as set_up
}

test_whoever_acts_for_a_read_only_subject_is_read_only if {
	chain := [{"subject": "intern", "kind": "human"}]
	verdict == "deny" with input as call({"delegation": chain}, "write")
		with data.library.read_only as set_up
}

test_whoever_acts_for_another_is_not if {
	chain := [{"subject": "dana", "kind": "human"}]
	verdict == "allow" with input as call({"delegation": chain}, "write")
		with data.library.read_only as set_up
}

test_rule_of_one_environment_does_not_hold_elsewhere if {
	there := call({"kind": "agent"}, "write")
	elsewhere := object.union(there, {"context": {"environment": "staging"}})
	verdict == "deny" with input as there with data.library.read_only as production_only
	verdict == "allow" with input as elsewhere with data.library.read_only as production_only
}

test_tool_without_environment_is_covered_by_the_star if {
	nowhere := object.union(call({"kind": "agent"}, "write"), {"context": {"environment": ""}})
	verdict == "deny" with input as nowhere with data.library.read_only as set_up
	verdict == "allow" with input as nowhere with data.library.read_only as production_only
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call({"groups": ["auditors"]}, "read")
	odd := [
		{},
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"context": {"environment": 1}}),
		object.union(ask, {"caller": {"kind": null}}),
		object.union(ask, {"caller": {"subject": null}}),
		object.union(ask, {"caller": {"groups": null}}),
		object.union(ask, {"caller": {"delegation": null}}),
	]
	every question in odd {
		codes == {"read_only.no_rule"} with input as question with data.library.read_only as set_up
		writing := object.union(question, {"tool": {"effect": "write"}})
		codes == {"read_only.no_rule"} with input as writing with data.library.read_only as set_up
	}
	every key in object.keys(set_up) {
		codes == {"read_only.no_rule"} with input as ask
			with data.library.read_only as object.remove(set_up, [key])
	}
}

catalog := [
	{"name": "look", "effect": "read", "environments": ["production"]},
	{"name": "restart", "effect": "write", "environments": ["production", "staging"]},
	{"name": "wipe", "effect": "destructive", "environments": ["production"]},
]

listing(caller) := {"phase": "list", "caller": call(caller, "").caller, "tools": catalog}

test_what_would_be_refused_everywhere_is_hidden if {
	visible == {"look": true} with input as listing({"kind": "agent"})
		with data.library.read_only as set_up
}

test_what_is_permitted_somewhere_is_shown if {
	visible == {"look": true, "restart": true} with input as listing({"kind": "agent"})
		with data.library.read_only as production_only
}

test_caller_that_is_not_named_sees_all if {
	count(visible) == 3 with input as listing({}) with data.library.read_only as set_up
}
