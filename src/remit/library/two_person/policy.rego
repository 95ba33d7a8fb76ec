# Two-person approval: what destroys something needs several people to agree, none of whom asked.
#
# Settings are data.library.two_person; docs/policies/two_person.md explains them.

package remit.library.two_person

import future.keywords.not
import rego.v1

settings := data.library.two_person

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "two_person.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "two_person.not_needed", "message": "This needs nobody's agreement here."}],
} if {
	judged
	free
}

# The answer stays the same once people have agreed: Remit counts the votes itself.
decision := {
	"schema": "remit.decision/1",
	"decision": "require_approval",
	"reasons": [{
		"code": "two_person.approval",
		"message": "Other people must agree to this first.",
		"audience": "user",
	}],
	"approvals": {
		"required": rule.required,
		"groups": rule.groups,
		"separation_of_duties": true,
		"ttl_s": rule.ttl_s,
		"reason_required": rule.reason_required,
	},
} if {
	judged
	not free
}

judged if {
	input.phase in {"preview", "call"}
	input.tool.effect in {"read", "write", "destructive"}
	is_string(input.tool.name)
	is_string(input.context.environment)
	is_array(settings.effects)
	is_array(settings.tools)
	is_number(rule.required)
}

# A preview changes nothing, and is what people look at before they agree.
free if input.phase == "preview"

free if not covered

free if rule.required == 0

covered if input.tool.effect in settings.effects

covered if named(settings.tools, input.tool.name)

# What holds in the environment: its own words, and the general ones where it says nothing.
rule := object.union(settings, object.get(settings.environments, input.context.environment, {}))

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
