# A policy of the size that an organisation ends up with, for measuring: roles through groups and by
# name, globs, pins, bounds, networks, secrets in arguments, windows with a time zone, budgets,
# tickets, approvals and constraints. `bench/large_twin.py` says the same in plain Python.

package remit

import rego.v1
import future.keywords.not

default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "no_rule", "message": "No rule allows this.", "audience": "user"}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [reason | some reason in denials],
} if {
	count(denials) > 0
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "granted", "message": "A role of the caller has this tool."}],
	"constraints": constraints,
} if {
	count(denials) == 0
	not approval
}

decision := {
	"schema": "remit.decision/1",
	"decision": "require_approval",
	"reasons": [{"code": "approval", "message": "People must agree first.", "audience": "user"}],
	"constraints": constraints,
	"approvals": approval,
} if {
	count(denials) == 0
	approval
}

# ------------------------------------------------------------------------------- who and what

fact := data.tools[input.tool.name]

environment := input.context.environment

changes if input.tool.effect in {"write", "destructive"}

roles contains role if some role in data.subjects[input.caller.subject].roles

roles contains role if {
	some group in input.caller.groups
	some role in data.groups[group].roles
}

# People behind an agent bring only what they may do themselves.
roles contains role if {
	some behind in input.caller.delegation
	some role in data.subjects[behind.subject].delegable
}

granting contains name if {
	some name in roles
	role := data.roles[name]
	environment in role.environments
	input.tool.effect in role.effects
	covers(role, input.tool.name)
}

covers(role, name) if {
	some pattern in role.tools
	glob.match(pattern, ["."], name)
}

visible[name] := true if {
	some tool in input.tools
	some role in roles
	name := tool.name
	covers(data.roles[role], name)
}

# --------------------------------------------------------------------------------- denials

denial(code, message, path) := {
	"code": code,
	"message": message,
	"path": path,
	"audience": "user",
	"denies": true,
}

denials contains denial("not_granted", "No role of yours has this tool there.", "") if {
	count(granting) == 0
}

denials contains denial("phase", "Only calls and previews are judged.", "") if {
	not input.phase in {"call", "preview"}
}

denials contains denial("unknown_tool", "This tool is not in the register.", "") if {
	not fact
}

denials contains denial("digest", "This tool is not the one that was reviewed.", "") if {
	not fact.digest == input.tool.digest
}

denials contains denial("environment", "This tool does not act there.", "") if {
	not environment in fact.environments
}

denials contains denial("bound", "A number is out of bounds.", sprintf("/%s", [field])) if {
	some field, bound in fact.bounds
	value := input.arguments[field]
	is_number(value)
	outside(value, bound)
}

outside(value, bound) if value > bound.maximum

outside(value, bound) if value < bound.minimum

denials contains denial("choice", "A value is not one of those allowed.", sprintf("/%s", [field])) if {
	some field, options in fact.choices
	value := input.arguments[field]
	not value in options
}

denials contains denial("required", "An argument is needed here.", sprintf("/%s", [field])) if {
	some field in fact.required
	not field in object.keys(input.arguments)
}

denials contains denial("forbidden", "An argument may not be given.", sprintf("/%s", [field])) if {
	some field in fact.forbidden
	field in object.keys(input.arguments)
}

denials contains denial("network", "Production is changed from known networks only.", "") if {
	environment == "production"
	changes
	not known_network
}

known_network if {
	some network in data.networks
	net.cidr_contains(network, input.context.source_ip)
}

denials contains denial("secret", "An argument holds what looks like a secret.", "") if {
	walk(input.arguments, [_, value])
	is_string(value)
	some pattern in data.secrets
	regex.match(pattern, value)
}

denials contains denial("window", "Not at this time.", "") if {
	environment == "production"
	changes
	not in_window
}

in_window if {
	at := time.parse_rfc3339_ns(input.context.time)
	some window in data.windows
	time.weekday([at, window.zone]) in window.days
	[hour, _, _] := time.clock([at, window.zone])
	hour >= window.from
	hour < window.until
}

denials contains denial("budget", "Too many calls for today.", "") if {
	input.history.calls > data.budgets[input.caller.kind]
}

denials contains denial("ticket", "Name the ticket of this change.", "") if {
	environment == "production"
	changes
	not regex.match(`^[A-Z]{2,8}-[0-9]{1,7}$`, input.claims.ticket)
}

denials contains denial("tainted", "Others' words were read; ask a person.", "") if {
	changes
	input.tool.open_world
	input.history.untrusted
}

# ------------------------------------------------------------------------------- what is asked

approval := {"required": 2, "groups": ["sre"], "ttl_s": 900} if {
	environment == "production"
	input.tool.effect == "destructive"
}

approval := {"required": 1, "ttl_s": 1800} if {
	changes
	fact.risk == "critical"
	not input.tool.effect == "destructive"
}

constraints := object.union_n([isolation, time_limit, bounds])

isolation := {"runner": {"min_tier": "sandbox"}} if changes else := {}

time_limit := {"runner": {"wall_s": min({data.roles[name].wall_s | some name in granting})}} if {
	count(granting) > 0
}

bounds := {"arguments": {"bounds": fact.bounds}} if count(fact.bounds) > 0

else := {}
