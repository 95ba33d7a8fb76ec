# Tests of the starter policy. `remit policy test` runs every rule whose name begins with test_.

package remit

import rego.v1

# ---------------------------------------------------------------------------------- questions

# A call as Remit would put it; tests change what they are about.
call(tool, effect, environment_name, arguments) := {
	"schema": "remit.input/1",
	"phase": "call",
	"caller": {"subject": "deploy-bot", "kind": "agent", "groups": ["agents"]},
	"claims": {"purpose": "", "verified": false},
	"tool": {"name": tool, "effect": effect, "risk": "medium"},
	"arguments": arguments,
	"context": {"environment": environment_name},
	"approvals": [],
}

read(environment_name) := call("read_status", "read", environment_name, {"environment": environment_name})

restart(service, environment_name) := call("restart_service", "write", environment_name, {
	"service": service,
	"environment": environment_name,
	"replicas": 1,
})

apply(environment_name) := call("apply_infra", "destructive", environment_name, {"environment": environment_name})

with_purpose(question) := object.union(question, {"claims": {"purpose": "rolling out 2.4.2"}})

in_group(question, group) := object.union(question, {"caller": {"groups": [group]}})

codes contains reason.code if some reason in decision.reasons

# ---------------------------------------------------------------------------------- who, where

test_granted_read_is_allowed if {
	decision.decision == "allow" with input as read("production")
	codes == {"granted"} with input as read("production")
}

test_caller_without_a_granting_group_is_denied if {
	question := in_group(read("staging"), "visitors")
	decision.decision == "deny" with input as question
	codes == {"not_granted"} with input as question
}

test_caller_without_any_group_is_denied if {
	question := object.union(read("staging"), {"caller": {"groups": []}})
	decision.decision == "deny" with input as question
}

test_tool_outside_its_granted_environment_is_denied if {
	question := call("escape_attempt", "read", "production", {})
	codes == {"not_granted"} with input as question
}

test_star_grants_every_environment if {
	question := in_group(call("rotate_root_key", "destructive", "production", {}), "key-custodians")
	decision.decision == "require_approval" with input as question
}

test_environment_without_rules_is_denied if {
	question := in_group(call("rotate_root_key", "destructive", "moon", {}), "key-custodians")
	codes == {"environment"} with input as question
}

test_tool_without_environment_is_granted_in_the_nameless_one if {
	question := call("read_status", "read", "", {})
	codes == {"not_granted"} with input as question
	decision.decision == "allow" with input as question
		with data.grants.agents.read_status as [""]
}

test_question_of_another_phase_is_denied if {
	question := object.union(read("staging"), {"phase": "result"})
	codes == {"phase"} with input as question
}

# Two locks: the denial `not_granted`, and the grant that an allow or a request itself asks for.
test_nothing_is_permitted_without_a_grant_even_if_no_rule_denies if {
	question := in_group(read("staging"), "visitors")
	decision.decision == "deny" with input as question with data.remit.denials as set()
	asking := in_group(apply("staging"), "visitors")
	decision.decision == "deny" with input as asking with data.remit.denials as set()
}

test_empty_question_is_denied if {
	decision.decision == "deny" with input as {}
}

# --------------------------------------------------------------------------------- visibility

catalog := [
	{"name": "read_status", "environments": ["staging", "production"]},
	{"name": "escape_attempt", "environments": ["staging"]},
	{"name": "rotate_root_key", "environments": ["production"]},
	{"name": "brand_new_tool", "environments": ["staging"]},
]

test_caller_sees_only_what_it_has_a_grant_for if {
	visible == {"read_status": true, "escape_attempt": true} with input as {
		"caller": {"groups": ["agents"]},
		"tools": catalog,
	}
}

test_star_grant_shows_the_tool if {
	visible == {"rotate_root_key": true} with input as {
		"caller": {"groups": ["key-custodians"]},
		"tools": catalog,
	}
}

test_tool_that_acts_only_elsewhere_is_not_shown if {
	visible == {} with input as {
		"caller": {"groups": ["agents"]},
		"tools": [{"name": "escape_attempt", "environments": ["production"]}],
	}
}

# ------------------------------------------------------------------------------------- fields

test_restartable_service_in_staging_is_allowed if {
	decision.decision == "allow" with input as restart("web", "staging")
}

test_other_service_is_not_restarted if {
	codes == {"service"} with input as restart("ledger-db", "staging")
}

test_service_restartable_in_staging_only_is_not_restarted_in_production if {
	codes == {"service"} with input as with_purpose(restart("search", "production"))
}

test_restart_that_names_no_service_is_denied if {
	codes == {"service"} with input as call("restart_service", "write", "staging", {})
}

test_write_in_production_without_purpose_is_denied if {
	codes == {"purpose"} with input as restart("web", "production")
}

test_blank_purpose_is_no_purpose if {
	question := object.union(restart("web", "production"), {"claims": {"purpose": "  "}})
	codes == {"purpose"} with input as question
}

test_read_in_production_needs_no_purpose if {
	decision.decision == "allow" with input as read("production")
}

# ----------------------------------------------------------------------------------- approval

test_write_in_production_needs_approval if {
	question := with_purpose(restart("web", "production"))
	decision.decision == "require_approval" with input as question
	codes == {"approval"} with input as question
	decision.approvals.required == 1 with input as question
	decision.approvals.ttl_s == 900 with input as question
}

test_write_in_staging_needs_none if {
	decision.decision == "allow" with input as restart("checkout", "staging")
}

test_destructive_effect_needs_approval_everywhere if {
	decision.decision == "require_approval" with input as apply("staging")
	decision.decision == "require_approval" with input as apply("production")
}

test_destructive_effect_needs_approval_where_data_forgot_it if {
	decision.decision == "require_approval" with input as apply("staging")
		with data.environments.staging.approvals as {}
}

test_write_is_not_treated_as_destructive_where_data_names_no_approval if {
	decision.decision == "allow" with input as restart("web", "staging")
		with data.environments.staging.approvals as {}
}

test_preview_needs_no_approval if {
	question := object.union(apply("production"), {"phase": "preview"})
	decision.decision == "allow" with input as question
	decision.decision == "allow" with input as question
		with data.environments.production.approvals as {}
}

test_preview_needs_no_purpose if {
	question := object.union(restart("web", "production"), {"phase": "preview"})
	decision.decision == "allow" with input as question
}

test_preview_without_grant_is_denied if {
	question := object.union(in_group(apply("production"), "visitors"), {"phase": "preview"})
	codes == {"not_granted"} with input as question
}

# -------------------------------------------------------------------------------- constraints

test_replicas_are_bounded_by_environment if {
	staging := restart("web", "staging")
	production := with_purpose(restart("web", "production"))
	decision.constraints.arguments.bounds.replicas.maximum == 10 with input as staging
	decision.constraints.arguments.bounds.replicas.maximum == 2 with input as production
}

test_changes_run_in_a_full_sandbox if {
	decision.constraints.runner.min_tier == "sandbox" with input as restart("web", "staging")
	decision.constraints.runner.min_tier == "sandbox" with input as apply("staging")
}

# A call of an MCP server over HTTP, which no tier can be asked of.
elsewhere_call(question) := object.union(question, {"plan": {"runner": {"profile": "http", "tier": "none"}}})

test_change_elsewhere_needs_a_person_and_no_tier if {
	question := elsewhere_call(restart("web", "staging"))
	decision.decision == "require_approval" with input as question
	decision.approvals.required == 1 with input as question
	object.get(decision.constraints, "runner", "any") == "any" with input as question
}

test_change_elsewhere_keeps_the_approval_of_its_environment if {
	question := elsewhere_call(with_purpose(restart("web", "production")))
	decision.approvals.reason_required with input as question
	destroying := elsewhere_call(apply("staging"))
	decision.approvals.ttl_s == 3600 with input as destroying
	object.get(decision.constraints, "runner", "any") == "any" with input as destroying
}

test_read_elsewhere_needs_nobody if {
	decision.decision == "allow" with input as elsewhere_call(read("staging"))
}

test_read_is_not_constrained if {
	decision.constraints == {} with input as read("staging")
}

test_run_reaches_what_its_tool_declares if {
	declared := {"egress": [{"host": "tickets.example.com", "port": 443}], "credentials": [{"ref": "tickets"}]}
	question := object.union(read("staging"), {"tool": declared})
	decision.constraints == declared with input as question
}

test_tool_that_declares_nothing_is_not_constrained if {
	question := object.union(read("staging"), {"tool": {"egress": [], "credentials": []}})
	decision.constraints == {} with input as question
}

test_run_is_given_less_where_data_says_so if {
	declared := {"egress": [{"host": "tickets.example.com", "port": 443}], "credentials": [{"ref": "tickets"}]}
	question := object.union(read("staging"), {"tool": declared})
	given := decision.constraints with input as question
		with data.tighter.read_status as {"egress": [], "credentials": []}
	given == {"egress": [], "credentials": []}
}

test_untrusted_tool_gets_less if {
	question := call("escape_attempt", "read", "staging", {})
	decision.constraints.runner.wall_s == 15 with input as question
	decision.constraints.output.max_bytes == 16384 with input as question
}

# ---------------------------------------------------------------------------------- the whole

test_denial_says_nothing_else if {
	denied := decision with input as restart("ledger-db", "staging")
	object.keys(denied) == {"schema", "decision", "reasons"}
}

test_each_denial_is_marked_as_one if {
	denied := decision with input as restart("ledger-db", "staging")
	every reason in denied.reasons { reason.denies }
}
