# Secrets in arguments: what an agent sends is recorded, shown to approvers and passed on, so no
# secret belongs there. The reason names the place, never the text.
#
# Settings are data.library.secrets; docs/policies/secrets.md explains them.

package remit.library.secrets

import future.keywords.not
import rego.v1

settings := data.library.secrets

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "secrets.no_rule", "message": "This question cannot be judged."}],
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
	"reasons": [{"code": "secrets.none", "message": "No argument looks like a secret."}],
} if {
	judged
	count(denials) == 0
}

judged if {
	input.phase in {"preview", "call"}
	is_string(input.tool.name)
	is_object(input.arguments)
	is_object(settings.shapes)
	is_array(settings.names)
	is_object(settings.except)
}

denial(code, message, path, rule) := {
	"code": code,
	"message": message,
	"path": path,
	"rule": rule,
	"audience": "user",
	"denies": true,
}

# A text that looks like a secret, wherever it is.
denials contains reason if {
	some [path, text] in (values | names)
	some shape, expression in settings.shapes
	regex.match(expression, text)
	reason := denial(
		"secrets.shape",
		"This looks like a secret. Secrets do not belong into arguments.",
		shown(path),
		shape,
	)
}

# A text under a name that stands for a secret.
denials contains reason if {
	some [path, text] in values
	text != ""
	some step in path
	secret_name(step)
	reason := denial(
		"secrets.name",
		"A field of this name holds a secret. Secrets do not belong into arguments.",
		shown(path),
		"names",
	)
}

secret_name(step) if {
	is_string(step)
	plain := lower(replace(replace(step, "_", ""), "-", ""))
	some expression in settings.names
	regex.match(expression, plain)
}

# Every text in the arguments, but those that are meant to hold a secret.
values contains [path, value] if {
	walk(input.arguments, [path, value])
	is_string(value)
	not pointer(path) in excepted
}

# The name of every field. What is found there is told of what they are in.
names contains [holder, name] if {
	walk(input.arguments, [path, _])
	holder := array.slice(path, 0, count(path) - 1)
	name := path[count(path) - 1]
	is_string(name)
}

excepted := object.get(settings.except, input.tool.name, [])

# ------------------------------------------------------------------------------------- paths

# A JSON Pointer (RFC 6901); empty where it would be too long, or would itself show a secret.
shown(path) := text if {
	text := pointer(path)
	count(text) <= 512
	not holds_secret(path)
} else := ""

holds_secret(path) if {
	some step in path
	is_string(step)
	some expression in settings.shapes
	regex.match(expression, step)
}

pointer(path) := concat("", [concat("", ["/", escaped(step)]) | some step in path])

escaped(step) := replace(replace(step, "~", "~0"), "/", "~1") if is_string(step)

escaped(step) := format_int(step, 10) if is_number(step)

# -------------------------------------------------------------------------------- the list

# It depends on arguments, so nothing is hidden.
visible[name] if {
	some tool in input.tools
	name := tool.name
}

# ------------------------------------------------------------------------------- at loading

# What the engine cannot use. Remit asks for this when it loads the settings.
problems contains {
	"place": ["shapes", shape],
	"message": "this is not a regular expression (RE2)",
} if {
	some shape, expression in settings.shapes
	not regex.is_valid(expression)
}

problems contains {
	"place": ["names", number],
	"message": "this is not a regular expression (RE2)",
} if {
	some number, expression in settings.names
	not regex.is_valid(expression)
}
