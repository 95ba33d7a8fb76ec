# Budgets: how many changes a caller may make in an hour, and what they may cost.
#
# Settings are data.library.budgets; docs/policies/budgets.md explains them.

package remit.library.budgets

import future.keywords.not
import rego.v1

settings := data.library.budgets

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "budgets.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [reason | some reason in denials],
} if {
	judged
	count(denials) > 0
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "budgets.within", "message": "The caller is within its budgets."}],
} if {
	judged
	count(denials) == 0
}

judged if {
	input.phase in {"preview", "call"}
	input.tool.effect in {"read", "write", "destructive"}
	is_string(input.caller.subject)
	is_object(caps)
}

denial(code, message, cap) := {
	"code": code,
	"message": message,
	"rule": cap,
	"audience": "user",
	"denies": true,
}

# A cap whose counter is not there cannot be kept, so nothing may be done that it is about.
denials contains reason if {
	some cap, _ in caps
	concerned(cap)
	not within(cap)
	not spent(cap)
	reason := denial("budgets.unknown", "How much you have done is not known.", cap)
}

denials contains reason if {
	some cap, _ in caps
	concerned(cap)
	spent(cap)
	reason := denial("budgets.spent", "Your budget for this hour is spent.", cap)
}

# The general caps, and the caller's own in their place.
caps := object.union(settings.caps, object.get(settings.subjects, input.caller.subject, {}))

# Which calls a cap is about. Previews and reads change nothing.
concerned(cap) if {
	input.phase == "call"
	cap in {"changes_1h", "usd_minor_1h"}
	input.tool.effect in {"write", "destructive"}
}

concerned("destructive_1h") if {
	input.phase == "call"
	input.tool.effect == "destructive"
}

within(cap) if reached(cap) <= caps[cap]

spent(cap) if reached(cap) > caps[cap]

# Where the counter would be after this call.
reached(cap) := used + cost(cap) if {
	used := input.usage[cap]
	is_number(used)
}

cost(cap) := 1 if cap in {"changes_1h", "destructive_1h"}

cost("usd_minor_1h") := money if {
	money := input.estimate.usd_minor
	is_number(money)
}

# A budget is whole again in an hour, so nothing is hidden.
visible[name] if {
	some tool in input.tools
	name := tool.name
}
