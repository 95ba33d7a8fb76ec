"""The builtin functions of the portable profile: those equal in the embedded engine and in OPA."""

from __future__ import annotations

from collections.abc import Mapping

_CLOCK = "use input.context.time: a decision must come out the same when it is replayed"
_WORLD = "a decision may depend on its input and data only; put what it needs into data"
_LUCK = "a decision must come out the same when it is replayed"
_TOKENS = "the gateway verifies credentials before policy; use input.caller"
_DIFFERS = "the embedded engine and OPA differ here; say it in another way"

REFUSED: Mapping[str, str] = {
    "crypto.": _TOKENS,
    "graph.reachable_paths": _DIFFERS,
    "graphql.": _DIFFERS,
    "http.send": _WORLD,
    "io.jwt.": _TOKENS,
    "json.match_schema": _DIFFERS,
    "json.verify_schema": _DIFFERS,
    "net.lookup_ip_addr": _WORLD,
    "opa.runtime": _WORLD,
    "providers.": _DIFFERS,
    "rand.": _LUCK,
    "rego.": _DIFFERS,
    "strings.count": _DIFFERS,
    "strings.render_template": _DIFFERS,
    "time.now_ns": _CLOCK,
    "trace": _DIFFERS,
    "uuid.rfc4122": _LUCK,
}
"""Why each is refused; a name that ends in a dot stands for all below it."""

# fmt: off
ALLOWED = frozenset({
    "abs", "array.concat", "array.reverse", "array.slice", "base64.decode", "base64.encode",
    "base64.is_valid", "base64url.decode", "base64url.encode", "base64url.encode_no_pad",
    "bits.and", "bits.lsh", "bits.negate", "bits.or", "bits.rsh", "bits.xor", "ceil",
    "concat", "contains", "count", "endswith", "floor", "format_int", "glob.match",
    "glob.quote_meta", "graph.reachable", "hex.decode", "hex.encode", "indexof",
    "indexof_n", "intersection", "is_array", "is_boolean", "is_null", "is_number",
    "is_object", "is_set", "is_string", "json.filter", "json.is_valid", "json.marshal",
    "json.marshal_with_options", "json.patch", "json.remove", "json.unmarshal", "lower",
    "max", "min", "net.cidr_contains", "net.cidr_is_valid", "numbers.range",
    "numbers.range_step", "object.filter", "object.get", "object.keys", "object.remove",
    "object.subset", "object.union", "object.union_n", "print", "product",
    "regex.find_all_string_submatch_n", "regex.find_n", "regex.is_valid", "regex.match",
    "regex.replace", "regex.split", "regex.template_match", "replace", "round",
    "semver.compare", "semver.is_valid", "sort", "split", "sprintf", "startswith",
    "strings.any_prefix_match", "strings.any_suffix_match", "strings.replace_n",
    "strings.reverse", "substring", "sum", "time.add_date", "time.clock", "time.date",
    "time.diff", "time.format", "time.parse_duration_ns", "time.parse_ns",
    "time.parse_rfc3339_ns", "time.weekday", "to_number", "trim", "trim_left",
    "trim_prefix", "trim_right", "trim_space", "trim_suffix", "type_name", "union",
    "units.parse", "units.parse_bytes", "upper", "urlquery.decode",
    "urlquery.decode_object", "urlquery.encode", "urlquery.encode_object", "uuid.parse",
    "walk", "yaml.is_valid", "yaml.marshal", "yaml.unmarshal",
})
# fmt: on


def why_refused(name: str) -> str | None:
    """Why a builtin is refused, or None if the profile does not refuse that name."""
    for refused, why in REFUSED.items():
        if name == refused or (refused.endswith(".") and name.startswith(refused)):
            return why
    return None
