"""The builtin functions of the portable profile: those equal in the embedded engine and in OPA."""

from __future__ import annotations

from collections.abc import Mapping

_CLOCK = "use input.context.time: a decision must come out the same when it is replayed"
_WORLD = "a decision may depend on its input and data only; put what it needs into data"
_LUCK = "a decision must come out the same when it is replayed"
_TOKENS = "the gateway verifies credentials before policy; use input.caller"
_DIFFERS = "the embedded engine and OPA differ here; say it in another way"

_SILENT = "the embedded engine gives another value than OPA, or none where OPA fails"
_VALIDITY = "the engines hold different texts for valid; let the tool's schema say what is"
_TIME = "the engines count differently here; use time.parse_rfc3339_ns, time.date and time.clock"
_UNITS = "the engines read units differently; give the argument a number in the tool's schema"
_ENCODING = "the engines read and write this differently; compare the text as it came"
_SUBSET = "the embedded engine fails on empty arrays; use `every`, `in` or a difference of sets"

REFUSED: Mapping[str, str] = {
    "base64.is_valid": _VALIDITY,
    "crypto.": _TOKENS,
    "glob.quote_meta": _SILENT,
    "graph.reachable_paths": _DIFFERS,
    "graphql.": _DIFFERS,
    "http.send": _WORLD,
    "io.jwt.": _TOKENS,
    "json.filter": _SILENT + "; use object.get or a comprehension",
    "json.is_valid": _VALIDITY,
    "json.marshal": _ENCODING,
    "json.marshal_with_options": _ENCODING,
    "json.match_schema": _DIFFERS,
    "json.patch": _SILENT + "; use object.union",
    "json.remove": _SILENT + "; use object.remove",
    "json.verify_schema": _DIFFERS,
    "net.cidr_is_valid": _VALIDITY,
    "net.lookup_ip_addr": _WORLD,
    "object.subset": _SUBSET,
    "opa.runtime": _WORLD,
    "providers.": _DIFFERS,
    "rand.": _LUCK,
    "regex.split": _SILENT + "; use split",
    "regex.template_match": "the embedded engine crashes on some texts; use regex.match",
    "rego.": _DIFFERS,
    "semver.is_valid": _VALIDITY,
    "strings.count": _DIFFERS,
    "strings.render_template": _DIFFERS,
    "strings.replace_n": _SILENT + "; use replace",
    "time.add_date": _TIME,
    "time.diff": _TIME,
    "time.format": _TIME,
    "time.now_ns": _CLOCK,
    "time.parse_ns": _TIME,
    "trace": _DIFFERS,
    "units.": _UNITS,
    "urlquery.": _ENCODING,
    "uuid.parse": _ENCODING,
    "uuid.rfc4122": _LUCK,
    "yaml.is_valid": _VALIDITY,
    "yaml.marshal": _ENCODING,
    "yaml.unmarshal": _ENCODING,
}
"""Why each is refused; a name that ends in a dot stands for all below it."""

# fmt: off
ALLOWED = frozenset({
    "abs", "array.concat", "array.reverse", "array.slice", "base64.decode", "base64.encode",
    "base64url.decode", "base64url.encode", "base64url.encode_no_pad", "bits.and", "bits.lsh",
    "bits.negate", "bits.or", "bits.rsh", "bits.xor", "ceil", "concat", "contains", "count",
    "endswith", "floor", "format_int", "glob.match", "graph.reachable", "hex.decode",
    "hex.encode", "indexof", "indexof_n", "intersection", "is_array", "is_boolean", "is_null",
    "is_number", "is_object", "is_set", "is_string", "json.unmarshal", "lower", "max", "min",
    "net.cidr_contains", "numbers.range", "numbers.range_step", "object.filter", "object.get",
    "object.keys", "object.remove", "object.union", "object.union_n", "print", "product",
    "regex.find_all_string_submatch_n", "regex.find_n", "regex.is_valid", "regex.match",
    "regex.replace", "replace", "round", "semver.compare", "sort", "split", "sprintf",
    "startswith", "strings.any_prefix_match", "strings.any_suffix_match", "strings.reverse",
    "substring", "sum", "time.clock", "time.date", "time.parse_duration_ns",
    "time.parse_rfc3339_ns", "time.weekday", "to_number", "trim", "trim_left", "trim_prefix",
    "trim_right", "trim_space", "trim_suffix", "type_name", "union", "upper", "walk",
})
# fmt: on

CAVEATS: Mapping[str, str] = {
    "array.slice": "OPA fails on a fraction; the embedded engine has no value",
    "base64.decode": "OPA leaves line ends out; the embedded engine fails on them",
    "count": "of a text: the embedded engine counts a character beyond U+FFFF as two",
    "format_int": "the embedded engine gives an empty text for numbers of 2^64 and more",
    "glob.match": "some patterns differ: `?` beyond ASCII, `[^`, `**/`, `***`, an empty choice",
    "graph.reachable": "OPA fails on a node whose edges are neither array nor set",
    "json.unmarshal": "the embedded engine loses digits of integers of 2^64 and more",
    "lower": "the engines differ on a few letters beyond ASCII",
    "net.cidr_contains": "OPA takes ::ffff:10.0.0.1 for 10.0.0.1; the embedded engine does not",
    "regex.find_all_string_submatch_n": "as regex.match",
    "regex.find_n": "as regex.match",
    "regex.is_valid": "as regex.match",
    "regex.match": "the engines differ beyond ASCII in \\d, \\w, \\s, \\b and on rare syntax",
    "regex.replace": "as regex.match; a pattern that is not valid fails in OPA and has no value here",
    "semver.compare": "OPA takes a leading v; the embedded engine fails on it",
    "sprintf": "the engines agree on %s, %d, %v and %x of values that fit",
    "substring": "OPA fails on a fraction; the embedded engine takes it",
    "sum": "OPA adds fractions as decimals, the embedded engine in binary",
    "time.parse_duration_ns": "OPA knows d, w and y; the embedded engine fails on them",
    "time.parse_rfc3339_ns": "the embedded engine takes a lower-case t, a space and second 60",
    "to_number": "the embedded engine takes spaces around a number",
    "upper": "the engines differ on a few letters beyond ASCII",
}
"""Allowed builtins that are not the same for every argument; docs/policy.md repeats these."""


def why_refused(name: str) -> str | None:
    """Why a builtin is refused, or None if the profile does not refuse that name."""
    for refused, why in REFUSED.items():
        if name == refused or (refused.endswith(".") and name.startswith(refused)):
            return why
    return None
