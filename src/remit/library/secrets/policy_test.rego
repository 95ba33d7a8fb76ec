package remit.library.secrets

import future.keywords.not
import rego.v1

set_up := {
	"shapes": {"word": "hunter[0-9]+", "key": "-----BEGIN [A-Z ]*PRIVATE KEY-----"},
	"names": ["password$", "^token$", "apikey$"],
	"except": {"set_password": ["/password", "/users/0/a~1b"]},
}

call(arguments) := call_of("tool", arguments)

call_of(tool, arguments) := {
	"schema": "remit.input/1",
	"phase": "call",
	"tool": {"name": tool},
	"arguments": arguments,
}

verdict := decision.decision

found contains [reason.code, reason.path, reason.rule] if some reason in decision.reasons

findings(arguments) := told if {
	told := found with input as call(arguments) with data.library.secrets as set_up
}

clean(arguments) if {
	verdict == "allow" with input as call(arguments) with data.library.secrets as set_up
	decision.reasons[0].code == "secrets.none" with input as call(arguments) with data.library.secrets as set_up
}

# ------------------------------------------------------------------------------------ shapes

test_text_with_the_shape_of_a_secret_is_denied if {
	findings({"note": "the word is hunter2."}) == {["secrets.shape", "/note", "word"]}
	verdict == "deny" with input as call({"note": "hunter2"}) with data.library.secrets as set_up
}

test_secret_is_found_however_deep_it_lies if {
	findings({"a": [{"b/c": ["x", "hunter2"]}]}) == {["secrets.shape", "/a/0/b~1c/1", "word"]}
	findings({"~": "hunter2"}) == {["secrets.shape", "/~0", "word"]}
}

test_secret_over_several_lines_is_found if {
	findings({"file": "x\n-----BEGIN RSA PRIVATE KEY-----\nabc"}) == {["secrets.shape", "/file", "key"]}
}

test_secret_in_a_name_is_found_and_not_shown if {
	findings({"hunter2": 1}) == {["secrets.shape", "", "word"]}
	findings({"a": {"hunter2": true}}) == {["secrets.shape", "/a", "word"]}
	findings({"hunter2": {"x": "hunter3"}}) == {["secrets.shape", "", "word"]}
}

test_ordinary_arguments_are_allowed if {
	clean({})
	clean({"service": "web", "replicas": 3, "deep": [{"er": [null, true, 1.5, "x"]}]})
}

# ------------------------------------------------------------------------------------- names

test_text_under_a_name_for_secrets_is_denied if {
	every name in ["password", "db_password", "DB-PASSWORD", "dbPassword", "token", "api_key", "ApiKey", "x-api-key"] {
		findings({name: "x"}) == {["secrets.name", concat("", ["/", name]), "names"]}
	}
}

test_text_below_a_name_for_secrets_is_denied if {
	findings({"password": {"value": ["x"]}}) == {["secrets.name", "/password/value/0", "names"]}
	clean({"password": {"length": 12}})
}

test_name_for_secrets_without_a_text_is_no_secret if {
	clean({"password": ""})
	clean({"password": null, "token": 3, "api_key": false})
	clean({"password_policy": "long", "token_count": "3", "tokens": "a"})
}

# -------------------------------------------------------------------------------- exceptions

test_argument_that_is_meant_to_hold_a_secret_may if {
	allowed := call_of("set_password", {"password": "hunter2", "users": [{"a/b": "hunter2"}]})
	verdict == "allow" with input as allowed with data.library.secrets as set_up
}

test_exception_is_for_that_argument_of_that_tool_only if {
	verdict == "deny" with input as call({"password": "x"}) with data.library.secrets as set_up
	verdict == "deny" with input as call_of("set_password", {"password": {"deep": "x"}})
		with data.library.secrets as set_up
	verdict == "deny" with input as call_of("set_password", {"note": "hunter2"})
		with data.library.secrets as set_up
}

# ---------------------------------------------------------------------------------- the whole

test_reason_never_holds_the_secret if {
	every arguments in [{"note": "hunter2"}, {"password": "hunter2"}, {"hunter2": "hunter2"}] {
		answer := decision with input as call(arguments) with data.library.secrets as set_up
		every text in [value | walk(answer, [_, value]); is_string(value)] { not contains(text, "hunter2") }
	}
}

test_each_reason_is_a_denial_that_the_caller_is_shown if {
	every reason in decision.reasons {
		reason.denies
		reason.audience == "user"
	} with input as call({"note": "hunter2"}) with data.library.secrets as set_up
}

test_there_are_at_most_32_reasons if {
	many := {format_int(n, 10): "hunter2" | some n in numbers.range(1, 100)}
	count(decision.reasons) == 32 with input as call(many) with data.library.secrets as set_up
}

test_path_too_long_for_a_reason_is_left_out if {
	long := concat("", [text | some _ in numbers.range(1, 512); text := "x"])
	findings({long: "hunter2"}) == {["secrets.shape", "", "word"]}
	fits := substring(long, 0, 511)
	findings({fits: "hunter2"}) == {["secrets.shape", concat("", ["/", fits]), "word"]}
}

test_preview_is_judged_like_the_call if {
	question := object.union(call({"note": "hunter2"}), {"phase": "preview"})
	found == {["secrets.shape", "/note", "word"]} with input as question
		with data.library.secrets as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call({})
	odd := [
		{},
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"tool": {"name": null}}),
		object.union(ask, {"arguments": null}),
	]
	unnamed := object.union(call({"note": "hunter2"}), {"tool": {"name": 7}})
	every question in array.concat(odd, [unnamed]) {
		verdict == "deny" with input as question with data.library.secrets as set_up
		decision.reasons[0].code == "secrets.no_rule" with input as question
			with data.library.secrets as set_up
	}
	every key in object.keys(set_up) {
		verdict == "deny" with input as ask with data.library.secrets as object.remove(set_up, [key])
	}
}

test_nothing_is_hidden if {
	visible == {"a": true, "b": true} with input as {"tools": [{"name": "a"}, {"name": "b"}]}
}

test_faulty_expressions_are_told if {
	problems == {
		{"place": ["shapes", "b"], "message": "this is not a regular expression (RE2)"},
		{"place": ["names", 1], "message": "this is not a regular expression (RE2)"},
	} with data.library.secrets as {"shapes": {"a": "x", "b": "("}, "names": ["x", "["]}
}
