# Change windows: when things may be changed, by the clock on the wall where it matters, and the
# days on which nothing is.
#
# Settings are data.library.change_windows; docs/policies/change_windows.md explains them.

package remit.library.change_windows

import future.keywords.not
import rego.v1

settings := data.library.change_windows

# What holds when nothing below gives an answer.
default decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{"code": "change_windows.no_rule", "message": "This question cannot be judged."}],
}

decision := {
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [reason | some reason in denials],
} if {
	judged
	count(denials) > 0
}

decision := {
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{"code": "change_windows.open", "message": "This may be done now."}],
} if {
	judged
	count(denials) == 0
}

judged if {
	input.phase in {"preview", "call"}
	input.tool.effect in {"read", "write", "destructive"}
	is_array(settings.effects)
	is_array(settings.freezes)
	is_string(weekday)
}

denial(code, message) := {"code": code, "message": message, "audience": "user", "denies": true}

denials contains denial("change_windows.closed", "Outside the hours for changes here.") if {
	concerned
	windows := place.windows
	not open(windows)
}

denials contains denial("change_windows.frozen", "Nothing is changed here today.") if {
	concerned
	some freeze in settings.freezes
	frozen(freeze)
}

# A preview changes nothing.
concerned if {
	input.phase == "call"
	input.tool.effect in settings.effects
}

# -------------------------------------------------------------------------------- where, when

# The words for this environment, those for all others, or none.
place := object.get(
	settings.environments,
	input.context.environment,
	object.get(settings.environments, "*", {}),
)

zone := object.get(place, "time_zone", settings.time_zone)

now := time.parse_rfc3339_ns(input.context.time)

weekday := time.weekday([now, zone])

minute := (clock[0] * 60) + clock[1] if clock := time.clock([now, zone])

# The day as a number: 20261224.
today := ((date[0] * 10000) + (date[1] * 100)) + date[2] if date := time.date([now, zone])

# ---------------------------------------------------------------------------------- windows

open(windows) if {
	some window in windows
	weekday in window.days
	within_a_day(window)
}

# A window over midnight belongs to the day on which it begins.
open(windows) if {
	some window in windows
	weekday in window.days
	over_midnight(window)
	minute >= minutes(window.from)
}

open(windows) if {
	some window in windows
	yesterday[weekday] in window.days
	over_midnight(window)
	minute < minutes(window.to)
}

within_a_day(window) if {
	minutes(window.from) <= minute
	minute < minutes(window.to)
}

over_midnight(window) if minutes(window.from) > minutes(window.to)

minutes(text) := (two_digits(parts[0]) * 60) + two_digits(parts[1]) if parts := split(text, ":")

# Not every engine takes "09" for a number.
two_digits(text) := to_number(concat("", ["1", text])) - 100

yesterday := {
	"Monday": "Sunday",
	"Tuesday": "Monday",
	"Wednesday": "Tuesday",
	"Thursday": "Wednesday",
	"Friday": "Thursday",
	"Saturday": "Friday",
	"Sunday": "Saturday",
}

# ---------------------------------------------------------------------------------- freezes

# From the first moment of the first day to the last of the last, in the zone of the environment.
frozen(freeze) if {
	holds_here(freeze)
	day(freeze.from) <= today
	today <= day(freeze.to)
}

holds_here(freeze) if not freeze.environments

holds_here(freeze) if input.context.environment in freeze.environments

day(text) := to_number(replace(text, "-", ""))

# ---------------------------------------------------------------------------------- the list

# The hour comes when it may be used, so nothing is hidden.
visible[name] if {
	some tool in input.tools
	name := tool.name
}

# -------------------------------------------------------------------------------- at loading

# What the engine cannot use. Remit asks for this when it loads the settings.
problems contains {
	"place": ["environments", name, "windows", number],
	"message": "this window opens and closes in the same minute",
} if {
	some name, environment in settings.environments
	some number, window in environment.windows
	minutes(window.from) == minutes(window.to)
}

problems contains {"place": ["freezes", number], "message": "this freeze ends before it begins"} if {
	some number, freeze in settings.freezes
	day(freeze.to) < day(freeze.from)
}

# A zone that the engine does not know is an error here, as it would be in every call.
tried := {name: time.weekday([0, name]) | some name in zones}

zones := {settings.time_zone} | {name | name := settings.environments[_].time_zone}
