# The starter policy: who may use which tool where, with which arguments, and who has to agree.
#
# Remit asks two things of it:
#   data.remit.visible    which tools a caller may see        (input.phase "list")
#   data.remit.decision   whether one exact plan may run      (input.phase "preview" or "call")
#
# Most changes belong into data.json, not here: grants, services, limits and approvals are data.
# What input holds and what a decision may say is in docs/policy-input.md.
# After each change run `remit policy test`.

package remit

import future.keywords.not
import rego.v1

# ------------------------------------------------------------------------------- the decision

# What holds when nothing below gives an answer. Keep it a denial.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "no_rule", "message": "No rule allows this.", "audience": "user"}],
}

# Any denial wins, whatever else is true.
decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [reason | some reason in denials],
} if {
	count(denials) > 0
}

# Nobody has to agree.
decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "granted", "message": "A group of the caller has a grant for this."}],
	"constraints": constraints,
} if {
	count(denials) == 0
	granted
	not approval
}

# People have to agree. The answer stays the same once they have: Remit itself checks that the
# votes it holds are enough, eligible, in time, and for exactly this plan.
decision := {
	"schema": "remit.decision/1",
	"decision": "require_approval",
	"reasons": [{"code": "approval", "message": "The rules of this place want a person."}],
	"constraints": constraints,
	"approvals": approval,
} if {
	count(denials) == 0
	granted
	approval
}

# --------------------------------------------------------------------------------- who, where

# The rules of the place where the call would act. A tool whose catalog entry names no environment
# acts in "", which data.json describes like any other.
environment := data.environments[input.context.environment]

# A grant says: this group may use this tool in these environments. "*" means all of them.
granted if {
	some group in input.caller.groups
	covers(data.grants[group][input.tool.name], input.context.environment)
}

covers(granted_in, name) if name in granted_in

covers(granted_in, _) if "*" in granted_in

# A caller sees the tools it has a grant for in an environment where the tool can act. What has no
# `true` here is hidden from it.
visible[name] := true if {
	some tool in input.tools
	some group in input.caller.groups
	some place in tool.environments
	name := tool.name
	covers(data.grants[group][name], place)
}

# ---------------------------------------------------------------------------------- denials

# Each reason says whether the caller is shown it ("user") or only operators ("admin").
# `denies` makes Remit refuse a decision that lists a denial and yet is not one.
denial(code, message, path) := {
	"code": code,
	"message": message,
	"path": path,
	"audience": "user",
	"denies": true,
}

# What no group of the caller was granted is denied, whatever the tool.
denials contains denial("not_granted", "No group of yours may use this tool there.", "") if {
	not granted
}

# An environment that data.json does not describe has no rules, so nothing may happen in it.
denials contains denial("environment", "This environment has no rules.", "/environment") if {
	not environment
}

# This policy judges previews and calls. Anything else is for rules that you add.
denials contains denial("phase", "No rule for this kind of question.", "") if {
	not input.phase in {"preview", "call"}
}

# A rule on one field of one tool: some services are restarted by nobody but people.
denials contains denial(
	"service",
	"This service may not be restarted in this environment.",
	"/service",
) if {
	input.tool.name == "restart_service"
	not input.arguments.service in environment.restartable
}

# Whoever changes things here must say why. What they say is recorded as their claim; it is
# never a fact, so no rule should allow something because of it.
denials contains denial(
	"purpose",
	"State a purpose for this change, in _meta[\"dev.remit/purpose\"].",
	"",
) if {
	input.phase == "call"
	input.tool.effect in environment.purpose_for
	trim_space(input.claims.purpose) == ""
}

# --------------------------------------------------------------------------------- approval

# data.json says how many have to agree, by environment and effect. A preview changes nothing
# and is what people look at before they agree, so it needs nobody's agreement.
approval := environment.approvals[input.tool.effect] if {
	input.phase == "call"
}

# A destructive effect needs a person even where data.json forgot to say so.
approval := {"required": 1, "ttl_s": 900} if {
	input.phase == "call"
	input.tool.effect == "destructive"
	not environment.approvals.destructive
}

# What changes something where Remit isolates nothing needs a person too, whatever data.json says.
approval := {"required": 1, "ttl_s": 900} if {
	input.phase == "call"
	input.tool.effect == "write"
	elsewhere
	not environment.approvals.write
}

# A tool of an MCP server over HTTP runs there, in no runner of Remit's.
elsewhere if input.plan.runner.profile == "http"

# ------------------------------------------------------------------------------- constraints

# Constraints only narrow what the catalog declares: they can lower a limit or bound an argument,
# never raise or add anything.
constraints := object.union_n([isolation, bounds, reach, tighter])

# What changes something runs in a full sandbox, or elsewhere with an approval, or not at all.
isolation := {} if {
	elsewhere
} else := {"runner": {"min_tier": "sandbox"}} if {
	input.tool.effect in {"write", "destructive"}
} else := {}

# A bound on a number: how many replicas one restart may take down at a time.
bounds := {"arguments": {"bounds": {"replicas": {
	"minimum": 1,
	"maximum": environment.replicas_at_once,
}}}} if {
	input.tool.name == "restart_service"
} else := {}

# What a tool's catalog entry says it may reach and be lent is given to no run unless policy gives it.
# Whoever has the grant gets what is declared here; `tighter` can give less of it.
reach[part] := declared if {
	some part in {"egress", "credentials"}
	declared := input.tool[part]
	count(declared) > 0
}

# Tools that get less than the catalog would give them.
tighter := object.get(data.tighter, input.tool.name, {})
