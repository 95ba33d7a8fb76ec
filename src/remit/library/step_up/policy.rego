# Step-up: the riskier the tool, the stronger and the fresher the caller's authentication.
#
# Settings are data.library.step_up; docs/policies/step_up.md explains them.

package remit.library.step_up

import future.keywords.not
import rego.v1

settings := data.library.step_up

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "step_up.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "step_up.not_needed", "message": "This risk asks for no more."}],
} if {
	judged
	not demanded
}

# Remit holds the caller against the obligation, and denies where it does not meet it.
decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{
		"code": "step_up.needed",
		"message": "This risk asks for a stronger or fresher sign-in.",
		"audience": "user",
	}],
	"obligations": [{"id": "step_up", "type": "step_up", "properties": settings.risks[input.tool.risk]}],
} if {
	judged
	demanded
}

judged if {
	input.phase in {"preview", "call"}
	input.tool.risk in {"low", "medium", "high", "critical"}
	is_object(settings.risks)
}

# A preview changes nothing.
demanded if {
	input.phase == "call"
	settings.risks[input.tool.risk]
}

# Signing in again may be enough, so nothing is hidden.
visible[name] if {
	some tool in input.tools
	name := tool.name
}
