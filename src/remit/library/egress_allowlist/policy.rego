# Egress allowlist: which hosts a run may reach. It gets what its tool declares and this list allows.
#
# Settings are data.library.egress_allowlist; docs/policies/egress_allowlist.md explains them.

package remit.library.egress_allowlist

import future.keywords.not
import rego.v1

settings := data.library.egress_allowlist

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "egress_allowlist.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{
		"code": "egress_allowlist.outside",
		"message": "This tool reaches a host that is not on the list here.",
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
	"reasons": [{"code": "egress_allowlist.within", "message": "It reaches hosts on the list only."}],
	"constraints": {"egress": [rule |
		some rule in input.tool.egress
		allowed(rule, input.tool, input.context.environment)
	]},
} if {
	judged
	not denied(input.tool, input.context.environment)
}

judged if {
	input.phase in {"preview", "call"}
	is_string(input.tool.name)
	is_array(input.tool.egress)
	is_string(input.context.environment)
	is_array(settings.allow)
	settings.outside in {"deny", "narrow"}
}

# A run cut off from part of what it needs fails half-way, so the whole of it is refused.
denied(tool, environment) if {
	settings.outside == "deny"
	some rule in tool.egress
	not allowed(rule, tool, environment)
}

allowed(rule, tool, environment) if {
	some entry in settings.allow
	named(object.get(entry, "tools", ["*"]), tool.name)
	named(object.get(entry, "environments", ["*"]), environment)
	rule.port in object.get(entry, "ports", [443])
	some host in entry.hosts
	covers(host, rule.host)
}

covers(host, wanted) if host == wanted

# "*.example.com" is every name below example.com, but not example.com.
covers(host, wanted) if {
	startswith(host, "*.")
	endswith(wanted, trim_prefix(host, "*"))
}

# A name, or a beginning of names followed by "*".
named(patterns, name) if name in patterns

named(patterns, name) if {
	some pattern in patterns
	endswith(pattern, "*")
	startswith(name, trim_suffix(pattern, "*"))
}

# A tool is hidden where it would be denied in every environment that it can act in.
visible[name] if {
	some tool in input.tools
	some environment in tool.environments
	not denied(tool, environment)
	name := tool.name
}
