# Tool allowlists: which groups may use which tools in which environments. All else is denied.
#
# Settings are data.library.allowlist; docs/policies/allowlist.md explains them.

package remit.library.allowlist

import future.keywords.not
import rego.v1

settings := data.library.allowlist

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "allowlist.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "allowlist.listed", "message": "The tool is listed for the caller there."}],
} if {
	judged
	listed(input.tool.name, input.context.environment)
}

decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{
		"code": "allowlist.not_listed",
		"message": "This tool is not on the list for you in this environment.",
		"audience": "user",
		"denies": true,
	}],
} if {
	judged
	not listed(input.tool.name, input.context.environment)
}

judged if input.phase in {"preview", "call"}

# "*" stands for every environment and for everyone.
listed(name, environment) if {
	some place in {environment, "*"}
	some group in groups
	named(settings.environments[place][group], name)
}

groups := {"*"} | {name | some name in input.caller.groups}

# A name, or a beginning of names followed by "*".
named(patterns, name) if name in patterns

named(patterns, name) if {
	some pattern in patterns
	endswith(pattern, "*")
	startswith(name, trim_suffix(pattern, "*"))
}

# A tool is shown where it is listed for an environment that it can act in.
visible[name] if {
	some tool in input.tools
	some environment in tool.environments
	listed(tool.name, environment)
	name := tool.name
}
