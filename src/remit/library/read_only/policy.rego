# Read-only callers: who is named here may use tools that read, and no others.
#
# Settings are data.library.read_only; docs/policies/read_only.md explains them.

package remit.library.read_only

import future.keywords.not
import rego.v1

settings := data.library.read_only

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "read_only.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{
		"code": "read_only.effect",
		"message": "You may only read here.",
		"audience": "user",
		"denies": true,
	}],
} if {
	judged
	denied(input.tool, input.context.environment)
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "read_only.holds", "message": "It reads, or the caller may do more."}],
} if {
	judged
	not denied(input.tool, input.context.environment)
}

# Questions that this policy can judge: the parts that it reads are there.
judged if {
	input.phase in {"preview", "call"}
	is_string(input.context.environment)
	is_string(input.caller.kind)
	is_string(input.caller.subject)
	is_array(input.caller.groups)
	is_array(input.caller.delegation)
	every key in ["kinds", "groups", "subjects", "environments"] { is_array(settings[key]) }
}

denied(tool, environment) if {
	not tool.effect == "read"
	restricted
	here(environment)
}

# Whoever acts for a read-only subject has no more rights than it.
restricted if input.caller.kind in settings.kinds

restricted if {
	some group in input.caller.groups
	group in settings.groups
}

restricted if input.caller.subject in settings.subjects

restricted if {
	some actor in input.caller.delegation
	actor.subject in settings.subjects
}

here(_) if "*" in settings.environments

here(environment) if environment in settings.environments

# A tool is hidden where it would be denied in every environment that it can act in.
visible[name] if {
	some tool in input.tools
	some environment in tool.environments
	not denied(tool, environment)
	name := tool.name
}
