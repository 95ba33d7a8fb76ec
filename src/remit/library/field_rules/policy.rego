# Rules on the arguments of tools: which values, which bounds, what must be there, and what no text
# in the arguments may hold.
#
# Settings are data.library.field_rules; docs/policies/field_rules.md explains them.

package remit.library.field_rules

import future.keywords.not
import rego.v1

settings := data.library.field_rules

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "field_rules.no_rule", "message": "This question cannot be judged."}],
}

# At most 32 reasons: a caller could make any number of them.
decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": array.slice([reason | some reason in denials], 0, 32),
} if {
	judged
	count(denials) > 0
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "field_rules.hold", "message": "The arguments keep to the rules."}],
} if {
	judged
	count(denials) == 0
}

judged if {
	input.phase in {"preview", "call"}
	is_string(input.tool.name)
	is_string(input.context.environment)
	is_object(input.arguments)
	is_array(settings.rules)
}

denial(code, message, path) := {
	"code": code,
	"message": message,
	"path": path,
	"audience": "user",
	"denies": true,
}

# ------------------------------------------------------------------------------- which rules

rules := [rule |
	some rule in settings.rules
	named(object.get(rule, "tools", ["*"]), input.tool.name)
	named(object.get(rule, "environments", ["*"]), input.context.environment)
]

# A name, or a beginning of names followed by "*".
named(patterns, name) if name in patterns

named(patterns, name) if {
	some pattern in patterns
	endswith(pattern, "*")
	startswith(name, trim_suffix(pattern, "*"))
}

# ------------------------------------------------------------------------------------ fields

denials contains reason if {
	some rule in rules
	some field, wanted in rule.fields
	steps := split(field, "/")
	absent(steps)
	not wanted.optional
	reason := denial("field_rules.missing", "This argument must be given.", shown(steps))
}

denials contains reason if {
	some rule in rules
	some field, wanted in rule.fields
	steps := split(field, "/")
	not absent(steps)
	some value in values(object.get(input.arguments, steps, null))
	breaks(value, wanted)
	reason := denial("field_rules.value", "This value is not permitted here.", shown(steps))
}

# Nothing that a caller sends can look absent: no value equals both 0 and 1.
absent(steps) if {
	object.get(input.arguments, steps, 0) == 0
	object.get(input.arguments, steps, 1) == 1
}

# A list has to keep the rule in each of its items. An empty one is judged as a whole: to many
# tools it means "all".
values(found) := found if {
	is_array(found)
	count(found) > 0
} else := [found]

breaks(value, wanted) if {
	wanted.one_of
	not value in wanted.one_of
}

breaks(value, wanted) if {
	least := wanted.minimum
	not at_least(value, least)
}

breaks(value, wanted) if {
	most := wanted.maximum
	not at_most(value, most)
}

breaks(value, wanted) if {
	wanted.matches
	not matches_whole(value, wanted.matches)
}

# Values of other types are ordered too, so a text would be "more" than any number.
at_least(value, least) if {
	is_number(value)
	value >= least
}

at_most(value, most) if {
	is_number(value)
	value <= most
}

matches_whole(value, expression) if {
	is_string(value)
	regex.match(whole(expression), value)
}

whole(expression) := concat("", ["^(?:", expression, ")$"])

# --------------------------------------------------------------------------------- forbidden

denials contains reason if {
	some rule in rules
	some expression in rule.forbidden
	some [path, text] in texts
	regex.match(expression, text)
	reason := denial(
		"field_rules.forbidden",
		"An argument holds text that is not permitted here.",
		shown(path),
	)
}

# Every text that the arguments hold.
texts contains [path, value] if {
	walk(input.arguments, [path, value])
	is_string(value)
}

# The names of their fields.
texts contains [path, name] if {
	walk(input.arguments, [path, _])
	name := path[count(path) - 1]
	is_string(name)
}

# Their lists as one line, as a command would be given them: ["--context", "prod"].
texts contains [path, concat(" ", value)] if {
	walk(input.arguments, [path, value])
	is_array(value)
	every item in value { is_string(item) }
}

# ------------------------------------------------------------------------------------- paths

# A JSON Pointer (RFC 6901); empty where it would be longer than a reason may say.
shown(steps) := pointer if {
	pointer := concat("", [concat("", ["/", escaped(step)]) | some step in steps])
	count(pointer) <= 512
} else := ""

escaped(step) := replace(replace(step, "~", "~0"), "/", "~1") if is_string(step)

escaped(step) := format_int(step, 10) if is_number(step)

# -------------------------------------------------------------------------------- the list

# What is permitted depends on arguments, so nothing is hidden.
visible[name] if {
	some tool in input.tools
	name := tool.name
}

# ------------------------------------------------------------------------------- at loading

# What the engine cannot use. Remit asks for this when it loads the settings.
problems contains {
	"place": ["rules", index, "forbidden", number],
	"message": "this is not a regular expression (RE2)",
} if {
	some index, rule in settings.rules
	some number, expression in rule.forbidden
	not regex.is_valid(expression)
}

problems contains {
	"place": ["rules", index, "fields", field, "matches"],
	"message": "this is not a regular expression (RE2)",
} if {
	some index, rule in settings.rules
	some field, wanted in rule.fields
	not regex.is_valid(whole(wanted.matches))
	wanted.matches
}
