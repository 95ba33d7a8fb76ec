# Break-glass: some things nobody does, but a few people in an emergency, loudly.
#
# It lifts its own restriction only. What another policy denies stays denied, whoever asks.
# Settings are data.library.break_glass; docs/policies/break_glass.md explains them.

package remit.library.break_glass

import future.keywords.not
import rego.v1

settings := data.library.break_glass

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "break_glass.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "break_glass.not_restricted", "message": "This is not kept for emergencies."}],
} if {
	judged
	not restricted(input.tool, input.context.environment)
}

decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [reason | some reason in denials],
	"obligations": [logged],
} if {
	judged
	count(denials) > 0
}

# What people look at before they agree changes nothing, and is told of all the same.
decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "break_glass.preview", "message": "The glass is broken for a preview."}],
	"obligations": [logged, told],
} if {
	broken
	input.phase == "preview"
}

# The answer stays the same once people have agreed: Remit counts the votes itself.
decision := {
	"schema": "remit.decision/1",
	"decision": "require_approval",
	"reasons": [{
		"code": "break_glass.broken",
		"message": "The glass is broken: others are told, and one of them must agree.",
		"audience": "user",
	}],
	"approvals": {
		"required": settings.required,
		"groups": settings.approvers,
		"separation_of_duties": true,
		"ttl_s": settings.ttl_s,
		"reason_required": true,
	},
	"obligations": [logged, told],
} if {
	broken
	input.phase == "call"
}

judged if {
	input.phase in {"preview", "call"}
	input.tool.effect in {"read", "write", "destructive"}
	is_string(input.tool.name)
	is_string(input.context.environment)
	is_array(settings.restricted)
}

broken if {
	judged
	restricted(input.tool, input.context.environment)
	count(denials) == 0
}

# What is said wherever the glass is tried, so that it can be searched for.
logged := {"id": "break_glass_log", "type": "log", "properties": {"event": "break_glass"}}

told := {
	"id": "break_glass_notify",
	"type": "notify",
	"properties": {"channel": settings.channel},
}

denial(code, message) := {"code": code, "message": message, "audience": "user", "denies": true}

denials contains denial("break_glass.restricted", "This is done in an emergency only, by a few.") if {
	restricted(input.tool, input.context.environment)
	not member
}

# Words of the caller prove nothing, so they permit nothing; but without them nobody could judge.
denials contains denial(
	"break_glass.ticket",
	"Name the ticket of this emergency, in _meta[\"dev.remit/ticket\"].",
) if {
	restricted(input.tool, input.context.environment)
	member
	not said(input.claims.ticket)
}

denials contains denial(
	"break_glass.purpose",
	"State the purpose of this, in _meta[\"dev.remit/purpose\"].",
) if {
	restricted(input.tool, input.context.environment)
	member
	not said(input.claims.purpose)
}

said(text) if {
	is_string(text)
	trim_space(text) != ""
}

# Groups are verified facts.
member if {
	some group in input.caller.groups
	group in settings.groups
}

restricted(tool, environment) if {
	some entry in settings.restricted
	named(object.get(entry, "tools", ["*"]), tool.name)
	named(object.get(entry, "environments", ["*"]), environment)
	tool.effect in object.get(entry, "effects", ["read", "write", "destructive"])
}

# A name, or a beginning of names followed by "*".
named(patterns, name) if name in patterns

named(patterns, name) if {
	some pattern in patterns
	endswith(pattern, "*")
	startswith(name, trim_suffix(pattern, "*"))
}

# Those who may break the glass see everything; others what is not restricted somewhere.
visible[name] if {
	some tool in input.tools
	some environment in tool.environments
	not restricted(tool, environment)
	name := tool.name
}

visible[name] if {
	some tool in input.tools
	member
	name := tool.name
}
