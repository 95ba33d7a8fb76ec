package remit.library.change_windows

import future.keywords.not
import rego.v1

workdays := ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]

set_up := {
	"time_zone": "UTC",
	"effects": ["write", "destructive"],
	"environments": {
		"berlin": {"time_zone": "Europe/Berlin", "windows": [{"days": workdays, "from": "09:00", "to": "17:00"}]},
		"new_york": {"time_zone": "America/New_York", "windows": [{"days": ["Sunday"], "from": "01:30", "to": "03:30"}]},
		"nights": {"windows": [{"days": ["Friday"], "from": "22:00", "to": "02:00"}]},
		"evenings": {"windows": [{"days": ["Monday"], "from": "20:00", "to": "24:00"}]},
		"twice": {"windows": [
			{"days": ["Monday"], "from": "06:00", "to": "07:00"},
			{"days": ["Monday"], "from": "18:00", "to": "19:00"},
		]},
		"early": {"time_zone": "Europe/Berlin", "windows": [{"days": ["Monday"], "from": "00:00", "to": "01:00"}]},
		"never": {"windows": []},
	},
	"freezes": [
		{"from": "2026-12-21", "to": "2027-01-03"},
		{"from": "2026-11-26", "to": "2026-11-27", "environments": ["new_york", "nowhere"]},
	],
}

call(environment, at) := {
	"schema": "remit.input/1",
	"phase": "call",
	"tool": {"name": "tool", "effect": "write"},
	"context": {"environment": environment, "time": at},
}

verdict := decision.decision

codes contains reason.code if some reason in decision.reasons

# Whether each of these times is open, or closed for this reason.
is_open(environment, times) if {
	every at in times {
		codes == {"change_windows.open"} with input as call(environment, at)
			with data.library.change_windows as set_up
		verdict == "allow" with input as call(environment, at) with data.library.change_windows as set_up
	}
}

refused(environment, code, times) if {
	every at in times {
		codes == {code} with input as call(environment, at) with data.library.change_windows as set_up
		verdict == "deny" with input as call(environment, at) with data.library.change_windows as set_up
	}
}

# ---------------------------------------------------------------------------------- windows

# Monday, 16 November 2026. Berlin is an hour ahead of UTC.
test_window_opens_and_closes_to_the_minute if {
	is_open("berlin", ["2026-11-16T08:00:00.000Z", "2026-11-16T15:59:59.999Z", "2026-11-16T12:00:00Z"])
	refused("berlin", "change_windows.closed", [
		"2026-11-16T07:59:59.999Z",
		"2026-11-16T16:00:00.000Z",
		"2026-11-16T00:00:00Z",
		"2026-11-16T23:30:00Z",
	])
}

test_window_is_closed_on_other_days if {
	refused("berlin", "change_windows.closed", ["2026-11-14T12:00:00Z", "2026-11-15T12:00:00Z"])
	is_open("berlin", ["2026-11-17T12:00:00Z", "2026-11-18T12:00:00Z", "2026-11-19T12:00:00Z", "2026-11-20T12:00:00Z"])
}

# Summer time in Berlin began on 29 March 2026 and ended on 25 October 2026.
test_window_keeps_to_the_clock_on_the_wall_in_summer_time if {
	refused("berlin", "change_windows.closed", ["2026-03-27T07:30:00Z", "2026-03-30T15:30:00Z"])
	is_open("berlin", ["2026-03-30T07:30:00Z", "2026-03-27T15:30:00Z"])
	is_open("berlin", ["2026-10-23T07:30:00Z", "2026-10-26T15:30:00Z"])
	refused("berlin", "change_windows.closed", ["2026-10-26T07:30:00Z", "2026-10-23T15:30:00Z"])
}

# New York went from 02:00 to 03:00 on 8 March 2026, and from 02:00 back to 01:00 on 1 November 2026.
test_hour_that_the_clock_skips_is_not_in_the_window_and_one_that_it_repeats_is_twice if {
	refused("new_york", "change_windows.closed", ["2026-03-08T06:29:59Z", "2026-03-08T07:30:00Z"])
	is_open("new_york", ["2026-03-08T06:30:00Z", "2026-03-08T06:59:59Z", "2026-03-08T07:00:00Z"])
	is_open("new_york", ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:30:00Z", "2026-11-01T08:29:59Z"])
	refused("new_york", "change_windows.closed", ["2026-11-01T05:29:59Z", "2026-11-01T06:29:59Z", "2026-11-01T08:30:00Z"])
}

# Friday, 13 November 2026.
test_window_over_midnight_ends_on_the_next_day if {
	is_open("nights", ["2026-11-13T22:00:00Z", "2026-11-13T23:59:59Z", "2026-11-14T00:00:00Z", "2026-11-14T01:59:59Z"])
	refused("nights", "change_windows.closed", [
		"2026-11-13T21:59:59Z",
		"2026-11-13T01:00:00Z",
		"2026-11-14T02:00:00Z",
		"2026-11-14T22:30:00Z",
		"2026-11-15T01:00:00Z",
	])
}

test_each_day_follows_the_day_before_it if {
	every pair in [
		["Sunday", "2026-11-16"],
		["Monday", "2026-11-17"],
		["Tuesday", "2026-11-18"],
		["Wednesday", "2026-11-19"],
		["Thursday", "2026-11-20"],
		["Friday", "2026-11-21"],
		["Saturday", "2026-11-22"],
	] {
		night := {"nights": {"windows": [{"days": [pair[0]], "from": "22:00", "to": "02:00"}]}}
		codes == {"change_windows.open"} with input as call("nights", concat("", [pair[1], "T01:00:00Z"]))
			with data.library.change_windows as object.union(set_up, {"environments": night})
	}
}

test_window_may_end_at_midnight if {
	is_open("evenings", ["2026-11-16T20:00:00Z", "2026-11-16T23:59:59Z"])
	refused("evenings", "change_windows.closed", ["2026-11-16T19:59:59Z", "2026-11-17T00:00:00Z"])
}

test_day_is_that_of_the_environment if {
	is_open("early", ["2026-11-15T23:30:00Z"])
	refused("early", "change_windows.closed", ["2026-11-16T23:30:00Z", "2026-11-16T00:30:00Z"])
}

test_any_of_several_windows_is_enough if {
	is_open("twice", ["2026-11-16T06:30:00Z", "2026-11-16T18:30:00Z"])
	refused("twice", "change_windows.closed", ["2026-11-16T12:00:00Z"])
}

test_environment_without_a_window_is_never_open if {
	refused("never", "change_windows.closed", ["2026-11-16T12:00:00Z"])
}

test_environment_that_is_not_named_is_always_open if {
	is_open("elsewhere", ["2026-11-15T03:00:00Z"])
	is_open("", ["2026-11-15T03:00:00Z"])
}

test_star_names_all_other_environments if {
	others := {"environments": {"*": {"windows": []}}}
	all := object.union(set_up, others)
	codes == {"change_windows.closed"} with input as call("elsewhere", "2026-11-16T12:00:00Z")
		with data.library.change_windows as all
	verdict == "allow" with input as call("berlin", "2026-11-16T12:00:00Z")
		with data.library.change_windows as all
}

# ---------------------------------------------------------------------------------- freezes

test_nothing_is_changed_in_a_freeze if {
	refused("elsewhere", "change_windows.frozen", [
		"2026-12-21T00:00:00Z",
		"2026-12-25T12:00:00Z",
		"2026-12-31T12:00:00Z",
		"2027-01-01T12:00:00Z",
		"2027-01-03T23:59:59Z",
	])
	is_open("elsewhere", ["2026-12-20T23:59:59Z", "2027-01-04T00:00:00Z", "2026-01-03T00:00:00Z", "2026-11-25T00:00:00Z"])
}

# Midnight in Berlin is 23:00 UTC of the day before.
test_freeze_begins_and_ends_at_midnight_of_the_environment if {
	codes == {"change_windows.closed"} with input as call("berlin", "2026-12-20T22:59:59Z")
		with data.library.change_windows as set_up
	codes == {"change_windows.closed", "change_windows.frozen"} with input as call("berlin", "2026-12-20T23:00:00Z")
		with data.library.change_windows as set_up
	codes == {"change_windows.closed"} with input as call("berlin", "2027-01-03T23:00:00Z")
		with data.library.change_windows as set_up
}

test_freeze_of_an_environment_holds_there_only if {
	frozen_there := codes with input as call("new_york", "2026-11-26T12:00:00Z")
		with data.library.change_windows as set_up
	"change_windows.frozen" in frozen_there
	refused("nowhere", "change_windows.frozen", ["2026-11-26T12:00:00Z"])
	is_open("elsewhere", ["2026-11-26T12:00:00Z"])
}

test_window_does_not_lift_a_freeze if {
	refused("berlin", "change_windows.frozen", ["2026-12-22T12:00:00Z"])
}

# ---------------------------------------------------------------------------------- the whole

test_what_changes_nothing_is_always_open if {
	closed := call("never", "2026-12-25T12:00:00Z")
	verdict == "allow" with input as object.union(closed, {"tool": {"effect": "read"}})
		with data.library.change_windows as set_up
	verdict == "allow" with input as object.union(closed, {"phase": "preview"})
		with data.library.change_windows as set_up
	verdict == "deny" with input as object.union(closed, {"tool": {"effect": "destructive"}})
		with data.library.change_windows as set_up
}

test_each_reason_is_a_denial_that_the_caller_is_shown if {
	every reason in decision.reasons {
		reason.denies
		reason.audience == "user"
	} with input as call("never", "2026-12-25T12:00:00Z") with data.library.change_windows as set_up
}

test_question_that_cannot_be_judged_is_denied if {
	ask := object.union(call("elsewhere", "2026-11-16T12:00:00Z"), {"tool": {"effect": "read"}})
	odd := [
		{},
		object.union(ask, {"phase": "list"}),
		object.union(ask, {"phase": "result"}),
		object.union(ask, {"tool": {"effect": "unheard_of"}}),
		object.remove(ask, ["context"]),
	]
	every question in odd {
		verdict == "deny" with input as question with data.library.change_windows as set_up
		codes == {"change_windows.no_rule"} with input as question with data.library.change_windows as set_up
	}
	every key in object.keys(set_up) {
		verdict == "deny" with input as ask
			with data.library.change_windows as object.remove(set_up, [key])
		closed := call("never", "2026-11-16T12:00:00Z")
		codes == {"change_windows.no_rule"} with input as closed
			with data.library.change_windows as object.remove(set_up, [key])
	}
}

test_nothing_is_hidden if {
	visible == {"a": true, "b": true} with input as {"tools": [{"name": "a"}, {"name": "b"}]}
}

test_settings_that_mean_nothing_are_told if {
	problems == {
		{"place": ["environments", "x", "windows", 1], "message": "this window opens and closes in the same minute"},
		{"place": ["freezes", 1], "message": "this freeze ends before it begins"},
	} with data.library.change_windows as {
		"time_zone": "UTC",
		"environments": {"x": {"time_zone": "Europe/Berlin", "windows": [
			{"days": ["Monday"], "from": "09:00", "to": "10:00"},
			{"days": ["Monday"], "from": "09:00", "to": "09:00"},
		]}},
		"freezes": [
			{"from": "2026-12-24", "to": "2026-12-24"},
			{"from": "2026-12-24", "to": "2026-12-23"},
		],
	}
}

test_every_zone_is_tried if {
	tried == {
		"UTC": "Thursday",
		"Europe/Berlin": "Thursday",
		"America/New_York": "Wednesday",
	} with data.library.change_windows as set_up
}
