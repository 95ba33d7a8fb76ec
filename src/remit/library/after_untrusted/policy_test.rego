package remit.library.after_untrusted

import future.keywords.not
import rego.v1

set_up := {
	"effects": ["write", "destructive"],
	"taints": ["untrusted", "sensitive"],
	"except_tools": ["audit_note", "ping_*"],
	"required": 1,
	"groups": ["reviewers"],
	"ttl_s": 900,
	"reason_required": false,
}

clean := {"untrusted": false, "sensitive": false, "untrusted_from": [], "sensitive_from": []}

read_untrusted(systems) := object.union(clean, {"untrusted": true, "untrusted_from": systems})

read_sensitive(systems) := object.union(clean, {"sensitive": true, "sensitive_from": systems})

call(system, effect, history) := {
	"schema": "remit.input/1",
	"phase": "call",
	"tool": {"name": "tool", "effect": effect, "system": system, "open_world": false},
	"history": history,
}

outward(system, effect, history) := object.union(call(system, effect, history), {"tool": {"open_world": true}})

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

asked(question, code) if {
	codes == {code} with input as question with data.library.after_untrusted as set_up
	verdict == "require_approval" with input as question with data.library.after_untrusted as set_up
}

free(question) if {
	codes == {"after_untrusted.clean"} with input as question with data.library.after_untrusted as set_up
	verdict == "allow" with input as question with data.library.after_untrusted as set_up
}

# -------------------------------------------------------------------------------- untrusted

test_clean_caller_is_free if {
	every effect in ["read", "write", "destructive"] {
		free(call("cloud", effect, clean))
		free(outward("chat", effect, clean))
	}
}

test_change_elsewhere_after_untrusted_content_needs_a_person if {
	every effect in ["write", "destructive"] {
		asked(call("ci", effect, read_untrusted(["tickets"])), "after_untrusted.untrusted")
	}
	decision.approvals == {
		"required": 1,
		"groups": ["reviewers"],
		"separation_of_duties": true,
		"ttl_s": 900,
		"reason_required": false,
	} with input as call("ci", "write", read_untrusted(["tickets"]))
		with data.library.after_untrusted as set_up
}

test_change_in_the_system_it_was_read_in_is_free if {
	free(call("tickets", "write", read_untrusted(["tickets"])))
	free(outward("tickets", "write", read_untrusted(["tickets"])))
}

test_one_other_system_is_enough if {
	asked(call("tickets", "write", read_untrusted(["tickets", "web"])), "after_untrusted.untrusted")
}

test_reading_elsewhere_is_free if {
	free(call("ci", "read", read_untrusted(["tickets"])))
}

test_reaching_outside_needs_a_person_even_to_read if {
	asked(outward("web", "read", read_untrusted(["tickets"])), "after_untrusted.untrusted")
}

# -------------------------------------------------------------------------------- sensitive

test_change_elsewhere_after_sensitive_content_needs_a_person if {
	asked(call("tickets", "write", read_sensitive(["cloud"])), "after_untrusted.sensitive")
	free(call("cloud", "write", read_sensitive(["cloud"])))
	free(call("tickets", "read", read_sensitive(["cloud"])))
}

test_outward_message_after_sensitive_content_needs_a_person_even_in_its_own_system if {
	asked(outward("mail", "write", read_sensitive(["mail"])), "after_untrusted.outward")
	asked(outward("mail", "read", read_sensitive(["mail"])), "after_untrusted.outward")
}

test_both_are_told if {
	both := {
		"untrusted": true,
		"sensitive": true,
		"untrusted_from": ["tickets"],
		"sensitive_from": ["cloud"],
	}
	codes == {
		"after_untrusted.untrusted",
		"after_untrusted.sensitive",
		"after_untrusted.outward",
	} with input as outward("chat", "write", both) with data.library.after_untrusted as set_up
}

# -------------------------------------------------------------------------------- settings

test_content_read_nobody_knows_where_counts_as_elsewhere if {
	asked(call("ci", "write", read_untrusted([])), "after_untrusted.untrusted")
	asked(call("ci", "write", read_sensitive([])), "after_untrusted.sensitive")
}

test_only_the_taints_of_the_settings_count if {
	untrusted_only := object.union(set_up, {"taints": ["untrusted"]})
	verdict == "allow" with input as outward("chat", "write", read_sensitive(["cloud"]))
		with data.library.after_untrusted as untrusted_only
	sensitive_only := object.union(set_up, {"taints": ["sensitive"]})
	verdict == "allow" with input as call("ci", "write", read_untrusted(["tickets"]))
		with data.library.after_untrusted as sensitive_only
}

test_effects_are_settings if {
	reads := object.union(set_up, {"effects": ["read"]})
	verdict == "require_approval" with input as call("ci", "read", read_untrusted(["tickets"]))
		with data.library.after_untrusted as reads
	verdict == "allow" with input as call("ci", "write", read_untrusted(["tickets"]))
		with data.library.after_untrusted as reads
}

test_excepted_tool_is_free if {
	question := call("ci", "write", read_untrusted(["tickets"]))
	every tool in ["audit_note", "ping_team"] {
		free(object.union(question, {"tool": {"name": tool}}))
	}
	every tool in ["audit_notes", "shopping_list", "ping"] {
		asked(object.union(question, {"tool": {"name": tool}}), "after_untrusted.untrusted")
	}
	sensitive := object.union(outward("chat", "write", read_sensitive(["chat"])), {"tool": {"name": "ping_team"}})
	free(sensitive)
	elsewhere := object.union(call("chat", "write", read_sensitive(["cloud"])), {"tool": {"name": "ping_team"}})
	free(elsewhere)
}

# -------------------------------------------------------------------------------- the whole

test_preview_needs_nobody if {
	free(object.union(call("ci", "write", read_untrusted(["tickets"])), {"phase": "preview"}))
}

test_session_cannot_reset_what_the_caller_read if {
	history := object.union(read_untrusted(["tickets"]), {"session": clean})
	asked(call("ci", "write", history), "after_untrusted.untrusted")
}

test_each_reason_is_shown_to_the_caller if {
	every reason in decision.reasons {
		reason.audience == "user"
	} with input as call("ci", "write", read_untrusted([])) with data.library.after_untrusted as set_up
}

# Each part that the policy reads, missing in turn.
odd(ask) := [
	{},
	object.union(ask, {"phase": "list"}),
	object.union(ask, {"phase": "result"}),
	object.union(ask, {"tool": {"effect": "unheard_of"}}),
	object.union(ask, {"tool": {"name": null}}),
	object.union(ask, {"tool": {"system": null}}),
	object.union(ask, {"tool": {"open_world": null}}),
	object.union(ask, {"history": {"untrusted": null}}),
	object.union(ask, {"history": {"sensitive": null}}),
	object.union(ask, {"history": {"untrusted_from": null}}),
	object.union(ask, {"history": {"sensitive_from": null}}),
]

test_question_that_cannot_be_judged_is_denied if {
	ask := call("ci", "read", clean)
	asking := call("ci", "write", object.union(read_untrusted(["web"]), {"sensitive_from": ["web"]}))
	every question in array.concat(odd(ask), odd(asking)) {
		codes == {"after_untrusted.no_rule"} with input as question
			with data.library.after_untrusted as set_up
		verdict == "deny" with input as question with data.library.after_untrusted as set_up
	}
	every key in ["effects", "taints", "except_tools"] {
		verdict == "deny" with input as ask
			with data.library.after_untrusted as object.remove(set_up, [key])
	}
	every key in ["required", "groups", "ttl_s", "reason_required"] {
		verdict == "deny" with input as call("ci", "write", read_untrusted(["tickets"]))
			with data.library.after_untrusted as object.remove(set_up, [key])
	}
}

test_nothing_is_hidden if {
	visible == {"a": true, "b": true} with input as {"tools": [{"name": "a"}, {"name": "b"}]}
}
