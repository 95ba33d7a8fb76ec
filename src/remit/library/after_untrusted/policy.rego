# After untrusted or sensitive content was read, what the caller does elsewhere needs a person: it
# may follow somebody else's words by now, or carry away what it has read.
#
# Settings are data.library.after_untrusted; docs/policies/after_untrusted.md explains them.

package remit.library.after_untrusted

import future.keywords.not
import rego.v1

settings := data.library.after_untrusted

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "after_untrusted.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "after_untrusted.clean", "message": "Nothing that was read forbids this."}],
} if {
	judged
	count(reasons) == 0
}

# The answer stays the same once people have agreed: Remit counts the votes itself.
decision := {
	"schema": "remit.decision/1",
	"decision": "require_approval",
	"reasons": [reason | some reason in reasons],
	"approvals": {
		"required": settings.required,
		"groups": settings.groups,
		"separation_of_duties": true,
		"ttl_s": settings.ttl_s,
		"reason_required": settings.reason_required,
	},
} if {
	judged
	count(reasons) > 0
}

judged if {
	input.phase in {"preview", "call"}
	input.tool.effect in {"read", "write", "destructive"}
	is_string(input.tool.name)
	is_string(input.tool.system)
	is_boolean(input.tool.open_world)
	every taint in ["untrusted", "sensitive"] { is_boolean(input.history[taint]) }
	every list in ["untrusted_from", "sensitive_from"] { is_array(input.history[list]) }
	every list in ["effects", "taints", "except_tools"] { is_array(settings[list]) }
}

because(code, message) := {"code": code, "message": message, "audience": "user"}

# Somebody else's words, read in one system, may be what asks for this in another.
reasons contains because(
	"after_untrusted.untrusted",
	"You have read untrusted content, so a person must agree to what you do in other systems.",
) if {
	"untrusted" in settings.taints
	concerned
	read_elsewhere("untrusted", "untrusted_from")
}

# What was read in one system may leave it through another.
reasons contains because(
	"after_untrusted.sensitive",
	"You have read sensitive content, so a person must agree to what you do in other systems.",
) if {
	"sensitive" in settings.taints
	concerned
	read_elsewhere("sensitive", "sensitive_from")
}

# A tool that reaches outside carries it out of the very system that it was read in.
reasons contains because(
	"after_untrusted.outward",
	"You have read sensitive content, so a person must agree to what you send outside.",
) if {
	"sensitive" in settings.taints
	concerned
	input.tool.open_world
	input.history.sensitive
}

# What changes something, or reaches people or systems outside: to fetch a page is to send its
# address. A preview changes nothing, and is what people look at before they agree.
concerned if {
	input.phase == "call"
	acts
	not named(settings.except_tools, input.tool.name)
}

acts if input.tool.effect in settings.effects

acts if input.tool.open_world

# The history of this caller in all its sessions: a new session does not make it clean.
read_elsewhere(_, list) if {
	some system in input.history[list]
	system != input.tool.system
}

# Read, and it is not known where.
read_elsewhere(taint, list) if {
	input.history[taint]
	count(input.history[list]) == 0
}

# A name, or a beginning of names followed by "*".
named(patterns, name) if name in patterns

named(patterns, name) if {
	some pattern in patterns
	endswith(pattern, "*")
	startswith(name, trim_suffix(pattern, "*"))
}

# It denies nothing, so nothing is hidden.
visible[name] if {
	some tool in input.tools
	name := tool.name
}
