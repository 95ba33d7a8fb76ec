package remit.library.egress_allowlist

import future.keywords.not
import rego.v1

set_up := {
	"outside": "deny",
	"allow": [
		{"hosts": ["api.example.com", "*.corp.example"]},
		{"hosts": ["db.example.com"], "ports": [5432, 5433], "tools": ["db_*", "backup"]},
		{"hosts": ["deploy.example.com"], "environments": ["production"]},
	],
}

narrowing := object.union(set_up, {"outside": "narrow"})

to(host, port) := {"host": host, "port": port}

declaring(name, egress) := {"name": name, "egress": egress, "environments": ["staging", "production"]}

call(name, egress) := {
	"schema": "remit.input/1",
	"phase": "call",
	"tool": declaring(name, egress),
	"context": {"environment": "staging"},
}

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

granted(question) := rules if {
	rules := decision.constraints.egress with input as question
		with data.library.egress_allowlist as set_up
}

refused(question) if {
	codes == {"egress_allowlist.outside"} with input as question
		with data.library.egress_allowlist as set_up
	verdict == "deny" with input as question with data.library.egress_allowlist as set_up
}

test_tool_gets_what_it_declares_of_what_is_listed if {
	granted(call("fetch", [to("api.example.com", 443)])) == [to("api.example.com", 443)]
	whole := {"host": "api.example.com", "port": 443, "methods": ["GET"], "path_prefix": "/v1"}
	granted(call("fetch", [whole])) == [whole]
	codes == {"egress_allowlist.within"} with input as call("fetch", [whole])
		with data.library.egress_allowlist as set_up
	verdict == "allow" with input as call("fetch", [whole])
		with data.library.egress_allowlist as set_up
}

test_tool_that_declares_nothing_gets_nothing if {
	granted(call("fetch", [])) == []
}

test_tool_that_declares_another_host_is_denied if {
	refused(call("fetch", [to("evil.example.com", 443)]))
	refused(call("fetch", [to("api.example.com", 443), to("evil.example.com", 443)]))
}

test_host_is_compared_as_a_whole if {
	refused(call("fetch", [to("api.example.com.evil.example", 443)]))
	refused(call("fetch", [to("xapi.example.com", 443)]))
	refused(call("fetch", [to("example.com", 443)]))
}

test_star_covers_every_name_below_and_no_other if {
	count(granted(call("fetch", [to("a.corp.example", 443), to("a.b.corp.example", 443)]))) == 2
	refused(call("fetch", [to("corp.example", 443)]))
	refused(call("fetch", [to("evilcorp.example", 443)]))
}

test_port_is_443_where_none_is_given if {
	refused(call("fetch", [to("api.example.com", 80)]))
}

test_ports_are_those_listed if {
	count(granted(call("backup", [to("db.example.com", 5432), to("db.example.com", 5433)]))) == 2
	refused(call("backup", [to("db.example.com", 443)]))
}

test_entry_for_some_tools_is_for_no_others if {
	granted(call("db_read", [to("db.example.com", 5432)])) == [to("db.example.com", 5432)]
	refused(call("fetch", [to("db.example.com", 5432)]))
	refused(call("backup2", [to("db.example.com", 5432)]))
	refused(call("my_db_read", [to("db.example.com", 5432)]))
}

test_entry_for_one_environment_holds_in_no_other if {
	there := object.union(call("ship", [to("deploy.example.com", 443)]), {"context": {"environment": "production"}})
	granted(there) == [to("deploy.example.com", 443)]
	refused(call("ship", [to("deploy.example.com", 443)]))
}

test_preview_is_judged_like_the_call if {
	refused(object.union(call("fetch", [to("evil.example.com", 443)]), {"phase": "preview"}))
	granted(object.union(call("fetch", [to("api.example.com", 443)]), {"phase": "preview"})) == [to("api.example.com", 443)]
}

test_narrowing_takes_other_hosts_away if {
	question := call("fetch", [to("api.example.com", 443), to("evil.example.com", 443)])
	verdict == "allow" with input as question with data.library.egress_allowlist as narrowing
	decision.constraints.egress == [to("api.example.com", 443)] with input as question
		with data.library.egress_allowlist as narrowing
}

test_denial_is_one_that_the_caller_is_shown if {
	every reason in decision.reasons {
		reason.denies
		reason.audience == "user"
	} with input as call("fetch", [to("evil.example.com", 443)])
		with data.library.egress_allowlist as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	ask := call("fetch", [])
	odd := [
		{},
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"tool": {"name": null}}),
		object.union(ask, {"tool": {"egress": null}}),
		object.union(ask, {"context": {"environment": null}}),
	]
	every question in odd {
		codes == {"egress_allowlist.no_rule"} with input as question
			with data.library.egress_allowlist as set_up
		verdict == "deny" with input as question with data.library.egress_allowlist as set_up
	}
	verdict == "deny" with input as ask with data.library.egress_allowlist as {"outside": "deny"}
	verdict == "deny" with input as ask with data.library.egress_allowlist as {"allow": []}
	verdict == "deny" with input as ask
		with data.library.egress_allowlist as {"allow": [], "outside": "allow"}
}

catalog := [
	declaring("fetch", [to("api.example.com", 443)]),
	declaring("quiet", []),
	declaring("ship", [to("deploy.example.com", 443)]),
	declaring("spy", [to("evil.example.com", 443)]),
]

test_tool_that_would_be_denied_everywhere_is_hidden if {
	visible == {"fetch": true, "quiet": true, "ship": true} with input as {"tools": catalog}
		with data.library.egress_allowlist as set_up
}

test_narrowing_hides_nothing if {
	count(visible) == 4 with input as {"tools": catalog}
		with data.library.egress_allowlist as narrowing
}
