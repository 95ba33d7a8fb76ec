package remit.library.step_up

import future.keywords.not
import rego.v1

set_up := {"risks": {
	"high": {"max_age_s": 3600},
	"critical": {"acr": "phr", "amr": ["hwk"], "max_age_s": 300},
}}

call(risk) := {
	"schema": "remit.input/1",
	"phase": "call",
	"tool": {"name": "tool", "risk": risk},
}

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

test_risk_that_is_named_asks_for_step_up if {
	verdict == "allow" with input as call("high") with data.library.step_up as set_up
	decision.obligations == [{
		"id": "step_up",
		"type": "step_up",
		"properties": {"max_age_s": 3600},
	}] with input as call("high") with data.library.step_up as set_up
	codes == {"step_up.needed"} with input as call("high") with data.library.step_up as set_up
}

test_each_risk_has_its_own_demand if {
	decision.obligations[0].properties == {"acr": "phr", "amr": ["hwk"], "max_age_s": 300} with input as call("critical")
		with data.library.step_up as set_up
}

test_risk_that_is_not_named_asks_for_nothing if {
	every risk in ["low", "medium"] {
		verdict == "allow" with input as call(risk) with data.library.step_up as set_up
		codes == {"step_up.not_needed"} with input as call(risk) with data.library.step_up as set_up
		not decision.obligations with input as call(risk) with data.library.step_up as set_up
	}
}

test_preview_asks_for_nothing if {
	question := object.union(call("critical"), {"phase": "preview"})
	verdict == "allow" with input as question with data.library.step_up as set_up
	not decision.obligations with input as question with data.library.step_up as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	odd := [
		{},
		object.union(call("low"), {"phase": "list"}),
		object.union(call("low"), {"phase": "result"}),
		call("unheard_of"),
		call(null),
	]
	every question in odd {
		verdict == "deny" with input as question with data.library.step_up as set_up
		codes == {"step_up.no_rule"} with input as question with data.library.step_up as set_up
	}
	verdict == "deny" with input as call("low") with data.library.step_up as {}
	verdict == "deny" with input as call("unheard_of")
		with data.library.step_up as {"risks": {"unheard_of": {"max_age_s": 1}}}
}

test_nothing_is_hidden if {
	visible == {"a": true, "b": true} with input as {"tools": [{"name": "a"}, {"name": "b"}]}
}
